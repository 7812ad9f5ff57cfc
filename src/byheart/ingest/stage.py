"""The ingest stage: the manual's files and pages to documents, sections and facts."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from byheart.config import IngestConfig, Project
from byheart.errors import IngestError
from byheart.ingest.crawl import Page, crawl
from byheart.ingest.files import files_below, find_sources
from byheart.ingest.pool import Source, read_all
from byheart.progress import Notify, Progress, StageResult
from byheart.records import Document, Fact, Section, Skipped, stable_id
from byheart.store import RunFolder, fingerprint

DOCUMENTS = "1-documents.jsonl"
SKIPPED = "1-skipped.jsonl"
SECTIONS = "2-sections.jsonl"
FACTS = "2-facts.jsonl"
CRAWL_STATE = "1-crawl"
_MAX_WORKERS = 4  # each may take 1 GB
_FEW_FILES = 4  # fewer than this, and starting a second worker takes longer than it saves
_SHOWN_REASONS = 5


def run(project: Project, folder: RunFolder, notify: Notify) -> StageResult:
    """Read the manual. Raises IngestError where nothing of it could be read."""
    config = project.config.ingest
    sources, total = _sources(project, folder, notify)
    documents: list[Document] = []
    sections: list[Section] = []
    facts: list[Fact] = []
    skipped: list[Skipped] = []
    first_with: dict[str, str] = {}  # sha256 -> location
    pages = read_all(
        sources,
        language=config.language,
        timeout_s=config.file_timeout_s,
        workers=1 if total is not None and total < _FEW_FILES else min(_MAX_WORKERS, os.cpu_count() or 1),
    )
    for done, item in enumerate(pages, 1):
        notify(
            Progress("reading", done, total, note=item.location if isinstance(item, Skipped) else item.document.title)
        )
        if isinstance(item, Skipped):
            skipped.append(item)
            continue
        document = item.document
        twin = first_with.setdefault(document.sha256, document.location)
        if twin != document.location:
            skipped.append(Skipped(document.location, f"it has the same text as {twin}"))
            continue
        documents.append(document)
        sections += [dataclasses.replace(s, order=len(sections) + s.order) for s in item.sections]
        facts += item.facts
    if not documents:
        raise IngestError(_nothing_read(project, skipped))
    folder.write(DOCUMENTS, documents)
    folder.write(SKIPPED, skipped)
    folder.write(SECTIONS, sections)
    folder.write(FACTS, facts)
    shutil.rmtree(folder / CRAWL_STATE, ignore_errors=True)  # the next ingest reads the site afresh
    if skipped:
        notify(Progress("reading", message=f"{len(skipped)} files or pages were left out: see {folder / SKIPPED}"))
    counts = {"documents": len(documents), "sections": len(sections), "facts": len(facts), "skipped": len(skipped)}
    return StageResult((DOCUMENTS, SKIPPED, SECTIONS, FACTS), counts, {})


def source_state(project: Project) -> str:
    """Return a fingerprint of the local docs' names, sizes and times, and of the addresses: has the manual changed?"""
    state: list[object] = []
    for entry in project.config.docs:
        if _is_address(entry):
            state.append(entry)
            continue
        path = project.folder / entry
        files = list(files_below(path)) if path.is_dir() else [path]
        state.append([entry, *(_file_state(file, path) for file in files)])
    return fingerprint(state)


def _file_state(file: Path, root: Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError:
        return (file.name, -1, -1)  # not there: the run itself says so
    return (file.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns)


def _is_address(entry: str) -> bool:
    return entry.startswith(("http://", "https://"))


def _sources(project: Project, folder: RunFolder, notify: Notify) -> tuple[Iterator[Source | Skipped], int | None]:
    """Return all files and pages of the manual, and how many there are; None where addresses are among them."""
    config = project.config.ingest
    entries = project.config.docs
    local: list[Source | Skipped] = []
    pages: list[Iterator[Source | Skipped]] = []
    for entry in entries:
        if _is_address(entry):
            state = folder / CRAWL_STATE / stable_id(entry)
            pages.append(_crawled(entry, config, state, notify))
            continue
        path = (project.folder / entry).resolve()
        if not path.exists():
            raise IngestError(f"{path}: no such file or folder. Correct `docs` in {project.folder / 'byheart.yaml'}.")
        # Two folders may both hold an index.md: their names tell them apart.
        prefix = f"{path.stem if path.suffix == '.zip' else path.name}/" if len(entries) > 1 and _is_many(path) else ""
        local += find_sources(
            path, prefix=prefix, include=config.include, exclude=config.exclude, max_file_mb=config.max_file_mb
        )
    return chain(local, *pages), None if pages else len(local)


def _is_many(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() == ".zip"


def _crawled(address: str, config: IngestConfig, state: Path, notify: Notify) -> Iterator[Source | Skipped]:
    found = crawl(
        address,
        include=config.include,
        exclude=config.exclude,
        max_pages=config.max_pages,
        requests_per_second=config.requests_per_second,
        user_agent=config.user_agent,
        state_dir=state,
        notify=notify,
    )
    for page in found:
        yield page if isinstance(page, Skipped) else _page_source(page)


def _page_source(page: Page) -> Source:
    charset = f"; charset={page.charset}" if page.charset else ""
    return Source(page.url, f"{page.content_type}{charset}", page.fetched_at, lambda: page.content)


def _nothing_read(project: Project, skipped: list[Skipped]) -> str:
    tried = ", ".join(project.config.docs)
    reasons = "".join(f"\n  {item.location}: {item.reason}" for item in skipped[:_SHOWN_REASONS])
    more = f"\n  … and {len(skipped) - _SHOWN_REASONS} more" if len(skipped) > _SHOWN_REASONS else ""
    found = f"{len(skipped)} files or pages were found, and none could be read:{reasons}{more}" if skipped else (
        "No files were found there."
    )  # fmt: skip
    return f"Nothing could be read from {tried}. {found}\nCorrect `docs` in {project.folder / 'byheart.yaml'}."
