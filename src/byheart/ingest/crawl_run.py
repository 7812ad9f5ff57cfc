"""The walk through a site: sitemap first, then links, every address once.

crawlee keeps the queue on the disk, merges addresses, and runs several visits at once; the fetcher sets the pace.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from datetime import timedelta
from urllib.parse import urljoin

from crawlee import ConcurrencySettings, Request, service_locator
from crawlee.configuration import Configuration
from crawlee.crawlers import BasicCrawler, BasicCrawlingContext
from crawlee.statistics import Statistics
from crawlee.storage_clients import FileSystemStorageClient
from crawlee.storages import KeyValueStore, RequestQueue

from byheart.errors import IngestError
from byheart.ingest.crawl_fetch import Failure, FailureKind, Fetched, Fetcher, Moved
from byheart.ingest.crawl_journal import Journal, Visit
from byheart.ingest.crawl_links import Links, Robots, page_links, parse_sitemap
from byheart.ingest.crawl_scope import Scope, clean, is_asset, key, same_article, site_of
from byheart.progress import Notify, Progress

_VISITS_AT_ONCE = 8  # the pace is set by requests_per_second; this bounds what a slow server has open
_MAX_MOVES = 10  # redirects from the start address to the manual
_MAX_SITEMAPS = 100  # an index that lists more is a bomb, or a shop
_REQUESTS_PER_PAGE = 5  # a site that answers ever new addresses with redirects or errors must end too
_FAILURES_IN_A_ROW = 10  # then the start page is asked whether the site still answers
_EXPORT = "export the help pages to a folder and name that under docs"
_WAY_OUT: dict[FailureKind, str] = {
    "name": "Check the spelling of the address and the network connection.",
    "connection": "Check the address, its port, and that the server runs (byheart connects directly, not by a proxy).",
    "tls": "Correct the server's certificate, or use the name that the certificate was made for.",
    "timeout": "Check the network connection, or try again later.",
    "private": "Give the manual's own address.",
    "size": f"Give the address of an ordinary page, or {_EXPORT}.",
    "type": f"Give the address of an HTML page, or {_EXPORT}.",
    "circle": "Open it in a browser and give the address that it ends at.",
}


async def find_manual(start: str, *, journal: Journal, fetcher: Fetcher, user_agent: str) -> tuple[str, Robots]:
    """Open the start page, follow its redirects, and note where the manual lies.

    Returns the start page's last address and the site's robots.txt. Raises IngestError where the page cannot be read.
    """
    address, root, robots = start, start, None
    scope = Scope.around(root)
    for _ in range(_MAX_MOVES):
        if robots is None or site_of(address) != site_of(root):
            robots = await _load_robots(address, fetcher=fetcher, user_agent=user_agent)
        if not scope.holds(address):
            root = address
            scope = Scope.around(root)
        if not robots.allows(address):
            raise IngestError(f"{address}: its robots.txt forbids crawling. Ask the site's owner, or {_EXPORT}.")
        visit = journal.visits.get(key(address))
        if visit is None:
            answer = await fetcher.fetch(address)
            if isinstance(answer, Failure):
                raise IngestError(f"{address} cannot be read: {answer.reason}. {_way_out(answer)}")
            if isinstance(answer, Fetched):
                visit, _ = _page(address, answer, scope)
                journal.save(visit, answer.body)
            else:
                visit = Visit(address, "moved", url=answer.target)
                journal.save(visit)
        if visit.kind == "page":
            journal.set_root(root)
            return address, robots
        address = visit.url
    raise IngestError(f"{start} cannot be read: it redirects in a circle. {_WAY_OUT['circle']}")


async def read_sitemaps(root: str, *, robots: Robots, fetcher: Fetcher, scope: Scope, limit: int) -> list[str]:
    """Return the manual's addresses in the site's sitemaps, at most `limit`."""
    named = [address for address in map(clean, robots.sitemaps) if site_of(address) == scope.site]
    usual = [urljoin(root, "/sitemap.xml"), urljoin(root, scope.folder + "sitemap.xml")]
    waiting = list(dict.fromkeys(named or usual))
    known = set(waiting)
    found: dict[str, None] = {}
    for _ in range(_MAX_SITEMAPS):
        if not waiting or len(found) >= limit:
            break
        address = waiting.pop(0)
        if site_of(address) != scope.site:
            continue
        answer = await fetcher.fetch(address, any_type=True)
        if isinstance(answer, Fetched):
            sitemap = await asyncio.to_thread(parse_sitemap, answer.body)
            found.update(dict.fromkeys(page for page in sitemap.pages if scope.holds(page)))
            further = list(sitemap.sitemaps)
        else:
            further = [answer.target] if isinstance(answer, Moved) else []
        waiting += [item for item in further if item not in known]
        known.update(further)
    return list(found)[:limit]


class Walk:
    """One pass over the queue until it is empty, or enough pages are there."""

    def __init__(
        self, *, journal: Journal, fetcher: Fetcher, scope: Scope, robots: Robots, max_pages: int, notify: Notify
    ) -> None:
        self._journal = journal
        self._fetcher = fetcher
        self._scope = scope
        self._robots = robots
        self._max_pages = max_pages
        self._notify = notify
        self._seen: set[str] = set()
        self._queued = 0
        self._requests = 0
        self._failures_in_a_row = 0
        self._pages = sum(visit.kind == "page" and scope.holds(visit.address) for visit in journal.visits.values())
        self._fault: Exception | None = None
        self._stopped_early = False
        self._queue: RequestQueue
        self._crawler: BasicCrawler

    async def run(self, entry: str, listed: Sequence[str]) -> None:
        """Visit the start page, the addresses of the sitemaps, and everything that they lead to."""
        configuration = Configuration(storage_dir=str(self._journal.queue_path), purge_on_start=False)
        storage = FileSystemStorageClient()
        self._queue = await self._open_queue(storage, configuration)
        self._crawler = BasicCrawler(
            configuration=configuration,
            storage_client=storage,
            request_manager=self._queue,
            request_handler=self._visit,
            max_request_retries=0,  # the fetcher has tried again already
            use_session_pool=False,
            retry_on_blocked=False,
            configure_logging=False,
            request_handler_timeout=timedelta(days=1),  # the fetcher has its own; a polite crawl waits for long
            statistics=Statistics.with_default_state(persistence_enabled=False),
            # The least is the most: crawlee must not slow down because the machine is busy with something else.
            concurrency_settings=ConcurrencySettings(
                min_concurrency=_VISITS_AT_ONCE, max_concurrency=_VISITS_AT_ONCE, desired_concurrency=_VISITS_AT_ONCE
            ),
        )
        self._crawler.failed_request_handler(self._stop_at_fault)
        try:
            await self._enqueue([entry], whatever_the_globs=True)
            await self._enqueue(listed)
            await self._crawler.run()
            await self._conclude()
        finally:
            # crawlee keeps every opened storage for the life of the process; the next crawl must not meet this one.
            store = await KeyValueStore.open(storage_client=storage, configuration=configuration)
            service_locator.storage_instance_manager.remove_from_cache(store)
            service_locator.storage_instance_manager.remove_from_cache(self._queue)

    async def _open_queue(self, storage: FileSystemStorageClient, configuration: Configuration) -> RequestQueue:
        try:
            return await RequestQueue.open(storage_client=storage, configuration=configuration)
        except ValueError:  # cut off in mid-write; the stored pages lead to all of its addresses again
            self._journal.drop_queue()
            return await RequestQueue.open(storage_client=storage, configuration=configuration)

    async def _conclude(self) -> None:
        """Tell a crawl that came to its end from one that was stopped."""
        if self._fault is not None:
            self._journal.drop_queue()  # crawlee counts the visit that failed as done
            raise self._fault
        if self._stopped_early:
            text = (
                f"stopped at {self._pages} pages after {self._requests} requests: the site has more. "
                f"Raise ingest.max_pages ({self._max_pages}) to read them"
            )
            self._notify(Progress("crawling", message=text))
        elif not await self._queue.is_finished():
            raise KeyboardInterrupt  # crawlee takes Ctrl-C for a pause and returns as if all were done
        self._journal.finish()

    async def _stop_at_fault(self, _context: object, error: Exception) -> None:
        """Stop at an error that is not a page's own (disk full, a fault in byheart): crawlee would only log it."""
        self._fault = error
        self._crawler.stop()

    async def _visit(self, context: BasicCrawlingContext) -> None:
        address = context.request.url
        visit = self._journal.visits.get(key(address))
        if visit is not None:
            body = self._journal.body(visit) if visit.kind == "page" else b""
            links = await asyncio.to_thread(_links, visit, body)
        elif self._is_enough():
            return
        else:
            links = await self._open(address)
        await self._enqueue([links.canonical] if links.canonical else [])
        await self._enqueue(links.targets)
        skipped = sum(visit.kind == "skipped" for visit in self._journal.visits.values())
        total = min(self._max_pages, max(self._queued, self._pages))
        self._notify(Progress("crawling", self._pages, total, note=f"{skipped} skipped" if skipped else ""))

    async def _open(self, address: str) -> Links:
        """Fetch an address, store what became of it, and return where it points."""
        self._requests += 1
        answer = await self._fetcher.fetch(address)
        if isinstance(answer, Failure):
            self._journal.save(Visit(address, "skipped", reason=answer.reason, passing=not answer.lasting))
            await self._check_site(answer)
            return Links("", ())
        self._failures_in_a_row = 0
        if isinstance(answer, Moved):
            inside = self._scope.holds(answer.target)
            reason = "" if inside else f"it redirects to {answer.target}, outside the manual"
            visit = Visit(address, "moved" if inside else "skipped", url=answer.target, reason=reason)
            self._journal.save(visit)
            return _links(visit, b"")
        visit, links = await asyncio.to_thread(_page, address, answer, self._scope)
        self._pages += 1  # may pass max_pages by the visits that ran beside this one: kept, for a crawl with more
        self._journal.save(visit, answer.body)
        return links

    def _is_enough(self) -> bool:
        if self._pages < self._max_pages and self._requests < _REQUESTS_PER_PAGE * self._max_pages + 100:
            return False
        self._stopped_early = True
        self._crawler.stop()
        return True

    async def _check_site(self, failure: Failure) -> None:
        """After many failures in a row, find out whether the site itself is down: then there is no use in going on."""
        self._failures_in_a_row += not failure.lasting
        if self._failures_in_a_row < _FAILURES_IN_A_ROW:
            return
        self._failures_in_a_row = 0
        answer = await self._fetcher.fetch(self._journal.root)
        if isinstance(answer, Failure) and not answer.lasting:
            raise IngestError(
                f"{self._journal.root} stopped answering after {self._pages} pages ({answer.reason}). They are kept: "
                f"run again later to go on, with a lower ingest.requests_per_second if the site was too busy."
            )

    async def _enqueue(self, addresses: Iterable[str], *, whatever_the_globs: bool = False) -> None:
        """Put addresses of the manual into the queue; those that robots.txt forbids become skipped ones."""
        fresh: list[Request] = []
        for address in addresses:
            name = key(address)
            if name in self._seen:
                continue
            self._seen.add(name)
            wanted = whatever_the_globs or self._scope.wants(address)
            if not wanted or not self._scope.holds(address) or is_asset(address):
                continue
            if self._robots.allows(address):
                fresh.append(Request.from_url(address, unique_key=name))
            elif name not in self._journal.visits:
                self._journal.save(Visit(address, "skipped", reason="robots.txt forbids it"))
        if fresh:
            self._queued += len(fresh)
            await self._queue.add_requests(fresh, wait_for_all_requests_to_be_added=True)


