"""The crawl's leaves: addresses, links, sitemaps, rules."""

from __future__ import annotations

import gzip

import pytest
from crawlee import Request
from hypothesis import given, settings
from hypothesis import strategies as st

from byheart.ingest.crawl_links import MAX_LINKS, Robots, page_links, parse_sitemap
from byheart.ingest.crawl_scope import Scope, clean, is_never_a_manual, is_private, key, same_article, site_of

HOME = "https://help.example/en/start"


def html_links(html: str) -> tuple[str, ...]:
    return page_links(html.encode(), url=HOME, content_type="text/html").targets


@pytest.mark.parametrize(
    ("href", "address"),
    [
        ("next", "https://help.example/en/next"),
        ("//other.example", "https://other.example/"),
        ("HTTPS://Help.Example:443/a", "https://help.example/a"),
        ("/a/./b/../c/", "https://help.example/a/c/"),
        ("/ä b", "https://help.example/%C3%A4%20b"),
        ("/a%20b", "https://help.example/a%20b"),
        ("?utm_source=x&id=1&gclid=2#top", "https://help.example/en/start?id=1"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("mailto:a@b.c", ""),
        ("javascript:void(0)", ""),
        ("http://[", ""),
        ("http://x:port/", ""),
    ],
)
def test_an_address_is_made_absolute_and_plain(href: str, address: str) -> None:
    assert clean(href, HOME) == address


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_whatever_a_page_links_to_becomes_an_address_that_the_queue_takes_or_none(href: str) -> None:
    address = clean(href, HOME)
    assert clean(address) == address
    if address and site_of(address) == site_of(HOME):
        assert Request.from_url(address, unique_key=key(address)).url == address


def test_only_spellings_of_one_page_share_a_key() -> None:
    same = ["http://h.example/a", "https://h.example/a/", "https://h.example:443/a/index.html", "https://h.example/a#x"]
    assert len({key(address) for address in same}) == 1
    different = ["https://h.example/a", "https://h.example/A", "https://h.example:8443/a", "https://h.example/a?p=2"]
    assert len({key(address) for address in different}) == 4


@pytest.mark.parametrize(
    ("start", "inside", "outside"),
    [
        ("https://h.example/", "http://h.example/any", "https://www.h.example/any"),
        ("https://h.example/docs/", "https://h.example/docs/a/b", "https://h.example/doc"),
        ("https://h.example/docs", "https://h.example/docs", "https://h.example/docs-old/a"),
        ("https://h.example/docs/index.html", "https://h.example/docs/a", "https://h.example/blog"),
        ("https://h.example/docs/v1.2", "https://h.example/docs/v1.2/a", "https://h.example/docs/v1.3/a"),
        ("https://h.example:8443/", "https://h.example:8443/a", "https://h.example/a"),
    ],
)
def test_the_scope_is_the_start_addresss_site_and_folder(start: str, inside: str, outside: str) -> None:
    scope = Scope.around(start)
    assert scope.holds(inside)
    assert not scope.holds(outside)


def test_a_glob_is_held_against_the_address_and_the_path() -> None:
    for glob in ("https://h.example/a/*", "/a/*", "a/*", "*/b"):
        assert Scope.around("https://h.example/", include=[glob]).wants("https://h.example/a/b")
        assert not Scope.around("https://h.example/", exclude=[glob]).wants("https://h.example/a/b")
        assert not Scope.around("https://h.example/", include=[glob]).wants("https://h.example/c/d")


@pytest.mark.parametrize("ip", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_of_the_public_internet_may_be_opened(ip: str) -> None:
    assert not is_private(ip)
    assert not is_never_a_manual(ip)


@pytest.mark.parametrize(
    "ip", ["169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254", "224.0.0.1", "fd00:ec2::254"]
)
def test_link_local_and_multicast_addresses_are_never_opened(ip: str) -> None:
    assert is_never_a_manual(ip)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://h/en/v1/install", "https://h/en/latest/install.html", True),
        ("https://h/articles/123", "https://h/articles/123-how-to-share", True),
        ("https://h/a", "https://h/", False),
        ("https://h/", "https://h/", False),
        ("https://h/a", "https://h/about", False),
    ],
)
def test_a_canonical_link_is_believed_only_for_the_same_article(one: str, other: str, same: bool) -> None:
    assert same_article(one, other) is same


