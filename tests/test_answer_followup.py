from __future__ import annotations

import pytest

from byheart.answer.base import Turn
from byheart.answer.followup import leans, standalone

DELETED = (Turn("user", "How do I delete a board?"), Turn("assistant", "Open the dashboard and choose Delete."))


@pytest.mark.parametrize(
    "question",
    [
        "and how do I undo that?",
        "why?",
        "what about guests?",
        "can they do it again?",
        "How long does it stay there?",
        "and for templates?",
        "Where is that?",
        "???",
    ],
)
def test_a_question_that_leans_takes_the_earlier_one_along(question: str) -> None:
    assert standalone(question, DELETED) == f"How do I delete a board? {question}"


@pytest.mark.parametrize(
    "question",
    [
        "How do I export a board to PDF?",
        "How do I invite guests?",
        "Where is the export button?",
        "Why are boards exported without comments?",
        "Is it possible to share boards?",
        "Is there a limit on boards?",
        "What does the Team plan cost for twenty people?",
        "Can guests see the comments that other members wrote on this board of the company?",
    ],
)
def test_a_question_that_stands_alone_is_left_alone(question: str) -> None:
    assert not leans(question)
    assert standalone(question, DELETED) == question


def test_the_first_question_is_left_as_it_is() -> None:
    assert standalone("and how do I undo that?", ()) == "and how do I undo that?"


def test_a_chain_of_leaning_questions_reaches_back_two_turns_and_no_further() -> None:
    history = [Turn("user", text) for text in ("How do I delete a board?", "and a card?", "why?")]
    assert standalone("and then?", history) == "and a card? why? and then?"
    assert standalone("and then?", history[:2]) == "How do I delete a board? and a card? and then?"


def test_the_bots_own_words_are_not_taken_along() -> None:
    history = (*DELETED, Turn("user", "Where is the export button?"), Turn("assistant", "Ask about zebras."))
    assert standalone("why is that?", history) == "Where is the export button? why is that?"
