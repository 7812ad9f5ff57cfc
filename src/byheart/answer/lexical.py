"""The BM25 baseline: the same manual, the same way of composing, ranked by words alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from byheart.answer.base import Answer, Turn
from byheart.answer.compose import compose
from byheart.index.index import Index, Match, tokens_of
from byheart.records import Citation


class LexicalAnswerer:
    """Answers by BM25 (protocol: base.Answerer)."""

    def __init__(
        self,
        *,
        index: Index,
        questions: Sequence[str],
        refuse_answerable: float,
        max_words: int,
        decline: Callable[[Sequence[Match]], Answer],
        cite: Callable[[Sequence[Match]], tuple[Citation, ...]],
    ) -> None:
        self._index = index
        self._max_words = max_words
        self._decline = decline
        self._cite = cite
        strengths = [self._strength(question) for question in questions]
        self._threshold = float(np.quantile(strengths, refuse_answerable)) if strengths else 0.0

    def answer(self, question: str, history: Sequence[Turn] = ()) -> Answer:
        """Answer the question; the turns before it are not used."""
        matches = self._search(question)
        strength = self._strength(question)
        if strength < self._threshold or strength == 0.0:
            return self._decline(matches)
        composed = compose(matches, max_words=self._max_words)
        return Answer(composed.markdown, self._cite(composed.used), min(1.0, strength), abstained=False)

    def _strength(self, question: str) -> float:
        return float(self._index.lexical_scores(question).max(initial=0.0))

    def _search(self, question: str) -> list[Match]:
        scores_P = self._index.lexical_scores(question)
        relative_P = scores_P / max(float(scores_P.max()), 1e-6)
        words = set(tokens_of(question))
        matches = []
        for position in np.argsort(-scores_P, kind="stable")[:12].tolist():
            passage = self._index.passages[position]
            shared = tuple(float(len(words & set(tokens_of(unit.text)))) for unit in passage.units)
            score = float(relative_P[position])
            matches.append(Match(passage, position, score, score, 0.0, 0.0, float(scores_P[position]), shared))
        return matches