def test_links_are_found_wherever_a_page_keeps_them() -> None:
    html = """<base href="/docs/"><link rel="alternate canonical" href="/docs/start">
        <a href="a">x</a><A HREF='a#2'>x</A><area href="b"><iframe src="c"></iframe><a rel="nofollow" href="source">
        <meta http-equiv="Refresh" content="0; url='d'"><a>no address</a><p>unclosed <b><a href="e">"""
    links = page_links(html.encode(), url=HOME, content_type="text/html")
    assert links.targets == tuple(f"https://help.example/docs/{name}" for name in "abcde")
    assert links.canonical == "https://help.example/docs/start"


def test_links_of_markdown_and_of_other_files() -> None:
    text = b"See [one](one.md) and [two](</two two>).\n\n    [code](three.md)\n"
    links = page_links(text, url=HOME, content_type="text/markdown")
    assert links.targets == ("https://help.example/en/one.md", "https://help.example/two%20two")
    assert page_links(text, url=HOME, content_type="application/pdf").targets == ()


@pytest.mark.parametrize("body", [b"", b"\x00\xff\xfe", b"<", b"plain", b"<a href=", b"\xef\xbb\xbf<html>"])
@pytest.mark.parametrize("charset", ["", "utf-8", "no-such-charset"])
def test_a_broken_page_has_no_links_and_does_no_harm(body: bytes, charset: str) -> None:
    assert page_links(body, url=HOME, content_type="text/html", charset=charset).targets == ()


def test_a_page_with_endless_links_gives_a_bounded_number() -> None:
    assert len(html_links("".join(f"<a href='/{number}'>x</a>" for number in range(2 * MAX_LINKS)))) == MAX_LINKS


def test_a_sitemap_lists_pages_and_further_sitemaps_only() -> None:
    xml = b"""\xef\xbb\xbf<?xml version="1.0"?>
        <!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
        <urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/image">
        <url><loc> https://h.example/1 </loc><image:image><image:loc>https://h.example/1.png</image:loc></image:image>
        </url><url><loc>&b;</loc></url><url><loc>ftp://h.example/</loc></url><sitemap><loc>https://h.example/m</loc>
        </sitemap><url><loc>https://h.example/2</loc>"""
    for body in (xml, gzip.compress(xml)):
        found = parse_sitemap(body)
        assert found.pages == ("https://h.example/1", "https://h.example/2")
        assert found.sitemaps == ("https://h.example/m",)


def test_a_text_sitemap_and_what_is_no_sitemap() -> None:
    assert parse_sitemap(b"https://h.example/1\nhttps://h.example/2\n").pages == (
        "https://h.example/1",
        "https://h.example/2",
    )
    for body in (b"", b"<html><a href='x'>404</a></html>", b"\x1f\x8bbroken", gzip.compress(b"x")[:-4], b"<"):
        assert parse_sitemap(body).pages == ()


def test_a_sitemap_bomb_is_unpacked_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byheart.ingest.crawl_links.MAX_SITEMAP_BYTES", 1000)
    bomb = gzip.compress(b"https://h.example/1\n" * 10**5)
    assert len(parse_sitemap(bomb).pages) == 50


def test_rules_for_this_crawler_go_before_those_for_all() -> None:
    robots = Robots(
        "User-agent: *\nDisallow: /\n\nUser-agent: byheart\nDisallow: /x\nCrawl-delay: 2.5\n\nSitemap: https://h/s.xml",
        user_agent="byheart (+https://example.com)",
    )
    assert robots.allows("https://h/a")
    assert not robots.allows("https://h/x/y")
    assert robots.delay_s == 2.5
    assert robots.sitemaps == ["https://h/s.xml"]
