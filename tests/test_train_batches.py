"""The order of training: every section and every fact has its turn, and no batch holds a false negative."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byheart.train.batches import Example, Schedule, facts_first, make_batch, validation_batches


def example(section: int, number: int, *, fact: str = "", passage: str = "") -> Example:
    fact_ids = (fact or f"fact {section} {number}",)
    return Example(f"question {section} {number}", fact_ids, section, passage or f"passage {section}")


def schedule(sections: int = 40, questions: int = 10, batch_size: int = 64, seed: int = 0) -> Schedule:
    examples = [example(section, number) for section in range(sections) for number in range(questions)]
    near = range(1, min(13, sections))
    neighbours = [[(section + step) % sections for step in near] for section in range(sections)]
    return Schedule(examples, neighbours=neighbours, batch_size=batch_size, seed=seed)


def sections_of(order: Schedule, step: int) -> list[int]:
    return [int(passage.split()[1]) for passage in order.batch(step).passages]


@given(sections=st.integers(2, 90), batch_size=st.integers(1, 128), epoch=st.integers(0, 3))
def test_an_epoch_visits_every_section_once_and_no_batch_has_a_single_one(
    sections: int, batch_size: int, epoch: int
) -> None:
    order = schedule(sections, questions=3, batch_size=batch_size)
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    visits = [sections_of(order, step) for step in steps]
    assert sorted(section for visit in visits for section in visit) == list(range(sections))
    assert min(map(len, visits)) >= 2
    assert max(map(len, visits)) <= max(3, order.sections_per_batch)


def test_the_order_depends_on_seed_and_step_alone() -> None:
    forwards, backwards = schedule(), schedule()
    expected = [forwards.batch(step) for step in range(12)]
    assert [backwards.batch(step) for step in reversed(range(12))] == expected[::-1]
    assert schedule(seed=1).batch(0) != expected[0]


def test_no_question_comes_twice_before_all_of_its_section_have_come() -> None:
    order = schedule(sections=20, questions=8)
    asked: Counter[str] = Counter()
    for step in range(2 * order.steps_per_epoch):  # two epochs of four questions are all eight
        asked.update(order.batch(step).questions)
    assert set(asked.values()) == {1}
    assert len(asked) == 160


def test_half_of_a_batch_comes_from_neighbourhoods() -> None:
    order = schedule(sections=4000, questions=1)
    with_a_near_one = 0
    for step in range(10):
        sections = set(sections_of(order, step))
        with_a_near_one += sum(1 for one in sections if any(abs(one - other) in range(1, 13) for other in sections))
    assert len(sections) == 16
    assert 80 <= with_a_near_one <= 110  # of 160: eight of each batch, and a few by chance


def test_every_fact_is_asked_before_any_fact_is_asked_again() -> None:
    examples = [example(0, number, fact=f"fact {number % 5}") for number in range(23)]
    ordered = facts_first(examples, random.Random(3))
    assert {e.fact_ids for e in ordered[:5]} == {(f"fact {n}",) for n in range(5)}
    assert sorted(e.question for e in ordered) == sorted(e.question for e in examples)


def test_questions_without_facts_are_kept() -> None:
    examples = [Example(f"question {number}", (), 0, "passage") for number in range(4)]
    assert len(facts_first(examples, random.Random(0))) == 4


def test_passages_of_the_questions_own_section_are_no_negatives() -> None:
    batch = make_batch(
        [example(0, 0, passage="first half"), example(0, 1, passage="second half"), example(1, 0)], homes={}
    )
    assert batch.passages == ("first half", "second half", "passage 1")
    assert batch.positives == (0, 1, 2)
    assert set(batch.excluded) == {(0, 1), (1, 0)}


def test_sections_with_the_same_text_share_a_passage() -> None:
    batch = make_batch([example(0, 0, passage="same"), example(1, 0, passage="same"), example(2, 0)], homes={})
    assert batch.passages == ("same", "passage 2")
    assert batch.positives == (0, 0, 1)
    assert batch.excluded == ()


def test_a_question_made_from_two_sections_counts_neither_as_a_negative() -> None:
    twice = [Example("how do I delete it?", ("a",), 0, "zero"), Example("how do I delete it?", ("b",), 1, "one")]
    batch = make_batch([twice[0], twice[1], example(2, 0)], homes={"how do I delete it?": {0, 1}})
    assert set(batch.excluded) == {(0, 1), (1, 0)}


def test_a_section_with_few_questions_asks_none_twice_in_a_batch() -> None:
    order = schedule(sections=5, questions=2)
    questions = order.batch(0).questions
    assert len(questions) == len(set(questions)) == 10


def test_validation_is_fixed_and_bounded() -> None:
    examples = [example(section, number) for section in range(100) for number in range(8)]
    neighbours: list[list[int]] = [[] for _ in range(100)]
    found = validation_batches(examples, neighbours=neighbours, batch_size=64, most=200)
    assert found == validation_batches(examples, neighbours=neighbours, batch_size=64, most=200)
    assert 100 < sum(len(batch.questions) for batch in found) <= 200


@pytest.mark.parametrize("sections", [0, 1])
def test_there_is_no_validation_where_nothing_stands_against_the_right_passage(sections: int) -> None:
    examples = [example(section, number) for section in range(sections) for number in range(8)]
    assert validation_batches(examples, neighbours=[[]], batch_size=64, most=512) == []
