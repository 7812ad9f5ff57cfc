"""What every bot can do, whatever model is behind it: answer a question, with its sources, or decline to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, runtime_checkable

from byheart.records import Citation


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Receipt:
    """A sentence that a model wrote, and the section of the manual that bears it out; "" where none does."""

    text: str
    url: str
    section_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An answer in the manual's words. Where `abstained`, the text says so and the citations are the nearest pages."""

    text: str  # Markdown
    citations: tuple[Citation, ...]
    confidence: float  # 0..1: calibrated probability that the manual answers the question
    abstained: bool
    receipts: tuple[Receipt, ...] = ()  # of an answer that a model wrote, a sentence each; the manual's own needs none
    intent: str = ""  # the part of the manual that the question is about; "" where the bot does not tell


class Answerer(Protocol):
    """Answers questions from one manual. Safe to call from several threads."""

    def answer(self, question: str, history: Sequence[Turn] = ()) -> Answer:
        """Answer the question; `history` holds the turns before it, oldest first."""
        ...


@runtime_checkable
class AsyncAnswerer(Protocol):
    """Answers without holding a thread. Cancelling the call stops the work behind it: nobody waits any more."""

    async def answer_async(self, question: str, history: Sequence[Turn] = ()) -> Answer:
        """Answer the question; `history` holds the turns before it, oldest first."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of length 1 that lie near each other where the texts mean the same."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector for each text, in their order. Safe to call from several threads."""
        ...


@runtime_checkable
class BatchAnswerer(Protocol):
    """An Answerer that answers many questions in less time than one after the other."""

    def answer_many(self, questions: Sequence[str], on_done: Callable[[int], None]) -> list[Answer]:
        """Answer questions that have nothing to do with each other; `on_done` gets the number of those done."""
        ...
