"""Fitting the decision to decline, on the questions that synthesis made from the manual."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence

import numpy as np

from byheart.answer import confidence
from byheart.answer.confidence import Calibration
from byheart.index.index import Index
from byheart.models.encoder import DualEncoder, Encoded, Encoder

MOST_QUESTIONS = 600  # of each kind: more cost time and move the threshold by less than its own error
_FOLDS = 5


@dataclasses.dataclass(frozen=True, slots=True)
class CalibrationQuestions:
    """What the classifier learns from."""

    answered: tuple[str, ...]  # the manual answers them; phrasings that were never trained on
    outside: tuple[str, ...]  # it does not
    typical: tuple[str, ...]  # how customers ask about products of all kinds: for the topic alone


def calibrate(
    questions: CalibrationQuestions,
    *,
    index: Index,
    encoder: Encoder | DualEncoder,
    refuse_answerable: float,
    seed: int = 0,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration | None:
    """Return the fitted classifier; None where there are too few questions of one kind to fit anything."""
    answered = _sample(questions.answered, seed)
    outside = _sample(questions.outside, seed)
    if min(len(answered), len(outside)) < 2 * _FOLDS or not index.passages:
        return None
    asked = [*answered, *outside, *questions.typical]
    encoded: list[Encoded | None] = [None] * len(asked)
    for position, vectors in encoder.encode(asked, max_tokens=64):
        encoded[position] = vectors
    known = [item for item in encoded if item is not None]
    vectors_N_D = np.stack([confidence.question_vector(item) for item in known])
    about_N = np.array([True] * len(answered) + [False] * len(outside) + [True] * len(questions.typical))
    topic_N = _out_of_fold(vectors_N_D, about_N)
    rows = []
    scored = len(answered) + len(outside)
    for position in range(scored):
        matches = index.search(asked[position], known[position])
        rows.append(confidence.features_of(asked[position], known[position], matches, index, float(topic_N[position])))
        on_done(position + 1, scored)
    weights = np.array([1 / len(answered)] * len(answered) + [1 / len(outside)] * len(outside))
    return confidence.fit(
        np.array(rows),
        about_N[:scored],
        weights * scored / 2,
        topic=confidence.fit_topic(vectors_N_D, about_N),
        refuse_answerable=refuse_answerable,
    )


def _sample(questions: Sequence[str], seed: int) -> list[str]:
    if len(questions) <= MOST_QUESTIONS:
        return list(questions)
    return random.Random(seed).sample(list(questions), MOST_QUESTIONS)


def _out_of_fold(vectors_N_D: confidence.Vectors, about_N: confidence.Flags) -> confidence.Array:
    """Return for each question what a classifier says that has not seen it: else the second stage would trust it."""
    scores = np.zeros(len(about_N))
    folds = np.arange(len(about_N)) % _FOLDS
    for fold in range(_FOLDS):
        weights, bias = confidence.fit_topic(vectors_N_D[folds != fold], about_N[folds != fold])
        scores[folds == fold] = vectors_N_D[folds == fold] @ np.array(weights) + bias
    return scores
