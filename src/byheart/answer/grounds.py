"""Beside a model that writes stands the index: it says whether to ask, what to read first, and what may be said."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

from byheart.answer import confidence
from byheart.answer.base import Answer, Turn
from byheart.answer.citing import NOTHING_ASKED, cite, declined, question_of
from byheart.answer.compose import compose, cut_words
from byheart.answer.confidence import Calibration
from byheart.answer.receipts import check
from byheart.chat import REFUSAL, Exchange
from byheart.index.index import Index, Match
from byheart.index.passages import Passage
from byheart.models.encoder import DualEncoder, Encoded, Encoder

Grounding = Literal["closed-book", "retrieve"]
Unsupported = Literal["passage", "abstain"]

TOKENS_PER_WORD = 2  # more than any tokenizer needs for English; it bounds the longest answer
GROUNDING_WORDS = 300  # of passages put into a prompt: two full ones
SHOWN = 3  # passages put into a prompt, as far as the words allow
_GROUNDED = (
    "Passages of the manual:\n\n{passages}\n\nAnswer the question from these passages alone, in few sentences. "
    "Where they do not answer it, say: {refusal}\n\nQuestion: {question}"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A question that a model is to answer."""

    question: str  # with what it leans on
    prompt: str  # what the model is asked: the question, with passages where it is to read them
    history: tuple[Exchange, ...]
    probability: float  # that the manual answers it
    matches: tuple[Match, ...]


class Grounds:
    """Decides what to ask a model that writes, and what of its answer to give."""

    def __init__(
        self, *, index: Index, encoder: Encoder | DualEncoder, calibration: Calibration | None, max_words: int,
        max_citations: int, grounding: Grounding = "closed-book", unsupported: Unsupported = "passage",
        with_receipts: bool = True,
    ) -> None:  # fmt: skip
        self._max_words = max_words
        self._index = index
        self._encoder = encoder
        self._calibration = calibration
        self._max_citations = max_citations
        self._grounding = grounding
        self._unsupported = unsupported
        self._with_receipts = with_receipts  # False: give what the model says, to measure what it knows

    def ask(self, question: str, history: Sequence[Turn], *, passage_words: int = GROUNDING_WORDS) -> Asked | Answer:
        """Return what to ask the model; or the answer, where there is nothing to ask or the manual does not say."""
        wanted = question_of(question, history)
        if not wanted or not self._index.passages:
            return NOTHING_ASKED
        encoded = self._encoder.encode_one(wanted)
        matches = self._index.search(wanted, encoded)
        probability = 1.0
        if self._calibration and self._with_receipts:
            evidence = confidence.evidence_of(wanted, matches, self._index)
            probability = self._calibration.probability(confidence.question_vector(encoded), evidence)
            if probability < self._calibration.threshold:
                return declined(matches, probability, max_citations=self._max_citations)
        prompt = wanted
        if self._grounding == "retrieve":
            prompt = grounded(wanted, [match.passage for match in matches], max_words=passage_words)
        return Asked(wanted, prompt, exchanges(history), probability, tuple(matches))

    def answer(self, asked: Asked, text: str) -> Answer:
        """Return the answer to give, where the model wrote `text`.

        Every sentence gets its receipt. Where one has none, none of the answer is given: instead, the manual's own
        passage, or that the manual does not say.
        """
        probability = round(asked.probability, 4)
        if not re.search(r"\w", text) or text.startswith(REFUSAL):
            return declined(asked.matches, probability, max_citations=self._max_citations)
        # Question and answer together: the words of the answer find the passage, those of the question which of two.
        matches = self._search(f"{asked.question} {text}")
        if not self._with_receipts:
            return Answer(text, cite(matches, self._max_citations), probability, abstained=False)
        checked = check(text, matches, self._index, encode=self._encode)
        if checked.is_supported:
            cited = cite(checked.sources, len(checked.sources))  # a receipt whose source is not listed is none
            return Answer(text, cited, probability, abstained=False, receipts=checked.receipts)
        if self._unsupported == "abstain":
            return declined(asked.matches, probability, max_citations=self._max_citations)
        composed = compose(asked.matches, max_words=self._max_words)
        return Answer(composed.markdown, cite(composed.used, self._max_citations), probability, abstained=False)

    @property
    def most_tokens(self) -> int:
        """The longest answer that a model may write."""
        return TOKENS_PER_WORD * self._max_words

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the encoder's vector of each text."""
        vectors_N_D: list[list[float]] = self._encoder.vectors(texts, max_tokens=256).tolist()
        return vectors_N_D

    def _search(self, text: str) -> list[Match]:
        return self._index.search(text, self._encode(text))

    def _encode(self, text: str) -> Encoded:
        return self._encoder.encode_one(text, max_tokens=256)


def grounded(question: str, passages: Sequence[Passage], *, max_words: int) -> str:
    """Return a prompt with the first passages, as many as `max_words` words hold: what is learned from, and served.

    It begins alike for all questions about the same passages, so that they are read once.
    """
    shown = cut_words("\n\n".join(map(as_shown, passages[:SHOWN])), max_words)
    return _GROUNDED.format(passages=shown, refusal=REFUSAL, question=question)


def as_shown(passage: Passage) -> str:
    """Return a passage under its headings, as it stands in a prompt."""
    return f"[{' › '.join(passage.heading_path)}]\n" + "\n".join(unit.text for unit in passage.units)


def words_that_fit(window: int, *, most_tokens: int) -> int:
    """Return how many words of passages a prompt has where the answer may have `most_tokens` of the model's window."""
    room = max(0, window - most_tokens) // (2 * TOKENS_PER_WORD)  # half for the question and the rest
    return min(GROUNDING_WORDS, room)


def exchanges(history: Sequence[Turn]) -> tuple[Exchange, ...]:
    """Return the turns of a conversation as questions with their answers; one without the other is left out."""
    pairs: list[Exchange] = []
    question = ""
    for turn in history:
        if turn.role == "user":
            question = turn.text
        elif question:
            pairs.append((question, turn.text))
            question = ""
    return tuple(pairs)
