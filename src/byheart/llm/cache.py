"""Answered calls on disk: what was paid once is never paid again."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from byheart.errors import TeacherError


class CallCache:
    """A SQLite file of replies. Each is committed, and pushed to the disk, before `put` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._explained():
            self._database = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, model TEXT, reply TEXT, answered_at REAL)"
            )

    def get(self, key: str) -> str | None:
        """Return the reply of an earlier call."""
        with self._explained():
            row = self._database.execute("SELECT reply FROM calls WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, key: str, *, model: str, reply: str) -> None:
        """Keep a reply for good."""
        with self._explained():
            self._database.execute("INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?)", (key, model, reply, time.time()))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as fault:
            raise TeacherError(
                f"{self._path}, which keeps the teacher's answers, cannot be used: {fault}. Check the disk's space and "
                "rights; if the file is damaged, move it away and run again (its calls are then paid again)."
            ) from fault
