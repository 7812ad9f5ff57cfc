"""Text from a model behind an OpenAI-compatible address, streamed: a dead server is noticed, a dropped call stops."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import httpx
import openai

from byheart.errors import EngineError
from byheart.llm.base import Message
from byheart.llm.client import is_local
from byheart.llm.faults import classified

TRIES = 2  # a customer waits: once more, and then say so
LONGEST_WAIT_S = 2.0  # before the second try


class StreamedModel:
    """A model that writes text. Cancelling a call closes its connection, which ends the work on the server."""

    def __init__(self, *, base_url: str, model: str, api_key: str, silence_s: float) -> None:
        """Speak to the model of this name at `base_url`; a server that is silent for `silence_s` seconds is lost."""
        self.name = model
        self._base_url = base_url
        self._api_key = api_key
        self._silence_s = silence_s
        # A proxy to the world does not lead to a server on this machine.
        transport = openai.DefaultAsyncHttpxClient(trust_env=not is_local(base_url))
        self._client = openai.AsyncOpenAI(
            api_key=api_key or "none", base_url=base_url, max_retries=0, timeout=silence_s, http_client=transport
        )

    async def text(self, messages: Sequence[Message], *, max_tokens: int) -> str:
        """Return the likeliest answer (greedy). Raises EngineError where there is none, or only a part of one."""
        for last in (False, True):
            try:
                return await self._streamed(messages, max_tokens)
            except (openai.APIError, httpx.HTTPError, ValueError) as error:
                wait_s = self._wait_s(error)
                if last or wait_s is None:
                    raise EngineError(f"{self._base_url}: {self._told(error)}") from error
            await asyncio.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    async def models(self) -> list[str]:
        """Return the names that the server lists. Raises EngineError where it does not answer."""
        try:
            return [model.id async for model in self._client.models.list()]
        except (openai.APIError, httpx.HTTPError, ValueError) as error:
            raise EngineError(f"{self._base_url}: {self._told(error)}") from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def _streamed(self, messages: Sequence[Message], max_tokens: int) -> str:
        parts: list[str] = []
        is_whole = False
        create: Any = self._client.chat.completions.create
        stream = await create(
            model=self.name,
            messages=[dataclasses.asdict(message) for message in messages],
            temperature=0,
            max_tokens=max_tokens,
            stream=True,
        )
        async with stream:
            async for chunk in stream:
                for choice in chunk.choices[:1]:
                    parts.append(choice.delta.content or "")
                    is_whole = is_whole or choice.finish_reason is not None
        if not is_whole:
            raise httpx.RemoteProtocolError("the stream ended before the answer did")
        return "".join(parts).encode(errors="replace").decode()  # half a surrogate pair could not be sent on

    def _wait_s(self, error: Exception) -> float | None:
        """Return how long to wait before another try; None where it would be in vain, or too late for who waits."""
        if isinstance(error, openai.APITimeoutError | httpx.TimeoutException):
            return None
        if not isinstance(error, openai.APIStatusError):
            return 0.2
        fault = classified(error, timeout_s=self._silence_s, api_key=self._api_key)
        wait_s = fault.wait_s or 0.5
        return wait_s if fault.action == "again" and wait_s <= LONGEST_WAIT_S else None

    def _told(self, error: Exception) -> str:
        if isinstance(error, openai.APITimeoutError | httpx.TimeoutException):
            return f"silent for {self._silence_s:g} s"
        if isinstance(error, openai.APIError):
            return classified(error, timeout_s=self._silence_s, api_key=self._api_key).message
        return str(error) or type(error).__name__
