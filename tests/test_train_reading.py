"""Questions asked again with passages to read: the prompts of serving, what answers among others, or only others."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest

from byheart.answer.grounds import Asked, Grounds, as_shown, grounded, words_that_fit
from byheart.catalog import find_model
from byheart.chat import REFUSAL, Chat, bind
from byheart.index.index import Match
from byheart.index.passages import Passage
from byheart.train import lessons, reading
from byheart.train.lessons import Manual, Room
from byheart.train.mix import Shares, Told
from byheart.train.prefixes import groups_of, parts_of
from tiny_models import tiny_tokenizer
from toy_manual import PAGES, FakeEncoder, index_of, passages_of

PAGES_OF_MANY = PAGES | {
    f"{thing}.md": f"# {thing.title()}s\n\n"
    + "\n\n".join(
        f"## {verb.title()} a {thing}\n\nTo {verb} a {thing}, open {thing} {number}. Only an owner may {verb} {thing}s."
        f" Whoever may {verb} a {thing} sees the {thing} menu. Nobody can {verb} {number} {thing}s at a time."
        for number, verb in enumerate(("rename", "copy", "share", "lock"))
    )
    for thing in ("card", "frame", "timer", "vote", "guest", "team")
}
PASSAGES = passages_of(PAGES_OF_MANY)
PAIRS = [
    Told(f"How {form} {unit.text}?", unit.text, fact_ids=unit.fact_ids, place=(passage.document_id, passage.section_id))
    for passage in PASSAGES for unit in passage.units for form in ("do I", "can we", "does one", "may I")
]  # fmt: skip
REFUSED = [
    Told(f"Does the {thing} cost {currency} in 2031?", REFUSAL)
    for thing in ("card", "timer", "weather", "team") for currency in ("euros", "dollars", "yen", "money", "pounds")
]  # fmt: skip


def chat_of(name: str = "gpt2") -> Chat:
    entry = find_model(name)
    assert entry
    return bind(tiny_tokenizer(entry), entry, encoder_decoder=False)[0]


def rounds(count: int, *, seed: int = 0, max_words: int = 300, passages: Sequence[Passage] = PASSAGES) -> list[Told]:
    made = reading.rounds(passages, [*PAIRS, *REFUSED], max_words=max_words, shuffle=random.Random(seed))
    return list(itertools.chain.from_iterable(itertools.islice(made, count)))


def question_in(told: Told) -> str:
    return told.question.rpartition("\n\nQuestion: ")[2]


def answering(told: Told) -> list[Passage]:
    return [passage for passage in PASSAGES if any(set(told.fact_ids) & set(unit.fact_ids) for unit in passage.units)]


def is_shown(passage: Passage, told: Told) -> bool:
    return as_shown(passage) in told.question


@pytest.mark.parametrize("name", ["gpt2", "openchat/openchat_3.5"])
def test_what_is_learned_from_is_token_for_token_what_is_served(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = chat_of(name)
    index = index_of(PAGES_OF_MANY)
    grounds = Grounds(
        index=index, encoder=FakeEncoder(), calibration=None, max_words=150, max_citations=3, grounding="retrieve"
    )  # fmt: skip
    for told in rounds(1)[:20]:
        by_place = {told.question.find(as_shown(passage)): passage for passage in index.passages}
        shown = [by_place[place] for place in sorted(by_place) if place >= 0]
        found = [Match(passage, 0, 0.0, 0.0, 0.0, 0.0, 0.0, ()) for passage in (*shown, *index.passages[:5])]
        monkeypatch.setattr(type(index), "search", lambda *_, found=found: found)
        asked = grounds.ask(question_in(told), ())
        assert isinstance(asked, Asked)
        assert len(shown) == 3
        assert list(chat.examples([(told.question, told.answer, ())])[0].prompt) == chat.prompt(asked.prompt, ())


def test_what_answers_is_shown_whole_or_in_a_fifth_of_the_cases_not_at_all_and_then_the_manual_does_not_say() -> None:
    made = [told for told in rounds(5) if told.fact_ids]
    missing = [told for told in made if not all(is_shown(passage, told) for passage in answering(told))]
    assert len(missing) == pytest.approx(len(made) / 5, rel=0.01)  # each passage is missing in one of five rounds
    assert {told.answer for told in missing} == {REFUSAL}
    for told in missing:
        assert not any(is_shown(passage, told) for passage in answering(told))
        assert told.answer not in told.question.partition("Answer the question")[0]
    answers = {(pair.question, pair.answer) for pair in PAIRS}
    assert {(question_in(told), told.answer) for told in made if told not in missing} <= answers
    refused = [told for told in rounds(20) if not told.fact_ids]
    assert {told.answer for told in refused} == {REFUSAL}
    assert {question_in(told) for told in refused} == {told.question for told in REFUSED}


def test_questions_about_one_passage_share_their_prompts_beginning_in_a_round_and_not_in_the_next() -> None:
    texts = []
    for told in (rounds(1), rounds(2)[len(rounds(1)) :]):
        begins = defaultdict(set)
        for item in told:
            begins[tuple(passage.section_id for passage in answering(item))].add(item.question.rpartition("\n")[0])
        begins.pop((), None)  # what the manual does not answer is asked with what is there
        assert {len(found) for found in begins.values()} == {1}
        texts.append(begins)
    assert sum(texts[0][subject] == texts[1][subject] for subject in texts[0]) <= 1


def test_the_others_are_near_and_stand_in_any_order() -> None:
    places = Counter()
    near = 0
    for told in rounds(8):
        shown = [passage for passage in PASSAGES if is_shown(passage, told)]
        right = [passage for passage in shown if passage in answering(told)]
        if len(right) != 1:
            continue
        order = sorted(shown, key=lambda passage: told.question.index(as_shown(passage)))
        places[order.index(right[0])] += 1
        verb_or_thing = set(right[0].text.lower().split()) - {"a", "to", "the", "an"}
        near += all(len(verb_or_thing & set(passage.text.lower().split())) > 1 for passage in shown)
    assert min(places[place] for place in range(3)) > 0.2 * places.total()
    assert near > 0.8 * places.total()


def test_all_questions_have_their_turn_and_no_fact_is_asked_for_twice_with_the_same_passages() -> None:
    made = rounds(20)
    asked = Counter(question_in(told) for told in made)
    assert asked.keys() == {told.question for told in (*PAIRS, *REFUSED)}
    facts = Counter((told.question.rpartition("\n")[0], fact) for told in rounds(1) for fact in told.fact_ids)
    assert {*facts.values()} == {1}
    share = sum(not told.fact_ids for told in made) / len(made)
    assert share == pytest.approx(len(REFUSED) / (len(PAIRS) + len(REFUSED)), abs=0.005)
    many = [Told(f"{fact} {number}", "", fact_ids=(fact,)) for fact in "abcd" for number in range(10)]
    ranked = reading._spread(many, random.Random(0))
    assert all(len({told.fact_ids for told in ranked[first : first + 4]}) == 4 for first in range(0, 40, 4))


def test_the_seed_alone_tells_what_is_made() -> None:
    assert rounds(3) == rounds(3)
    assert rounds(3) != rounds(3, seed=1)


def test_what_answers_is_never_cut_off_and_a_passage_too_long_is_asked_nothing_about() -> None:
    longest = max(len(as_shown(passage).split()) for passage in PASSAGES)
    for max_words in (longest, longest - 1):
        told = [item for item in rounds(4, max_words=max_words) if item.fact_ids and item.answer != REFUSAL]
        assert all(is_shown(passage, item) for item in told for passage in answering(item))
        about = {passage.section_id for item in told for passage in answering(item)}
        assert (about == {passage.section_id for passage in PASSAGES}) == (max_words == longest)
    assert rounds(1, passages=()) == []
    assert words_that_fit(4096, most_tokens=150) == 300
    assert words_that_fit(1024, most_tokens=224) == 200
    assert words_that_fit(100, most_tokens=224) == 0


def test_without_others_what_answers_stands_alone_and_is_never_missing() -> None:
    made = rounds(5, passages=PASSAGES[:1])
    assert {told.answer for told in made if told.fact_ids} == {unit.text for unit in PASSAGES[0].units}
    assert all(told.question == grounded(question_in(told), PASSAGES[:1], max_words=300) for told in made)


@pytest.mark.parametrize("name", ["gpt2", "openchat/openchat_3.5"])
def test_the_share_comes_out_and_what_is_shared_is_most_of_it(name: str) -> None:
    chat = chat_of(name)
    questions = chat.examples([(pair.question, pair.answer, ()) for pair in PAIRS])
    made, said = lessons.beside(
        questions, [*PAIRS, *REFUSED], Manual([], {}, PASSAGES), [], chat=chat, seed=0,
        shares=Shares(0.0, 0.0, 0.0, passages=0.6), room=Room(64, 700, 300),
    )  # fmt: skip

    def tokens(examples: Sequence[object]) -> int:
        return sum(len(example.prompt) + len(example.answer) for example in examples)  # type: ignore[attr-defined]

    assert tokens(made.examples) / (tokens(made.examples) + tokens(questions)) == pytest.approx(0.6, abs=0.02)
    assert list(made.counts) == ["passages"]
    assert f"{len(made.examples)} questions with passages to read (60%)" in said["the mix"]
    assert max(tokens([example]) for example in made.examples) <= 700
    groups = groups_of([*questions, *made.examples])
    assert {*groups[: len(questions)]} == {-1}
    assert sum(group >= 0 for group in groups) > 0.9 * len(made.examples)
    saved = sum(
        shared * (len(places) - 1) for places, shared in parts_of(made.examples, most=reading.TOGETHER, a_pass=32)
    )
    assert saved > 0.5 * tokens(made.examples)


def test_prompts_that_are_too_long_are_left_out_and_it_is_said_where_none_is_left() -> None:
    chat = chat_of()
    questions = chat.examples([(pair.question, pair.answer, ()) for pair in PAIRS])
    found, said = lessons.beside(
        questions, PAIRS, Manual([], {}, PASSAGES), [], chat=chat, seed=0,
        shares=Shares(0.0, 0.0, 0.0, passages=0.6), room=Room(64, 100, 300),
    )  # fmt: skip
    assert found.examples == []
    assert said["passages"] == "none: nothing there that 100 tokens hold; the share goes to the questions"


def test_pairs_whose_section_has_no_passage_are_not_asked_again() -> None:
    lost = dataclasses.replace(PAIRS[0], place=("page", "gone"))
    assert list(itertools.islice(reading.rounds(PASSAGES, [lost], max_words=300, shuffle=random.Random(0)), 2)) == []
