"""The API's routes under /v1, and what a machine asks about the server: /health, /ready, /metrics."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.responses import Response

import byheart
from byheart.answer.base import Answer
from byheart.errors import StorageError
from byheart.serve.completions import Call, Watch, complete, read_call, stream, unknown_model
from byheart.serve.conversations import Exchange, forget, save_exchanges, save_feedback
from byheart.serve.database import Database
from byheart.serve.desk import Desk
from byheart.serve.embeddings import EmbeddingList, EmbeddingRequest, embedding_list
from byheart.serve.engine import Engine, EngineBusyError, Reply
from byheart.serve.faults import ApiError
from byheart.serve.gate import Caller
from byheart.serve.limits import GuardedRoute
from byheart.serve.metrics import CONTENT_TYPE, Metrics
from byheart.serve.pulse import Pulse
from byheart.serve.schemas import (
    ChatCompletion,
    ChatRequest,
    Deleted,
    ErrorBody,
    Feedback,
    Health,
    Kept,
    Model,
    ModelList,
    Readiness,
)
from byheart.serve.streams import EventStream, unless_gone
from byheart.serve.suggest import FollowUps
from byheart.serve.tally import Tally

MODEL_ALIAS = "byheart"  # names whatever model is served, so that a client needs no change with the next one

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504)
}
_STREAM: dict[str, Any] = {"text/event-stream": {}}  # no schema: 3.1 has none for the events of a stream


@dataclasses.dataclass(frozen=True, slots=True)
class Bot:
    """What the routes share: who answers, under which name, and who counts."""

    engine: Engine
    metrics: Metrics
    follow_ups: FollowUps
    model_name: str
    section_count: int
    desk: Desk | None  # None: nothing is kept
    tally: Tally | None  # None: nothing is limited
    keeps_exchanges: bool
    pulse: Pulse | None  # None: the model runs in this process

    @property
    def names(self) -> frozenset[str]:
        """What a request may call the model."""
        return frozenset({self.model_name, MODEL_ALIAS})


def chat_routes(bot: Bot) -> APIRouter:
    """Return the route that answers questions."""
    router = APIRouter(route_class=GuardedRoute, tags=["chat"])
    ok: dict[str, Any] = {"model": ChatCompletion, "content": _STREAM}

    @router.post("/v1/chat/completions", responses={200: ok, **_ERRORS}, response_model=None)
    async def create_chat_completion(body: ChatRequest, request: Request) -> Response:
        """Answer the last question of a conversation from the manual."""
        call = read_call(body, model=bot.model_name, accepted_models=bot.names)
        try:
            pending = bot.engine.submit(call.question, call.history)
        except EngineBusyError as busy:
            raise _busy(busy) from busy
        watch = _watch(bot, caller_of(request))
        if body.stream:
            return EventStream(stream(call, pending, watch), on_end=pending.cancel)
        try:
            return JSONResponse(await unless_gone(request.receive, complete(call, pending, watch)))
        finally:
            pending.cancel()

    return router


def embedding_routes(bot: Bot) -> APIRouter:
    """Return the route that gives the encoder's vectors."""
    router = APIRouter(route_class=GuardedRoute, tags=["embeddings"])

    @router.post("/v1/embeddings", responses={200: {"model": EmbeddingList}, **_ERRORS}, response_model=None)
    async def create_embeddings(body: EmbeddingRequest, request: Request) -> Response:
        """Turn texts into the vectors that the bot finds passages by."""
        if body.model not in bot.names:
            raise unknown_model(body.model, bot.model_name)
        if not bot.engine.embeds:
            raise ApiError(404, f"The model '{bot.model_name}' has no encoder.", param="model", code="model_not_found")
        try:
            pending = bot.engine.embed(body.texts)
        except EngineBusyError as busy:
            raise _busy(busy) from busy
        vectors = await unless_gone(request.receive, pending)
        return JSONResponse(embedding_list(body, vectors, model=bot.model_name))

    return router


def model_routes(bot: Bot) -> APIRouter:
    """Return the routes that name the one model."""
    router = APIRouter(route_class=GuardedRoute, tags=["models"])
    model = Model(id=bot.model_name, created=int(time.time()))

    @router.get("/v1/models")
    async def list_models() -> ModelList:
        """List the one model."""
        return ModelList(data=[model])

    @router.get("/v1/models/{name:path}", responses={404: {"model": ErrorBody}})
    async def retrieve_model(name: str) -> Model:
        """Describe a model."""
        if name not in bot.names:
            raise unknown_model(name, bot.model_name)
        return model

    return router


