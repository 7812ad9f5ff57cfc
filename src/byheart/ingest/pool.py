"""Pages read in child processes with limits: the parent never dies of a file, nor waits for one forever."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from byheart.errors import IngestError
from byheart.ingest.convert import ReadPage
from byheart.ingest.worker import ANSWER_LENGTH, LENGTHS
from byheart.records import Skipped, from_json

MEMORY_MB = 1000  # address space of a child


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A file or page that is still to be read."""

    location: str
    content_type: str  # "" where only the name tells
    fetched_at: str
    load: Callable[[], bytes]  # raises OSError or ValueError saying why not


def read_all(
    sources: Iterable[Source | Skipped],
    *,
    language: str,
    timeout_s: float,
    workers: int,
    memory_mb: int = MEMORY_MB,
) -> Iterator[ReadPage | Skipped]:
    """Yield what each source holds, in their order; a source that cannot be read comes out as Skipped."""
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    everyone = [_Worker(memory_mb) for _ in range(workers)]
    for worker in everyone:
        idle.put(worker)

    def read(source: Source | Skipped) -> ReadPage | Skipped:
        if isinstance(source, Skipped):
            return source
        worker = idle.get()
        try:
            return worker.read(source, language=language, timeout_s=timeout_s)
        finally:
            idle.put(worker)

    pending: deque[Future[ReadPage | Skipped]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="byheart-read") as threads:
        try:
            for source in sources:
                pending.append(threads.submit(read, source))
                # A few ahead keep the workers busy; more would only fill the memory.
                while len(pending) > 2 * workers or (pending and pending[0].done()):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # before the threads are waited for: after Ctrl-C nobody wants the files that are still being read
            for future in pending:
                future.cancel()
            for worker in everyone:
                worker.stop()


class _Worker:
    """One child process at a time; started when first needed, and again after a death."""

    def __init__(self, memory_mb: int) -> None:
        self._memory_mb = memory_mb
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, source: Source, *, language: str, timeout_s: float) -> ReadPage | Skipped:
        """Return what the source holds, or why it cannot be read."""
        try:
            data = source.load()
        except (OSError, ValueError) as fault:
            return Skipped(source.location, str(fault))
        header = {
            "location": source.location,
            "content_type": source.content_type,
            "language": language,
            "fetched_at": source.fetched_at,
        }
        reason, answer = self._ask(json.dumps(header).encode(), data, timeout_s)
        if reason:
            return Skipped(source.location, reason)
        if "reason" in answer:
            return Skipped(source.location, str(answer["reason"]))
        return from_json(json.dumps(answer), ReadPage)

    def stop(self) -> None:
        """End the child, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # unsent bytes of a killed child
                if pipe:
                    pipe.close()

    def _ask(self, header: bytes, data: bytes, timeout_s: float) -> tuple[str, Any]:
        """Return ("", the child's answer), or the reason why there is none and None."""
        process = self._started()
        timed_out = threading.Event()

        def give_up() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(timeout_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            answer = _exchange(process, LENGTHS.pack(len(header), len(data)) + header, data)
        finally:
            timer.cancel()
        if answer is not None and answer.get("fatal") != "memory":
            return "", answer
        self.stop()  # also after an answer: the heap of a child that ran out of memory stays full
        if answer is not None:
            return f"it needs more than {self._memory_mb} MB of memory: split it into smaller files", None
        if timed_out.is_set():
            return f"it takes longer than {timeout_s:g} s (ingest.file_timeout_s)", None
        return self._death_reason(process.returncode), None

    def _death_reason(self, code: int) -> str:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            return f"its parser crashed ({name}), or needs more than {self._memory_mb} MB of memory"
        return f"its parser needs more than {self._memory_mb} MB of memory, or failed (exit code {code})"

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "byheart.ingest.worker", str(self._memory_mb)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            if _exchange(self._process, b"", b"") is None:
                self.stop()
                command = f"{sys.executable} -m byheart.ingest.worker {self._memory_mb}"
                raise IngestError(f"The process that reads files does not start. Try it by hand: {command}")
        return self._process


def _exchange(process: subprocess.Popen[bytes], header: bytes, data: bytes) -> Any:
    """Send a request and return the answer; None where the child died over it."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(header)
        process.stdin.write(data)
        process.stdin.flush()
    except (BrokenPipeError, ConnectionResetError):
        return None
    length = process.stdout.read(ANSWER_LENGTH.size)
    if len(length) < ANSWER_LENGTH.size:
        return None
    expected = ANSWER_LENGTH.unpack(length)[0]
    text = process.stdout.read(expected)
    return json.loads(text) if len(text) == expected else None
