"""What a request may weigh, and what every response carries: guards around the app, before any parsing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from byheart.serve.faults import ApiError

MAX_BODY_BYTES = 1024 * 1024  # a long conversation is about 50 KB
MAX_DEPTH = 32  # OpenAI's requests need 5
READ_TIMEOUT_S = 30.0

# The pages need their own style, scripts and API, nothing else: no third party, no inline code, no framing.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-dns-prefetch-control": "off",  # a link that an answer shows must not be looked up before it is followed
    "x-frame-options": "DENY",
}


class SecurityHeaders:
    """Adds the security headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add to the response what it does not say itself."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


class GuardedRoute(APIRoute):
    """A route that takes JSON: refuses a body that is too large, too deep, too slow, or no JSON, before validation."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the route's handler."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            if self.body_field is not None:
                await _check_body(request)
            return await handle(request)

        return guarded


async def _check_body(request: Request) -> None:
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    body = await _read_body(request)
    if media_type != "application/json":
        raise ApiError(415, f"Send 'Content-Type: application/json' (it was {media_type[:100] or 'missing'!r}).")
    check_json(body)
    request._body = body  # where Starlette keeps what body() has read; the handler reads it from there


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    limit = f"{MAX_BODY_BYTES // 1024} KB"
                    raise ApiError(413, f"The request's body is larger than {limit}. Send fewer messages.")
    except TimeoutError as slow:
        raise ApiError(408, f"The request's body did not arrive within {READ_TIMEOUT_S:.0f} s.") from slow
    except ClientDisconnect as gone:
        raise ApiError(400, "The connection ended in the middle of the request's body.") from gone
    return bytes(body)


def check_json(body: bytes) -> None:
    """Raise ApiError where the body is not JSON that is safe to work with."""
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair could not be sent back
    except UnicodeEncodeError as fault:
        raise ApiError(400, "The request's body holds half a character (a lone surrogate).") from fault
    except RecursionError as fault:
        raise _too_deep() from fault
    except ValueError as fault:  # not UTF-8, not JSON, or a number of thousands of digits
        raise ApiError(400, f"The request's body is not valid JSON: {str(fault)[:200]}") from fault
    layer, depth = [value], 0
    while layer:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        inner = [item.values() if isinstance(item, dict) else item for item in layer if isinstance(item, dict | list)]
        layer = [item for items in inner for item in items]


def _too_deep() -> ApiError:
    return ApiError(400, f"The request's body is nested more than {MAX_DEPTH} levels deep.")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
