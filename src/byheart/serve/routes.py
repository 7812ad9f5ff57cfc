"""The API's routes under /v1, and what a machine asks about the server: /health, /ready, /metrics."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.responses import Response

import byheart
from byheart.answer.base import Answer
from byheart.serve.completions import Call, Watch, complete, read_call, stream, unknown_model
from byheart.serve.embeddings import EmbeddingList, EmbeddingRequest, embedding_list
from byheart.serve.engine import Engine, EngineBusyError, Reply
from byheart.serve.faults import ApiError
from byheart.serve.limits import GuardedRoute
from byheart.serve.metrics import CONTENT_TYPE, Metrics
from byheart.serve.schemas import ChatCompletion, ChatRequest, ErrorBody, Health, Model, ModelList, Readiness
from byheart.serve.streams import EventStream, unless_gone
from byheart.serve.suggest import FollowUps

MODEL_ALIAS = "byheart"  # names whatever model is served, so that a client needs no change with the next one

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 404, 408, 413, 415, 429, 500, 503, 504)
}
_STREAM: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}}


@dataclasses.dataclass(frozen=True, slots=True)
class Bot:
    """What the routes share: who answers, under which name, and who counts."""

    engine: Engine
    metrics: Metrics
    follow_ups: FollowUps
    model_name: str
    section_count: int

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
        watch = _watch(bot)
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
        is_open = bot.engine.is_open
        state = Readiness(ready=is_open, engine="ok" if is_open else "full")
        return JSONResponse(state.model_dump(), 200 if state.ready else 503)

    @router.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
    async def metrics() -> Response:
        """Give the figures of this server to Prometheus."""
        bot.metrics.open_answers.set(bot.engine.open)
        return Response(bot.metrics.text(), headers={"content-type": CONTENT_TYPE})

    return router


def _watch(bot: Bot) -> Watch:
    metrics, started = bot.metrics, time.perf_counter()

    def on_answer(call: Call, answer: Answer, reply: Reply) -> None:
        metrics.answer_seconds.observe(time.perf_counter() - started)
        metrics.answers.labels("abstained" if answer.abstained else "answered").inc()
        metrics.tokens.labels("in").inc(call.prompt_tokens)
        metrics.tokens.labels("out").inc(reply.tokens)

    def on_failure(_fault: Exception) -> None:
        metrics.answers.labels("failed").inc()

    return Watch(bot.engine.time_limit_s, on_answer, on_failure, bot.follow_ups.after)


def _busy(busy: EngineBusyError) -> ApiError:
    return ApiError(429, str(busy), code="overloaded", headers={"retry-after": "2"})
