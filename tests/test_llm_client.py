from __future__ import annotations

import asyncio
import email.utils
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

import fake_llm_server as fake
from byheart.errors import TeacherError
from byheart.llm import Call, CallCache, Failed, Message, OpenAIChatModel, Timing
from byheart.progress import Progress

KEY = "sk-test-0123456789"


class Colour(pydantic.BaseModel):
    colour: str


class Clock:
    """Time passes only by waiting."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def timing(self) -> Timing:
        return Timing(sleep=self.sleep, clock=lambda: self.now, random=random.Random(0))


@pytest.fixture
def server() -> Iterator[fake.Server]:
    with fake.running(lambda body: json.dumps({"colour": body["messages"][-1]["content"]})) as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CallCache]:
    cache = CallCache(tmp_path / "calls.sqlite")
    yield cache
    cache.close()


def model(base_url: str, cache: CallCache, clock: Clock, **changes: Any) -> OpenAIChatModel:
    settings: dict[str, Any] = {
        "base_url": base_url,
        "model": "teacher-1",
        "api_key": KEY,
        "key_origin": "the environment variable SOME_KEY",
        "cache": cache,
        "notify": lambda event: None,
        "concurrency": 4,
        "timeout_s": 10.0,
        "max_retries": 3,
        "max_calls": 0,
        "timing": clock.timing(),
    }
    return OpenAIChatModel(**{**settings, **changes})


def call(text: str, seed: int = 0, temperature: float = 0.3) -> Call:
    return Call((Message("user", text),), temperature, seed)


def ask(model: OpenAIChatModel, *texts: str) -> list[Colour | Failed]:
    async def together() -> list[Colour | Failed]:
        async with model:
            return await asyncio.gather(*(model.ask(call(text), Colour) for text in texts))

    return asyncio.run(together())


def test_an_answer_comes_in_the_form_asked_for(server: fake.Server, cache: CallCache, clock: Clock) -> None:
    assert ask(model(server.base_url, cache, clock), "red") == [Colour(colour="red")]
    [body] = server.requests
    assert body["temperature"] == 0.3
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["colour"]
    assert server.keys == [f"Bearer {KEY}"]


def test_an_equal_call_is_answered_from_the_cache_in_a_later_run(
    server: fake.Server, tmp_path: Path, clock: Clock
) -> None:
    for _ in range(2):
        cache = CallCache(tmp_path / "calls.sqlite")
        assert ask(model(server.base_url, cache, clock), "red") == [Colour(colour="red")]
        cache.close()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "other",
    [call("blue"), call("red", seed=1), call("red", temperature=0.9), Call((Message("system", "red"),), 0.3)],
)
def test_a_call_that_differs_is_a_call_of_its_own(
    server: fake.Server, cache: CallCache, clock: Clock, other: Call
) -> None:
    async def both() -> None:
        async with model(server.base_url, cache, clock) as teacher:
            await teacher.ask(call("red"), Colour)
            await teacher.ask(other, Colour)

    asyncio.run(both())
    assert len(server.requests) == 2


def test_a_429_waits_as_long_as_the_server_says(server: fake.Server, cache: CallCache, clock: Clock) -> None:
    server.script.append(fake.status(429, headers={"Retry-After": "17"}))
    assert ask(model(server.base_url, cache, clock), "red") == [Colour(colour="red")]
    assert clock.waits == [17.0]


def test_a_pause_that_the_server_asks_for_holds_back_the_other_calls(
    server: fake.Server, cache: CallCache, clock: Clock
) -> None:
    server.script.append(fake.status(429, headers={"Retry-After": "17"}))
    ask(model(server.base_url, cache, clock, concurrency=1), "red", "blue")
    assert clock.now == 17.0


def test_a_retry_after_with_a_date_is_understood(server: fake.Server, cache: CallCache, clock: Clock) -> None:
    date = email.utils.formatdate(time.time() + 90, usegmt=True)
    server.script.append(fake.status(503, headers={"Retry-After": date}))
    ask(model(server.base_url, cache, clock), "red")
    assert 60 < clock.now <= 90


def test_a_server_that_asks_for_hours_stops_the_run_at_once(
    server: fake.Server, cache: CallCache, clock: Clock
) -> None:
    server.script.append(fake.status(429, "daily limit", headers={"Retry-After": "7200"}))
    with pytest.raises(TeacherError, match=r"takes no more calls: HTTP 429: .*daily limit"):
        ask(model(server.base_url, cache, clock), "red")
    assert clock.waits == []


@pytest.mark.parametrize(
    "step",
    [
        fake.status(500),
        fake.status(503),
        fake.cut,
        fake.junk("<html>busy</html>"),
        fake.junk({"choices": []}),
        fake.junk({"detail": "odd"}),
        fake.junk([1]),
    ],
    ids=["500", "503", "cut line", "not JSON", "no choices", "other object", "list"],
)
def test_a_fault_that_passes_is_tried_again_with_growing_waits(
    server: fake.Server, cache: CallCache, clock: Clock, step: fake.Step
) -> None:
    server.script.extend([step, step, step])
    assert ask(model(server.base_url, cache, clock), "red") == [Colour(colour="red")]
    assert len(server.requests) == 4
    assert clock.waits == sorted(clock.waits)
    assert 0.25 <= clock.waits[0] <= 0.5
    assert 1.0 <= clock.waits[2] <= 2.0


@pytest.mark.parametrize("slow", [fake.hold, fake.drip], ids=["silent", "dripping"])
def test_a_slow_answer_is_given_up_and_asked_again(
    server: fake.Server, cache: CallCache, clock: Clock, slow: Any
) -> None:
    released = threading.Event()
    server.script.append(slow(released))
    assert ask(model(server.base_url, cache, clock, timeout_s=0.15), "red") == [Colour(colour="red")]
    released.set()
    assert len(server.requests) == 2


def test_a_reply_that_is_not_json_is_asked_again_with_the_fault_shown(
    server: fake.Server, cache: CallCache, clock: Clock
) -> None:
    server.script.append(fake.says("Certainly! The colour is red."))
    server.script.append(fake.says('{"colour": 3}'))
    server.script.append(fake.says('{"colour": "red"}'))
    assert ask(model(server.base_url, cache, clock), "red") == [Colour(colour="red")]
    assert server.requests[1]["messages"][1] == {"role": "assistant", "content": "Certainly! The colour is red."}
    assert "no JSON object" in server.requests[1]["messages"][2]["content"]
    assert "colour: Input should be a valid string" in server.requests[2]["messages"][4]["content"]


def test_a_reply_that_never_becomes_json_fails_alone_and_is_not_paid_again(
    server: fake.Server, cache: CallCache, clock: Clock
) -> None:
    server.reply = lambda body: "no" if body["messages"][0]["content"] == "red" else '{"colour": "blue"}'
    for _ in range(2):
        failed, fine = ask(model(server.base_url, cache, clock), "red", "blue")
        assert isinstance(failed, Failed)
        assert failed.reason == "the teacher's reply is not the JSON asked for"
        assert fine == Colour(colour="blue")
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("refused", "sent"),
    [({"json_schema"}, ["json_schema", "json_object"]), ({"json_schema", "json_object"}, [None, None])],
)
def test_a_server_without_structured_output_is_asked_in_words_and_the_refusal_is_remembered(
    server: fake.Server, cache: CallCache, clock: Clock, refused: set[str], sent: list[str]
) -> None:
    server.refused_formats = refused
    server.reply = lambda body: 'Here:\n```json\n{"colour": "red"}\n```'
    told: list[Progress] = []
    teacher = model(server.base_url, cache, clock, notify=told.append, concurrency=1)
    assert ask(teacher, "red", "blue") == [Colour(colour="red")] * 2
    assert len(server.requests) == 2 + len(refused)  # the second call begins where the first ended
    last = server.requests[-1]
    assert last.get("response_format", {}).get("type") == ("json_object" if len(refused) == 1 else None)
    assert '"colour"' in last["messages"][-1]["content"]
    [event] = told
    assert "does not take json_" in event.message


def test_a_call_that_no_format_mends_fails_alone_and_changes_nothing_for_the_others(
    server: fake.Server, cache: CallCache, clock: Clock
) -> None:
    server.script.append(fake.status(400, "This model's maximum context length is 4096 tokens"))
    failed, fine = ask(model(server.base_url, cache, clock, concurrency=1), "red", "blue")
    assert isinstance(failed, Failed)
    assert "maximum context length" in failed.evidence
    assert fine == Colour(colour="blue")
    assert server.requests[-1]["response_format"]["type"] == "json_schema"
    assert len(server.requests) == 2


def test_a_server_that_knows_no_seed_is_asked_without(server: fake.Server, cache: CallCache, clock: Clock) -> None:
    server.script.append(fake.status(422, "extra field not permitted: seed"))
    assert ask(model(server.base_url, cache, clock, concurrency=1), "red", "blue")[1] == Colour(colour="blue")
    assert ["seed" in body for body in server.requests] == [True, False, False]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (fake.status(401, f"Incorrect key {KEY}"), ["refused the key", "SOME_KEY", "Set a valid one|Set a valid key"]),
        (fake.status(404, "The model teacher-1 does not exist"), ["teacher-1", "does not exist", "synthesize.model"]),
        (fake.status(429, "pay first", error_code="insufficient_quota"), ["pay first", "quota"]),
        (fake.status(400, "Unsupported value: temperature does not support 0.3"), ["synthesize.temperatures"]),
    ],
    ids=["key", "model", "quota", "temperature"],
)
def test_what_no_call_survives_stops_the_run_with_the_way_out(
    server: fake.Server, cache: CallCache, clock: Clock, step: fake.Step, words: list[str]
) -> None:
    server.script.append(step)
    with pytest.raises(TeacherError) as stopped:
        ask(model(server.base_url, cache, clock, concurrency=1), "red", "blue")
    assert len(server.requests) == 1
    assert KEY not in str(stopped.value)
    for word in words:
        assert any(part in str(stopped.value) for part in word.split("|"))


def test_an_address_where_nobody_listens_is_known_within_three_tries(cache: CallCache, clock: Clock) -> None:
    with pytest.raises(TeacherError, match=r"http://127.0.0.1:9/v1 cannot be reached.*synthesize.base_url"):
        ask(model("http://127.0.0.1:9/v1", cache, clock, max_retries=50), "red")
    assert len(clock.waits) == 2


def test_an_address_that_is_none_is_refused_before_any_call(cache: CallCache, clock: Clock) -> None:
    for address in ("", "localhost:8000", "ftp://host/v1", "http://[bad", "http://host:99999/v1"):
        with pytest.raises(TeacherError, match=r"synthesize\.base_url"):
            model(address, cache, clock)


def test_one_page_that_always_fails_is_a_record_while_the_others_are_answered(
    server: fake.Server, cache: CallCache, clock: Clock
) -> None:
    teacher = model(server.base_url, cache, clock, concurrency=1, max_retries=2)
    ask(teacher, "red")
    server.script.extend([fake.status(500, "crash")] * 3)
    failed, fine = ask(teacher, "blue", "green")
    assert isinstance(failed, Failed)
    assert "3 tries" in failed.evidence
    assert fine == Colour(colour="green")


def test_a_server_that_dies_stops_the_run_instead_of_failing_every_page(
    server: fake.Server, cache: CallCache, clock: Clock
) -> None:
    teacher = model(server.base_url, cache, clock, concurrency=1, max_retries=1)
    ask(teacher, "red")
    server.script.extend([fake.status(500, "crash")] * 100)
    with pytest.raises(TeacherError, match=r"stopped answering.*run again"):
        ask(teacher, *(f"page {number}" for number in range(20)))
    assert len(server.requests) == 1 + 3 * 2


def test_the_budget_counts_paid_calls_and_neither_refused_nor_cached_ones(
    server: fake.Server, cache: CallCache, clock: Clock
) -> None:
    server.script.append(fake.status(429))
    teacher = model(server.base_url, cache, clock, concurrency=1, max_calls=2)
    ask(teacher, "red", "red", "blue")
    with pytest.raises(TeacherError, match=r"synthesize\.max_calls is 2.*run again"):
        ask(teacher, "green")
    assert len(server.requests) == 3


def test_no_more_calls_are_in_flight_than_allowed(server: fake.Server, cache: CallCache, clock: Clock) -> None:
    flying, most, lock, full = 0, 0, threading.Lock(), threading.Barrier(3)

    def reply(body: dict[str, Any]) -> str:
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        full.wait(10)  # passes only when three calls are here at once
        with lock:
            flying -= 1
        return '{"colour": "red"}'

    server.reply = reply
    ask(model(server.base_url, cache, clock, concurrency=3), *(str(number) for number in range(9)))
    assert most == 3


def test_half_a_surrogate_pair_from_the_server_can_be_kept(server: fake.Server, cache: CallCache, clock: Clock) -> None:
    server.script.append(fake.says('{"colour": "re\ud800d"}'))
    assert ask(model(server.base_url, cache, clock), "red") == [Colour(colour="re?d")]


PROGRAM = """
import asyncio, sys
from pathlib import Path
import pydantic
from byheart.llm import Call, CallCache, Message, OpenAIChatModel

