"""Questions that come at the same time, written side by side: a batch costs a model little more than one question.

Static batches: a question that comes while one is written waits for its end.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

from byheart.chat import Exchange
from byheart.models.writer import Writer

AT_ONCE = 16  # rows of a batch
GATHER_S = 0.005  # how long the first of a batch waits for others; a token takes longer


@dataclasses.dataclass(frozen=True, slots=True)
class _Request:
    question: str
    history: Sequence[Exchange]
    text: asyncio.Future[str]  # done where the answer is there, or nobody waits for it any more


class BatchedWriter:
    """A model in this process, asked in batches (protocol: generated.AsyncWriter). For one event loop.

    A call that is cancelled leaves its batch: its row is written no further, and a batch that all have left ends.
    """

    def __init__(self, writer: Writer, *, most_tokens: int, at_once: int = AT_ONCE) -> None:
        self._writer = writer
        self._most_tokens = most_tokens
        self._at_once = at_once
        self._waiting: list[_Request] = []
        self._work: asyncio.Task[None] | None = None

    async def write(self, question: str, history: Sequence[Exchange]) -> str:
        """Return the answer."""
        request = _Request(question, history, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._write_all())
        return await request.text

    async def _write_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_S)
            wanted = [request for request in self._waiting if not request.text.done()]
            batch, self._waiting = wanted[: self._at_once], wanted[self._at_once :]
            if batch:
                await self._write_batch(batch)

    async def _write_batch(self, batch: Sequence[_Request]) -> None:
        try:
            texts = await asyncio.to_thread(
                self._writer.answers,
                [(request.question, request.history) for request in batch],
                most_tokens=self._most_tokens,
                is_given_up=lambda row: batch[row].text.done(),
            )
        except Exception as fault:  # noqa: BLE001  # whatever it is, each who waits is told
            for request in batch:
                if not request.text.done():
                    request.text.set_exception(fault)
            return
        for request, text in zip(batch, texts, strict=True):
            if not request.text.done():
                request.text.set_result(text)
