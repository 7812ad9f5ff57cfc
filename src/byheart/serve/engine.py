"""The bot without HTTP: conversations in, replies out, a bounded number of them at once."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from byheart.answer.base import Answer, Answerer, AsyncAnswerer, Embedder, Turn
from byheart.errors import ByheartError
from byheart.records import Citation

FinishReason = Literal["stop", "length"]

MAX_HISTORY_TURNS = 32  # older turns no longer help to understand a follow-up question, and cost time

# A token, as counted here, is a word or a punctuation mark; Chinese, Japanese and Korean count by the character,
# because these scripts put no spaces between words. Several models can be behind one API: this count is the same
# for all of them, and close to what their own tokenizers say of English.
_TOKEN = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W぀-ヿ㐀-鿿가-힯]+|[^\w\s]")
_PIECE = re.compile(r"\s*\S+\s*")

_ASKS_FOR_A_PERSON = re.compile(
    r"\b(?:talk|speak|chat|connect(?:ed)?|transfer(?:red)?)\s+(?:me\s+)?(?:to|with)\s+(?:an?\s+|your\s+|the\s+)?"
    r"(?:real\s+|live\s+)?(?:human|person|people|agent|representative|support|someone|somebody)\b",
    re.IGNORECASE,
)

Result = TypeVar("Result")


class EngineBusyError(ByheartError):
    """So many questions are waiting that another one would only wait in vain."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """An answer, shortened as the caller asked, and why it ends where it does."""

    text: str
    finish_reason: FinishReason
    tokens: int


class Engine:
    """Runs an Answerer, a bounded number of questions at once, and refuses what it could not get to in time.

    A blocking Answerer runs in `workers` threads; an AsyncAnswerer needs none, and `workers` bounds its calls.
    """

    def __init__(
        self, answerer: Answerer | AsyncAnswerer, *, workers: int = 4, waiting: int = 64, time_limit_s: float = 60.0
    ) -> None:
        self.time_limit_s = time_limit_s
        self._answerer = answerer
        self._limit = workers + waiting
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="byheart-answer")
        self._turns = asyncio.Semaphore(workers)
        self._lock = threading.Lock()
        self._pending: set[asyncio.Future[Any]] = set()
        self._open = 0
        self._closed = False

    @property
    def open(self) -> int:
        """How many questions are being answered or wait to be."""
        return self._open

    @property
    def is_open(self) -> bool:
        """Whether a question would be taken at this moment."""
        return not self._closed and self._open < self._limit

    @property
    def embeds(self) -> bool:
        """Whether there is an encoder to make embeddings with."""
        return isinstance(self._answerer, Embedder)

    def submit(self, question: str, history: Sequence[Turn]) -> asyncio.Future[Answer]:
        """Start answering, in a running event loop. Cancelling the future gives the place back.

        A blocking answer that has begun keeps its thread, and its place, until it ends. Raises EngineBusyError where
        too many questions are waiting already.
        """
        recent = history[-MAX_HISTORY_TURNS:]
        if isinstance(self._answerer, AsyncAnswerer):
            self._enter()
            task = asyncio.ensure_future(self._in_turn(self._answerer, question, recent))
            task.add_done_callback(self._leave)
            return self._remembered(task)
        return self._in_thread(self._answerer.answer, question, recent)

    def embed(self, texts: Sequence[str]) -> asyncio.Future[list[list[float]]]:
        """Start making vectors, in the same bounds as answers. Raises EngineBusyError, or TypeError without encoder."""
        if not isinstance(self._answerer, Embedder):
            raise TypeError("this bot has no encoder")
        return self._in_thread(self._answerer.embed, texts)

    def drop(self) -> None:
        """Give up every question at once: whoever waits is told that the server shuts down."""
        self._closed = True
        for pending in list(self._pending):
            pending.cancel()

    def close(self) -> None:
        """Drop what has not started yet; what runs may finish."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _in_turn(self, answerer: AsyncAnswerer, question: str, history: Sequence[Turn]) -> Answer:
        async with self._turns:
            return await answerer.answer_async(question, history)

    def _in_thread(self, function: Callable[..., Result], *arguments: object) -> asyncio.Future[Result]:
        self._enter()
        try:
            future = self._pool.submit(function, *arguments)
        except RuntimeError as closed:  # the pool is shutting down
            self._leave(None)
            raise EngineBusyError("The bot is shutting down. Try again in a moment.") from closed
        future.add_done_callback(self._leave)
        return self._remembered(asyncio.wrap_future(future))

    def _remembered(self, pending: asyncio.Future[Result]) -> asyncio.Future[Result]:
        self._pending.add(pending)
        pending.add_done_callback(self._pending.discard)
        return pending

    def _enter(self) -> None:
        with self._lock:
            if self._closed:
                raise EngineBusyError("The bot is shutting down. Try again in a moment.")
            if self._open >= self._limit:
                raise EngineBusyError(f"The bot is busy: {self._open} questions are waiting. Try again in a moment.")
            self._open += 1

    def _leave(self, _done: object) -> None:
        with self._lock:
            self._open -= 1