def machine_routes(bot: Bot) -> APIRouter:
    """Return what load balancers, supervisors and Prometheus ask."""
    router = APIRouter(tags=["health"])

    @router.get("/health")
    async def health() -> Health:
        """Say that the process lives."""
        return Health(model=bot.model_name, version=byheart.__version__, sections=bot.section_count)

    @router.get("/ready", responses={503: {"model": Readiness}}, response_model=Readiness)
    async def ready() -> Response:
        """Say whether a question would be answered now: 200 or 503."""
        engine: Literal["ok", "full", "unreachable"] = "ok" if bot.engine.is_open else "full"
        if bot.pulse is not None and not await bot.pulse.beats():
            engine = "unreachable"
        storage: Literal["ok", "failing", "none"] = "none"
        if bot.desk is not None:  # answers go on without it; who watches should know
            storage = "failing" if bot.desk.is_failing else "ok"
        state = Readiness(ready=engine == "ok", engine=engine, storage=storage)
        return JSONResponse(state.model_dump(), 200 if state.ready else 503)

    @router.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
    async def metrics() -> Response:
        """Give the figures of this server to Prometheus."""
        bot.metrics.open_answers.set(bot.engine.open)
        bot.metrics.engine_up.set(bot.pulse is None or await bot.pulse.beats())
        bot.metrics.engine_restarts.set(bot.pulse.restarts() if bot.pulse else 0)
        return Response(bot.metrics.text(), headers={"content-type": CONTENT_TYPE})

    return router


def feedback_routes(bot: Bot) -> APIRouter:
    """Return the routes for what customers think of answers, and for what they want forgotten."""
    router = APIRouter(route_class=GuardedRoute, tags=["feedback"])

    @router.post("/v1/feedback", responses=_ERRORS)
    async def create_feedback(body: Feedback) -> Kept:
        """Keep what a customer thinks of an answer; what they said of it before is replaced."""
        is_kept = await _ask(
            bot, save_feedback, exchange_id=body.completion_id, verdict=body.verdict,
            reason=body.reason or "", comment=body.comment or "",
        )  # fmt: skip
        if not is_kept:
            message = "There is no such answer: it is not kept, was deleted, or is too old."
            raise ApiError(404, message, param="completion_id", code="not_found")
        return Kept(completion_id=body.completion_id)

    @router.delete("/v1/conversations/{id}", responses=_ERRORS)
    async def delete_conversation(id: Annotated[str, Path(max_length=512)]) -> Deleted:
        """Forget an answer, by its completion's id, or all that have this `conversation_id` in their metadata."""
        count = await _ask(bot, forget, id=id)
        return Deleted(id=id, deleted=count > 0, exchanges=count)

    return router


async def _ask(
    bot: Bot, work: Callable[Concatenate[Database, Arguments], Result], *args: Arguments.args, **kw: Arguments.kwargs
) -> Result:
    if bot.desk is None:
        raise ApiError(404, "This server keeps no conversations.", code="not_found")
    try:
        await bot.desk.settle()  # what is asked for may be an answer of just now
        return await bot.desk.ask(work, *args, **kw)
    except StorageError as fault:
        message = "The storage is not available at the moment. Please try again."
        raise ApiError(503, message, code="storage_unavailable", headers={"retry-after": "5"}) from fault


def _watch(bot: Bot, caller: Caller) -> Watch:
    metrics, started = bot.metrics, time.perf_counter()

    def on_answer(call: Call, answer: Answer, reply: Reply) -> None:
        metrics.answer_seconds.observe(time.perf_counter() - started)
        metrics.answers.labels("abstained" if answer.abstained else "answered").inc()
        metrics.tokens.labels("in").inc(call.prompt_tokens)
        metrics.tokens.labels("out").inc(reply.tokens)
        if bot.tally and caller.subject:
            used = call.prompt_tokens + reply.tokens
            bot.tally.add(caller.subject, minute=int(time.time() // 60), tokens=used)
        if bot.desk and bot.keeps_exchanges and call.request.store is not False:
            bot.desk.note(save_exchanges, exchange_of(call, answer, reply, key_id=caller.key_id))

    def on_failure(_fault: Exception) -> None:
        metrics.answers.labels("failed").inc()

    return Watch(bot.engine.time_limit_s, on_answer, on_failure, bot.follow_ups.after)


def caller_of(request: Request) -> Caller:
    """Return who asks, as the gate found out; nobody in particular where there is no gate."""
    return getattr(request.state, "caller", Caller("", ""))


def exchange_of(call: Call, answer: Answer, reply: Reply, *, key_id: str) -> Exchange:
    """Return what is kept of an answer: what the customer was shown."""
    return Exchange(
        id=call.id,
        conversation=(call.request.metadata or {}).get("conversation_id", ""),
        customer=call.request.user or "",
        key_id=key_id,
        created_at=time.time(),
        question=call.question,
        answer=reply.text,
        abstained=answer.abstained,
        confidence=round(answer.confidence, 4),
        sources=tuple(citation.url for citation in answer.citations),
    )


def _busy(busy: EngineBusyError) -> ApiError:
    return ApiError(429, str(busy), code="overloaded", headers={"retry-after": "2"})
