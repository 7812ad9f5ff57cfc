"""A small web site on loopback, for tests and benchmarks of the crawl, and `read`, which crawls it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from byheart.ingest.crawl import Network, Page, crawl
from byheart.progress import silent
from byheart.records import Skipped

FAST = Network(backoff_s=0.001, timeout_s=5)


@dataclass(frozen=True)
class Reply:
    """What the server answers. A body of several pieces is sent chunk by chunk."""

    body: bytes | Iterator[bytes] = b""
    status: int = 200
    content_type: str = "text/html; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Reply | str | Callable[[], Reply]


def page(*links: str, head: str = "", text: str = "") -> str:
    """Return an HTML page with links."""
    anchors = " ".join(f'<a href="{link}">{link}</a>' for link in links)
    return f"<html><head><title>t</title>{head}</head><body><h1>t</h1><p>{text} {anchors}</p></body></html>"


def sitemap(*addresses: str) -> Reply:
    """Return a sitemap."""
    items = "".join(f"<url><loc>{address}</loc></url>" for address in addresses)
    xml = f'<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{items}</urlset>'
    return Reply(xml.encode(), content_type="application/xml")


def moved(target: str) -> Reply:
    """Return a redirect."""
    return Reply(status=302, headers={"Location": target})


class Site:
    """A running server: its address, its pages by path, and the requests that it has seen, in order."""

    def __init__(self, address: str, pages: dict[str, Answer], delay_s: float) -> None:
        self.address = address
        self.pages = pages
        self.delay_s = delay_s
        self.requests: list[str] = []
        self.agents: set[str] = set()

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.requests)

    def answer(self, path: str) -> Reply:
        found = self.pages.get(path, Reply(b"not found", status=404))
        if isinstance(found, str):
            return Reply(found.encode())
        return found if isinstance(found, Reply) else found()


@contextlib.contextmanager
def serve(pages: Mapping[str, Answer], *, delay_s: float = 0.0) -> Iterator[Site]:
    """Serve pages by path (with the query) on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 2**16  # head and body in one packet; else each answer waits 40 ms for the other side's receipt

        def do_GET(self) -> None:
            site.requests.append(self.path)
            site.agents.add(self.headers["User-Agent"])
            time.sleep(site.delay_s)
            self._send(site.answer(self.path))

        def handle(self) -> None:
            # A crawl that has seen enough, or was killed, hangs up in mid-answer.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                super().handle()

        def finish(self) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                super().finish()

        def _send(self, reply: Reply) -> None:
            whole = isinstance(reply.body, bytes)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            if isinstance(reply.body, bytes):
                self.send_header("Content-Length", str(len(reply.body)))
            else:
                self.send_header("Transfer-Encoding", "chunked")
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if isinstance(reply.body, bytes):
                self.wfile.write(reply.body)
                return
            for piece in reply.body:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
            self.close_connection = not whole

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site = Site(f"http://127.0.0.1:{server.server_port}", dict(pages), delay_s)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def read(start: str, state: Path, **changes: Any) -> tuple[list[Page], dict[str, str]]:
    """Crawl, and return the pages and the reasons for what was skipped."""
    settings: dict[str, Any] = {
        "include": (),
        "exclude": (),
        "max_pages": 1000,
        "requests_per_second": 10_000.0,
        "user_agent": "byheart (+https://example.com)",
        "notify": silent,
        "network": FAST,
    }
    results = list(crawl(start, state_dir=state, **(settings | changes)))
    pages = [item for item in results if isinstance(item, Page)]
    return pages, {item.location: item.reason for item in results if isinstance(item, Skipped)}


def paths(site: Site, pages: list[Page]) -> list[str]:
    return [item.url.removeprefix(site.address) for item in pages]
