"""The addresses in what a site sends: links of a page, locations of a sitemap, rules of robots.txt.

Pure functions of bytes. A bomb costs a bounded amount of memory: HTML is read without building a tree, gzip is
unpacked up to a limit, XML entities are never expanded.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import zlib
from collections.abc import Iterator

from lxml import etree
from markdown_it import MarkdownIt
from protego import Protego

from byheart.ingest.crawl_scope import HTML_TYPES, clean

MAX_SITEMAP_BYTES = 50 * 2**20  # unpacked; the limit of the sitemap protocol
MAX_LINKS = 5_000  # of one page; a real page has hundreds
# Of one page; what is longer is a generated listing. 8 MB of HTML take 2 s, 256 KB of brackets as Markdown take 10 s.
_MAX_HTML_BYTES = 8 * 2**20
_MAX_MARKDOWN_BYTES = 256 * 2**10
_POINTERS = {"a", "area", "frame", "iframe", "meta"}


@dataclasses.dataclass(frozen=True, slots=True)
class Links:
    """Where a page points."""

    canonical: str  # the address that the page itself gives as its own; "" where it gives none
    targets: tuple[str, ...]  # clean, in order of appearance, each once


@dataclasses.dataclass(frozen=True, slots=True)
class Sitemap:
    """What a sitemap lists: pages, and further sitemaps."""

    pages: tuple[str, ...]
    sitemaps: tuple[str, ...]


class Robots:
    """A site's robots.txt, as it applies to one crawler."""

    def __init__(self, text: str, *, user_agent: str) -> None:
        # The product token alone: Protego looks for a rule's name anywhere in the string that it is given.
        self._agent = user_agent.partition("/")[0].partition(" ")[0] or "byheart"
        self._rules = Protego.parse(text)

    def allows(self, address: str) -> bool:
        """Return whether the crawler may open the address."""
        return self._rules.can_fetch(address, self._agent)

    @property
    def delay_s(self) -> float:
        """Seconds that must lie between two requests; 0 where the site asks for none."""
        return float(self._rules.crawl_delay(self._agent) or 0.0)

    @property
    def sitemaps(self) -> list[str]:
        """Addresses of the sitemaps that robots.txt names."""
        return list(self._rules.sitemaps)


def page_links(body: bytes, *, url: str, content_type: str, charset: str = "") -> Links:
    """Return the links of an HTML or Markdown page; none for other kinds of file."""
    if content_type in HTML_TYPES:
        collector = _Collector()
        _feed(body[:_MAX_HTML_BYTES], collector, charset)
        base = clean(collector.base, url) or url
        canonical = clean(collector.canonical, base) if collector.canonical else ""
        return Links(canonical, _each_once(collector.hrefs, base))
    if content_type == "text/markdown":
        return Links("", _each_once(_markdown_hrefs(body[:_MAX_MARKDOWN_BYTES].decode("utf-8", "replace")), url))
    return Links("", ())


def parse_sitemap(body: bytes) -> Sitemap:
    """Return the addresses of an XML or text sitemap, gzipped or not. What is broken or too long is left out."""
    if body[:2] == b"\x1f\x8b":
        body = _gunzip(body)
    body = body[:MAX_SITEMAP_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not body.startswith(b"<"):
        lines = body.decode("utf-8", "replace").split()
        return Sitemap(tuple(filter(None, map(clean, lines))), ())
    pages: list[str] = []
    sitemaps: list[str] = []
    events = etree.iterparse(
        io.BytesIO(body), tag=("{*}loc",), recover=True, resolve_entities=False, no_network=True, load_dtd=False
    )
    for _, element in events:
        parent = element.getparent()
        kind = "" if parent is None else etree.QName(parent).localname
        address = clean(element.text or "")
        if address and kind in {"url", "sitemap"}:
            (pages if kind == "url" else sitemaps).append(address)
        if parent is not None:
            parent.clear()
    return Sitemap(tuple(pages), tuple(sitemaps))


class _Collector:
    """Receives the parser's events: a 37 MB page is never held as a tree."""

    def __init__(self) -> None:
        self.hrefs: list[str] = []
        self.canonical = ""
        self.base = ""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        href = attributes.get("href", "")
        rel = attributes.get("rel", "").lower().split()
        if tag in {"frame", "iframe"}:
            href = attributes.get("src", "")
        elif tag == "meta" and attributes.get("http-equiv", "").lower() == "refresh":
            href = attributes.get("content", "").partition("=")[2].strip(" '\"")
        if tag in _POINTERS and href and "nofollow" not in rel and len(self.hrefs) < MAX_LINKS:
            self.hrefs.append(href)
        elif tag == "base" and not self.base:
            self.base = href
        elif tag == "link" and "canonical" in rel:
            self.canonical = self.canonical or href

    def close(self) -> None:
        """Nothing to finish; lxml asks for the method."""


def _feed(body: bytes, collector: _Collector, charset: str) -> None:
    try:
        parser = etree.HTMLParser(target=collector, encoding=charset or None, huge_tree=True)
    except LookupError:  # a charset that nobody knows: let the parser find out
        parser = etree.HTMLParser(target=collector, huge_tree=True)
    parser.feed(body)
    try:
        parser.close()
    except etree.XMLSyntaxError:  # an empty page has no document; what was collected before stands
        return


def _markdown_hrefs(text: str) -> Iterator[str]:
    for block in MarkdownIt().parse(text):
        for token in block.children or ():
            if token.type == "link_open":
                yield str(token.attrGet("href") or "")


def _each_once(hrefs: Iterator[str] | list[str], base: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (clean(href, base) for href in hrefs))))


def _gunzip(body: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(body)) as unpacked:
            return unpacked.read(MAX_SITEMAP_BYTES)
    except (OSError, EOFError, zlib.error):  # cut short or broken: no addresses in it, links will lead the way
        return b""
