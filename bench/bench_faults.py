"""Clients that leave in mid-answer: does the server keep a slot, a connection or memory of them?

    python bench/bench_faults.py [CLIENTS]      10,000 of them, 50 at once

A server of its own process answers a long text as a stream. Every client reads its first bytes and goes: half of them
closing the connection, half resetting it. Exits with 1 where an answer stays open, a connection is left, or the memory
after the last tenth is over 5 % above that after the first.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

SERVER = Path(__file__).resolve().parent.parent / "tests" / "clients" / "server.py"
AT_ONCE = 50
GROWTH = 1.05
BODY = b'{"messages": [{"role": "user", "content": "long"}], "stream": true, "store": false}'
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
    % (len(BODY), BODY)
)


async def leave(host: str, port: int, *, reset: bool) -> bytes:
    """Ask, read the first bytes, and go; return the status line."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the server still has most of it to send
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    with connection:
        await loop.sock_connect(connection, (host, port))
        await loop.sock_sendall(connection, REQUEST)
        return (await loop.sock_recv(connection, 256)).partition(b"\r\n")[0]


async def leave_often(host: str, port: int, count: int) -> dict[bytes, int]:
    """Let `count` clients leave, AT_ONCE at a time; return how often each status line came."""
    seen: dict[bytes, int] = {}
    numbers = iter(range(count))

    async def visitor() -> None:
        for number in numbers:
            status = await leave(host, port, reset=bool(number % 2))
            seen[status] = seen.get(status, 0) + 1

    await asyncio.gather(*(visitor() for _ in range(AT_ONCE)))
    return seen


def open_answers(address: str) -> int:
    """Return how many answers the server is at, as it says itself."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=30) as response:
        found = re.search(r"^byheart_open_answers (\S+)$", response.read().decode(), re.MULTILINE)
    assert found
    return int(float(found[1]))


def settle(address: str, process: psutil.Process) -> tuple[int, int]:
    """Return (open answers, open connections) once they are none, or after 10 s."""
    for _ in range(100):
        answers = open_answers(address)
        connections = [item for item in process.net_connections() if item.status != psutil.CONN_LISTEN]
        if not answers and not connections:
            break
        time.sleep(0.1)
    return answers, len(connections)


def run(address: str, process: psutil.Process, clients: int) -> int:
    host, port = address.removeprefix("http://").split(":")
    memory = []
    left = (0, 0)
    print("| clients gone | seconds | memory, MB | answers open | connections open | statuses |")
    print("|---|---|---|---|---|---|")
    for tenth in range(1, 11):
        started = time.perf_counter()
        seen = asyncio.run(leave_often(host, int(port), clients // 10))
        seconds = time.perf_counter() - started
        left = settle(address, process)
        memory.append(process.memory_info().rss / 1e6)
        statuses = ", ".join(f"{count} × {line.decode()[9:] or 'cut'}" for line, count in seen.items())
        gone = tenth * (clients // 10)
        print(f"| {gone:,} | {seconds:.1f} | {memory[-1]:.1f} | {left[0]} | {left[1]} | {statuses} |", flush=True)
    is_flat = memory[-1] <= GROWTH * memory[0]
    print(f"memory {'is flat' if is_flat else 'GROWS'}: {memory[0]:.1f} MB after a tenth, {memory[-1]:.1f} at the end")
    return 0 if is_flat and left == (0, 0) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clients", nargs="?", type=int, default=10_000)
    asked = parser.parse_args()
    server = subprocess.Popen([sys.executable, str(SERVER)], stdout=subprocess.PIPE, text=True)
    assert server.stdout
    try:
        where = server.stdout.readline().strip()
        sys.exit(run(where, psutil.Process(server.pid), asked.clients))
    finally:
        server.kill()
        server.wait()