class Colour(pydantic.BaseModel):
    colour: str

async def main():
    model = OpenAIChatModel(
        base_url=sys.argv[1], model="m", api_key="none", key_origin="nowhere", cache=CallCache(Path(sys.argv[2])),
        notify=print, concurrency=2, timeout_s=60, max_retries=2, max_calls=0,
    )
    async with model:
        calls = [Call((Message("user", f"page {n}"),), 0.0) for n in range(12)]
        print(len(await asyncio.gather(*(model.ask(call, Colour) for call in calls))))

asyncio.run(main())
"""


def test_a_kill_repeats_no_call_that_was_answered(server: fake.Server, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, server.base_url, str(tmp_path / "calls.sqlite")]
    never = threading.Event()
    server.script.extend([fake.says('{"colour": "red"}')] * 5 + [fake.hold(never)] * 2)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as first:
        # Two calls at once: when the seventh is seen, five were answered and have left their slots.
        reached = server.wait_for(7)
        os.kill(first.pid, signal.SIGKILL)
        assert reached, first.stderr and first.stderr.read()
    server.script.clear()
    never.set()
    before = {body["messages"][0]["content"] for body in server.requests}
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert second.stdout.strip() == "12"
    again = {body["messages"][0]["content"] for body in server.requests[7:]}
    assert len(server.requests) == 7 + 12 - 5
    assert len(before & again) == 2  # only the two in flight
