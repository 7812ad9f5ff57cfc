"""Between the event loop and the database: work in threads, and answers that go on while the database is away."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from byheart.errors import StorageError
from byheart.serve.database import Database

MAX_WAITING = 2000  # notes; more than a minute of a busy server. What comes on top is counted as lost
_LOG_EVERY_S = 60.0

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")
logger = logging.getLogger(__name__)


class Desk:
    """Runs database work in threads: one for a file, which has one writer anyway; four for a server."""

    def __init__(self, database: Database, *, on_lost: Callable[[], object]) -> None:
        self._database = database
        self._on_lost = on_lost
        self._pool = ThreadPoolExecutor(1 if database.is_file else 4, thread_name_prefix="byheart-desk")
        self._waiting = 0
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

    def note(
        self,
        work: Callable[Concatenate[Database, Arguments], object],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> None:
        """Do the work some time soon. Where it fails, it is lost, counted and logged; nobody waits for it."""
        if self._waiting >= MAX_WAITING:
            self._on_lost()
            return
        self._waiting += 1
        future = self._pool.submit(functools.partial(work, self._database, *args, **kwargs))
        future.add_done_callback(self._noted)

    def close(self) -> None:
        """Do what was noted, then close the database."""
        self._pool.shutdown(wait=True)
        self._database.close()

    def _noted(self, future: Future[object]) -> None:
        self._waiting -= 1
        fault = future.exception()
        self.is_failing = fault is not None
        if fault is not None:
            self._on_lost()
            self._failed(fault)

    def _failed(self, fault: BaseException) -> None:
        self.is_failing = True
        if time.monotonic() - self._logged_at >= _LOG_EVERY_S:  # an outage is one thing to know, not one a request
            self._logged_at = time.monotonic()
            logger.error("the database fails: %s", fault)
