"""How streams end, whatever happens; embeddings, readiness and figures."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from byheart.answer.base import Answer, Turn
from byheart.serve import completions
from byheart.serve.completions import Watch, read_call
from byheart.serve.schemas import ChatRequest
from byheart.serve.server import PatientProtocol
from byheart.serve.streams import DONE, KEEP_ALIVE
from serving import ANSWER, QUESTION, Bot, client_of, make_app, running, wait_until

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}], "stream": True}


def events_of(text: str) -> list[str]:
    return [part.removeprefix("data: ") for part in text.strip().split("\n\n") if not part.startswith(":")]


class Patient:
    """Holds no thread; answers once `release` is set, or never."""

    def __init__(self) -> None:
        self.running = 0
        self.release = threading.Event()

    async def answer_async(self, question: str, history: Sequence[Turn] = ()) -> Answer:
        self.running += 1
        try:
            while not self.release.is_set():
                await asyncio.sleep(0.005)
            return ANSWER
        finally:
            self.running -= 1


def test_a_time_limit_ends_stream_and_body_with_an_error_that_says_so() -> None:
    bot = Patient()
    with running(make_app(bot, time_limit_s=0.2)) as address, client_of(address) as client:
        events = events_of(client.post("/v1/chat/completions", json=BODY).text)
        assert json.loads(events[-2])["error"]["code"] == "timeout"
        assert events[-1] == "[DONE]"
        whole = client.post("/v1/chat/completions", json={**BODY, "stream": False})
        assert (whole.status_code, whole.json()["error"]["code"]) == (504, "timeout")
        wait_until(lambda: bot.running == 0)


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_stops_the_work_behind_it(streamed: bool) -> None:
    bot = Patient()
    with running(make_app(bot, workers=1, waiting=0)) as address, client_of(address) as client:
        host, _, port = address.removeprefix("http://").partition(":")
        for _ in range(20):
            body = json.dumps({**BODY, "stream": streamed})
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
                connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
                wait_until(lambda: bot.running == 1)
            wait_until(lambda: bot.running == 0)
        bot.release.set()
        wait_until(lambda: client.post("/v1/chat/completions", json=BODY).status_code == 200)


def test_a_server_told_to_stop_ends_its_streams_with_an_error() -> None:
    program = (
        "from test_serve_streams import *\nfrom byheart.serve import server\nserver.GRACE_S = 0.3\n"
        "server.serve(make_app(Patient()), host='127.0.0.1', port=0, ready=lambda address: print(address, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    with client_of(address) as client, client.stream("POST", "/v1/chat/completions", json=BODY) as response:
        lines = response.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        events = [line.removeprefix("data: ") for line in lines if line]
    assert json.loads(events[-2])["error"]["code"] == "shutting_down"
    assert events[-1] == "[DONE]"
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM  # what a supervisor that sent it expects


def test_a_process_that_serves_spares_what_is_loaded_from_the_garbage_collection() -> None:
    program = (
        "import gc, os, signal\nfrom serving import Bot, make_app\nfrom byheart.serve.server import serve\n"
        "def ready(address): print(gc.get_freeze_count()); os.kill(os.getpid(), signal.SIGINT)\n"
        "serve(make_app(Bot()), host='127.0.0.1', port=0, ready=ready)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) > 10_000


def test_nothing_is_left_of_a_connection_that_has_ended() -> None:
    def is_left() -> bool:
        gc.collect()
        # type, not isinstance: deprecated objects of other packages warn when they are asked for their class.
        return any(issubclass(type(item), PatientProtocol) for item in gc.get_objects())

    with running(make_app(Bot())) as address:
        for _ in range(3):
            assert httpx.get(f"{address}/health", trust_env=False).status_code == 200
        wait_until(lambda: not is_left())


async def _stream(pending: asyncio.Future[Answer], **changes: Any) -> AsyncIterator[str]:
    request = ChatRequest.model_validate(BODY)
    call = read_call(request, model="example-bot", accepted_models=frozenset())
    values: dict[str, Any] = {
        "time_limit_s": 5.0,
        "on_answer": lambda *_: None,
        "on_failure": lambda _: None,
        "follow_ups": lambda _: (),
    }
    async with contextlib.aclosing(completions.stream(call, pending, Watch(**(values | changes)))) as parts:
        async for part in parts:
            yield part


def test_a_long_wait_is_filled_with_comments_that_clients_skip() -> None:
    async def scenario() -> list[str]:
        pending: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.2, pending.set_result, ANSWER)
        return [part async for part in _stream(pending, keep_alive_s=0.05)]

    parts = asyncio.run(scenario())
    assert parts.count(KEEP_ALIVE) >= 2
    assert parts[-1].endswith(DONE)
    texts = [json.loads(item)["choices"][0]["delta"].get("content", "") for item in events_of("".join(parts))[:-1]]
    assert "".join(texts) == ANSWER.text


def test_an_engine_that_drops_a_question_is_told_as_an_error() -> None:
    async def scenario() -> list[str]:
        pending: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        pending.cancel()
        return [part async for part in _stream(pending)]

    last, done = events_of("".join(asyncio.run(scenario())))[-2:]
    assert json.loads(last)["error"]["type"] == "server_error"
    assert done == "[DONE]"


def test_what_was_asked_does_not_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with running(make_app(Bot())) as address, client_of(address) as client:
        messages = [{"role": "user", "content": "my password is hunter2"}, {"role": "user", "content": "fail"}]
        assert client.post("/v1/chat/completions", json={"messages": messages}).status_code == 500
    assert "the bot failed to answer" in caplog.text
    assert "hunter2" not in caplog.text


def test_the_openai_client_gets_embeddings_as_numbers_and_packed() -> None:
    with running(make_app(Bot())) as address, httpx.Client(trust_env=False) as http:
        sdk = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, http_client=http)
        packed = sdk.embeddings.create(model="byheart", input=["one", "three"])  # the client asks for base64
        assert [item.embedding for item in packed.data] == [[1.0, 0.0, 3.0], [1.0, 0.0, 5.0]]
        assert packed.usage.prompt_tokens == 2
        plain = sdk.embeddings.create(model="byheart", input="one", encoding_format="float", dimensions=3)
        assert plain.data[0].embedding == [1.0, 0.0, 3.0]
        refused: Any
        for refused in ({"dimensions": 2}, {"input": [[1, 2]]}, {"input": []}, {"input": ["x"] * 257}, {"input": ""}):
            with pytest.raises(openai.BadRequestError):
                sdk.embeddings.create(**({"model": "byheart", "input": "one"} | refused))
        with pytest.raises(openai.NotFoundError):
            sdk.embeddings.create(model="text-embedding-3-small", input="one")


def test_a_bot_without_an_encoder_has_no_embeddings() -> None:
    with running(make_app(Patient())) as address, client_of(address) as client:
        response = client.post("/v1/embeddings", json={"model": "byheart", "input": "one"})
        assert response.status_code == 404


def test_readiness_follows_the_queue_and_the_figures_count_what_happened() -> None:
    bot = Patient()
    with running(make_app(bot, workers=1, waiting=0)) as address, client_of(address) as client:
        assert client.get("/ready").json() == {"ready": True, "engine": "ok", "storage": "none"}
        asking = threading.Thread(target=lambda: client.post("/v1/chat/completions", json=BODY))
        asking.start()
        wait_until(lambda: bot.running == 1)
        full = client.get("/ready")
        assert (full.status_code, full.json()["engine"]) == (503, "full")
        assert "byheart_open_answers 1.0" in client.get("/metrics").text
        bot.release.set()
        asking.join(10)
        client.get("/no/such/page")
        figures = client.get("/metrics").text
        assert 'byheart_answers_total{outcome="answered"} 1.0' in figures
        assert 'byheart_requests_total{route="/v1/chat/completions",status="200"} 1.0' in figures
        assert 'byheart_requests_total{route="other",status="404"} 1.0' in figures
        assert "no/such/page" not in figures
