"""Chat completions: a request's conversation to the engine, and its reply in OpenAI's two forms, body and stream."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any

from byheart.answer.base import Answer, Turn
from byheart.errors import EngineError
from byheart.records import Citation
from byheart.serve.engine import (
    EngineBusyError,
    Reply,
    count_tokens,
    describe,
    pieces,
    shorten,
    split_conversation,
)
from byheart.serve.faults import FAILED, ApiError
from byheart.serve.schemas import (
    AssistantMessage,
    ChatCompletion,
    ChatRequest,
    Choice,
    CitedSection,
    Sources,
    Usage,
)
from byheart.serve.streams import DONE, KEEP_ALIVE, SHUTTING_DOWN, as_json, event

MAX_QUESTION_CHARACTERS = 8000  # a page and a half of text; what is longer is no question

EVENTS_AT_ONCE = 256  # words handed to the connection together: one write costs as much as building 200 events
_HOLE = "\ufffc"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One request on its way: what was asked, and the names of the reply to come."""

    request: ChatRequest
    question: str
    history: tuple[Turn, ...]
    model: str
    id: str
    created: int
    prompt_tokens: int


@dataclasses.dataclass(frozen=True, slots=True)
class Watch:
    """What goes with every answer: how long it may take, who is told of it, and what may be asked next."""

    time_limit_s: float
    on_answer: Callable[[Call, Answer, Reply], None]
    on_failure: Callable[[Exception], None]
    follow_ups: Callable[[Sequence[Citation]], Sequence[str]]
    keep_alive_s: float = 10.0  # proxies close a connection that is silent for 30 to 60 s


def read_call(request: ChatRequest, *, model: str, accepted_models: frozenset[str]) -> Call:
    """Return the call that a request asks for. Raises ApiError where it asks nothing, too much, or another model."""
    if request.model is not None and request.model not in accepted_models:
        raise unknown_model(request.model, model)
    try:
        question, history = split_conversation([(message.role, message.text) for message in request.messages])
    except ValueError as fault:
        raise ApiError(
            400, f"Invalid value for 'messages': {fault}.", param="messages", code="invalid_value"
        ) from fault
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise ApiError(
            400,
            f"The question has {len(question)} characters; at most {MAX_QUESTION_CHARACTERS} are taken. Shorten it.",
            param="messages",
            code="context_length_exceeded",
        )
    prompt_tokens = sum(count_tokens(message.text) for message in request.messages)
    return Call(request, question, history, model, f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), prompt_tokens)


def unknown_model(name: str, known: str) -> ApiError:
    """Return the error for a model that is not served."""
    message = f"The model '{name[:100]}' does not exist here. This server has '{known}'."
    return ApiError(404, message, param="model", code="model_not_found")


async def complete(call: Call, pending: asyncio.Future[Answer], watch: Watch) -> dict[str, Any]:
    """Return the whole reply. Raises ApiError where there is none."""
    try:
        await asyncio.wait({pending}, timeout=watch.time_limit_s)
        answer = _result(pending)
        reply = _reply(call, answer)
    except Exception as fault:
        raise _failure(call, fault, watch) from fault
    watch.on_answer(call, answer, reply)
    return ChatCompletion(
        id=call.id,
        created=call.created,
        model=call.model,
        choices=[Choice(message=AssistantMessage(content=reply.text), finish_reason=reply.finish_reason)],
        usage=_usage(call, reply),
        byheart=_sources(call, answer, watch),
    ).model_dump(mode="json")


