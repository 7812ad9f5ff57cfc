"""The crawl against a site on loopback: what is read, what is one page, what is skipped and why."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from byheart.ingest.crawl import Network
from byheart.progress import Progress
from sites import Reply, moved, page, paths, read, serve, sitemap

# What is read


def test_pages_come_from_the_sitemap_first_and_from_links_after(tmp_path: Path) -> None:
    with serve({"/": page("/linked"), "/linked": page(text="l"), "/listed": page(text="s")}) as site:
        site.pages["/sitemap.xml"] = sitemap(f"{site.address}/listed", "https://elsewhere.example/x")
        pages, skipped = read(site.address, tmp_path)
    assert paths(site, pages) == ["/", "/linked", "/listed"]
    assert not skipped
    opened = [path for path in site.requests if path != "/robots.txt"]
    assert opened.index("/sitemap.xml") < opened.index("/listed") < opened.index("/linked")
    assert site.agents == {"byheart (+https://example.com)"}


def test_sitemaps_named_by_robots_are_read_through_indexes_and_gzip(tmp_path: Path) -> None:
    with serve({"/": page()}) as site:
        listed = sitemap(f"{site.address}/deep")
        assert isinstance(listed.body, bytes)
        index = f"<sitemapindex><sitemap><loc>{site.address}/one.xml.gz</loc></sitemap></sitemapindex>"
        site.pages |= {
            "/robots.txt": Reply(f"Sitemap: {site.address}/index.xml".encode(), content_type="text/plain"),
            "/index.xml": Reply(index.encode(), content_type="text/xml"),
            "/one.xml.gz": Reply(gzip.compress(listed.body), content_type="application/gzip"),
            "/deep": page(text="d"),
        }
        pages, _ = read(site.address, tmp_path)
    assert paths(site, pages) == ["/", "/deep"]


def test_an_endless_chain_of_sitemaps_ends(tmp_path: Path) -> None:
    with serve({"/": page()}) as site:
        count = iter(range(10**6))

        def another() -> Reply:
            xml = f"<sitemapindex><sitemap><loc>{site.address}/m{next(count)}.xml</loc></sitemap></sitemapindex>"
            return Reply(xml.encode(), content_type="text/xml")

        site.pages |= {"/sitemap.xml": another} | {f"/m{number}.xml": another for number in range(300)}
        read(site.address, tmp_path)
    assert sum(path.endswith(".xml") for path in site.requests) <= 100


def test_the_crawl_stays_on_the_site_and_in_the_folder_of_the_start_address(tmp_path: Path) -> None:
    with serve({"/other": page()}) as other, serve({}) as site:
        site.pages |= {
            "/help/": page(
                "intro", "/pricing", f"{other.address}/other", "mailto:a@b.c", "/help/logo.png", "//[", "#x"
            ),
            "/help/intro": page("/helpless", text="i"),
        }
        pages, skipped = read(f"{site.address}/help/", tmp_path)
    assert paths(site, pages) == ["/help/", "/help/intro"]
    assert not skipped
    assert not other.requests
    assert not {"/pricing", "/helpless", "/help/logo.png"} & set(site.requests)


def test_the_manual_is_where_the_start_address_redirects_to(tmp_path: Path) -> None:
    with serve({"/docs/": page("one"), "/docs/one": page(text="1")}) as new, serve({}) as old:
        old.pages["/"] = moved(f"{new.address}/docs/")
        pages, skipped = read(old.address, tmp_path)
    assert paths(new, pages) == ["/docs/", "/docs/one"]
    assert not skipped


def test_globs_say_which_pages_are_opened(tmp_path: Path) -> None:
    site_pages = {
        "/": page("/en/a", "/en/old/b", "/de/a"),
        "/en/a": page(text="a"),
        "/en/old/b": page(),
        "/de/a": page(),
    }
    with serve(site_pages) as site:
        pages, _ = read(site.address, tmp_path, include=("/en/*",), exclude=("*/old/*",))
    assert paths(site, pages) == ["/en/a"]
    assert not {"/en/old/b", "/de/a"} & set(site.requests)


def test_the_start_pages_links_are_followed_even_where_the_globs_leave_it_out(tmp_path: Path) -> None:
    answers = {"/": moved("/home"), "/home": page("/en/a"), "/en/a": page(text="a")}
    with serve(answers) as site:
        pages, _ = read(site.address, tmp_path, include=("/en/*",))
    assert paths(site, pages) == ["/en/a"]


def test_the_crawl_stops_at_max_pages_and_says_so(tmp_path: Path) -> None:
    said: list[Progress] = []
    many = {f"/{number}": page(text=str(number)) for number in range(40)}
    with serve({"/": page(*many)} | many) as site:
        pages, _ = read(site.address, tmp_path, max_pages=10, notify=said.append)
        assert len(pages) == 10
        assert site.counts.total() < 30
        assert any("max_pages (10)" in event.message for event in said)
        more, _ = read(site.address, tmp_path, max_pages=30)
    assert len(more) == 30
    assert {path: count for path, count in site.counts.items() if count > 1 and path in many} == {}


def test_a_trap_of_ever_new_addresses_ends(tmp_path: Path) -> None:
    count = iter(range(10**6))
    with serve({"/": page("/trap")}) as site:

        class Everything(dict[str, Any]):
            def get(self, path: str, default: object = None) -> Any:
                return super().get(path) or moved(f"/trap{next(count)}")

        site.pages = Everything(site.pages)
        site.pages["/robots.txt"] = Reply(b"", content_type="text/plain")
        site.pages["/sitemap.xml"] = Reply(b"", status=404)
        pages, _ = read(site.address, tmp_path, max_pages=5)
    assert paths(site, pages) == ["/"]


# One page, many addresses


def test_addresses_of_one_page_are_opened_once(tmp_path: Path) -> None:
    spellings = [
        "/a",
        "/a/",
        "/a/index.html",
        "/a#top",
        "/a?utm_source=mail",
        "/b?y=2&x=1",
        "/b?x=1&y=2",
        "./a",
        "/x/../a",
    ]
    answers = {"/": page(*spellings), "/a": page(text="a"), "/b?y=2&x=1": page(text="b")}
    with serve(answers) as site:
        pages, skipped = read(site.address, tmp_path)
    assert paths(site, pages) == ["/", "/a", "/b?y=2&x=1"]
    assert not skipped


def test_the_canonical_page_stands_for_its_versions(tmp_path: Path) -> None:
    def version(name: str) -> str:
        return page(head='<link rel="canonical" href="/en/stable/install">', text=name)

    answers = {"/": page("/en/v1/install", "/en/v2/install")}
    versions = {f"/en/{name}/install": version(name) for name in ("v1", "v2", "stable")}
    with serve(answers | versions) as site:
        pages, _ = read(site.address, tmp_path)
    assert paths(site, pages) == ["/", "/en/stable/install"]
    assert b"stable" in pages[1].content


def test_a_site_that_calls_its_home_page_canonical_everywhere_keeps_its_pages(tmp_path: Path) -> None:
    head = '<link rel="canonical" href="/">'
    answers = {"/": page("/a", "/b", head=head), "/a": page(head=head, text="a"), "/b": page(head=head, text="b")}
    with serve(answers) as site:
        pages, _ = read(site.address, tmp_path)
    assert paths(site, pages) == ["/", "/a", "/b"]


def test_two_pages_that_call_each_other_canonical_are_not_both_lost(tmp_path: Path) -> None:
    def version(name: str, other: str) -> str:
        return page(head=f'<link rel="canonical" href="/{other}/install">', text=name)

    answers = {"/": page("/v1/install"), "/v1/install": version("1", "v2"), "/v2/install": version("2", "v1")}
    with serve(answers) as site:
        pages, _ = read(site.address, tmp_path)
    assert paths(site, pages) == ["/", "/v1/install", "/v2/install"]


def test_equal_pages_at_two_addresses_are_one(tmp_path: Path) -> None:
    with serve({"/": page("/a", "/a.html"), "/a": page(text="a"), "/a.html": page(text="a")}) as site:
        pages, _ = read(site.address, tmp_path)
    assert paths(site, pages) == ["/", "/a"]


def test_the_source_text_of_an_article_is_not_a_page_of_its_own(tmp_path: Path) -> None:
    def text(kind: str) -> Reply:
        return Reply(b"# a", content_type=f"text/{kind}")

    answers = {"/": page("/a.html", "/a.md", "/_sources/a.rst.txt", "/alone.md"), "/a.html": page(text="a")}
    sources = {
        "/a.md": text("markdown"),
        "/_sources/a.rst.txt": text("plain"),
        "/alone.md": text("plain; charset=utf-8"),
    }
    with serve(answers | sources) as site:
        pages, _ = read(site.address, tmp_path)
    assert paths(site, pages) == ["/", "/a.html", "/alone.md"]
    assert pages[-1].content_type == "text/markdown"
    assert pages[-1].charset == "utf-8"


# What is skipped, and why


def test_robots_is_obeyed_and_what_it_forbids_is_reported(tmp_path: Path) -> None:
    rules = b"User-agent: pypi\nDisallow: /open\n\nUser-agent: byheart\nDisallow: /secret\n"
    answers = {"/": page("/secret/x", "/open"), "/secret/x": page(), "/open": page(text="o")}
    with serve(answers | {"/robots.txt": Reply(rules, content_type="text/plain")}) as site:
        pages, skipped = read(site.address, tmp_path)
    assert paths(site, pages) == ["/", "/open"]
    assert skipped == {f"{site.address}/secret/x": "robots.txt forbids it"}
    assert "/secret/x" not in site.requests


def test_every_page_that_fails_is_reported_with_its_reason(tmp_path: Path) -> None:
    with serve({"/outside": page()}) as other:
        answers = {
            "/": page("/gone", "/broken", "/circle1", "/spin/", "/leave", "/data", "/huge", "/zipped", "/good"),
            "/broken": Reply(status=500),
            "/circle1": moved("/circle2"),
            "/circle2": moved("/circle1"),
            "/spin/": moved("/spin"),
            "/spin": moved("/spin/"),
            "/leave": moved(f"{other.address}/outside"),
            "/data": Reply(b"{}", content_type="application/json"),
            "/huge": lambda: Reply(b"x" * 2**16 for _ in range(10**6)),
            "/zipped": Reply(b"not gzip", headers={"Content-Encoding": "gzip"}),
            "/good": page(text="good"),
        }
        with serve(answers) as site:
            network = Network(backoff_s=0.001, timeout_s=5, max_bytes=2**20)
            pages, skipped = read(site.address, tmp_path, network=network)
    assert paths(site, pages) == ["/", "/good"]
    assert {address.removeprefix(site.address): reason for address, reason in skipped.items()} == {
        "/gone": "HTTP 404",
        "/broken": "HTTP 500",
        "/circle1": "it redirects in a circle",
        "/circle2": "it redirects in a circle",
        "/spin/": "it redirects in a circle",
        "/leave": f"it redirects to {other.address}/outside, outside the manual",
        "/data": "it is application/json, not a page, PDF or DOCX",
        "/huge": "it is larger than 1 MB",
        "/zipped": "its compression is broken (Error -3 while decompressing data: incorrect header check)",
    }
    assert not other.requests
    assert site.counts["/broken"] == network.tries
    assert site.counts["/gone"] == 1


def test_a_busy_server_gets_the_pause_that_it_asks_for(tmp_path: Path) -> None:
    replies = iter([Reply(status=429, headers={"Retry-After": "7"}), Reply(page(text="a").encode())])
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    with serve({"/": page("/a"), "/a": lambda: next(replies)}) as site:
        pages, skipped = read(site.address, tmp_path, network=Network(sleep=sleep))
    assert paths(site, pages) == ["/", "/a"]
    assert not skipped
    assert any(6 < seconds <= 7 for seconds in pauses)


def test_requests_keep_the_distance_that_robots_asks_for(tmp_path: Path) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    answers = {"/": page("/a", "/b"), "/a": page(text="a"), "/b": page(text="b")}
    rules = Reply(b"User-agent: *\nCrawl-delay: 5\n", content_type="text/plain")
    with serve(answers | {"/robots.txt": rules}) as site:
        read(site.address, tmp_path, network=Network(sleep=sleep))
    assert max(pauses) > 10  # nobody really slept, so the requests after the first are due 5, 10, 15 s later
