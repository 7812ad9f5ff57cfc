"""A bot whose model writes elsewhere: behind an address, or in a batch. Nothing waits in a thread for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from byheart.answer.base import Answer, Turn
from byheart.answer.grounds import GROUNDING_WORDS, Asked, Grounds
from byheart.chat import Exchange
from byheart.llm import Message, StreamedModel


class AsyncWriter(Protocol):
    """Writes answers. Cancelling a call stops the work for it."""

    async def write(self, question: str, history: Sequence[Exchange]) -> str:
        """Return the answer to the question after these exchanges."""
        ...


class GeneratedAnswerer:
    """Asks a model that writes, and gives what the manual bears out.

    Protocols: base.AsyncAnswerer, base.Embedder.
    """

    def __init__(self, *, writer: AsyncWriter, grounds: Grounds, passage_words: int = GROUNDING_WORDS) -> None:
        """`passage_words`: the most words of passages that the model has room for in its prompt."""
        self._writer = writer
        self._passage_words = passage_words
        self._grounds = grounds

    async def answer_async(self, question: str, history: Sequence[Turn] = ()) -> Answer:
        """Answer the question. Raises EngineError where the model does not answer."""
        asked = await asyncio.to_thread(self._grounds.ask, question, history, passage_words=self._passage_words)
        if not isinstance(asked, Asked):
            return asked
        text = await self._writer.write(asked.prompt, asked.history)
        return await asyncio.to_thread(self._grounds.answer, asked, text)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the encoder's vectors."""
        return self._grounds.embed(texts)


class RemoteWriter:
    """Writes by way of a model behind an address (protocol: AsyncWriter)."""

    def __init__(self, model: StreamedModel, *, most_tokens: int) -> None:
        self._model = model
        self._most_tokens = most_tokens

    async def write(self, question: str, history: Sequence[Exchange]) -> str:
        """Return the answer. Raises EngineError where there is none."""
        turns = [(Message("user", asked), Message("assistant", answered)) for asked, answered in history]
        messages = [*(message for turn in turns for message in turn), Message("user", question)]
        return (await self._model.text(messages, max_tokens=self._most_tokens)).strip()
