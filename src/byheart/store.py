"""The run folder: numbered files that read like the story, written atomically; a stage's mark is written last.

    1-documents.jsonl  2-sections.jsonl  3-pairs.jsonl  4-model/  5-predictions.jsonl  report.html  manifest.jsonl

A crash at any moment leaves the last complete output of every stage: new output is written to `name.partial`,
flushed to disk, and renamed over the old one; the manifest's line for the stage follows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from byheart import records
from byheart.errors import MissingInputError, RunFolderError
from byheart.records import Record

MANIFEST = "manifest.jsonl"


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A finished stage: what went in (and its fingerprint), what came out (sha256 by name), how long it took."""

    stage: str
    fingerprint: str
    outputs: dict[str, str]
    seconds: float
    finished_at: str
    chosen: dict[str, str]  # automatic decisions of the stage: name -> "value: reason"
    counts: dict[str, int]
    went_in: dict[str, str]  # settings and files by name: tells which of them changed since


class RunFolder:
    """A folder that holds one run. Methods raise RunFolderError where the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _explained(path):
            path.mkdir(parents=True, exist_ok=True)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def read(self, name: str, record_type: type[Record]) -> list[Record]:
        """Return the records of a file. Raises MissingInputError where no stage has written it yet."""
        path = self.path / name
        if not path.exists():
            raise MissingInputError(f"{path} is not there yet: run the stages before it first (byheart run)")
        try:
            return list(records.read_jsonl(path, record_type))
        except ValueError as fault:
            raise RunFolderError(f"{fault}\nThe file is damaged; delete it and run again.") from fault

    def write(self, name: str, rows: Iterable[Any]) -> int:
        """Write records to a file, whole or not at all, and return how many."""
        with self.replacing(name) as partial:
            return records.write_jsonl(partial, rows)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all."""
        with self.replacing(name) as partial:
            partial.write_text(text, encoding="utf-8")

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Yield a path to write a file (or create a folder) at; it takes `name`'s place when the block ends well."""
        partial = self.path / f"{name}.partial"
        with _explained(partial):
            remove(partial)
            yield partial
            sync(partial)
            rename_over(partial, self.path / name)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process alone. Raises RunFolderError where another one holds it."""
        with _explained(self.path):
            handle = (self.path / ".lock").open("a+")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as busy:
                handle.seek(0)
                raise RunFolderError(
                    f"{self.path} is in use by another byheart (process {handle.read() or 'unknown'}). "
                    "Wait for it, or stop it."
                ) from busy
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield

    def marks(self) -> dict[str, Mark]:
        """Return the newest mark of every stage. A torn last line (kill -9 in mid-write) counts as not written."""
        path = self.path / MANIFEST
        newest: dict[str, Mark] = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError, TypeError):
                mark = Mark(**json.loads(line))
                newest[mark.stage] = mark
        return newest

    def mark_done(
        self,
        stage: str,
        *,
        went_in: dict[str, str],
        outputs: Iterable[str],
        seconds: float,
        chosen: dict[str, str],
        counts: dict[str, int],
    ) -> Mark:
        """Write the stage's mark, after everything else of it."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        digests = {name: file_digest(self.path / name) for name in outputs}
        mark = Mark(stage, fingerprint(went_in), digests, round(seconds, 2), now, chosen, counts, went_in)
        with _explained(self.path), (self.path / MANIFEST).open("a+", encoding="utf-8", errors="replace") as manifest:
            manifest.seek(0)
            text = manifest.read()
            torn = bool(text) and not text.endswith("\n")
            manifest.write(("\n" if torn else "") + json.dumps(dataclasses.asdict(mark), ensure_ascii=False) + "\n")
            manifest.flush()
            os.fsync(manifest.fileno())
        return mark


def fingerprint(value: Any) -> str:
    """Return 16 hex digits of anything that JSON can hold, regardless of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's files and their names; "missing" where there is none."""
    if path.is_dir():
        inside = sorted(item for item in path.rglob("*") if item.is_file())
        return fingerprint([(str(item.relative_to(path)), file_digest(item)) for item in inside])
    if not path.exists():
        return "missing"
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Push a file, or a folder's files, to the disk: a rename must never come before the data it names."""
    for item in path.rglob("*") if path.is_dir() else [path]:
        if item.is_file():
            with item.open("rb") as handle:
                os.fsync(handle.fileno())


def rename_over(source: Path, target: Path) -> None:
    """Move a file or folder to `target`, replacing what is there. A folder's old version survives until the move."""
    if target.is_dir():
        old = target.with_name(target.name + ".old")
        remove(old)
        target.rename(old)
        source.rename(target)
        remove(old)
    else:
        source.replace(target)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the disk's errors into ones that say what to do."""
    try:
        yield
    except OSError as fault:
        advice = {
            28: "The disk is full: free some space and run again; what was finished is kept.",
            13: "No permission to write there: choose another folder or fix its rights.",
            30: "The file system is read-only: choose another folder.",
        }.get(fault.errno or 0, "Check the folder and run again.")
        raise RunFolderError(f"{path}: {fault.strerror or fault}. {advice}") from fault
