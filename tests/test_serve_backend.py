"""Engines behind the server: an OpenAI-compatible server at an address, or a program that the server starts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import fake_llm_server
from byheart.answer.generated import GeneratedAnswerer, RemoteWriter
from byheart.answer.grounds import Grounds
from byheart.errors import EngineError
from byheart.llm import StreamedModel
from byheart.serve import backend
from byheart.serve.pulse import Pulse
from fake_llm_server import dies, endless, hold, status
from serving import PROCESS_S, Bot, client_of, make_app, running, wait_until
from toy_manual import PAGES, FakeEncoder, index_of

QUESTION = "How long does a deleted board stay in the bin?"
TRUE = "A deleted board stays in the bin for 30 days."


@pytest.fixture
def engine() -> Iterator[fake_llm_server.Server]:
    with fake_llm_server.running(lambda body: TRUE) as server:
        yield server


@contextlib.contextmanager
def gateway(
    engine: fake_llm_server.Server, *, time_limit_s: float = 20.0, limit_s: float = 10.0, kept_s: float = 1.0,
    **changes: Any,
) -> Iterator[httpx.Client]:  # fmt: skip
    grounds = Grounds(
        index=index_of(PAGES), encoder=FakeEncoder(), calibration=None, max_words=60, max_citations=2, **changes
    )
    model = StreamedModel(base_url=engine.base_url, model="m", api_key="secret-engine-key", silence_s=10.0)
    writer = RemoteWriter(model, most_tokens=grounds.most_tokens)
    pulse = Pulse(model, limit_s=limit_s, kept_s=kept_s)
    app = make_app(GeneratedAnswerer(writer=writer, grounds=grounds), time_limit_s=time_limit_s, pulse=pulse)  # type: ignore[arg-type]  # it takes both kinds of answerers
    with running(app) as address, client_of(address) as client:
        yield client


def ask(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": QUESTION}]} | fields)


def events(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_what_the_engine_writes_is_given_with_its_receipt(engine: fake_llm_server.Server) -> None:
    with gateway(engine) as client:
        reply = ask(client).json()
        streamed = events(ask(client, stream=True))
    assert reply["choices"][0]["message"]["content"] == TRUE
    assert reply["byheart"]["receipts"] == [{"text": TRUE, "url": "boards.md#delete-a-board"}]
    assert reply["byheart"]["citations"][0]["url"] == "boards.md#delete-a-board"
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in streamed[:-1]) == TRUE
    sent = engine.requests[0]
    assert (sent["temperature"], sent["stream"], sent["max_tokens"]) == (0, True, 120)
    assert sent["messages"] == [{"role": "user", "content": QUESTION}]
    assert engine.keys[0] == "Bearer secret-engine-key"


def test_an_invention_is_not_given_and_passages_are_read_where_that_is_wanted(engine: fake_llm_server.Server) -> None:
    engine.reply = lambda body: "Support restores it for 99 dollars."
    with gateway(engine, unsupported="abstain", grounding="retrieve") as client:
        reply = ask(client).json()
    assert reply["byheart"]["abstained"] is True
    assert "99" not in reply["choices"][0]["message"]["content"]
    assert TRUE in engine.requests[0]["messages"][-1]["content"]


@pytest.mark.parametrize("streamed", [False, True])
def test_an_engine_that_dies_in_mid_answer_is_told_as_an_error_and_nothing_of_it_is_shown(
    engine: fake_llm_server.Server, streamed: bool
) -> None:
    engine.script.extend([dies("A deleted board stays"), dies("A deleted")])
    with gateway(engine) as client:
        response = ask(client, stream=streamed)
        if streamed:
            *_, error, done = events(response)
            assert done == "[DONE]"
        else:
            assert response.status_code == 503
            error = response.json()
        assert error["error"]["code"] == "engine_unavailable"
        assert "deleted board" not in response.text
        assert "127.0.0.1" not in response.text  # where the engine is, is nobody's business
        assert ask(client).status_code == 200


def test_a_fault_that_passes_is_tried_again_once(engine: fake_llm_server.Server) -> None:
    with gateway(engine) as client:
        for first in (status(500), status(429, headers={"retry-after": "0"}), dies("A")):
            engine.script.append(first)
            assert ask(client).status_code == 200
        engine.script.append(status(429, headers={"retry-after": "60"}))
        assert ask(client).status_code == 503
        engine.script.append(status(400))
        assert ask(client).status_code == 503
    assert len(engine.requests) == 8


def test_a_slow_engine_meets_the_time_limit(engine: fake_llm_server.Server) -> None:
    until = threading.Event()
    engine.script.append(hold(until))
    with gateway(engine, time_limit_s=0.3) as client:
        assert ask(client).json()["error"]["code"] == "timeout"
        until.set()
        assert client.get("/ready").json()["engine"] == "ok"


def test_ready_tells_that_the_engine_is_gone_and_that_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.ExitStack() as first:
        engine = first.enter_context(fake_llm_server.running(lambda body: TRUE))
        with gateway(engine, kept_s=0.0) as client:
            assert client.get("/ready").json() == {"ready": True, "engine": "ok", "storage": "none"}
            engine.models = ["another"]
            assert client.get("/ready").json()["engine"] == "unreachable"
            engine.models = ["m"]
            assert client.get("/ready").status_code == 200
            first.close()
            gone = [client.get("/ready") for _ in range(3)]
            assert {response.status_code for response in gone} == {503}
            assert gone[0].json() == {"ready": False, "engine": "unreachable", "storage": "none"}
    told = [record.message for record in caplog.records]
    assert told[:2] == [
        "the engine cannot be reached: it has no model 'm' any more",
        "the engine answers again",
    ]
    assert len(told) == 3  # an outage once, however many ask


def engine_figures(client: httpx.Client) -> dict[str, float]:
    found = re.findall(r"^byheart_engine_(\w+) (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_figures_tell_whether_the_engine_is_up(engine: fake_llm_server.Server) -> None:
    with gateway(engine, kept_s=0.0) as client:
        assert engine_figures(client) == {"up": 1.0, "restarts": 0.0}
        engine.models = ["another"]
        assert engine_figures(client) == {"up": 0.0, "restarts": 0.0}
        engine.models = ["m"]
        assert engine_figures(client) == {"up": 1.0, "restarts": 0.0}
    with running(make_app(Bot())) as address, client_of(address) as client:
        assert engine_figures(client) == {"up": 1.0, "restarts": 0.0}  # the model is in this process


def test_ready_does_not_wait_for_an_engine_that_hangs_and_many_probes_are_one(engine: fake_llm_server.Server) -> None:
    until = threading.Event()
    engine.on_list = lambda: until.wait(30)
    with gateway(engine, limit_s=0.1, kept_s=60.0) as client:
        assert client.get("/ready").json()["engine"] == "unreachable"
        until.set()
        assert {client.get("/ready").status_code for _ in range(20)} == {503}
    assert len(engine.keys) == 1


def test_a_client_that_leaves_ends_the_work_of_the_engine(engine: fake_llm_server.Server) -> None:
    ended = threading.Event()
    engine.script.append(endless(ended))
    with gateway(engine) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": QUESTION}]}, timeout=0.5)
        assert ended.wait(10)


def test_the_engine_at_an_address_is_found_or_the_way_to_it_told(engine: fake_llm_server.Server) -> None:
    assert backend.find(base_url=engine.base_url, model="", api_key="").model == "m"
    engine.models = ["a", "b"]
    with pytest.raises(EngineError, match=r"several models.*engine_model to one of: a, b"):
        backend.find(base_url=engine.base_url, model="", api_key="")
    with pytest.raises(EngineError, match="no model 'c'"):
        backend.find(base_url=engine.base_url, model="c", api_key="")
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9"):
        backend.find(base_url="http://127.0.0.1:9/v1", model="c", api_key="")


PROGRAM = f"""#!{sys.executable}
import http.server, json, os, sys, time
def value(flag): return sys.argv[sys.argv.index(flag) + 1]
if "--fail" in sys.argv:
    print("no such model"); sys.exit(3)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            print("out of memory", flush=True); os._exit(7)
        ok = self.headers.get("Authorization") == "Bearer " + os.environ["LLAMA_API_KEY"]
        body = json.dumps({{"object": "list", "data": [{{"id": value("--alias"), "object": "model", "created": 0,
                            "owned_by": "x"}}]}}).encode()
        self.send_response(200 if ok else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.HTTPServer((value("--host"), int(value("--port"))), Handler).serve_forever()
"""


@pytest.fixture
def llama_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program of this name in the way, which is none of llama.cpp's."""
    program = tmp_path / "llama-server"
    program.write_text(PROGRAM)
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    return tmp_path


def test_a_started_engine_listens_on_loopback_asks_for_our_key_and_ends_with_us(llama_server: Path) -> None:
    command = backend.llama_command(llama_server / "model.gguf")
    with backend.started(command, log=llama_server / "log", start_s=30) as found, httpx.Client(trust_env=False) as http:
        assert found.base_url.startswith("http://127.0.0.1:")
        assert http.get(f"{found.base_url}/models").status_code == 401
        named = http.get(f"{found.base_url}/models", headers={"authorization": f"Bearer {found.api_key}"}).json()
        assert named["data"][0]["id"] == found.model
        assert found.api_key not in " ".join(command)
    with httpx.Client(trust_env=False) as http, pytest.raises(httpx.ConnectError):
        http.get(f"{found.base_url}/models")


def test_an_engine_that_dies_is_started_again_at_its_address_but_not_for_ever(
    llama_server: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backend, "RESTARTS_S", (0.0,))
    command, log = backend.llama_command(llama_server / "model.gguf"), llama_server / "log"
    with backend.started(command, log=log, start_s=30) as found, httpx.Client(trust_env=False) as http:

        def names() -> Any:
            headers = {"authorization": f"Bearer {found.api_key}"}
            with contextlib.suppress(httpx.TransportError):
                return http.get(f"{found.base_url}/models", headers=headers).json()["data"][0]["id"]

        for then in ("it is started again in 0 s", "it is not started again"):
            wait_until(lambda: names() == found.model, PROCESS_S)
            with pytest.raises(httpx.TransportError):
                http.get(f"{found.base_url.removesuffix('/v1')}/die")
            wait_until(lambda then=then: then in caplog.text)
    assert [record.message for record in caplog.records] == [
        f"the engine ended with code 7: out of memory (all: {log}); it is started again in 0 s",
        f"the engine ended with code 7: out of memory (all: {log}); it is not started again",
    ]
    model = StreamedModel(base_url=found.base_url, model=found.model, api_key=found.api_key, silence_s=1.0)
    with running(make_app(Bot(), pulse=Pulse(model, restarts=found.restarts))) as address, client_of(address) as client:
        assert engine_figures(client) == {"up": 0.0, "restarts": 1.0}


def test_an_engine_whose_program_has_gone_meanwhile_is_not_started_again(
    llama_server: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backend, "RESTARTS_S", (0.0,))
    command = backend.llama_command(llama_server / "model.gguf")
    with backend.started(command, log=llama_server / "log", start_s=30) as found, httpx.Client(trust_env=False) as http:
        (llama_server / "llama-server").unlink()
        with pytest.raises(httpx.TransportError):
            http.get(f"{found.base_url.removesuffix('/v1')}/die")
        wait_until(lambda: "the engine could not be started again: " in caplog.text)


def test_an_engine_that_does_not_start_says_why(llama_server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = backend.llama_command(llama_server / "model.gguf")
    with (
        pytest.raises(EngineError, match="ended with code 3: no such model"),
        backend.started([*command, "--fail"], log=llama_server / "log", start_s=30),
    ):
        pass
    with pytest.raises(EngineError, match=r"other\.gguf is not there"):
        backend.llama_command(llama_server / "other.gguf")
    monkeypatch.setenv("PATH", "")
    with (
        pytest.raises(EngineError, match=r"no program vllm on this machine.*pip install vllm"),
        backend.started(["vllm"], log=llama_server / "log", start_s=1),
    ):
        pass


def test_vllm_is_told_of_the_adapter_by_name_and_of_the_form_that_was_learned(tmp_path: Path) -> None:
    command = backend.vllm_command("openchat", adapter=tmp_path, rank=24, template=tmp_path / "form.jinja")
    text = " ".join(command)
    assert text.startswith("vllm serve openchat --served-model-name byheart-base --enable-lora --max-lora-rank 32")
    assert f"--lora-modules byheart={tmp_path} --chat-template {tmp_path / 'form.jinja'}" in text
