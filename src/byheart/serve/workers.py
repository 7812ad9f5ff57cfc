"""Several processes on one address: a parent that only watches, and workers that each serve the whole app.

They share the listening socket and the database. Where one ends by itself, another takes its place; where the parent
ends, however it does, all end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from fastapi import FastAPI
from prometheus_client import multiprocess

from byheart.errors import ByheartError
from byheart.serve.server import GRACE_S, Ready, Server, address_of, listen, spare_what_is_loaded
from byheart.serve.signals import sigterm_unwinds

STOP_S = GRACE_S + 10.0  # for workers to end their answers
RESTART_S = 1.0  # between two starts: a worker that dies at once must not take a core
_VARIABLE = "BYHEART_WORKER"  # the socket, where to say "ready", and the pipe that closes when the parent is gone

logger = logging.getLogger(__name__)


def is_worker() -> bool:
    """Return whether this process was started by `supervise`."""
    return _VARIABLE in os.environ


def work(app: FastAPI, *, trusted_proxies: Sequence[str] = ()) -> None:
    """Serve the app as a worker, until the parent says so or is gone."""
    listener, ready, lifeline = (int(number) for number in os.environ[_VARIABLE].split(","))
    threading.Thread(target=_end_with_parent, args=[lifeline], daemon=True).start()

    def on_ready(_address: str) -> None:
        os.write(ready, b"+")

    server = Server(app, listener=socket.socket(fileno=listener), ready=on_ready, trusted_proxies=trusted_proxies)
    spare_what_is_loaded()
    server.run()


def supervise(
    command: Sequence[str], *, count: int, host: str, port: int, ready: Ready, more_env: Mapping[str, str]
) -> None:
    """Run `count` workers, each by `command`, until Ctrl-C or SIGTERM. For the main thread.

    Raises ByheartError where the address cannot be used, or a worker does not get ready.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(host, port))
        counters = stack.enter_context(tempfile.TemporaryDirectory(prefix="byheart-metrics-"))
        is_ready, says_ready = _pipe(stack)
        lifeline, _held = _pipe(stack)
        handed = (listener.fileno(), says_ready, lifeline)
        variables = {_VARIABLE: ",".join(map(str, handed)), "PROMETHEUS_MULTIPROC_DIR": counters}
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}  # not each on all cores
        env = {**threads, **os.environ, **more_env, **variables}

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, env=env, pass_fds=handed, stdin=subprocess.DEVNULL)

        with sigterm_unwinds(), contextlib.suppress(KeyboardInterrupt):  # the ways to end; neither is an error
            workers = [start() for _ in range(count)]
            stack.callback(_stop, workers)
            _wait_until_ready(workers, is_ready)
            ready(address_of(listener))
            _watch(workers, start, on_end=lambda pid: multiprocess.mark_process_dead(pid, counters))  # type: ignore[no-untyped-call]  # it has no types


def _watch(
    workers: list[subprocess.Popen[bytes]],
    start: Callable[[], subprocess.Popen[bytes]],
    *,
    on_end: Callable[[int], None],
) -> None:
    while True:
        time.sleep(RESTART_S)
        for number, worker in enumerate(workers):
            if worker.poll() is not None:
                logger.error("a worker ended (code %s); another takes its place", worker.returncode)
                on_end(worker.pid)
                workers[number] = start()


def _wait_until_ready(workers: Sequence[subprocess.Popen[bytes]], is_ready: int) -> None:
    """Wait for a sign of every worker; what keeps one from it stands on the screen already."""
    os.set_blocking(is_ready, False)
    missing = len(workers)
    while missing:
        if any(worker.poll() is not None for worker in workers):
            raise ByheartError("A worker did not start. It said why above.")
        with contextlib.suppress(BlockingIOError):
            missing -= len(os.read(is_ready, missing))
        time.sleep(0.05)


def _stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + STOP_S
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _end_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)  # nobody writes: it returns when the parent's end is closed
    os.kill(os.getpid(), signal.SIGTERM)


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        stack.callback(os.close, end)
    return ends