async def stream(call: Call, pending: asyncio.Future[Answer], watch: Watch) -> AsyncGenerator[str]:
    """Yield the reply as server-sent events, many in one text where they are there at once.

    The status line has gone out already: a failure becomes an event too. While the answer is not there, comments keep
    the connection open.
    """
    yield event(_chunk(call, {"role": "assistant", "content": "", "refusal": None}))
    deadline = time.monotonic() + watch.time_limit_s
    while not pending.done() and (left_s := deadline - time.monotonic()) > 0:
        await asyncio.wait({pending}, timeout=min(left_s, watch.keep_alive_s))
        if not pending.done():
            yield KEEP_ALIVE
    try:
        answer = _result(pending)
        reply = _reply(call, answer)
        ending = "".join(event(chunk) for chunk in _ending(call, answer, reply, watch))
    except Exception as fault:  # noqa: BLE001  # whatever it is, it is logged and told
        yield event(_failure(call, fault, watch).body) + DONE
        return
    watch.on_answer(call, answer, reply)
    *batches, last = _text_events(call, reply.text)
    for batch in batches:
        yield batch
    yield last + ending + DONE


def _result(pending: asyncio.Future[Answer]) -> Answer:
    if not pending.done():
        raise TimeoutError
    if pending.cancelled():  # by the engine: nobody else does before the answer is out
        raise EngineBusyError(SHUTTING_DOWN)
    return pending.result()


def _failure(call: Call, fault: Exception, watch: Watch) -> ApiError:
    """Return the error that the caller is told. What was asked stays out of the log; the id finds it in the storage."""
    watch.on_failure(fault)
    if isinstance(fault, TimeoutError):
        return ApiError(504, f"There was no answer within {watch.time_limit_s:g} s. Please try again.", code="timeout")
    if isinstance(fault, EngineError):
        logger.error("%s: %s", call.id, fault)
        message = "The model behind this server does not answer at the moment. Please try again."
        return ApiError(503, message, code="engine_unavailable", headers={"retry-after": "5"})
    if isinstance(fault, EngineBusyError):
        return ApiError(503, str(fault), code="shutting_down")
    logger.error("%s: the bot failed to answer", call.id, exc_info=fault)
    return ApiError(500, FAILED)


def _text_events(call: Call, text: str) -> list[str]:
    """Return an event for each word, EVENTS_AT_ONCE in a text, and one text at least.

    The chunk around the words is written once, and filled in.
    """
    before, _, after = event(_chunk(call, {"content": _HOLE})).partition(as_json(_HOLE))
    words = [as_json(piece) for piece in pieces(text)]
    batches = [words[start : start + EVENTS_AT_ONCE] for start in range(0, len(words), EVENTS_AT_ONCE)]
    return [before + (after + before).join(batch) + after for batch in batches] or [""]


def _ending(call: Call, answer: Answer, reply: Reply, watch: Watch) -> Iterator[dict[str, Any]]:
    sources = _sources(call, answer, watch).model_dump(mode="json")
    yield {**_chunk(call, {}, finish_reason=reply.finish_reason), "byheart": sources}
    if call.request.includes_usage:
        yield {**_chunk(call, {}), "choices": [], "usage": _usage(call, reply).model_dump(mode="json")}


def _reply(call: Call, answer: Answer) -> Reply:
    return shorten(answer.text, stop=call.request.stop_sequences, max_tokens=call.request.token_limit)


def _sources(call: Call, answer: Answer, watch: Watch) -> Sources:
    described = describe(answer, call.question)
    citations = [CitedSection(**citation) for citation in described.pop("citations")]
    follow_ups = [] if answer.abstained else list(watch.follow_ups(answer.citations))
    return Sources(citations=citations, follow_ups=follow_ups, **described)


def _usage(call: Call, reply: Reply) -> Usage:
    return Usage(
        prompt_tokens=call.prompt_tokens,
        completion_tokens=reply.tokens,
        total_tokens=call.prompt_tokens + reply.tokens,
    )


def _chunk(call: Call, delta: dict[str, Any], *, finish_reason: str | None = None) -> dict[str, Any]:
    chunk: dict[str, Any] = {
        "id": call.id,
        "object": "chat.completion.chunk",
        "created": call.created,
        "model": call.model,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }
    if call.request.includes_usage:
        chunk["usage"] = None
    return chunk
