"""One address at a time: polite, patient, and never into a private network by accident.

The name of a host is resolved here, every address is checked, and the connection goes to the checked address itself
(TLS still verifies the name): a name that answers differently the second time (DNS rebinding) leads nowhere.
Redirects are reported, not followed: the crawl decides.
"""

from __future__ import annotations

import asyncio
import dataclasses
import email.message
import email.utils
import ipaddress
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Literal

import httpx2

from byheart.ingest.crawl_scope import HTML_TYPES, TEXT_TYPES, clean, is_never_a_manual, is_private, key

Resolver = Callable[[str, int], Awaitable[list[str]]]
FailureKind = Literal["name", "connection", "tls", "timeout", "status", "private", "size", "type", "circle"]

_DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_CONTENT_TYPES = HTML_TYPES | TEXT_TYPES | {"application/pdf", _DOCX}
# By suffix, for servers that call every file a stream of bytes (or Markdown plain text).
_BY_SUFFIX = {
    ".pdf": "application/pdf",
    ".docx": _DOCX,
    ".html": "text/html",
    ".htm": "text/html",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".mdx": "text/markdown",
}
_VAGUE_TYPES = {"", "application/octet-stream", "binary/octet-stream", "text/plain"}
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}  # asking again may help
_GONE_STATUS = {404, 410}
_MAX_PAUSE_S = 120.0  # a longer Retry-After is not waited for
_MAX_HOPS = 5  # redirects between spellings of one address (slash, scheme)
_PAGE_TIMEOUT_S = 300.0  # for a whole body: a server that drips bytes must end too


async def resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host, by the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclasses.dataclass(frozen=True, slots=True)
class Network:
    """How a crawl reaches the net: the seams for tests, and the limits."""

    resolve: Resolver = resolve
    transport: httpx2.AsyncBaseTransport | None = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    tries: int = 4
    backoff_s: float = 1.0  # doubles with every try
    timeout_s: float = 30.0  # to connect, and between two pieces of an answer
    max_bytes: int = 64 * 2**20


@dataclasses.dataclass(frozen=True, slots=True)
class Fetched:
    """A page as the server sent it."""

    url: str
    content_type: str
    charset: str
    body: bytes
    fetched_at: str


@dataclasses.dataclass(frozen=True, slots=True)
class Moved:
    """A redirect to another page."""

    target: str


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no page."""

    kind: FailureKind
    reason: str
    status: int = 0
    passing: bool = False  # a later try may succeed
    pause_s: float = 0.0  # what the server asked for

    @property
    def lasting(self) -> bool:
        """Whether the page itself is at fault, and not the server's state or the line to it."""
        return self.status in _GONE_STATUS or self.kind in {"size", "type", "circle", "private"}


Answer = Fetched | Moved | Failure


