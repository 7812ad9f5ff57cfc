"""Whether an engine outside this process answers, for those who ask the server if it is ready."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from byheart.errors import EngineError
from byheart.llm import StreamedModel

LIMIT_S = 2.0  # an engine that takes longer to list its models answers no customer in time either
KEPT_S = 2.0  # how long a finding holds: probes of many load balancers are one request to the engine

logger = logging.getLogger(__name__)


class Pulse:
    """Asks the engine for its models, as `byheart serve` did when it found it. For one event loop."""

    def __init__(
        self, model: StreamedModel, *, restarts: Path | None = None, limit_s: float = LIMIT_S, kept_s: float = KEPT_S
    ) -> None:
        self._model = model
        self._restarts = restarts
        self._limit_s = limit_s
        self._kept_s = kept_s
        self._asking = asyncio.Lock()  # who comes meanwhile takes the same finding
        self._known_until = 0.0  # monotonic
        self._beats = True  # the server does not start where the engine does not answer

    async def beats(self) -> bool:
        """Return whether the engine answers and has the model; found out now, or at most `kept_s` seconds ago."""
        async with self._asking:
            if time.monotonic() >= self._known_until:
                self._note(await self._why_not())
                self._known_until = time.monotonic() + self._kept_s
            return self._beats

    def restarts(self) -> int:
        """Return how often byheart has started the engine again; 0 for one that it did not start."""
        return len(self._restarts.read_bytes().splitlines()) if self._restarts and self._restarts.is_file() else 0

    async def _why_not(self) -> str:
        try:
            async with asyncio.timeout(self._limit_s):
                names = await self._model.models()
        except TimeoutError:
            return f"silent for {self._limit_s:g} s"
        except EngineError as fault:
            return str(fault)
        return "" if self._model.name in names else f"it has no model {self._model.name!r} any more"

    def _note(self, why_not: str) -> None:
        if self._beats and why_not:  # an outage is one thing to know, not one a probe
            logger.error("the engine cannot be reached: %s", why_not)
        elif not self._beats and not why_not:
            logger.warning("the engine answers again")
        self._beats = not why_not
