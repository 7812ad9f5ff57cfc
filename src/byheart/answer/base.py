"""What every bot can do, whatever model is behind it: answer a question, with its sources, or decline to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol

from byheart.records import Citation


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An answer in the manual's words. Where `abstained`, the text says so and the citations are the nearest pages."""

    text: str  # Markdown
    citations: tuple[Citation, ...]
    confidence: float  # 0..1: calibrated probability that the manual answers the question
    abstained: bool


class Answerer(Protocol):
    """Answers questions from one manual. Safe to call from several threads."""

    def answer(self, question: str, history: Sequence[Turn] = ()) -> Answer:
        """Answer the question; `history` holds the turns before it, oldest first."""
        ...