class Pacer:
    """Spaces requests out: one every `interval_s`, none while the site has asked for a pause."""

    def __init__(self, interval_s: float, sleep: Callable[[float], Awaitable[None]]) -> None:
        self.interval_s = interval_s
        self._sleep = sleep
        self._next = 0.0
        self._held_until = 0.0

    async def turn(self) -> None:
        """Wait for the next free moment."""
        now = time.monotonic()
        at = max(now, self._next)
        self._next = at + self.interval_s
        if at > now:
            await self._sleep(at - now)
        if (held := self._held_until - time.monotonic()) > 0:
            await self._sleep(held)

    def hold(self, seconds: float) -> None:
        """Let no request begin for a while."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)


class Fetcher:
    """Opens addresses. An async context manager; use one for one crawl."""

    def __init__(self, network: Network, *, user_agent: str, interval_s: float) -> None:
        self.pacer = Pacer(interval_s, network.sleep)
        self.private_allowed = False
        self._network = network
        self._client = httpx2.AsyncClient(
            # A transport of our own keeps the environment's proxies out: a proxy would resolve names by itself, past
            # the check of addresses. SSL_CERT_FILE still counts.
            transport=network.transport or httpx2.AsyncHTTPTransport(),
            trust_env=False,
            timeout=network.timeout_s,
            headers={
                "User-Agent": user_agent,
                "Accept": "text/html,application/xhtml+xml,text/markdown,text/plain;q=0.9,*/*;q=0.5",
                "Accept-Encoding": "gzip",  # at most 1:1000, so that one chunk cannot fill the memory
            },
        )

    async def __aenter__(self) -> Fetcher:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._client.aclose()

    async def allow_if_private(self, address: str) -> None:
        """Allow private networks for this crawl if the start address, which the user gave, is on one."""
        url = httpx2.URL(address)
        try:
            found = await self._addresses(url)
        except (OSError, UnicodeError):
            return  # the fetch that follows reports it
        self.private_allowed = bool(found) and all(is_private(ip) for ip in found)

    async def fetch(self, address: str, *, any_type: bool = False) -> Answer:
        """Return the page at a clean address, trying again with growing pauses while that may help."""
        pause_s = self._network.backoff_s
        for left in reversed(range(self._network.tries)):
            answer = await self._follow_spellings(address, any_type)
            if not isinstance(answer, Failure) or not answer.passing or not left:
                break
            wait_s = answer.pause_s or pause_s
            if wait_s > _MAX_PAUSE_S:
                break
            if answer.status in {429, 503}:  # the site is busy, not this page alone
                self.pacer.hold(wait_s)
            else:
                await self._network.sleep(wait_s)
            pause_s *= 2
        return answer

    async def _follow_spellings(self, address: str, any_type: bool) -> Answer:
        """Follow redirects between spellings of the same address (https, final slash); report any other."""
        for _ in range(_MAX_HOPS):
            answer = await self._try(address, any_type)
            if not isinstance(answer, Moved) or key(answer.target) != key(address):
                return answer
            address = answer.target
        return Failure("circle", "it redirects in a circle")

    async def _try(self, address: str, any_type: bool) -> Answer:
        """Make one request, turning everything that can go wrong into a Failure."""
        await self.pacer.turn()
        try:
            async with asyncio.timeout(_PAGE_TIMEOUT_S):
                return await self._request(httpx2.URL(address), any_type)
        except (OSError, httpx2.RequestError, httpx2.InvalidURL, UnicodeError) as fault:
            return _failure(fault, timeout_s=self._network.timeout_s)

    async def _request(self, url: httpx2.URL, any_type: bool) -> Answer:
        addresses = await self._addresses(url)
        allowed = [ip for ip in addresses if self._may_open(ip)]
        if not allowed:
            where = f"{url.host} leads to {', '.join(addresses) or 'no address'}"
            return Failure("private", f"{where}, on a private network: a crawl goes there only if it starts there")
        for ip in allowed[:-1]:
            try:
                return await self._request_at(url, ip, any_type)
            except httpx2.ConnectError as fault:
                if _tls_fault(fault):
                    raise  # the host was reached; another of its addresses will not mend its certificate
        return await self._request_at(url, allowed[-1], any_type)

    async def _request_at(self, url: httpx2.URL, ip: str, any_type: bool) -> Answer:
        request = self._client.build_request("GET", url.copy_with(host=ip), headers={"Host": url.netloc.decode()})
        request.extensions["sni_hostname"] = url.raw_host.decode()
        response = await self._client.send(request, stream=True, follow_redirects=False)
        try:
            return await self._read(str(url), response, any_type)
        finally:
            await response.aclose()

    async def _read(self, url: str, response: httpx2.Response, any_type: bool) -> Answer:
        status = response.status_code
        if response.has_redirect_location:
            target = clean(response.headers["Location"], url)
            return Moved(target) if target else Failure("status", "it redirects to no web address", status)
        if not response.is_success:
            pause_s = _retry_after_s(response.headers.get("Retry-After", ""))
            return Failure("status", f"HTTP {status}", status, status in _PASSING_STATUS, pause_s)
        content_type, charset = _content_type(response.headers.get("Content-Type", ""), url)
        if content_type not in _CONTENT_TYPES and not any_type:
            return Failure("type", f"it is {content_type or 'of unknown type'}, not a page, PDF or DOCX")
        body = bytearray()
        async for chunk in response.aiter_bytes(2**16):
            body += chunk
            if len(body) > self._network.max_bytes:
                return Failure("size", f"it is larger than {self._network.max_bytes / 2**20:g} MB")
        return Fetched(url, content_type, charset, bytes(body), datetime.now(UTC).isoformat(timespec="seconds"))

    async def _addresses(self, url: httpx2.URL) -> list[str]:
        host = url.raw_host.decode()
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            return await self._network.resolve(host, url.port or {"http": 80, "https": 443}[url.scheme])

    def _may_open(self, ip: str) -> bool:
        return not is_never_a_manual(ip) and (self.private_allowed or not is_private(ip))


def _content_type(header: str, url: str) -> tuple[str, str]:
    """Return the media type and the charset of an answer."""
    message = email.message.Message()
    message["Content-Type"] = header
    content_type = message.get_content_type() if header else ""
    if content_type in _VAGUE_TYPES:
        path = httpx2.URL(url).path.lower()
        content_type = next((kind for end, kind in _BY_SUFFIX.items() if path.endswith(end)), content_type)
    return content_type, str(message.get_content_charset() or "")


def _retry_after_s(header: str) -> float:
    """Return the seconds of a Retry-After header, which holds a number or a date; 0 where it holds neither."""
    if header.strip().isdigit():
        return float(header)
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    return max(0.0, (moment - datetime.now(moment.tzinfo)).total_seconds())


def _failure(fault: Exception, *, timeout_s: float) -> Failure:
    """Say what went wrong with a request, and whether it may go better the next time."""
    match fault:
        case socket.gaierror():
            again = fault.errno == socket.EAI_AGAIN
            return Failure("name", f"the name of its host cannot be resolved ({fault.strerror})", passing=again)
        case TimeoutError():
            return Failure("timeout", f"it was not complete after {_PAGE_TIMEOUT_S:g} s")
        case httpx2.TimeoutException():
            return Failure("timeout", f"no answer within {timeout_s:g} s", passing=True)
        case httpx2.DecodingError():
            return Failure("type", f"its compression is broken ({fault})")
    if tls := _tls_fault(fault):
        return Failure("tls", f"no safe connection ({tls})")
    return Failure("connection", f"the connection failed ({fault or type(fault).__name__})", passing=True)


def _tls_fault(fault: BaseException | None) -> str:
    """Return what TLS said, where it is the cause of a failed connection."""
    while fault is not None:
        if isinstance(fault, ssl.SSLError):
            return fault.reason or str(fault)
        fault = fault.__cause__ or fault.__context__
    return ""
