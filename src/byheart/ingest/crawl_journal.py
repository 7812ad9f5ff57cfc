"""What a crawl has seen, on the disk: one file a page, written whole or not at all.

    crawl.json         what was asked for, where the manual lies, whether the crawl is finished
    pages/<key>.page   a line of JSON (the Visit), then the page as the server sent it
    queue/             crawlee's queue of addresses

The pages are the truth: should the queue be damaged or out of date, it is thrown away and filled again by walking the
stored pages, without asking the site for any of them twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Literal

from byheart.ingest.crawl_scope import key
from byheart.store import RunFolder


@dataclasses.dataclass(frozen=True, slots=True)
class Visit:
    """What became of one address."""

    address: str  # as it was asked for
    kind: Literal["page", "moved", "skipped"]
    url: str = ""  # page: its final address; moved: the target
    canonical: str = ""  # page: another address that it gives as its own, and that was believed
    content_type: str = ""
    charset: str = ""
    fetched_at: str = ""
    sha256: str = ""  # page: of the body
    reason: str = ""  # skipped: why
    passing: bool = False  # skipped: an interrupted crawl asks again when it goes on


class Journal:
    """The state folder of one crawl."""

    def __init__(self, folder: Path) -> None:
        self._folder = RunFolder(folder)
        self._pages = RunFolder(folder / "pages")
        self.queue_path = folder / "queue"
        self._note: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):  # none yet, or torn: begin anew
            self._note = json.loads((folder / "crawl.json").read_text(encoding="utf-8"))
        self.visits: dict[str, Visit] = {}
        for path in self._pages.path.glob("*.page"):
            with path.open("rb") as handle, contextlib.suppress(ValueError, TypeError):  # another version's: read anew
                visit = Visit(**json.loads(handle.readline()))
                self.visits[key(visit.address)] = visit

    @property
    def finished(self) -> bool:
        """Whether the crawl came to its end."""
        return bool(self._note.get("finished"))

    @property
    def root(self) -> str:
        """The address whose site and folder hold the manual; "" while it is not known."""
        return str(self._note.get("root", ""))

    def begin(self, *, start: str, settings: dict[str, Any]) -> None:
        """Get ready to go on with a crawl: keep what still holds of the state, throw away the rest."""
        moved = self._note.get("start") != start
        changed = moved or self._note.get("settings") != settings
        if changed:
            self._note = {"start": start, "settings": settings, "finished": False}
        if not self.finished:
            stale = [
                name for name, visit in self.visits.items()
                if moved or visit.passing or (changed and visit.kind == "skipped")
            ]  # fmt: skip
            for name in stale:
                self._path(name).unlink()
                del self.visits[name]
            if changed or stale:
                self.drop_queue()
        self._write()

    def set_root(self, address: str) -> None:
        """Remember where the manual lies."""
        self._write(root=address)

    def finish(self) -> None:
        """Mark the crawl as finished."""
        self._write(finished=True)

    def save(self, visit: Visit, body: bytes = b"") -> None:
        """Store what became of an address."""
        name = key(visit.address)
        with self._pages.replacing(self._path(name).name) as partial:
            partial.write_bytes(json.dumps(dataclasses.asdict(visit)).encode() + b"\n" + body)
        self.visits[name] = visit

    def body(self, visit: Visit) -> bytes:
        """Return the page as the server sent it."""
        with self._path(key(visit.address)).open("rb") as handle:
            handle.readline()
            return handle.read()

    def drop_queue(self) -> None:
        """Throw the queue away; the next crawl fills it again from the stored pages."""
        shutil.rmtree(self.queue_path, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._pages.path / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.page"

    def _write(self, **changes: Any) -> None:
        self._note.update(changes)
        self._folder.write_text("crawl.json", json.dumps(self._note, indent=2) + "\n")


def forget(state_dir: Path) -> None:
    """Throw away what a crawl has stored, so that the next one reads every page anew."""
    for name in ("crawl.json", "pages", "queue"):
        path = state_dir / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
