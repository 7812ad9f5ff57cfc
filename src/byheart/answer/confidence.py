"""Does the manual answer this question at all? A calibrated probability.

What a question is about tells more than what the search finds: "what does a seat cost?" has near matches in any manual,
and none answers it. So the decision rests on a classifier of the question's own vector (logistic regression), fitted on
questions that the manual answers, on ones that manuals usually answer, and on ones that they do not. The search adds a
penalty where even the best match is unusually far, or where words of weight occur nowhere in the manual. Classifiers
on a dozen search scores were tried and refused most real questions (docs/experiments.md).
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
Topic = tuple[tuple[float, ...], float]  # a classifier of question vectors: weights and bias

# Log odds for a cosine of 1 below the floor, and for a question whose words are all unknown. The first was chosen among
# four values on two manuals, the second is a middle of what was tried on three without the starter's adapter
# (docs/experiments.md; `bench/bench_answers.py --vary` tries others).
FAR_PENALTY = 12.0
UNKNOWN_PENALTY = 1.5
UNUSUAL = 0.1  # share of answerable questions that count as unusually far, or unusual in their words


@dataclasses.dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted decision. A probability below `threshold` declines."""

    topic_weights: tuple[float, ...]  # of the question's vector
    topic_bias: float
    usual_nearness: float  # cosine of the best match; lower ones are penalised
    usual_unknown: float  # share of the words' weight that the manual does not know; higher ones are penalised
    threshold: float
    refused_share: float  # of the answerable questions that it was fitted on

    def probability(self, question: Vectors, evidence: Evidence) -> float:
        """Return the probability that the manual answers, for as many answerable questions as others."""
        topic = float(question @ np.array(self.topic_weights)) + self.topic_bias
        return sigmoid(topic - penalty(evidence, nearness=self.usual_nearness, unknown=self.usual_unknown))


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """What the search says about whether there is an answer."""

    nearness: float  # best cosine of a passage
    unknown: float  # share of the question's words, by weight, that the manual never uses


def evidence_of(question: str, matches: Sequence[Match], index: Index) -> Evidence:
    """Return the evidence in the passages found for a question."""
    weights = {word: index.word_weight(word) for word in tokens_of(question)}
    unknown = sum(weight for word, weight in weights.items() if word not in index.vocabulary)
    return Evidence(
        nearness=max((match.dense for match in matches), default=0.0),
        unknown=unknown / sum(weights.values()) if weights else 0.0,
    )


def penalty(evidence: Evidence, *, nearness: float, unknown: float) -> float:
    """Return the log odds that unusual evidence costs; 0 for usual evidence."""
    far = max(0.0, nearness - evidence.nearness)
    return FAR_PENALTY * far + UNKNOWN_PENALTY * max(0.0, evidence.unknown - unknown)


def question_vector(encoded: Encoded) -> Vectors:
    """Return the base model's vector of the question: the mean of its tokens, of length 1."""
    mean = encoded.tokens_T_D.mean(axis=0) if len(encoded.tokens_T_D) else encoded.vector_D
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-6), dtype=np.float32)


def fit_topic(vectors_N_D: Vectors, about_N: Flags) -> Topic:
    """Return weights and bias of the classifier of question vectors; both classes weigh the same."""
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=500).fit(vectors_N_D, about_N)
    return tuple(model.coef_[0].tolist()), float(model.intercept_[0])


def topic_scores(vectors_N_D: Vectors, topic: Topic) -> Array:
    """Return the log odds that the questions are ones for a manual."""
    return np.asarray(vectors_N_D @ np.array(topic[0]) + topic[1], dtype=np.float64)


def sigmoid(log_odds: float) -> float:
    """Return the probability of log odds."""
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, log_odds))))
