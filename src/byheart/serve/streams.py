"""Responses that notice a client leaving, and streams that always say how they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from byheart.serve.faults import ApiError

DONE = "data: [DONE]\n\n"
KEEP_ALIVE = ": keep-alive\n\n"  # a comment, which clients of server-sent events skip
SEND_TIMEOUT_S = 60.0  # a client that reads nothing for so long is gone
SHUTTING_DOWN = "The server is shutting down. Please try again."

Result = TypeVar("Result")


as_json = json.JSONEncoder(ensure_ascii=False).encode  # made once: json.dumps makes one for each word


def event(value: dict[str, Any]) -> str:
    """Return a server-sent event."""
    return f"data: {as_json(value)}\n\n"


async def unless_gone(receive: Receive, work: Awaitable[Result]) -> Result:
    """Return the work's result. Where the client leaves before, cancel it and raise ApiError (nobody will read it)."""
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "The client left before the answer was there.")
        return task.result()
    finally:
        await _end(task, watcher)


class EventStream(Response):
    """Server-sent events from a generator, which is closed when the client leaves; `on_end` is called at any end.

    What ends in DONE is the last of them. Proxies are told not to hold the events back. A client that reads nothing for
    SEND_TIMEOUT_S is cut off without the end of the HTTP body, which every client reports.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str], *, on_end: Callable[[], object]) -> None:
        super().__init__(headers={"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until there are no more, or nobody is there."""
        sender = asyncio.ensure_future(self._send_all(send))
        watcher = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({sender, watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._on_end()
            await _end(sender, watcher)
        if not sender.cancelled():
            sender.result()  # raises what went wrong

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with contextlib.aclosing(self._events) as events:
            async for text in events:
                is_last = text.endswith(DONE)
                await _send(send, text, more=not is_last)
                if is_last:
                    return
                # A connection that breaks is noticed between two turns of the loop, and a long answer must not keep
                # others from theirs.
                await asyncio.sleep(0)
        await _send(send, "", more=False)


async def _send(send: Send, text: str, *, more: bool) -> None:
    async with asyncio.timeout(SEND_TIMEOUT_S):
        await send({"type": "http.response.body", "body": text.encode(), "more_body": more})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