async def _load_robots(address: str, *, fetcher: Fetcher, user_agent: str) -> Robots:
    """Return a site's rules. RFC 9309: none where the file is missing, all forbidden where the server fails."""
    at = urljoin(address, "/robots.txt")
    answer = await fetcher.fetch(at, any_type=True)
    for _ in range(_MAX_MOVES):
        if not isinstance(answer, Moved):
            break
        answer = await fetcher.fetch(answer.target, any_type=True)
    if isinstance(answer, Fetched):
        robots = Robots(answer.body[: 500 * 2**10].decode("utf-8", "replace"), user_agent=user_agent)
        fetcher.pacer.interval_s = max(fetcher.pacer.interval_s, robots.delay_s)
        return robots
    if isinstance(answer, Failure) and not (answer.kind == "status" and answer.status < 500 and answer.status != 429):
        raise IngestError(
            f"{at} cannot be read: {answer.reason}. Without it nobody knows what may be crawled. {_way_out(answer)}"
        )
    return Robots("", user_agent=user_agent)


def _way_out(failure: Failure) -> str:
    if failure.kind != "status":
        return _WAY_OUT[failure.kind]
    if failure.status in {401, 403}:
        return f"The site wants a login or turns crawlers away: set ingest.user_agent, or {_EXPORT}."
    if failure.passing:
        return "The server is busy or broken: try again later."
    return "Open it in a browser and give the address of a page that is there."


def _page(address: str, answer: Fetched, scope: Scope) -> tuple[Visit, Links]:
    """Return the record of a page that was read, and where it points."""
    links = page_links(answer.body, url=answer.url, content_type=answer.content_type, charset=answer.charset)
    url, canonical = answer.url, ""
    if links.canonical and scope.holds(links.canonical):
        if key(links.canonical) == key(url):
            url = links.canonical
        elif scope.wants(links.canonical) and same_article(links.canonical, url):
            canonical = links.canonical
    visit = Visit(
        address,
        "page",
        url=url,
        canonical=canonical,
        content_type=answer.content_type,
        charset=answer.charset,
        fetched_at=answer.fetched_at,
        sha256=hashlib.sha256(answer.body).hexdigest(),
    )
    return visit, links


def _links(visit: Visit, body: bytes) -> Links:
    """Return where an address that was visited before points."""
    if visit.kind == "page":
        return page_links(body, url=visit.url, content_type=visit.content_type, charset=visit.charset)
    return Links("", (visit.url,) if visit.kind == "moved" else ())
