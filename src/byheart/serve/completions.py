"""Chat completions: a request's conversation to the engine, and its reply in OpenAI's two forms, body and stream."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from typing import Any

from byheart.answer.base import Answer, Turn
from byheart.serve.engine import Reply, count_tokens, describe, pieces, shorten, split_conversation
from byheart.serve.faults import FAILED, ApiError, error_body
from byheart.serve.schemas import (
    AssistantMessage,
    ChatCompletion,
    ChatRequest,
    Choice,
    CitedSection,
    Sources,
    Usage,
)

MAX_QUESTION_CHARACTERS = 8000  # a page and a half of text; what is longer is no question

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
    return Call(request, question, history, model, f"chatcmpl-{uuid.uuid4().hex}", int(time.time()))


def unknown_model(name: str, known: str) -> ApiError:
    """Return the error for a model that is not served."""
    message = f"The model '{name[:100]}' does not exist here. This server has '{known}'."
    return ApiError(404, message, param="model", code="model_not_found")


async def complete(call: Call, future: Future[Answer]) -> dict[str, Any]:
    """Return the whole reply."""
    try:
        answer = await asyncio.wrap_future(future)
    except Exception as fault:
        logger.exception("the bot failed to answer %r", call.question[:200])
        raise ApiError(500, FAILED) from fault
    reply = _reply(call, answer)
    return ChatCompletion(
        id=call.id,
        created=call.created,
        model=call.model,
        choices=[Choice(message=AssistantMessage(content=reply.text), finish_reason=reply.finish_reason)],
        usage=_usage(call, reply),
        byheart=_sources(answer),
    ).model_dump(mode="json")


async def stream(call: Call, future: Future[Answer]) -> AsyncIterator[str]:
    """Yield the reply as server-sent events. A failure becomes an event too: the status line has gone out already."""
    opening = {"role": "assistant", "content": "", "refusal": None}
    yield _event(_chunk(call, opening))
    try:
        answer = await asyncio.wrap_future(future)
        for chunk in _answer_chunks(call, answer):
            yield _event(chunk)
    except Exception:
        logger.exception("the bot failed to answer %r", call.question[:200])
        yield _event(error_body(500, FAILED))
    yield "data: [DONE]\n\n"


def _answer_chunks(call: Call, answer: Answer) -> Iterator[dict[str, Any]]:
    reply = _reply(call, answer)
    for piece in pieces(reply.text):
        yield _chunk(call, {"content": piece})
    yield {**_chunk(call, {}, finish_reason=reply.finish_reason), "byheart": _sources(answer).model_dump(mode="json")}
    if call.request.includes_usage:
        yield {**_chunk(call, {}), "choices": [], "usage": _usage(call, reply).model_dump(mode="json")}


def _reply(call: Call, answer: Answer) -> Reply:
    return shorten(answer.text, stop=call.request.stop_sequences, max_tokens=call.request.token_limit)


def _sources(answer: Answer) -> Sources:
    described = describe(answer)
    citations = [CitedSection(**citation) for citation in described.pop("citations")]
    return Sources(citations=citations, **described)


def _usage(call: Call, reply: Reply) -> Usage:
    prompt = sum(count_tokens(message.text) for message in call.request.messages)
    return Usage(prompt_tokens=prompt, completion_tokens=reply.tokens, total_tokens=prompt + reply.tokens)


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


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
