from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from byheart.errors import ByheartError
from byheart.serve.limits import MAX_BODY_BYTES
from byheart.serve.server import listen
from serving import ANSWER, QUESTION, Bot, client_of, make_app, running


@pytest.fixture(scope="module")
def bot() -> Bot:
    return Bot()


@pytest.fixture(scope="module")
def address(bot: Bot) -> Iterator[str]:
    with running(make_app(bot)) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with client_of(address) as client:
        yield client


@pytest.fixture
def sdk(address: str) -> Iterator[openai.OpenAI]:
    http = httpx.Client(trust_env=False)
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, http_client=http) as sdk:
        yield sdk


def ask(client: httpx.Client, **fields: Any) -> httpx.Response:
    body = {"model": "example-bot", "messages": [{"role": "user", "content": QUESTION}]} | fields
    return client.post("/v1/chat/completions", json=body)


def error_of(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"])


def test_the_openai_client_gets_answer_citations_and_usage(sdk: openai.OpenAI) -> None:
    reply = sdk.chat.completions.create(model="example-bot", messages=[{"role": "user", "content": QUESTION}])
    assert reply.object == "chat.completion"
    assert reply.model == "example-bot"
    assert reply.choices[0].message.content == ANSWER.text
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (7, 7 + reply.usage.completion_tokens)
    assert reply.model_extra == {
        "byheart": {
            "citations": [
                {"title": "Cards", "heading": "Cards › Move a card", "url": "cards/move.md#move-a-card", "score": 0.91},
                {"title": "Boards", "heading": "Boards", "url": "https://help.example.com/boards", "score": 0.5},
            ],
            "receipts": [],
            "abstained": False,
            "confidence": 0.9,
            "intent": "",
            "escalate": False,
            "follow_ups": [],
        }
    }


def test_the_openai_client_streams_the_same_answer_in_pieces(sdk: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": QUESTION}]
    stream = sdk.chat.completions.create(
        model="byheart", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == ANSWER.text
    assert len([text for text in texts if text]) > 5
    last = chunks[-2]
    assert last.choices[0].finish_reason == "stop"
    assert last.model_extra is not None
    assert last.model_extra["byheart"]["citations"][0]["url"] == "cards/move.md#move-a-card"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 7
    assert len({chunk.id for chunk in chunks}) == 1


def test_history_reaches_the_bot_and_a_reply_can_be_sent_back_as_the_client_got_it(
    sdk: openai.OpenAI, bot: Bot
) -> None:
    first = sdk.chat.completions.create(model="byheart", messages=[{"role": "user", "content": QUESTION}])
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        first.choices[0].message.model_dump(),
        {"role": "user", "content": [{"type": "text", "text": "sh"}, {"type": "text", "text": "ort"}]},
    ]
    sdk.chat.completions.create(model="byheart", messages=messages)
    question, history = bot.asked[-1]
    assert question == "sh\nort"
    assert [(turn.role, turn.text) for turn in history] == [("user", QUESTION), ("assistant", ANSWER.text)]


def test_an_abstained_answer_says_so(client: httpx.Client) -> None:
    body = ask(client, messages=[{"role": "user", "content": "unknown"}]).json()
    assert (body["byheart"]["abstained"], body["byheart"]["escalate"]) == (True, True)
    assert body["choices"][0]["finish_reason"] == "stop"


def test_the_raw_stream_is_server_sent_events_that_end_with_done(client: httpx.Client) -> None:
    response = ask(client, stream=True, messages=[{"role": "user", "content": "short"}])
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: ") and "\n" not in event for event in events[:-1])
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert [chunk["object"] for chunk in chunks] == ["chat.completion.chunk"] * len(chunks)
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert [index for index, chunk in enumerate(chunks) if "byheart" in chunk] == [len(chunks) - 1]
    assert "usage" not in chunks[0]


def test_stop_and_both_token_limits_are_honoured(client: httpx.Client) -> None:
    short = [{"role": "user", "content": "short"}]
    for fields, text, reason in (
        ({"stop": "two"}, "One ", "stop"),
        ({"stop": ["zzz", ","]}, "One two", "stop"),
        ({"max_tokens": 2}, "One two", "length"),
        ({"max_completion_tokens": 3, "max_tokens": 100}, "One two,", "length"),
        ({"max_tokens": 5}, "One two, three.", "stop"),
    ):
        choice = ask(client, messages=short, **fields).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (text, reason), fields
    stream = ask(client, messages=short, stream=True, max_tokens=2).text
    assert '"finish_reason": "length"' in stream


def test_parameters_without_effect_are_accepted(client: httpx.Client) -> None:
    fields = {
        "temperature": 0.7, "top_p": 1, "seed": 1, "user": "u", "metadata": {"a": "b"}, "n": 1, "logprobs": False,
        "presence_penalty": 0, "frequency_penalty": 0.5, "response_format": {"type": "text"}, "tools": [],
        "tool_choice": "none", "logit_bias": {}, "modalities": ["text"], "store": False, "stop": None,
        "stream": False, "parallel_tool_calls": True, "service_tier": "auto", "reasoning_effort": "low",
    }  # fmt: skip
    response = ask(client, **fields)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("functions", [{"name": "f"}]),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"50256": -100}),
        ("audio", {"voice": "alloy", "format": "mp3"}),
        ("modalities", ["text", "audio"]),
        ("web_search_options", {}),
        ("verbosity", "low"),
        ("service_tier", "flex"),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(client: httpx.Client, name: str, value: object) -> None:
    response = ask(client, **{name: value})
    error = error_of(response)
    assert response.status_code == 400
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")
    assert name in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temprature": 1}, "temprature"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url"}]}]},
            "messages[0].content[1].type",
        ),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 8001}]}, "messages"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(client: httpx.Client, fields: dict[str, Any], param: str) -> None:
    response = ask(client, **fields)
    error = error_of(response)
    assert response.status_code == 400, response.text
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert param in error["message"] or error["code"] == "context_length_exceeded"


