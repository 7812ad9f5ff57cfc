"""The web app: the chat page at /, the manual's pages, and OpenAI's chat completions API under /v1."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

import byheart
from byheart.answer.base import Answerer
from byheart.records import Document, Section
from byheart.serve.completions import complete, read_call, stream, unknown_model
from byheart.serve.engine import Engine, EngineBusyError
from byheart.serve.faults import ApiError, answer_errors
from byheart.serve.limits import GuardedRoute, SecurityHeaders
from byheart.serve.pages import Manual, fill_template
from byheart.serve.schemas import ChatCompletion, ChatRequest, ErrorBody, Health, Model, ModelList
from byheart.serve.widget import PUBLIC, Look, icon_file, widget_file

MODEL_ALIAS = "byheart"  # names whatever model is served, so that a client needs no change with the next one

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 404, 408, 413, 415, 500, 503)
}
_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # proxies must not hold the pieces back


def create_app(
    answerer: Answerer,
    *,
    model_name: str,
    title: str,
    suggestions: Sequence[str],
    documents: Sequence[Document] = (),
    sections: Sequence[Section] = (),
    look: Look | None = None,
    workers: int = 4,
    waiting: int = 64,
) -> FastAPI:
    """Return the web app of one bot.

    `documents` and `sections` are the manual's, for the pages that citations of files open; `look` is the chat's. At
    most `workers` questions are answered at once and `waiting` more may wait; others get 503.
    """
    engine = Engine(answerer, workers=workers, waiting=waiting)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()

    app = FastAPI(
        title=title,
        version=byheart.__version__,
        description="A bot that answers from its manual, behind OpenAI's chat completions API.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from another site; /docs is our own
        redoc_url=None,
    )
    app.add_middleware(SecurityHeaders)
    answer_errors(app)
    app.include_router(_api(engine, model_name=model_name, section_count=len(sections)))
    _add_chat(app, title=title, suggestions=suggestions, look=look or Look())
    _add_pages(app, Manual(documents, sections), title=title, model_name=model_name)
    return app


def _api(engine: Engine, *, model_name: str, section_count: int) -> APIRouter:
    router = APIRouter(route_class=GuardedRoute)
    model = Model(id=model_name, created=int(time.time()))
    accepted = frozenset({model_name, MODEL_ALIAS})

    @router.post("/v1/chat/completions", responses={200: {"model": ChatCompletion}, **_ERRORS}, tags=["chat"])
    async def create_chat_completion(request: ChatRequest) -> Response:
        """Answer the last question of a conversation from the manual."""
        call = read_call(request, model=model_name, accepted_models=accepted)
        try:
            future = engine.submit(call.question, call.history)
        except EngineBusyError as busy:
            raise ApiError(503, str(busy), code="overloaded", headers={"retry-after": "2"}) from busy
        if not request.stream:
            return JSONResponse(await complete(call, future))
        return StreamingResponse(stream(call, future), media_type="text/event-stream", headers=_STREAM_HEADERS)

    @router.get("/v1/models", tags=["models"])
    async def list_models() -> ModelList:
        """List the one model."""
        return ModelList(data=[model])

    @router.get("/v1/models/{name:path}", responses={404: {"model": ErrorBody}}, tags=["models"])
    async def retrieve_model(name: str) -> Model:
        """Describe a model."""
        if name not in accepted:
            raise unknown_model(name, model_name)
        return model

    @router.get("/health", tags=["health"])
    async def health() -> Health:
        """Say that the bot is ready."""
        return Health(model=model_name, version=byheart.__version__, sections=section_count)

    return router


def _add_chat(app: FastAPI, *, title: str, suggestions: Sequence[str], look: Look) -> None:
    """The chat page, the script that is the chat (there, and in other sites' pages), and the brand's picture."""
    chat_page = fill_template("index.html", title=title)
    script = widget_file(title=title, suggestions=suggestions, look=look)
    icon = icon_file(look)

    async def show_chat(_request: Request) -> Response:
        return HTMLResponse(chat_page, headers={"cache-control": "no-cache"})

    async def send_script(request: Request) -> Response:
        return script.response(request)

    async def send_icon(request: Request) -> Response:
        return icon.response(request)

    app.add_route("/", show_chat, include_in_schema=False)
    app.add_route("/widget.js", send_script, include_in_schema=False)
    app.add_route("/logo", send_icon, include_in_schema=False)


def _add_pages(app: FastAPI, manual: Manual, *, title: str, model_name: str) -> None:
    static = _Assets(directory=str(files("byheart.serve").joinpath("static")))
    has_pages = bool(manual.titles())
    not_found = fill_template("missing.html", site=title)

    async def show_guide(request: Request) -> Response:
        guide = fill_template("docs.html", title=title, model=model_name, address=str(request.base_url))
        return HTMLResponse(guide, headers={"cache-control": "no-cache"})

    async def show_page(request: Request) -> Response:
        path = str(request.path_params["path"])
        page = manual.contents(site_title=title) if not path and has_pages else manual.page(path, site_title=title)
        status = 404 if page is None else 200
        return HTMLResponse(page or not_found, status, headers={"cache-control": "no-cache"})

    app.add_route("/docs", show_guide, include_in_schema=False)
    app.add_route("/pages/{path:path}", show_page, include_in_schema=False)
    app.mount("/static", static, name="static")


class _Assets(StaticFiles):
    """The styles, scripts and icon of static/; its pages are templates and served filled in, elsewhere."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return ("", None) if path.endswith(".html") else super().lookup_path(path)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"  # asked for each time, answered 304 while it is the same
        response.headers.update(PUBLIC)
        return response
