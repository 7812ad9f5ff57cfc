"""What the server adds to its engine: 200 people at once, and the starter's questions a second through HTTP.

    python bench/bench_serve.py [--bot my-bot --questions questions.jsonl]

A real server in a process of its own, asked over loopback; this process asks, so it takes its share of the cores. First
an engine that waits two seconds and says 120 words: no word may be lost, no request may fail, and the overhead is what
a streamed answer took beyond the same engine without HTTP, asked by as many at once. Once with people who come at any
moment, once with all of them in the same instant. Then, with --bot, the trained bot: questions a second with eight
people who ask without a pause, through HTTP and (before and after, in the server's own process) without.
On a busy machine the server's CPU time an answer tells more than any of these.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from byheart.answer.base import Answer, Answerer, AsyncAnswerer, Turn
from byheart.records import Citation
from byheart.serve.api import create_app
from byheart.serve.database import open_database
from byheart.serve.engine import Engine
from byheart.serve.gate import GateRules
from byheart.serve.server import serve
from byheart.store import RunFolder

USERS = 200
QUESTIONS_EACH = 3
ENGINE_S = 2.0
WORDS = " ".join(f"word{number}" for number in range(120))
BOT_USERS = 8
BOT_S = 8.0
LIMITS = {"max_words": 150, "max_citations": 3}

Ask = Callable[[str], Awaitable[bytes | str]]  # a question's answer: over HTTP the response, read when all have theirs


class NullEngine:
    """Waits, as an engine on other hardware makes the server wait, and knows one answer."""

    async def answer_async(self, _question: str, _history: Sequence[Turn] = ()) -> Answer:
        await asyncio.sleep(ENGINE_S)
        return Answer(WORDS, (Citation("Page", "Page › Part", "page.md#part", 0.9, "s"),), 0.9, abstained=False)


async def people(ask: Ask, *, spread_s: float) -> list[float]:
    """Let USERS people ask QUESTIONS_EACH in turn, and return how long each answer took, in seconds."""
    chance = random.Random(0)

    async def person(begin_s: float) -> list[tuple[float, bytes | str]]:
        await asyncio.sleep(begin_s)
        answers = []
        for number in range(QUESTIONS_EACH):
            started = time.perf_counter()
            answer = await ask(f"Question {number}?")
            answers.append((time.perf_counter() - started, answer))
        return answers

    everyone = await asyncio.gather(*(person(chance.uniform(0.0, spread_s)) for _ in range(USERS)))
    for _, answer in itertools.chain(*everyone):
        if text_of(answer) != WORDS:
            raise RuntimeError(f"words were lost: {answer!r}")
    return [seconds for seconds, _ in itertools.chain(*everyone)]


async def rate(ask: Ask, questions: Sequence[str]) -> tuple[int, float]:
    """Let BOT_USERS ask without a pause for BOT_S; return how many questions were answered, in how many seconds."""
    started, answers = time.perf_counter(), []

    async def person(first: int) -> None:
        number = first
        while time.perf_counter() - started < BOT_S:
            answers.append(await ask(questions[number % len(questions)]))
            number += BOT_USERS

    await asyncio.gather(*(person(first) for first in range(BOT_USERS)))
    took_s = time.perf_counter() - started
    for answer in answers:
        text_of(answer)
    return len(answers), took_s


def over_http(address: str) -> Ask:
    """Return who asks for a stream on a connection of its own, and waits for its end."""
    url = urllib.parse.urlsplit(address)

    async def ask(question: str) -> bytes:
        body = json.dumps({"stream": True, "messages": [{"role": "user", "content": question}]}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(head.encode() + body)
        received = await reader.read()
        writer.close()
        return received

    return ask


def text_of(received: bytes | str) -> str:
    """Return a streamed answer's text. Raises RuntimeError where the response fails, or does not end as it should."""
    if isinstance(received, str):
        return received
    head, _, rest = received.partition(b"\r\n\r\n")
    stream = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        stream, rest = stream + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    events = [line.removeprefix("data: ") for line in stream.decode().split("\n\n") if line.startswith("data: ")]
    if not head.startswith(b"HTTP/1.1 200") or not events or events[-1] != "[DONE]":
        raise RuntimeError(f"a request failed: {received[:300]!r}")
    choices = [choice for line in events[:-1] for choice in json.loads(line)["choices"]]
    if choices[-1]["finish_reason"] != "stop":
        raise RuntimeError(f"the stream ends with {choices[-1]!r}")
    return "".join(choice["delta"].get("content", "") for choice in choices)


