"""Between the event loop and the database: work in threads, and answers that go on while the database is away."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar

from byheart.errors import StorageError
from byheart.serve.database import Database

MAX_WAITING = 2000  # notes; more than a minute of a busy server. What comes on top is counted as lost
WRITE_S = 0.25  # notes of so long are written in one change of the database, which costs as much as one note's
_LOG_EVERY_S = 60.0

Item = TypeVar("Item")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")
logger = logging.getLogger(__name__)


class Desk:
    """Runs database work in threads: one for a file, which has one writer anyway; four for a server.

    For one event loop. `on_lost` is told how many notes were lost.
    """

    def __init__(self, database: Database, *, on_lost: Callable[[int], object]) -> None:
        self._database = database
        self._on_lost = on_lost
        self._pool = ThreadPoolExecutor(1 if database.is_file else 4, thread_name_prefix="byheart-desk")
        self._noted: dict[Callable[..., object], list[Any]] = {}  # work, and for what it is to be done
        self._waiting = 0
        self._writer: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._logged_at = -_LOG_EVERY_S
        self.is_failing = False  # the last work that was done failed

    async def ask(
        self,
        work: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Return what the work returns. Raises StorageError where the database refuses."""
        future = self._pool.submit(functools.partial(work, self._database, *args, **kwargs))
        try:
            result = await asyncio.wrap_future(future)
        except StorageError as fault:
            self._failed(fault)
            raise
        self.is_failing = False
        return result

    def note(self, work: Callable[[Database, Sequence[Item]], object], item: Item) -> None:
        """Do the work some time soon, at once for all that is noted for it by then; nobody waits for it.

        Where it fails, its notes are lost, counted and logged.
        """
        if self._waiting >= MAX_WAITING:
            self._on_lost(1)
            return
        self._waiting += 1
        self._noted.setdefault(work, []).append(item)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def settle(self) -> None:
        """Return once all that was noted before is written, or lost."""
        for _ in range(2):  # what is being written, and what was noted meanwhile
            if self._writer is not None:
                self._hurry.set()
                await asyncio.wait({self._writer})

    async def close(self) -> None:
        """Do what was noted, then close the database."""
        await self.settle()
        await asyncio.to_thread(self._pool.shutdown)
        self._database.close()

    async def _write(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WRITE_S):
                await self._hurry.wait()
        self._hurry.clear()
        noted, self._noted = self._noted, {}
        for work, items in noted.items():
            try:
                await self.ask(work, items)
            except Exception as fault:  # noqa: BLE001  # whatever it is, the next notes are written
                self._failed(fault)
                self._on_lost(len(items))
            self._waiting -= len(items)
        self._writer = asyncio.create_task(self._write()) if self._noted else None

    def _failed(self, fault: BaseException) -> None:
        self.is_failing = True
        if time.monotonic() - self._logged_at >= _LOG_EVERY_S:  # an outage is one thing to know, not one a request
            self._logged_at = time.monotonic()
            logger.error("the database fails: %s", fault)
