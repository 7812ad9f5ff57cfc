"""Does the manual answer this question at all? A calibrated probability, from what the search found.

The classifier is fitted for each manual, on questions made for it: those that it answers, in phrasings never trained
on, and those that it does not. It works in two stages: the question's own vector says whether it sounds like one for
a product manual at all (its topic); that and what the search found give the probability (logistic regression, Cox
1958). The threshold is set so that a chosen share of the answerable questions is refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from byheart.index.index import Index, Match, tokens_of
from byheart.models.encoder import Encoded

Array = NDArray[np.float64]
Vectors = NDArray[np.float32]
Flags = NDArray[np.bool_]

FEATURES = (
    "score", "dense", "best dense", "late", "unit", "lead", "weakest words", "weakest in five", "unknown words",
    "unknown weight", "covered", "covered in three", "bm25", "length", "about the product",
)  # fmt: skip
_REGULARISATION = 0.1  # few features, thousands of questions: strong enough that correlated views share the weight


@dataclasses.dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted classifier. `threshold`: a lower probability declines."""

    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    threshold: float
    topic_weights: tuple[float, ...]  # of the question's own vector: does it sound like one for this manual?
    topic_bias: float
    refused_share: float  # of the answerable questions it was fitted on

    def topic(self, vector_D: Vectors) -> float:
        """Return how much a question sounds like one for a manual (log odds), from `question_vector`."""
        return float(vector_D @ np.array(self.topic_weights)) + self.topic_bias

    def probability(self, features: Sequence[float]) -> float:
        """Return the probability that the manual answers."""
        z = self.bias + sum(
            weight * (value - mean) / scale
            for weight, value, mean, scale in zip(self.weights, features, self.means, self.scales, strict=True)
        )
        return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, z))))


def features_of(question: str, encoded: Encoded, matches: Sequence[Match], index: Index, topic: float) -> list[float]:
    """Return the values of FEATURES for a question and the passages found for it, the best first."""
    best = matches[0]
    words = set(tokens_of(question))
    unknown = words - index.vocabulary
    weights = {word: index.word_weight(word) for word in words}
    total = sum(weights.values()) or 1.0
    in_best = words & index.words_of(best.position)
    in_three = set().union(*(words & index.words_of(match.position) for match in matches[:3]))
    support = np.sort(np.array(best.token_support))
    in_five = np.sort(np.max([match.token_support for match in matches[:5]], axis=0))
    weakest = max(1, len(support) // 4)
    return [
        best.score,
        best.dense,
        max(match.dense for match in matches),
        best.late,
        max(match.unit for match in matches),
        best.score - float(np.mean([match.score for match in matches[1:10]] or [best.score])),
        float(support[:weakest].mean()),
        float(in_five[:weakest].mean()),
        len(unknown) / max(1, len(words)),
        sum(weights[word] for word in unknown) / total,
        sum(weights[word] for word in in_best) / total,
        sum(weights[word] for word in in_three) / total,
        max(match.bm25 for match in matches) / total,
        math.log(1 + len(question.split())),
        topic,
    ]


def question_vector(encoded: Encoded) -> Vectors:
    """Return the base model's vector of the question: the mean of its tokens, of length 1."""
    mean = encoded.tokens_T_D.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-6), dtype=np.float32)


def fit_topic(vectors_N_D: Vectors, about_N: Flags) -> tuple[tuple[float, ...], float]:
    """Return weights and bias of a classifier on the question's vector alone."""
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=500).fit(vectors_N_D, about_N)
    return tuple(model.coef_[0].tolist()), float(model.intercept_[0])


def fit(
    features_N_F: Array,
    answered_N: Flags,
    weights_N: Array,
    *,
    topic: tuple[tuple[float, ...], float],
    refuse_answerable: float,
) -> Calibration:
    """Return the classifier; its threshold refuses that share of the answered questions."""
    means = features_N_F.mean(axis=0)
    scales = np.maximum(features_N_F.std(axis=0), 1e-6)
    model = LogisticRegression(C=_REGULARISATION, max_iter=500)
    model.fit((features_N_F - means) / scales, answered_N, sample_weight=weights_N)
    fitted = Calibration(
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        weights=tuple(model.coef_[0].tolist()),
        bias=float(model.intercept_[0]),
        threshold=0.0,
        topic_weights=topic[0],
        topic_bias=topic[1],
        refused_share=refuse_answerable,
    )
    held = [fitted.probability(row) for row in features_N_F[answered_N].tolist()]
    return dataclasses.replace(fitted, threshold=float(np.quantile(held, refuse_answerable)))
