"""Answers that a model writes: every sentence has its receipt, and what has none is not shown as fact."""

from __future__ import annotations

from typing import Any

import pytest

from byheart.answer.base import Answer, Turn
from byheart.answer.grounds import Asked, Grounds, grounded
from byheart.answer.receipts import check, sentences_of, source_of
from byheart.chat import REFUSAL
from byheart.index.index import Match
from toy_manual import PAGES, FakeEncoder, index_of

INDEX = index_of(PAGES)
QUESTION = "How long does a deleted board stay in the bin?"


def search(text: str) -> list[Match]:
    return INDEX.search(text, FakeEncoder().encode_one(text))


def grounds(**changes: Any) -> Grounds:
    values: dict[str, Any] = {"max_words": 60, "max_citations": 3, "calibration": None} | changes
    return Grounds(index=INDEX, encoder=FakeEncoder(), **values)


def answered(text: str, *, question: str = QUESTION, **changes: Any) -> Answer:
    beside = grounds(**changes)
    asked = beside.ask(question, ())
    assert isinstance(asked, Asked)
    return beside.answer(asked, text)


def test_a_text_falls_into_sentences_items_and_rows_without_their_marks() -> None:
    text = "Two things. Mind them:\n\n1. Open it.\n- Or not\n\n| a | b |\n|---|---|\n```\nrun\n```"
    assert sentences_of(text) == ["Two things.", "Mind them:", "Open it.", "Or not", "a | b |", "run"]


@pytest.mark.parametrize(
    ("sentence", "is_true"),
    [
        ("A deleted board stays in the bin for 30 days.", True),
        ("Deleted boards stay in the bin for 30 days", True),
        ("A deleted board stays in the bin for 90 days.", False),
        ("A deleted board never stays in the bin for 30 days.", False),
        ("Guests cannot export boards.", True),
        ("Guests can export boards.", False),
        ("A board holds up to 500 cards.", True),
        ("A board holds up to 5000 cards.", False),
        ("A deleted owner stays in the bin for 30 days.", False),
        ("Administrators restore purple unicorns from the archive.", False),
    ],
)
def test_a_sentence_is_borne_out_by_words_numbers_and_its_yes_or_no(sentence: str, is_true: bool) -> None:
    assert (source_of(sentence, search(sentence), INDEX, FakeEncoder().encode_one) is not None) is is_true


def test_each_sentence_names_the_section_that_bears_it_out() -> None:
    text = "Yes! A deleted board stays in the bin for 30 days. An owner adds seats on the billing page."
    answer = answered(text)
    assert answer.text == text
    assert [(receipt.text, receipt.url) for receipt in answer.receipts] == [
        ("A deleted board stays in the bin for 30 days.", "boards.md#delete-a-board"),
        ("An owner adds seats on the billing page.", "plans.md#seats"),
    ]
    assert [citation.url for citation in answer.citations] == ["boards.md#delete-a-board", "plans.md#seats"]
    assert not answer.abstained


def test_one_sentence_without_a_receipt_and_the_manuals_own_passage_is_given() -> None:
    answer = answered("A deleted board stays in the bin for 30 days. Support restores it for 99 dollars.")
    assert "99" not in answer.text
    assert "A deleted board stays in the bin for 30 days." in answer.text
    assert answer.citations[0].url == "boards.md#delete-a-board"
    assert (answer.receipts, answer.abstained) == ((), False)


@pytest.mark.parametrize("text", ["Support restores it for 99 dollars.", REFUSAL, "", " … "])
def test_or_the_bot_declines_as_it_does_where_the_model_itself_does(text: str) -> None:
    answer = answered(text, unsupported="abstain")
    assert answer.abstained
    assert answer.text.startswith(REFUSAL)


def test_closed_book_without_receipts_is_what_the_model_says() -> None:
    answer = answered("Support restores it for 99 dollars.", with_receipts=False)
    assert answer.text == "Support restores it for 99 dollars."


def test_a_model_that_reads_gets_the_best_passages_within_the_limit() -> None:
    asked = grounds(grounding="retrieve").ask(
        QUESTION, [Turn("user", "hi"), Turn("assistant", "Hello."), Turn("user", "x")]
    )
    assert isinstance(asked, Asked)
    assert "[Boards › Delete a board]\n" in asked.prompt
    assert "A deleted board stays in the bin for 30 days." in asked.prompt
    assert asked.prompt.endswith(f"Question: {asked.question}")
    assert asked.history == (("hi", "Hello."),)
    short = grounded(QUESTION, [match.passage for match in search(QUESTION)], max_words=5)
    assert len(short.split()) < 50
    assert grounds().ask(QUESTION, ()).prompt == QUESTION  # type: ignore[union-attr]  # it is asked


def test_where_the_words_are_enough_no_vectors_are_asked_for() -> None:
    text = "A deleted board stays in the bin for 30 days."
    assert check(text, search(text), INDEX, encode=lambda sentence: pytest.fail("asked")).is_supported


def test_a_passage_that_bore_a_sentence_out_is_kept_to() -> None:
    checked = check(
        "Open the dashboard. Click the three dots beside the board.", [], INDEX, encode=FakeEncoder().encode_one
    )
    assert checked.is_supported
    assert len(checked.sources) == 1
