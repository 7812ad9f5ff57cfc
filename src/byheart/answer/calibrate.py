"""Fitting the decision to decline, on questions that synthesis made and on ones that customers typically ask."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable

import numpy as np

from byheart.answer import confidence
from byheart.answer.confidence import Array, Calibration, Flags, Vectors
from byheart.index.index import Index
from byheart.models.encoder import DualEncoder, Encoder

MOST_ANSWERED = 400  # questions of the manual: each costs a search
_FOLDS = 5


@dataclasses.dataclass(frozen=True, slots=True)
class CalibrationQuestions:
    """What the decision is fitted on."""

    answered: tuple[str, ...]  # the manual answers them; phrasings that were never trained on
    outside: tuple[str, ...]  # it does not
    typical: tuple[str, ...]  # customers ask them of products of all kinds, and manuals answer them


@dataclasses.dataclass(frozen=True)
class EncodedQuestions:
    """The questions with their vectors: they come from the base model, so that training does not change them."""

    answered: tuple[str, ...]
    vectors_N_D: Vectors  # the answered ones first
    about_N: Flags  # True for the answered and the typical ones
    seed: int

    @functools.cached_property
    def topic(self) -> confidence.Topic:
        """Return the classifier of what a manual is asked about."""
        return confidence.fit_topic(self.vectors_N_D, self.about_N)

    @functools.cached_property
    def out_of_fold(self) -> Array:
        """Return for each question the score of a classifier that has not seen it."""
        return _out_of_fold(self.vectors_N_D, self.about_N, self.seed)


def encode_questions(
    questions: CalibrationQuestions,
    *,
    base: Encoder,
    seed: int = 0,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> EncodedQuestions | None:
    """Return the questions with their vectors; None where there are too few of one kind to fit anything.

    `on_done(done, total)` counts questions.
    """
    answered = list(questions.answered)
    if len(answered) > MOST_ANSWERED:
        answered = random.Random(seed).sample(answered, MOST_ANSWERED)
    if min(len(answered), len(questions.outside)) < 2 * _FOLDS:
        return None
    texts = [*answered, *questions.typical, *questions.outside]
    vectors_N_D = np.zeros((len(texts), base.dimensions), dtype=np.float32)
    for position, encoded in base.encode(texts, max_tokens=64, on_done=lambda done: on_done(done, len(texts))):
        vectors_N_D[position] = confidence.question_vector(encoded)
    about_N = np.arange(len(texts)) < len(answered) + len(questions.typical)
    return EncodedQuestions(tuple(answered), vectors_N_D, about_N, seed)


def calibrate(
    questions: EncodedQuestions,
    *,
    index: Index,
    encoder: Encoder | DualEncoder,
    refuse_answerable: float,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration | None:
    """Return the fitted decision; None where the manual has no passage.

    The threshold refuses the share `refuse_answerable` of the answered and the typical questions, each judged by a
    classifier that has not seen it. `on_done(done, total)` counts searches.
    """
    if not index.passages:
        return None
    answered = questions.answered
    encoded = dict(encoder.encode(answered, max_tokens=64))
    evidence = []
    for position, question in enumerate(answered):
        matches = index.search(question, encoded[position])
        evidence.append(confidence.evidence_of(question, matches, index))
        on_done(position + 1, len(answered))
    nearness = float(np.quantile([item.nearness for item in evidence], confidence.UNUSUAL))
    unknown = float(np.quantile([item.unknown for item in evidence], 1 - confidence.UNUSUAL))
    scores_N = questions.out_of_fold.copy()
    scores_N[: len(answered)] -= [confidence.penalty(item, nearness=nearness, unknown=unknown) for item in evidence]
    weights, bias = questions.topic
    return Calibration(
        topic_weights=weights,
        topic_bias=bias,
        usual_nearness=nearness,
        usual_unknown=unknown,
        threshold=confidence.sigmoid(float(np.quantile(scores_N[questions.about_N], refuse_answerable))),
        refused_share=refuse_answerable,
    )


def _out_of_fold(vectors_N_D: Vectors, about_N: Flags, seed: int) -> Array:
    """Return for each question the score of a classifier that has not seen it."""
    scores_N = np.zeros(len(about_N))
    folds_N = np.random.default_rng(seed).permutation(len(about_N)) % _FOLDS
    for fold in range(_FOLDS):
        topic = confidence.fit_topic(vectors_N_D[folds_N != fold], about_N[folds_N != fold])
        scores_N[folds_N == fold] = confidence.topic_scores(vectors_N_D[folds_N == fold], topic)
    return scores_N