def without_http(engine: Engine) -> Ask:
    async def ask(question: str) -> str:
        return (await engine.submit(question, ())).text

    return ask


def run_server(bot: Path | None, questions: Sequence[str]) -> None:
    """Measure without HTTP, serve until told to end, measure once more; each says one line of JSON."""
    answerer: Answerer | AsyncAnswerer = NullEngine()
    if bot:
        from byheart.answer.bot import load

        answerer = load(RunFolder(bot / "run"), system="byheart", **LIMITS)
    workers = 4 if bot else USERS

    def directly() -> None:
        ask, before = without_http(Engine(answerer, workers=workers)), time.process_time()
        found = asyncio.run(rate(ask, questions)) if bot else asyncio.run(people(ask, spread_s=ENGINE_S))
        say((found, time.process_time() - before))

    directly()
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(
            answerer, model_name="bot", title="Bot", suggestions=(), workers=workers,
            database=open_database("", folder=Path(folder)), rules=GateRules(requests_per_minute=1_000_000),
        )  # fmt: skip
        before = time.process_time()
        serve(app, host="127.0.0.1", port=0, ready=say)
        say(time.process_time() - before)
    directly()


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


@contextlib.contextmanager
def server(arguments: Sequence[str]) -> Iterator[tuple[IO[str], Callable[[], None]]]:
    command = [sys.executable, __file__, "--as-server", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout, lambda: process.send_signal(signal.SIGINT)
        finally:
            process.kill()


def show(name: str, took: Sequence[float], *, without_s: float) -> None:
    over = sorted(1000 * (seconds - without_s) for seconds in took)
    p50, p95 = statistics.median(over), statistics.quantiles(over, n=20)[-1]
    print(
        f"{USERS} people, {name:24} {len(took)} answers, none failed; overhead p50 {p50:6.1f} ms, p95 {p95:6.1f} ms",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bot", type=Path)
    parser.add_argument("--questions", type=Path)
    parser.add_argument("--as-server", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    lines = given.questions.read_text(encoding="utf-8").splitlines() if given.questions else []
    questions = [json.loads(line)["question"] for line in lines if line.strip()]
    if given.bot and not questions:
        parser.error("--bot needs --questions")
    if given.as_server:
        run_server(given.bot, questions)
        return
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}", flush=True)
    with server([]) as (said, stop):
        alone, _ = json.loads(said.readline())
        ask, without_s = over_http(json.loads(said.readline())), statistics.median(alone)
        show("without HTTP", alone, without_s=without_s)
        show("who come at any moment", asyncio.run(people(ask, spread_s=ENGINE_S)), without_s=without_s)
        show("all in one instant", asyncio.run(people(ask, spread_s=0.0)), without_s=without_s)
        stop()
        answers = 2 * USERS * QUESTIONS_EACH
        print(f"the server's CPU time: {1000 * json.loads(said.readline()) / answers:.1f} ms an answer", flush=True)
    if given.bot:
        compare(["--bot", str(given.bot), "--questions", str(given.questions)], questions)


def compare(arguments: Sequence[str], questions: Sequence[str]) -> None:
    with server(arguments) as (said, stop):
        before = json.loads(said.readline())
        done, took_s = asyncio.run(rate(over_http(json.loads(said.readline())), questions))
        stop()
        cpu_s = json.loads(said.readline())
        direct = (before, json.loads(said.readline()))
    limit = statistics.mean(count / seconds for (count, seconds), _ in direct)
    least_s = sum(cpu for _, cpu in direct) / sum(count for (count, _), _ in direct)
    print(f"the bot: {done / took_s:.1f} questions/s through HTTP, {limit:.1f} without ({done / took_s / limit:.0%})")
    print(f"CPU time a question: {1000 * cpu_s / done:.1f} ms through HTTP, {1000 * least_s:.1f} without")


if __name__ == "__main__":
    main()
