"""Who may ask, and how much: keys with scopes, and limits a minute for a key or an address. Before any parsing."""

from __future__ import annotations

import dataclasses
import ipaddress
import time
from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from byheart.errors import StorageError
from byheart.records import stable_id
from byheart.serve.desk import Desk
from byheart.serve.faults import ApiError
from byheart.serve.keys import PAGE_SCOPE, Key, find_key
from byheart.serve.tally import Tally

KEY_MEMORY_S = 2.0  # how long a key that was looked up is believed: a revoked one is refused after this at the latest
_MAX_REMEMBERED = 10_000

ALWAYS_OPEN = frozenset({"/health", "/ready"})  # load balancers have no key; they tell no secret
PAGES = ("/", "/widget.js", "/logo", "/brand.css", "/docs", "/openapi.json", "/static", "/pages")
_SCOPES = {
    "/v1/chat/completions": ("chat", PAGE_SCOPE),
    "/v1/feedback": ("chat", PAGE_SCOPE),
    "/v1/conversations": ("chat",),
    "/v1/models": ("chat",),
    "/v1/embeddings": ("embed",),
    "/metrics": ("metrics",),
}
PAGE_REQUESTS_PER_MINUTE = 20  # of one address with a key for pages, where nothing else is said; a person types 3 or 4


@dataclasses.dataclass(frozen=True, slots=True)
class GateRules:
    """What the config says about who may ask how much. A limit of 0 is none."""

    keys_required: bool = False
    open_pages: bool = True  # the chat page, the widget's script and the manual need no key
    requests_per_minute: int = 0
    tokens_per_minute: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: what the routes find in `request.state.caller`."""

    key_id: str
    subject: str  # whose usage it counts as; "" where nothing is limited


class Gate:
    """Refuses what may not pass, in OpenAI's form: 401 without a key, 403 outside its scope, 429 over a limit."""

    def __init__(
        self, app: ASGIApp, *, rules: GateRules, desk: Desk, tally: Tally, clock: Callable[[], float] = time.time
    ) -> None:
        self._app = app
        self._rules = rules
        self._desk = desk
        self._tally = tally
        self._clock = clock
        self._known: dict[str, tuple[float, Key | None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits: dict[str, str] = {}
        try:
            key = await self._key_of(scope)
            scope.setdefault("state", {})["caller"] = self._counted(scope, key, limits)
        except ApiError as refused:
            await JSONResponse(refused.body, refused.status, refused.headers)(scope, receive, send)
            return

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in limits.items())]
            await send(message)

        await self._app(scope, receive, send_with_limits if limits else send)

    async def _key_of(self, scope: Scope) -> Key | None:
        """Return the key that the caller shows and that opens this place; None where it needs none."""
        path = scope["path"]
        if not self._rules.keys_required or path in ALWAYS_OPEN or (self._rules.open_pages and _is_page(path)):
            return None
        kind, _, text = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1").partition(" ")
        key = await self._looked_up(text.strip()) if kind.lower() == "bearer" else None
        if key is None:
            message = "Send a key of this server: 'Authorization: Bearer bh_…' (it is missing, wrong or revoked)."
            raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        needed = next((s for p, s in _SCOPES.items() if path == p or path.startswith(p + "/")), ("chat",))
        if not set(needed) & set(key.scopes):
            raise ApiError(403, f"This key is not for '{needed[0]}'. Use one that is.", code="insufficient_scope")
        return key

    async def _looked_up(self, text: str) -> Key | None:
        now = time.monotonic()
        looked_up_at, key = self._known.get(text, (-KEY_MEMORY_S, None))
        if now - looked_up_at < KEY_MEMORY_S:
            return key
        try:
            key = await self._desk.ask(find_key, text)
        except StorageError as fault:
            message = "Keys cannot be checked at the moment. Please try again."
            raise ApiError(503, message, code="storage_unavailable", headers={"retry-after": "5"}) from fault
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
        self._known[text] = (now, key)
        return key

    def _counted(self, scope: Scope, key: Key | None, headers: dict[str, str]) -> Caller:
        """Count the request, and refuse it where its minute is full."""
        key_id = key.id if key else ""
        subject, requests, tokens = self._limits_of(scope, key)
        if not (requests or tokens) or scope["method"] != "POST" or not scope["path"].startswith("/v1/"):
            return Caller(key_id, "")
        now = self._clock()
        used_requests, used_tokens = self._tally.add(subject, minute=int(now // 60), requests=1)
        left_s = str(60 - int(now) % 60)
        for name, limit, used in (("requests", requests, used_requests), ("tokens", tokens, used_tokens)):
            if limit:
                headers[f"x-ratelimit-limit-{name}"] = str(limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(max(0, limit - used))
                headers[f"x-ratelimit-reset-{name}"] = f"{left_s}s"
            if limit and (used > limit if name == "requests" else used >= limit):
                message = f"Limit reached: {limit} {name} a minute. Try again in {left_s} s."
                raise ApiError(429, message, code="rate_limit_exceeded", headers={**headers, "retry-after": left_s})
        return Caller(key_id, subject)

    def _limits_of(self, scope: Scope, key: Key | None) -> tuple[str, int, int]:
        """Return whose usage counts, and the most requests and tokens of it a minute.

        A key with limits of its own is held to these. One for pages has many users: its limits hold each address.
        """
        rules, address = self._rules, stable_id(_network(scope))
        own = (key.requests_per_minute or 0, key.tokens_per_minute or 0) if key else (0, 0)
        if key and PAGE_SCOPE in key.scopes:
            return (
                address,
                own[0] or rules.requests_per_minute or PAGE_REQUESTS_PER_MINUTE,
                own[1] or rules.tokens_per_minute,
            )
        if key and any(own):
            return key.id, *own
        return address, rules.requests_per_minute, rules.tokens_per_minute


def _is_page(path: str) -> bool:
    return any(path == page or (page != "/" and path.startswith(page + "/")) for page in PAGES)


def _network(scope: Scope) -> str:
    """Return the caller's address; of IPv6 the network, which is one customer's."""
    host = scope["client"][0] if scope.get("client") else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host