def split_conversation(messages: Sequence[tuple[str, str]]) -> tuple[str, tuple[Turn, ...]]:
    """Return the question, and the turns before it, of (role, text) messages.

    The question is the last message of the user. System and developer messages are left out: the bot answers in the
    manual's words, and no instruction changes these. Raises ValueError where nothing is asked.
    """
    asked = [index for index, (role, text) in enumerate(messages) if role == "user" and text.strip()]
    if not asked:
        raise ValueError("the messages hold no question: at least one message with the role 'user' needs a text")
    turns = tuple(
        Turn("user" if role == "user" else "assistant", text)
        for role, text in messages[: asked[-1]]
        if role in {"user", "assistant"} and text.strip()
    )
    return messages[asked[-1]][1].strip(), turns


def count_tokens(text: str) -> int:
    """Return the number of words and punctuation marks."""
    return sum(1 for _ in _TOKEN.finditer(text))


def shorten(text: str, *, stop: Sequence[str], max_tokens: int | None) -> Reply:
    """Cut the text before the first stop sequence, and after `max_tokens` tokens."""
    cuts = [found for sequence in stop if (found := text.find(sequence)) >= 0]
    text = text[: min(cuts)] if cuts else text
    tokens = list(_TOKEN.finditer(text))
    if max_tokens is None or len(tokens) <= max_tokens:
        return Reply(text, "stop", len(tokens))
    return Reply(text[: tokens[max_tokens - 1].end()], "length", max_tokens)


def pieces(text: str) -> Iterator[str]:
    """Yield the text word by word; joined, the pieces are the text again."""
    if text and not text.strip():
        yield text
    yield from (match.group() for match in _PIECE.finditer(text))


def describe(answer: Answer, question: str) -> dict[str, Any]:
    """Return what byheart says beside an answer: its sources, whether it declined, how sure it is.

    `escalate`: offer the customer a person, because the manual does not help or because they ask for one.
    """
    return {
        "citations": [
            {"title": item.title, "heading": item.heading, "url": item.url, "score": round(item.score, 4)}
            for item in answer.citations
        ],
        "receipts": [{"text": item.text, "url": item.url} for item in answer.receipts],
        "abstained": answer.abstained,
        "confidence": round(answer.confidence, 4),
        "intent": answer.intent,
        "escalate": answer.abstained or bool(_ASKS_FOR_A_PERSON.search(question)),
    }


class FakeAnswerer:
    """Answers from a table, for tests and for work on the chat page: no model, no manual. Other questions abstain."""

    def __init__(self, answers: Mapping[str, str | Answer]) -> None:
        self._answers = dict(answers)
        self.asked: list[tuple[str, tuple[Turn, ...]]] = []

    def answer(self, question: str, history: Sequence[Turn] = ()) -> Answer:
        """Return the table's answer to the question."""
        self.asked.append((question, tuple(history)))
        found = self._answers.get(question)
        if isinstance(found, Answer):
            return found
        cited = (Citation("Example", "Example › First steps", "example.md#first-steps", 0.9, "example"),)
        if found is None:
            text = "The manual does not say. The nearest page is [First steps](example.md#first-steps)."
            return Answer(text, cited, confidence=0.1, abstained=True)
        return Answer(found, cited, confidence=0.9, abstained=False)
