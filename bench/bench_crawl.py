"""How fast, and how completely, is a site crawled? Serves a folder on loopback as a help site and crawls it.

    python bench/bench_crawl.py docs/ --folder help           # pages are found by the sitemap
    python bench/bench_crawl.py docs/ --folder help --links   # no sitemap: by the links between them, and an index

Markdown files are served as HTML at /folder/name, HTML files at /folder/name.html. With --kill the crawl is killed
(kill -9) half way and run again: no page may be asked for twice but those that were in flight.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

from markdown_it import MarkdownIt

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from byheart.ingest.crawl import Page, crawl
from byheart.progress import silent
from sites import Answer, Site, page, serve, sitemap


def site_pages(docs: Path, folder: str) -> dict[str, Answer]:
    """Return the files of a folder as HTML pages by path."""
    markdown = MarkdownIt("commonmark").enable("table")
    pages: dict[str, Answer] = {}
    for path in sorted(docs.rglob("*")):
        name = path.relative_to(docs).as_posix()
        if path.suffix == ".md":
            text = markdown.render(path.read_text(encoding="utf-8"))
            title = path.stem.replace("-", " ")
            html = f"<!doctype html><html><head><title>{title}</title></head><body><main>{text}</main></body></html>"
            pages[f"{folder}{name.removesuffix('.md')}"] = html
        elif path.suffix in {".html", ".htm"}:
            pages[f"{folder}{name}"] = path.read_text(encoding="utf-8", errors="replace")
    return pages


def crawl_once(start: str, state: Path, max_pages: int) -> tuple[int, int]:
    """Crawl, and return how many pages were read and how many addresses were skipped."""
    results = crawl(
        start,
        include=(),
        exclude=(),
        max_pages=max_pages,
        requests_per_second=10_000,
        user_agent="byheart-bench",
        state_dir=state,
        notify=silent,
    )
    kinds = [isinstance(item, Page) for item in results]
    return sum(kinds), len(kinds) - sum(kinds)


def kill_half_way(site: Site, start: str, state: Path, max_pages: int) -> None:
    """Begin the crawl in another process and kill it when half of the pages were asked for."""
    child = multiprocessing.get_context("spawn").Process(target=crawl_once, args=(start, state, max_pages))
    child.start()
    while child.is_alive() and len(site.requests) < max_pages / 4:
        time.sleep(0.01)
    child.kill()
    child.join()
    print(f"killed after {len(site.requests)} requests")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("docs", type=Path)
    parser.add_argument("--folder", default="", help="where the site keeps its pages")
    parser.add_argument("--links", action="store_true", help="serve no sitemap")
    parser.add_argument("--kill", action="store_true", help="kill -9 half way, then go on")
    options = parser.parse_args()
    folder = f"/{options.folder.strip('/')}/".replace("//", "/")
    pages = site_pages(options.docs, folder)
    if not pages:
        raise SystemExit(f"{options.docs}: no .md or .html files in it")
    with (
        serve(pages | {folder: page(*pages) if options.links else page()}) as site,
        tempfile.TemporaryDirectory() as state,
    ):
        if not options.links:
            site.pages["/sitemap.xml"] = sitemap(*(f"{site.address}{path}" for path in pages))
        start, most = f"{site.address}{folder}", 2 * len(pages) + 10
        if options.kill:
            kill_half_way(site, start, Path(state), most)
        began = time.perf_counter()
        found, skipped = crawl_once(start, Path(state), most)
        seconds = time.perf_counter() - began
        twice = sum(site.counts[path] > 1 for path in pages)
    print(
        f"pages expected {len(pages) + 1} (with the start page), found {found}, skipped {skipped}, asked twice {twice}"
    )
    print(f"{seconds:.1f} s, {found / seconds:.0f} pages/s")


if __name__ == "__main__":
    main()