def test_the_openai_client_raises_its_own_errors(sdk: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": QUESTION}]
    with pytest.raises(openai.NotFoundError, match="example-bot") as unknown:
        sdk.chat.completions.create(model="gpt-4o", messages=messages)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(model="byheart", messages=messages, n=3)
    assert refused.value.param == "n"
    messages[0]["content"] = "fail"
    with pytest.raises(openai.InternalServerError):
        sdk.chat.completions.create(model="byheart", messages=messages)
    with pytest.raises(openai.APIError, match="try again"):
        list(sdk.chat.completions.create(model="byheart", messages=messages, stream=True))


def test_a_failing_bot_tells_the_caller_nothing_of_its_inside(client: httpx.Client) -> None:
    fail = [{"role": "user", "content": "fail"}]
    whole = ask(client, messages=fail)
    assert whole.status_code == 500
    assert error_of(whole)["type"] == "server_error"
    stream = ask(client, messages=fail, stream=True)
    assert stream.status_code == 200
    events = stream.text.strip().split("\n\n")
    assert json.loads(events[-2].removeprefix("data: "))["error"]["type"] == "server_error"
    assert events[-1] == "data: [DONE]"
    assert "secret" not in whole.text + stream.text


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"\xff\xfe", 400),
        (b'{"messages": NaN}', 400),
        (b'{"seed": ' + b"1" * 6000 + b"}", 400),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400),
        (b"[" * 200_000, 400),
        (b'{"metadata": ' + b"[" * 40 + b"]" * 40 + b"}", 400),
        (b'{"a":' * 900 + b"1" + b"}" * 900, 400),
        (b"x" * (MAX_BODY_BYTES + 1), 413),
        (b" " * (10 * MAX_BODY_BYTES), 413),
    ],
)
def test_a_hostile_body_is_refused(client: httpx.Client, content: bytes, status: int) -> None:
    response = client.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert len(error_of(response)["message"]) < 400
    assert ask(client).status_code == 200


