"""Where a crawl may go (private networks), and what it says when it cannot begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from byheart.errors import IngestError
from byheart.ingest.crawl import Network
from sites import Reply, moved, page, read, serve

# Private networks


def web(hosts: dict[str, str], seen: list[str]) -> httpx2.MockTransport:
    """Return a net in which every IP address answers with the page of the host that was asked for."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        host = request.headers["Host"]
        seen.append(f"{request.url.host} {host}{request.url.path}")
        if request.url.path == "/out":
            return httpx2.Response(302, headers={"Location": "http://inside.example/"})
        if request.url.path != "/":
            return httpx2.Response(404)
        return httpx2.Response(200, html=hosts[host])

    return httpx2.MockTransport(answer)


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.9.9",
        "100.64.0.1",
        "fc00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
    ],
)
def test_a_name_that_changes_to_a_private_address_is_not_followed_there(tmp_path: Path, ip: str) -> None:
    answers = iter(["93.184.215.14"] * 4)  # the start's check, robots.txt, the start page, the sitemap
    seen: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        return [next(answers, ip)]

    transport = web({"manual.example": page("/a")}, seen)
    pages, skipped = read("https://manual.example", tmp_path, network=Network(resolve=resolve, transport=transport))
    assert [item.url for item in pages] == ["https://manual.example/"]
    assert "on a private network" in skipped["https://manual.example/a"]
    assert {entry.split()[0] for entry in seen} == {"93.184.215.14"}


def test_the_start_page_cannot_send_the_crawl_into_a_private_network(tmp_path: Path) -> None:
    seen: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        return {"manual.example": ["93.184.215.14"], "inside.example": ["10.0.0.7"]}[host]

    network = Network(resolve=resolve, transport=web({}, seen))
    with pytest.raises(IngestError, match=r"inside\.example leads to 10\.0\.0\.7, on a private network"):
        read("http://manual.example/out", tmp_path, network=network)
    assert not any("inside.example" in entry for entry in seen)


def test_a_manual_on_a_private_network_is_read_when_the_start_address_is_there(tmp_path: Path) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["10.0.0.7"]

    network = Network(resolve=resolve, transport=web({"wiki.local": page()}, []))
    pages, _ = read("http://wiki.local/", tmp_path, network=network)
    assert [item.url for item in pages] == ["http://wiki.local/"]


def test_the_address_of_cloud_metadata_is_never_opened(tmp_path: Path) -> None:
    seen: list[str] = []
    with pytest.raises(IngestError, match=r"169\.254\.169\.254"):
        read("http://169.254.169.254/", tmp_path, network=Network(transport=web({}, seen)))
    assert not seen


# Sites that cannot be read


def test_an_unknown_host_is_explained(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"no-such-host\.invalid.*cannot be resolved.*Check the spelling"):
        read("https://no-such-host.invalid", tmp_path)


def test_a_refused_connection_is_explained(tmp_path: Path) -> None:
    with serve({}) as site:
        pass
    with pytest.raises(IngestError, match=r"the connection failed.*that the server runs"):
        read(site.address, tmp_path)


def test_a_server_without_tls_is_explained(tmp_path: Path) -> None:
    with serve({}) as site, pytest.raises(IngestError, match=r"no safe connection.*certificate"):
        read(site.address.replace("http:", "https:"), tmp_path)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"/": Reply(status=403)}, "HTTP 403.*export the help pages"),
        ({}, "HTTP 404.*Open it in a browser"),
        ({"/": Reply(status=503)}, "HTTP 503.*later"),
        ({"/robots.txt": Reply(status=500), "/": page()}, "robots.txt cannot be read: HTTP 500"),
        ({"/robots.txt": Reply(b"User-agent: *\nDisallow: /"), "/": page()}, "robots.txt forbids crawling"),
        ({"/": moved("/x"), "/x": moved("/")}, "redirects in a circle"),
        ({"/": Reply(b"PK", content_type="application/zip")}, "application/zip"),
    ],
)
def test_a_start_page_that_cannot_be_read_is_an_error_that_says_what_to_do(
    tmp_path: Path, answers: dict[str, Any], words: str
) -> None:
    with serve(answers) as site, pytest.raises(IngestError, match=words):
        read(site.address, tmp_path)


def test_globs_that_leave_nothing_are_an_error(tmp_path: Path) -> None:
    with serve({"/": page()}) as site, pytest.raises(IngestError, match=r"no pages.*ingest\.include"):
        read(site.address, tmp_path, include=("/nothing/*",))


def test_what_is_no_web_address_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"ftp://x\.example"):
        read("ftp://x.example", tmp_path)
