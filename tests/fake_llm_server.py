"""A chat completion server on loopback that misbehaves on request."""

from __future__ import annotations

import collections
import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Step = Callable[["Handler"], None]  # what the server does with one request, instead of answering


class Server(ThreadingHTTPServer):
    """Answers every call with `reply(body)`; `script` holds what to do with the next calls instead."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, reply: Callable[[dict[str, Any]], str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply = reply
        self.script: collections.deque[Step] = collections.deque()
        self.refused_formats: set[str] = set()
        self.requests: list[dict[str, Any]] = []
        self.answered: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.models = ["m"]
        self.on_list: Callable[[], object] = lambda: None
        self.seen = threading.Condition()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def wait_for(self, count: int, timeout_s: float = 30) -> bool:
        with self.seen:
            return self.seen.wait_for(lambda: len(self.requests) >= count, timeout_s)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the game."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.seen:
            self.server.requests.append(body)
            self.server.keys.append(self.headers.get("Authorization", ""))
            step = self.server.script.popleft() if self.server.script else None
            self.server.seen.notify_all()
        wanted = body.get("response_format", {}).get("type", "plain")
        if step:
            step(self)
        elif wanted in self.server.refused_formats:
            self.send(400, {"error": {"message": f"response_format {wanted} is not supported", "code": 400}})
        elif body.get("stream"):
            self.stream(self.server.reply(body))
        else:
            self.answer(self.server.reply(body))
            with self.server.seen:
                self.server.answered.append(body)

    def do_GET(self) -> None:
        self.server.keys.append(self.headers.get("Authorization", ""))
        self.server.on_list()
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "x"} for name in self.server.models]
        self.send(200, {"object": "list", "data": models}, {"Connection": "close"})

    def stream(self, content: str, *, is_cut: bool = False) -> None:
        """Send the content word by word as events; `is_cut`: hang up before its end."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
        words = [{"delta": {"content": f"{word} "}, "finish_reason": None} for word in content.split()]
        ends = [] if is_cut else [{"delta": {}, "finish_reason": "stop"}]
        for choice in [*words, *ends]:
            data = json.dumps({**chunk, "choices": [{"index": 0, **choice}]})
            self.wfile.write(f"data: {data}\n\n".encode())
            self.wfile.flush()
        if not is_cut:
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def answer(self, content: str) -> None:
        message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        self.send(200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [message]})

    def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""


def status(code: int, message: str = "no", *, error_code: str = "", headers: dict[str, str] | None = None) -> Step:
    error = {"error": {"message": message, "code": error_code or None, "param": None}}
    return lambda handler: handler.send(code, error, headers)


def says(content: str) -> Step:
    return lambda handler: handler.answer(content)


def junk(body: Any) -> Step:
    return lambda handler: handler.send(200, body)


def cut(handler: Handler) -> None:
    """Promise a long body, send a little of it, and hang up."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id": "1", "choices": [')
    handler.wfile.flush()
    handler.close_connection = True


def dies(content: str) -> Step:
    """Stream this much, and hang up."""
    return lambda handler: handler.stream(content, is_cut=True)


def endless(ended: threading.Event) -> Step:
    """Stream a word, and comments until nobody reads any more."""

    def step(handler: Handler) -> None:
        try:
            handler.stream("word", is_cut=True)
            while not ended.wait(0.01):
                handler.wfile.write(b": more\n\n")
        except OSError:
            ended.set()

    return step


def hold(until: threading.Event) -> Step:
    """Answer only when the event is set."""

    def step(handler: Handler) -> None:
        until.wait(30)
        handler.answer("{}")

    return step


def drip(until: threading.Event) -> Step:
    """Send the body a byte at a time, so that no single read is ever late."""

    def step(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        while not until.wait(0.01):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    return step


@contextlib.contextmanager
def running(reply: Callable[[dict[str, Any]], str]) -> Iterator[Server]:
    with Server(reply) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def copies_facts(body: dict[str, Any]) -> str:
    """Answer as a good teacher would: each task's fact, or both, as the answer, asked about in words of its own."""
    content = body["messages"][1]["content"]
    facts = dict(re.findall(r"^\[(\d+)\] (.+)$", content, re.MULTILINE))
    tasks = re.findall(r"^(\d+)\. ([a-z -]+?)(?:, about facts? (\[.+\]))?$", content, re.MULTILINE)
    if "about fact" not in content:
        return json.dumps({"items": [{"task": int(n), "question": f"Who is {p} number {n}?"} for n, p, _ in tasks]})
    heat = str(body["temperature"]).replace(".", "")
    items = [
        {
            "task": int(number),
            "question": f"{person} asks {heat}{number} {' '.join(statement.split()[-1] for statement in said)}",
            "answer": " ".join(said),
        }
        for number, person, about in tasks
        for said in [[facts[fact] for fact in re.findall(r"\d+", about)]]
    ]
    return json.dumps({"items": items})
