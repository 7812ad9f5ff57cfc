from __future__ import annotations

import random
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from byheart.synthesize.duplicates import contradictory, distinct_bigrams, repeated
from byheart.synthesize.similarity import clusters, content_words, near_pairs, words
from byheart.synthesize.split import leaks, unseen

VOCABULARY = "how do i the board card export share guest plan limit timer vote template role invite pdf menu".split()
texts = st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=8).map(" ".join), max_size=30)


def near(one: str, other: str, threshold: float = 0.8) -> bool:
    """The definition, checked pair by pair."""
    first, second = set(words(one)), set(words(other))
    shared = len(first & second)
    content = set(content_words(one)), set(content_words(other))
    alike = bool(first | second) and shared / len(first | second) >= threshold
    return (shared > 0 and alike) or (bool(content[0]) and content[0] == content[1])


def manual(sections: int, each: int, seed: int = 0) -> dict[str, Any]:
    dice = random.Random(seed)
    vocabulary = [f"word{number}" for number in range(300)]
    size = sections * each
    return {
        "questions": [" ".join(dice.sample(vocabulary, dice.randint(2, 9))) for _ in range(size)],
        "section_ids": [f"s{number // each}" for number in range(size)],
        "fact_ids": [(f"s{number // each}-f{number % max(1, each // 3)}",) for number in range(size)],
    }


def test_words_are_compared_without_case_punctuation_and_plural() -> None:
    assert words("The Boards' cards, user’s 1,000 AND it's!") == ("the", "board", "card", "user", "1,000", "and", "it")
    assert words("status focus this") == ("status", "focus", "this")


@hypothesis.given(texts, st.sampled_from([0.5, 0.65, 0.8, 0.9, 1.0]))
@hypothesis.settings(max_examples=150, deadline=None)
def test_the_join_finds_exactly_the_near_pairs(questions: list[str], threshold: float) -> None:
    expected = [
        (one, other)
        for other in range(len(questions))
        for one in range(other)
        if near(questions[one], questions[other], threshold)
    ]
    assert sorted(near_pairs(questions, threshold=threshold)) == sorted(expected)
    half = len(questions) // 2
    late = [pair for pair in expected if pair[1] >= half]
    assert sorted(near_pairs(questions, threshold=threshold, compared_from=half)) == sorted(late)


def test_clusters_join_over_any_number_of_steps() -> None:
    assert clusters(6, iter([(0, 3), (3, 5), (1, 2)])) == [0, 1, 1, 0, 4, 0]


@hypothesis.given(texts, st.integers(0, 5))
@hypothesis.settings(max_examples=100, deadline=None)
def test_no_held_out_question_has_a_near_copy_in_training(questions: list[str], seed: int) -> None:
    sections = [f"s{index % 3}" for index in range(len(questions))]
    held = unseen(questions=questions, section_ids=sections, fact_ids=[()] * len(questions), share=0.3, seed=seed)
    for late in held:
        for early in set(range(len(questions))) - held:
            assert not near(questions[late], questions[early])


def test_every_fact_and_section_stays_in_training_and_every_section_gives_some() -> None:
    data = manual(sections=40, each=12)
    held = unseen(**data, share=0.1, seed=1)
    train = set(range(len(data["questions"]))) - held
    assert {data["fact_ids"][index] for index in train} == set(data["fact_ids"])
    assert {data["section_ids"][index] for index in held} == set(data["section_ids"])
    assert 0.07 < len(held) / len(data["questions"]) < 0.13


def test_a_fact_that_is_asked_about_once_is_not_held_out() -> None:
    questions = ["alpha beta", "gamma delta", "epsilon zeta", "eta theta", "iota kappa"]
    facts = [("a",), ("b",), ("c",), ("d",), ("d",)]
    for seed in range(20):
        held = unseen(questions=questions, section_ids=["s"] * 5, fact_ids=facts, share=0.4, seed=seed)
        assert len(held) == 1
        assert held < {3, 4}


def test_a_section_of_few_questions_gives_none() -> None:
    questions = ["alpha beta", "gamma delta", "epsilon zeta"]
    assert not unseen(questions=questions, section_ids=["s"] * 3, fact_ids=[()] * 3, share=0.1, seed=0)


def test_a_section_of_small_clusters_gives_a_whole_one() -> None:
    pairs = [
        "export a board",
        "how do I export the board",
        "share my card",
        "how can I share a card",
        "vote now",
        "now vote",
    ]
    held = unseen(questions=pairs, section_ids=["s"] * 6, fact_ids=[()] * 6, share=0.1, seed=0)
    assert sorted(held) in ([0, 1], [2, 3], [4, 5])


def test_a_section_that_asks_one_thing_in_one_way_stays_whole() -> None:
    questions = ["export board", "Export the board?", "how do I export a board", "can I export boards", "board export"]
    assert not unseen(questions=questions, section_ids=["s"] * 5, fact_ids=[()] * 5, share=0.4, seed=0)


def test_the_split_depends_on_the_seed_alone() -> None:
    data = manual(sections=10, each=10)
    assert unseen(**data, share=0.2, seed=3) == unseen(**data, share=0.2, seed=3)
    assert unseen(**data, share=0.2, seed=3) != unseen(**data, share=0.2, seed=4)


def test_the_leak_report_counts_each_held_out_question_with_a_copy_once() -> None:
    report = leaks(
        training=["How do I export a board?", "how can I export the boards", "start a vote"],
        held_out=["export board", "start a timer", "Start a vote!", "close the menu"],
    )
    assert (report.held_out, report.leaking, report.share) == (4, 2, 0.5)
    assert ("Start a vote!", "start a vote") in report.examples
    assert leaks(training=["a b"], held_out=[]).share == 0.0


def test_a_repetition_counts_only_within_one_answer() -> None:
    questions = [
        "How do I share a board?",
        "how do I share a BOARD",
        "How do I share a board",
        "Who may share a board?",
    ]
    assert repeated(questions=questions, answers=["A.", "a", "B", "A"]) == {1: 0}


def test_what_repeats_a_dropped_question_is_kept() -> None:
    base = [letter * 2 for letter in "abcdefghijklmnopqrst"]
    chain = [" ".join(base), " ".join(["xx", *base[1:]]), " ".join(["xx", "yy", *base[2:]])]
    assert repeated(questions=chain, answers=["same"] * 3) == {1: 0}


def test_a_question_asked_of_two_sections_stays_with_the_one_that_fits() -> None:
    found = contradictory(
        questions=["How do I export a board?", "how do i export a board", "how do i export a board", "other"],
        section_ids=["a", "b", "b", "a"],
        section_texts={"a": "Sharing a board", "b": "Export a board to PDF"},
    )
    assert found == {0: 1}


def test_on_a_tie_the_manuals_first_section_keeps_the_question() -> None:
    texts = {"a": "Overview", "b": "Overview"}
    assert contradictory(questions=["Overview?"] * 2, section_ids=["a", "b"], section_texts=texts) == {1: 0}


@pytest.mark.parametrize(("questions", "share"), [([], 0.0), (["a b c"], 1.0), (["a b", "a b"], 0.5)])
def test_distinctness_is_the_share_of_new_word_pairs(questions: list[str], share: float) -> None:
    assert distinct_bigrams(questions) == share
