"""What the tests of the server share: a bot without a model and a running server."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from byheart.answer.base import Answer, Receipt, Turn
from byheart.records import Citation, Document, Section
from byheart.serve.api import create_app
from byheart.serve.engine import FakeAnswerer
from byheart.serve.server import Server, listen

QUESTION = "How do I move a card?"
ANSWER = Answer(
    "Drag the card, or press **M**.\n\n1. Select the card.\n2. Choose *Move to*.",
    (
        Citation("Cards", "Cards › Move a card", "cards/move.md#move-a-card", 0.91, "s1"),
        Citation("Boards", "Boards", "https://help.example.com/boards", 0.5, "s2"),
    ),
    confidence=0.9,
    abstained=False,
)
CITED = Answer(
    "Drag the card. Or press **M**.\n\n- Pick a *board*: see https://help.example.com/boards.\n\n"
    "| What | Moves |\n|---|---|\n| Notes | yes |\n\n```sh\nmv card\n```\nEt voil\u00e0!",
    ANSWER.citations,
    confidence=0.9,
    abstained=False,
    receipts=(
        Receipt("Drag the card.", "cards/move.md#move-a-card", "s1"),
        Receipt("Or press **M**.", "https://help.example.com/boards", "s2"),
        Receipt("Pick a *board*: see https://help.example.com/boards.", "https://help.example.com/boards", "s2"),
        Receipt("What | Moves |", "cards/move.md#move-a-card", "s1"),
        Receipt("Notes | yes |", "cards/move.md#move-a-card", "s1"),
        Receipt("mv card", "cards/move.md#move-a-card", "s1"),
        Receipt("Et voil\u00e0!", "elsewhere.md", "s9"),
    ),
)
PROCESS_S = 60  # for a process to start, which takes seconds on a busy machine

ANSWER_FIELDS = [
    "question",
    "answer",
    "citations",
    "receipts",
    "abstained",
    "confidence",
    "intent",
    "escalate",
]  # --json
MOVE_PAGE = Document(
    "d1",
    "cards/move.md",
    "Cards",
    "en",
    "Before the first heading.\n\n# Cards\n\nText <script>alert(1)</script>.\n\n"
    "## Move a card {#move-a-card}\n\n- <img src=x onerror=alert(1)> drag\n\n  ### Nested one\n\n"
    "[bad](javascript:alert(1)) [good](boards.md)\n\n| a | b |\n|---|---|\n| 1<br>2 | <your-name> |\n",
    "",
    "",
)
MOVE_SECTIONS = [
    Section("s0", "d1", ("Cards",), "cards/move.md", "Before the first heading.", 0, ""),
    Section("s1", "d1", ("Cards",), "cards/move.md#cards", "Text", 1, ""),
    Section("s2", "d1", ("Cards", "Move a card"), "cards/move.md#move-a-card", "- drag", 2, ""),
    Section("s3", "d1", ("Cards", "Move a card", "Nested one"), "cards/move.md#nested-one", "", 3, ""),
]


class Bot(FakeAnswerer):
    """Knows one answer, fails on "fail", and holds "wait" until `release` is set."""

    def __init__(self) -> None:
        super().__init__(
            {
                QUESTION: ANSWER,
                "short": "One two, three.",
                "cited": CITED,
                "code": "Run this:\n\n```sh\nmake  demo\n```",
                "long": "\n\n".join(f"Paragraph {number} of many." for number in range(60)),
            }
        )
        self.release = threading.Event()
        self.entered = threading.Semaphore(0)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, 0.0, float(len(text))] for text in texts]

    def answer(self, question: str, history: Sequence[Turn] = ()) -> Answer:
        if question == "fail":
            raise RuntimeError("secret detail")
        if question == "wait":
            self.entered.release()
            assert self.release.wait(10)
        return super().answer(question, history)


def make_app(bot: Bot, **changes: Any) -> FastAPI:
    values: dict[str, Any] = {
        "model_name": "example-bot",
        "title": 'Help & "more"',
        "suggestions": ("Move a card", "<b>Boards</b>"),
        "documents": [MOVE_PAGE],
        "sections": MOVE_SECTIONS,
    }
    return create_app(bot, **(values | changes))


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve the app on a free port of this machine; yield its address."""
    addresses: list[str] = []
    is_ready = threading.Event()

    def on_ready(address: str) -> None:
        addresses.append(address)
        is_ready.set()

    server = Server(app, listener=listen("127.0.0.1", 0), ready=on_ready)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert is_ready.wait(10), "the server did not start"
        yield addresses[0]
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive(), "the server did not stop"


def wait_until(happened: Callable[[], Any], limit_s: float = 10) -> Any:
    """Return what it returns, once that is something."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found := happened():
            return found
        time.sleep(0.005)
    raise AssertionError("it did not happen")


@contextlib.contextmanager
def client_of(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=10, trust_env=False) as client:
        yield client


def static_folder() -> Path:
    return Path(__file__).parent.parent / "src/byheart/serve/static"
