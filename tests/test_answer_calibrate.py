from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from byheart.answer import confidence
from byheart.answer.calibrate import MOST_ANSWERED, CalibrationQuestions, calibrate, encode_questions
from byheart.answer.confidence import FAR_PENALTY, UNKNOWN_PENALTY, Calibration, Evidence, evidence_of, penalty, sigmoid
from byheart.index.index import Index
from toy_manual import PAGES, FakeEncoder, index_of

_ASK = ("delete", "export", "find", "open", "share")
_THINGS = ("a board", "the board cards", "seats of a plan", "guests of a board", "the storage of a plan")
ANSWERED = tuple(f"how do I {verb} {thing}" for verb in _ASK for thing in _THINGS)
_ODD = ("weather", "football", "pizza", "taxi", "horoscope")
OUTSIDE = tuple(
    f"tell me today's {odd} in {city}" for odd in _ODD for city in ("rome", "oslo", "lima", "cairo", "baku")
)
QUESTIONS = CalibrationQuestions(answered=ANSWERED, outside=OUTSIDE, typical=("how do I rename a board",))


@pytest.fixture(scope="module")
def index() -> Index:
    return index_of(PAGES)


def fitted(index: Index, questions: CalibrationQuestions = QUESTIONS, *, refuse: float = 0.05) -> Calibration:
    encoded = encode_questions(questions, base=FakeEncoder())
    assert encoded is not None
    calibration = calibrate(encoded, index=index, encoder=FakeEncoder(), refuse_answerable=refuse)
    assert calibration is not None
    return calibration


def probability(calibration: Calibration, index: Index, question: str) -> float:
    encoded = FakeEncoder().encode_one(question)
    evidence = evidence_of(question, index.search(question, encoded), index)
    return calibration.probability(confidence.question_vector(encoded), evidence)


def test_questions_outside_are_refused_and_answerable_ones_kept(index: Index) -> None:
    calibration = fitted(index)
    new_inside = ["how do I print a board", "how do I open guests of a plan", "how do I find the storage of a board"]
    new_outside = ["tell me today's weather in paris", "tell me the football results", "today's pizza in rome"]
    for question in new_inside:
        assert probability(calibration, index, question) >= calibration.threshold
    for question in (*new_outside, *OUTSIDE):
        assert probability(calibration, index, question) < calibration.threshold


@pytest.mark.parametrize("few", ["answered", "outside"])
def test_too_few_questions_of_one_kind_fit_nothing(few: str) -> None:
    for count, fits in ((9, False), (10, True)):
        questions = dataclasses.replace(QUESTIONS, **{few: getattr(QUESTIONS, few)[:count]})
        assert (encode_questions(questions, base=FakeEncoder()) is not None) is fits


def test_a_manual_without_passages_fits_nothing() -> None:
    encoded = encode_questions(QUESTIONS, base=FakeEncoder())
    assert encoded is not None
    assert calibrate(encoded, index=index_of({}), encoder=FakeEncoder(), refuse_answerable=0.05) is None


def test_the_threshold_rises_with_the_share_that_may_be_refused(index: Index) -> None:
    thresholds = [fitted(index, refuse=share).threshold for share in (0.0, 0.1, 0.3, 0.5)]
    assert thresholds == sorted(set(thresholds))
    assert [fitted(index, refuse=share).refused_share for share in (0.0, 0.5)] == [0.0, 0.5]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_the_threshold_refuses_about_the_share_of_answerable_questions(index: Index, share: float) -> None:
    """The classifier has seen these questions and scores them higher than the folds did: never more are refused."""
    calibration = fitted(index, refuse=share)
    refused = sum(probability(calibration, index, question) < calibration.threshold for question in ANSWERED)
    assert refused <= share * len(ANSWERED) + 1


def test_the_same_questions_give_the_same_calibration(index: Index) -> None:
    assert fitted(index) == fitted(index)


def test_many_questions_are_sampled_and_progress_is_told(index: Index) -> None:
    told: list[tuple[int, int]] = []
    many = tuple(f"how do I find board {number}" for number in range(MOST_ANSWERED + 50))
    encoded = encode_questions(
        dataclasses.replace(QUESTIONS, answered=many), base=FakeEncoder(),
        on_done=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert encoded is not None
    every = MOST_ANSWERED + len(QUESTIONS.typical) + len(OUTSIDE)
    assert (told[0], told[-1]) == ((1, every), (every, every))
    told.clear()
    calibrate(
        encoded, index=index, encoder=FakeEncoder(), refuse_answerable=0.1,
        on_done=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert (told[0], told[-1]) == ((1, MOST_ANSWERED), (MOST_ANSWERED, MOST_ANSWERED))


def test_usual_evidence_costs_nothing_and_unusual_evidence_lowers_the_probability() -> None:
    assert penalty(Evidence(nearness=0.7, unknown=0.1), nearness=0.5, unknown=0.2) == 0.0
    assert penalty(Evidence(nearness=0.4, unknown=0.1), nearness=0.5, unknown=0.2) == pytest.approx(0.1 * FAR_PENALTY)
    assert penalty(Evidence(nearness=0.7, unknown=0.4), nearness=0.5, unknown=0.2) == pytest.approx(
        0.2 * UNKNOWN_PENALTY
    )
    calibration = Calibration((1.0, 0.0), 0.0, 0.5, 0.2, 0.5, 0.05)
    question = np.array([1.0, 0.0], dtype=np.float32)
    usual = calibration.probability(question, Evidence(0.6, 0.0))
    assert usual == pytest.approx(sigmoid(1.0))
    assert calibration.probability(question, Evidence(0.1, 0.0)) < usual
    assert calibration.probability(question, Evidence(0.6, 1.0)) < usual


def test_evidence_weighs_the_words_that_the_manual_does_not_know(index: Index) -> None:
    def unknown(question: str) -> float:
        return evidence_of(question, index.search(question, FakeEncoder().encode_one(question)), index).unknown

    assert unknown("delete a board") == 0.0
    assert unknown("quantum zeppelin") == 1.0
    assert 0.5 < unknown("delete a zeppelin") < 1.0
    assert unknown("of the") == 0.0


def test_a_probability_never_overflows() -> None:
    assert 0 < sigmoid(-1e9) < 1e-9
    assert 1 - 1e-9 < sigmoid(1e9) <= 1
