"""A crawl that is stopped, and goes on."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from byheart.errors import IngestError
from byheart.ingest.crawl import Network, forget
from sites import Reply, page, paths, read, serve


def test_a_finished_crawl_is_not_repeated_until_it_is_forgotten(tmp_path: Path) -> None:
    with serve({"/": page("/a", "/gone"), "/a": page(text="a")}) as site:
        first = read(site.address, tmp_path)
        requests = list(site.requests)
        assert read(site.address, tmp_path) == first
        assert site.requests == requests
        forget(tmp_path)
        again, _ = read(site.address, tmp_path)
    assert paths(site, again) == ["/", "/a"]
    assert site.counts["/a"] == 2


def test_another_start_address_does_not_meet_the_pages_of_the_first(tmp_path: Path) -> None:
    with serve({"/": page(text="one")}) as one, serve({"/": page(text="two")}) as two:
        read(one.address, tmp_path)
        pages, _ = read(two.address, tmp_path)
    assert paths(two, pages) == ["/"]


def test_a_site_that_goes_down_stops_the_crawl_and_what_was_read_is_kept(tmp_path: Path) -> None:
    pages = {f"/{number}": page(text=str(number)) for number in range(60)}
    with serve({"/": page(*pages)} | pages) as site:

        class Failing(dict[str, Any]):
            def get(self, path: str, default: object = None) -> Any:
                return Reply(status=503) if len(site.requests) > 20 else super().get(path, default)

        up, site.pages = site.pages, Failing(site.pages)
        with pytest.raises(IngestError, match=r"stopped answering after \d+ pages.*run again"):
            read(site.address, tmp_path)
        site.pages = up
        before = site.counts
        found, skipped = read(site.address, tmp_path)
    assert len(found) == 61
    assert not skipped
    assert sum(site.counts[path] == before[path] for path in pages) >= 10  # those read before are not asked for again


def test_a_damaged_queue_is_filled_again_from_the_stored_pages(tmp_path: Path) -> None:
    with serve({"/": page("/a"), "/a": page("/b", text="a"), "/b": page(text="b")}) as site:
        first = read(site.address, tmp_path)
        (tmp_path / "crawl.json").write_text((tmp_path / "crawl.json").read_text().replace("true", "false"))
        (tmp_path / "queue/request_queues/default/__metadata__.json").write_text('{"id"')
        assert read(site.address, tmp_path) == first
    assert {path: site.counts[path] for path in ("/", "/a", "/b")} == {"/": 1, "/a": 1, "/b": 1}


CRAWL = """
import sys
from pathlib import Path
from byheart.ingest.crawl import crawl
from byheart.progress import silent
crawl(sys.argv[1], include=(), exclude=(), max_pages=1000, requests_per_second=10_000.0, user_agent="byheart",
      state_dir=Path(sys.argv[2]), notify=silent)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_crawl_that_was_stopped_goes_on_without_opening_a_page_twice(tmp_path: Path, how: signal.Signals) -> None:
    def links(number: int) -> list[str]:
        return [f"/{other}" for other in (2 * number + 1, 2 * number + 2) if other < 80]

    answers = {f"/{number}": page(*links(number), text=str(number)) for number in range(80)}
    with serve({"/": page("/0")} | answers, delay_s=0.01) as site:
        expected = read(site.address, tmp_path / "whole")
        site.requests.clear()
        command = [sys.executable, "-c", CRAWL, site.address, str(tmp_path / "cut")]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as child:
            for _ in waiting(30):
                if len(site.requests) > 30 or child.poll() is not None:
                    break
            child.send_signal(how)
            _, said = child.communicate(timeout=30)
        assert child.returncode in {-how, 130}
        assert how == signal.SIGKILL or b"KeyboardInterrupt" in said
        cut_at = len(site.requests)
        found = read(site.address, tmp_path / "cut")
    assert [(item.url, item.content) for item in found[0]] == [(item.url, item.content) for item in expected[0]]
    assert 30 < cut_at < 80
    assert sum(count - 1 for path, count in site.counts.items() if path in answers) <= 8  # those that were in flight


def waiting(seconds: float) -> Iterator[None]:
    """Yield every few milliseconds, for so many seconds at most."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)
        yield


def test_a_fault_that_is_not_a_pages_own_is_raised_and_the_page_is_read_later(tmp_path: Path) -> None:
    faults = [RuntimeError("out of memory")]

    class Faulty(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path == "/a" and faults:
                raise faults.pop()
            return await super().handle_async_request(request)

    with serve({"/": page("/a"), "/a": page("/b", text="a"), "/b": page(text="b")}) as site:
        with pytest.raises(RuntimeError, match="out of memory"):
            read(site.address, tmp_path, network=Network(transport=Faulty()))
        pages, skipped = read(site.address, tmp_path)
    assert paths(site, pages) == ["/", "/a", "/b"]
    assert not skipped


def test_a_crawl_leaves_no_threads_and_no_log_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serve({"/": page("/a"), "/a": page(text="a")}) as site:
        before = threading.active_count()
        read(site.address, tmp_path / "1")
        read(site.address, tmp_path / "2")
        names = [thread.name for thread in threading.enumerate()]
    assert not [record for record in caplog.records if record.name.startswith(("crawlee", "httpx2", "httpcore2"))]
    assert not [name for name in names if name.startswith("asyncio")]
    assert len(names) <= before + 2  # the server's own, for connections that are still closing
