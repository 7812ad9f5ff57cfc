"""Several processes on one address and one database, and how they end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serving import PROCESS_S, QUESTION, wait_until

PARENT = """
import sys
from byheart.errors import ByheartError
from byheart.serve.workers import supervise
try:
    supervise([sys.executable, *sys.argv[1:]], count=2, host="127.0.0.1", port=0, more_env={},
              ready=lambda address: print(address, flush=True))
except ByheartError as fault:
    sys.exit(str(fault))
"""
WORKER = """
import os, sys
from pathlib import Path
from byheart.serve.database import open_database
from byheart.serve.gate import GateRules
from byheart.serve.workers import work
from serving import Bot, make_app
if sys.argv[2] == "fail":
    sys.exit("no model")
app = make_app(Bot(), database=open_database("", folder=Path(sys.argv[1])), rules=GateRules(requests_per_minute=4))
app.add_route("/pid", lambda request: __import__("starlette.responses").responses.PlainTextResponse(str(os.getpid())))
work(app)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    for name, code in (("parent.py", PARENT), ("worker.py", WORKER)):
        (tmp_path / name).write_text(code)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}

    def run(how: str = "well") -> subprocess.Popen[str]:
        command = [sys.executable, tmp_path / "parent.py", tmp_path / "worker.py", tmp_path, how]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def pids(address: str, *, tries: int = 60) -> set[int]:
    """Return who answers; every request comes by a connection of its own."""
    found = set()
    for _ in range(tries):
        try:
            found.add(int(httpx.get(f"{address}/pid", trust_env=False).text))
        except httpx.TransportError:
            continue  # it had been taken by a process that was killed
    return found


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def address_of(parent: subprocess.Popen[str]) -> str:
    assert parent.stdout
    return parent.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_share_address_database_and_figures_and_a_signal_ends_all(
    start: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    parent = start()
    address = address_of(parent)
    workers = wait_until(lambda: found if len(found := pids(address)) == 2 else None, PROCESS_S)
    body = {"messages": [{"role": "user", "content": QUESTION}]}
    replies = [httpx.post(f"{address}/v1/chat/completions", json=body, trust_env=False) for _ in range(12)]
    answered = [reply for reply in replies if reply.status_code == 200]
    assert 4 <= len(answered) <= 8  # four a minute for both together; a minute may begin in between
    figures = httpx.get(f"{address}/metrics", trust_env=False).text
    counts = re.findall(r'byheart_requests_total\{route="/v1/chat/completions",status="\d+"\} ([\d.]+)', figures)
    assert sum(map(float, counts)) in (len(answered), len(replies))  # refused ones have no route yet
    parent.send_signal(number)
    _, errors = parent.communicate(timeout=60)
    assert (parent.returncode, errors) == (0, "")
    assert all(map(is_gone, workers))


def test_a_worker_that_dies_is_replaced_and_none_outlives_the_parent(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    parent = start()
    address = address_of(parent)
    first, second = wait_until(lambda: found if len(found := pids(address)) == 2 else None, PROCESS_S)
    os.kill(first, signal.SIGKILL)
    found = wait_until(lambda: found if len(found := pids(address) - {first}) == 2 else None, PROCESS_S)
    assert second in found
    parent.kill()
    wait_until(lambda: all(map(is_gone, found)), PROCESS_S)


def test_workers_that_cannot_start_end_the_whole_with_the_reason(start: Callable[..., subprocess.Popen[str]]) -> None:
    _, errors = start("fail").communicate(timeout=60)
    assert "no model" in errors
    assert "A worker did not start" in errors


def test_the_parent_of_workers_brings_no_model_library() -> None:
    code = "import byheart.serve.entrance, sys; print(*{'torch', 'transformers', 'sklearn'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == ""
