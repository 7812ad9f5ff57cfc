"""A help site, page by page: `crawl` reads it, politely, and goes on after a crash where it stopped.

What is read: the pages on the start address's site, in its folder (see crawl_scope), that robots.txt allows and the
globs let in. `exclude` wins over `include`; an address that `include` does not match is not opened, except the start
page, whose links are followed. What is found at several addresses is one page.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from byheart.errors import IngestError
from byheart.ingest.crawl_fetch import Fetcher, Network
from byheart.ingest.crawl_journal import Journal, Visit, forget
from byheart.ingest.crawl_run import Walk, find_manual, read_sitemaps
from byheart.ingest.crawl_scope import HTML_TYPES, TEXT_TYPES, Scope, clean, key, source_name
from byheart.progress import Notify, Progress
from byheart.records import Skipped

__all__ = ["Network", "Page", "crawl", "forget"]

_SITEMAP_SURPLUS = 5  # addresses taken from sitemaps for each page of max_pages: many may be gone, moved or doubled


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """One page of the site, as the server sent it."""

    url: str  # final, canonical, without fragment
    content: bytes
    content_type: str  # "text/html", "application/pdf", …; without parameters
    fetched_at: str  # ISO 8601, UTC
    charset: str = ""  # as the server declared it; "" where it did not


def crawl(
    start_url: str,
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    max_pages: int,
    requests_per_second: float,
    user_agent: str,
    state_dir: Path,
    notify: Notify,
    network: Network | None = None,
) -> Iterator[Page | Skipped]:
    """Crawl a site and return its pages in the order of their addresses, then what could not be read, and why.

    The crawl itself is over when the function returns; the pages are read from `state_dir` one by one. A crawl that
    was cut off goes on from there; a finished one is not repeated until `forget(state_dir)`. Raises IngestError where
    the start page cannot be read or no page is left.
    """
    start = clean(start_url)
    if not start:
        raise IngestError(f"{start_url!r} is no web address. Write it as https://help.example.com")
    journal = Journal(state_dir)
    settings = {
        "include": list(include),
        "exclude": list(exclude),
        "max_pages": max_pages,
        "user_agent": user_agent,
    }
    journal.begin(start=start, settings=settings)
    if not journal.finished:
        fetcher = Fetcher(network or Network(), user_agent=user_agent, interval_s=1 / requests_per_second)
        reading = _read_site(
            start,
            journal=journal,
            fetcher=fetcher,
            include=include,
            exclude=exclude,
            max_pages=max_pages,
            user_agent=user_agent,
            notify=notify,
        )
        with _quiet():
            asyncio.run(reading)
    scope = Scope.around(journal.root, include=include, exclude=exclude)
    visits = [visit for visit in journal.visits.values() if scope.holds(visit.address)]
    pages = _distinct_pages(visits, scope)[:max_pages]
    skipped = _skipped(visits)
    if not pages:
        reasons = "; ".join(f"{item.location}: {item.reason}" for item in skipped[:3])
        raise IngestError(
            f"{start}: no pages were left to read. Check ingest.include and ingest.exclude. {reasons}".rstrip()
        )
    return _results(journal, pages, skipped)


async def _read_site(
    start: str,
    *,
    journal: Journal,
    fetcher: Fetcher,
    include: Sequence[str],
    exclude: Sequence[str],
    max_pages: int,
    user_agent: str,
    notify: Notify,
) -> None:
    async with fetcher:
        await fetcher.allow_if_private(start)
        entry, robots = await find_manual(start, journal=journal, fetcher=fetcher, user_agent=user_agent)
        root = journal.root
        scope = Scope.around(root, include=include, exclude=exclude)
        if robots.delay_s:
            text = f"robots.txt asks for {robots.delay_s:g} s between requests: the crawl keeps to it"
            notify(Progress("crawling", message=text))
        listed = await read_sitemaps(
            root, robots=robots, fetcher=fetcher, scope=scope, limit=_SITEMAP_SURPLUS * max_pages
        )
        text = f"{root}: {len(listed) or 'no'} addresses in its sitemap; links are followed on {scope.site.host}"
        notify(Progress("crawling", message=text + scope.folder))
        walk = Walk(journal=journal, fetcher=fetcher, scope=scope, robots=robots, max_pages=max_pages, notify=notify)
        await walk.run(entry, listed)


def _distinct_pages(visits: list[Visit], scope: Scope) -> list[Visit]:
    """Return every page once, by address: the one that others call canonical, and one of those with equal bytes."""
    pages = {key(visit.address): visit for visit in visits if visit.kind == "page" and scope.wants(visit.url)}
    articles = {source_name(page.url) for page in pages.values() if page.content_type in HTML_TYPES}
    distinct: dict[str, Visit] = {}
    for visit in sorted(pages.values(), key=lambda page: (len(page.url), page.url)):
        if visit.content_type in TEXT_TYPES and source_name(visit.url) in articles:
            continue  # "view as Markdown", "page source": the article is there
        better = pages.get(key(visit.canonical)) if visit.canonical else None
        if better is None or better.canonical:  # two that point at each other both stay
            distinct.setdefault(visit.sha256, visit)
    return sorted(distinct.values(), key=lambda page: page.url)


def _skipped(visits: list[Visit]) -> list[Skipped]:
    """Return what could not be read, with redirects that never arrive among it."""
    moves = {key(visit.address): key(visit.url) for visit in visits if visit.kind == "moved"}
    found = [Skipped(visit.address, visit.reason) for visit in visits if visit.kind == "skipped"]
    for visit in visits:
        place, passed = key(visit.address), set()
        while place in moves and place not in passed:
            passed.add(place)
            place = moves[place]
        if place in passed:
            found.append(Skipped(visit.address, "it redirects in a circle"))
    return sorted(found, key=lambda item: item.location)


def _results(journal: Journal, pages: list[Visit], skipped: list[Skipped]) -> Iterator[Page | Skipped]:
    for visit in pages:
        yield Page(visit.url, journal.body(visit), visit.content_type, visit.fetched_at, visit.charset)
    yield from skipped


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep crawlee and the HTTP client from logging: what they have to say reaches the user as progress or an error."""
    loggers = [logging.getLogger(name) for name in ("crawlee", "httpx2", "httpcore2")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
