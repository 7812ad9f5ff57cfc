"""A bot whose model writes the answer from what it learned by heart, and whose index says where the manual states it.

The index of the starter's encoder stands beside the writer: it decides whether the manual is about the question at all,
and finds the passage that an answer comes from. An answer that no passage bears out is an invention, and not given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from byheart.answer import confidence
from byheart.answer.base import Answer, Turn
from byheart.answer.citing import NOTHING_ASKED, cite, declined, question_of
from byheart.answer.confidence import Calibration
from byheart.chat import REFUSAL, Exchange
from byheart.index.index import Index, Match, tokens_of
from byheart.models.encoder import DualEncoder, Encoder
from byheart.models.writer import Writer

SUPPORTED = 0.6  # share of an answer's words, by weight, that must stand in one of the passages found for it
SOURCES = 5  # passages that may bear an answer out
TOKENS_PER_WORD = 2  # more than any tokenizer needs for English; it bounds the longest answer


class WrittenAnswerer:
    """Answers in the model's own words, as learned from the manual, with the passages that bear it out.

    Protocols: base.Answerer, base.BatchAnswerer.
    """

    def __init__(
        self, *, writer: Writer, longest_answer: int, index: Index, encoder: Encoder | DualEncoder,
        calibration: Calibration | None, max_words: int, max_citations: int,
    ) -> None:  # fmt: skip
        self._writer = writer
        self._most_tokens = min(longest_answer, TOKENS_PER_WORD * max_words)
        self._index = index
        self._encoder = encoder
        self._calibration = calibration
        self._max_citations = max_citations

    def answer(self, question: str, history: Sequence[Turn] = ()) -> Answer:
        """Answer the question; `history` holds the turns before it, oldest first."""
        return self._answers([(question, history)], lambda done: None)[0]

    def answer_many(self, questions: Sequence[str], on_done: Callable[[int], None]) -> list[Answer]:
        """Answer questions that have nothing to do with each other; `on_done` gets the number of those written."""
        return self._answers([(question, ()) for question in questions], on_done)

    def _answers(self, asked: Sequence[tuple[str, Sequence[Turn]]], on_done: Callable[[int], None]) -> list[Answer]:
        given: dict[int, Answer] = {}
        open_questions: dict[int, tuple[str, float]] = {}
        for number, (question, history) in enumerate(asked):
            wanted = question_of(question, history)
            if not wanted or not self._index.passages:
                given[number] = NOTHING_ASKED
                continue
            probability, matches = self._judged(wanted)
            if self._calibration and probability < self._calibration.threshold:
                given[number] = declined(matches, probability, max_citations=self._max_citations)
            else:
                open_questions[number] = wanted, probability
        texts = self._writer.answers(
            [(asked[number][0], exchanges(asked[number][1])) for number in open_questions],
            most_tokens=self._most_tokens,
            on_done=on_done,
        )
        for (number, (wanted, probability)), text in zip(open_questions.items(), texts, strict=True):
            given[number] = self._supported(wanted, text, probability)
        return [given[number] for number in range(len(asked))]

    def _judged(self, question: str) -> tuple[float, list[Match]]:
        """Return the probability that the manual answers the question, and what it says that is nearest."""
        encoded = self._encoder.encode_one(question)
        matches = self._index.search(question, encoded)
        if self._calibration is None:
            return 1.0, matches
        evidence = confidence.evidence_of(question, matches, self._index)
        return self._calibration.probability(confidence.question_vector(encoded), evidence), matches

    def _supported(self, question: str, text: str, probability: float) -> Answer:
        """Return the text with its sources; where the model declines or no passage bears it out, the bot declines."""
        if not re.search(r"\w", text) or text.startswith(REFUSAL):
            _, matches = self._judged(question)
            return declined(matches, probability, max_citations=self._max_citations)
        # Question and answer together: the words of the answer find the passage, those of the question which of two.
        both = f"{question} {text}"
        matches = self._index.search(both, self._encoder.encode_one(both, max_tokens=256))
        if support(text, matches[:SOURCES], self._index) < SUPPORTED:
            return declined(matches, probability, max_citations=self._max_citations)
        return Answer(text, cite(matches, self._max_citations), round(probability, 4), abstained=False)


def support(text: str, matches: Sequence[Match], index: Index) -> float:
    """Return the share of a text's words, by weight, that the passage with the most of them has."""
    weights = {word: index.word_weight(word) for word in tokens_of(text)}
    total = sum(weights.values())
    if not total:
        return 1.0  # "Yes." says nothing that could be wrong about the manual's words
    passages = [set(tokens_of(match.passage.text)) for match in matches]
    found = [sum(weight for word, weight in weights.items() if word in words) for words in passages]
    return max(found, default=0.0) / total


def exchanges(history: Sequence[Turn]) -> list[Exchange]:
    """Return the turns of a conversation as questions with their answers; one without the other is left out."""
    pairs: list[Exchange] = []
    question = ""
    for turn in history:
        if turn.role == "user":
            question = turn.text
        elif question:
            pairs.append((question, turn.text))
            question = ""
    return pairs