def test_a_body_nested_too_deep_is_named_as_such(client: httpx.Client) -> None:
    for depth, place in ((33, "nested more than 32 levels"), (30, "metadata")):
        content = b'{"messages": [], "metadata": ' + b"[" * depth + b"]" * depth + b"}"
        response = client.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
        named = error_of(response)["message"] if depth == 33 else ask(client, metadata={"a": []}).text
        assert place in named


def test_a_body_in_pieces_is_held_to_the_same_limit(client: httpx.Client) -> None:
    pieces = (b"x" * 65536 for _ in range(20))
    response = client.post("/v1/chat/completions", content=pieces, headers={"content-type": "application/json"})
    assert response.status_code == 413


def test_the_right_errors_for_wrong_addresses_methods_and_types(client: httpx.Client) -> None:
    assert (client.get("/v1/nothing").status_code, client.get("/v1/models/other").status_code) == (404, 404)
    assert error_of(client.get("/v1/models/other"))["code"] == "model_not_found"
    wrong_method = client.get("/v1/chat/completions")
    assert wrong_method.status_code == 405
    assert wrong_method.headers["allow"] == "POST"
    assert "GET" in error_of(wrong_method)["message"]
    form = client.post("/v1/chat/completions", data={"a": "b"})
    assert form.status_code == 415
    assert "application/json" in error_of(form)["message"]


def test_models_and_health(sdk: openai.OpenAI, client: httpx.Client) -> None:
    assert [model.id for model in sdk.models.list()] == ["example-bot"]
    assert sdk.models.retrieve("example-bot").owned_by == "byheart"
    health = client.get("/health").json()
    assert (health["status"], health["model"], health["sections"]) == ("ok", "example-bot", 4)


def test_the_openapi_schema_and_its_guide_load_nothing_from_elsewhere(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    request = schema["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert request == {"$ref": "#/components/schemas/ChatRequest"}
    guide = client.get("/docs").text
    assert str(client.base_url).rstrip("/") in guide
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", guide)


def test_a_full_queue_answers_429_and_the_health_check_stays_alive() -> None:
    bot = Bot()
    with running(make_app(bot, workers=1, waiting=0)) as address, client_of(address) as client:
        waiting = threading.Thread(target=lambda: ask(client, messages=[{"role": "user", "content": "wait"}]))
        waiting.start()
        assert bot.entered.acquire(timeout=10)
        for fields in ({}, {"stream": True}):
            busy = ask(client, **fields)
            assert busy.status_code == 429
            assert busy.headers["retry-after"] == "2"
            assert error_of(busy)["code"] == "overloaded"
        assert client.get("/health").status_code == 200
        bot.release.set()
        waiting.join(10)
        assert ask(client).status_code == 200


def test_a_client_that_leaves_frees_its_place_in_the_queue() -> None:
    bot = Bot()
    with running(make_app(bot, workers=1, waiting=1)) as address, client_of(address) as client:
        waiting = threading.Thread(target=lambda: ask(client, messages=[{"role": "user", "content": "wait"}]))
        waiting.start()
        assert bot.entered.acquire(timeout=10)
        body = {"messages": [{"role": "user", "content": QUESTION}], "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            assert ask(client).status_code == 429
        for _ in range(300):  # the server notices within a few requests
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code == 200:
                    break
        bot.release.set()
        waiting.join(10)
        assert response.status_code == 200


def test_a_port_in_use_and_a_strange_host_are_explained() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ByheartError, match=rf"127\.0\.0\.1 port {port}: another program uses it.*{port + 1}"):
            listen("127.0.0.1", port)
    with pytest.raises(ByheartError, match=r"serve\.host: 'no such host'"):
        listen("no such host", 0)
    with pytest.raises(ByheartError, match="no such address"):
        listen("192.0.2.1", 0)


def test_ctrl_c_ends_the_server_cleanly_and_in_silence() -> None:
    program = (
        "from serving import *\nfrom byheart.serve.server import serve\n"
        "serve(make_app(Bot()), host='127.0.0.1', port=0, ready=lambda address: print(address, flush=True))\n"
        "print('after')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "after\n", "")
