"""The web app: the chat page at /, the manual's pages, and OpenAI's chat completions API under /v1."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

import byheart
from byheart.answer.base import Answerer, AsyncAnswerer
from byheart.errors import StorageError
from byheart.records import Document, Section
from byheart.serve.conversations import forget_older
from byheart.serve.database import Database
from byheart.serve.desk import Desk
from byheart.serve.engine import Engine
from byheart.serve.faults import answer_errors
from byheart.serve.gate import Gate, GateRules
from byheart.serve.limits import SecurityHeaders
from byheart.serve.metrics import MeasuredApp, Metrics
from byheart.serve.pages import Manual, fill_template
from byheart.serve.pulse import Pulse
from byheart.serve.routes import Bot, chat_routes, embedding_routes, feedback_routes, machine_routes, model_routes
from byheart.serve.suggest import FollowUps
from byheart.serve.tally import Tally
from byheart.serve.widget import PUBLIC, Look, brand_file, icon_file, widget_file


def create_app(
    answerer: Answerer | AsyncAnswerer,
    *,
    model_name: str,
    title: str,
    suggestions: Sequence[str],
    documents: Sequence[Document] = (),
    sections: Sequence[Section] = (),
    look: Look | None = None,
    workers: int = 4,
    waiting: int = 64,
    time_limit_s: float = 60.0,
    rules: GateRules | None = None,
    cors_origins: Sequence[str] = (),
    database: Database | None = None,
    keeps_exchanges: bool = True,
    retention_days: float = 90.0,
    pulse: Pulse | None = None,
) -> FastAPI:
    """Return the web app of one bot.

    `documents` and `sections` are the manual's, for the pages that citations of files open; `look` is the chat's. At
    most `workers` questions are answered at once and `waiting` more may wait; others get 429. Keys, limits and what
    is kept need a `database`, which the app closes at its end; without one, nothing is kept. `pulse`: of an engine that
    is a program of its own; /ready asks it.
    """
    if rules and not database:
        raise ValueError("rules need a database: keys and counts are in it")
    engine = Engine(answerer, workers=workers, waiting=waiting, time_limit_s=time_limit_s)
    metrics = Metrics()
    desk = Desk(database, on_lost=metrics.lost_notes.inc) if database else None
    tally = Tally(desk) if desk else None
    keeps = keeps_exchanges and desk is not None
    bot = Bot(engine, metrics, FollowUps(sections), model_name, len(sections), desk, tally, keeps, pulse)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        cleaning = asyncio.create_task(_forget_hourly(desk, retention_days)) if desk else None
        yield
        engine.close()
        if desk and cleaning:
            cleaning.cancel()
            await desk.close()

    app = FastAPI(
        title=title,
        version=byheart.__version__,
        description="A bot that answers from its manual, behind OpenAI's chat completions API.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from another site; /docs is our own
        redoc_url=None,
    )
    app.state.engine = engine
    _add_guards(app, bot, rules or GateRules(), cors_origins)
    answer_errors(app)
    for routes in (chat_routes, feedback_routes, embedding_routes, model_routes, machine_routes):
        app.include_router(routes(bot))
    _add_chat(app, title=title, suggestions=suggestions, look=look or Look())
    _add_pages(app, Manual(documents, sections), title=title, model_name=model_name)
    return app


def _add_guards(app: FastAPI, bot: Bot, rules: GateRules, cors_origins: Sequence[str]) -> None:
    """What a request passes before any route; the last one added is passed first."""
    if bot.desk and bot.tally:
        app.add_middleware(Gate, rules=rules, desk=bot.desk, tally=bot.tally)
    app.add_middleware(SecurityHeaders)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type"],
            expose_headers=["retry-after", "x-request-id"],
        )
    app.add_middleware(MeasuredApp, metrics=bot.metrics)


async def _forget_hourly(desk: Desk, days: float) -> None:
    while True:
        with contextlib.suppress(StorageError):  # logged by the desk
            await desk.ask(forget_older, days=days, now=time.time())
        await asyncio.sleep(3600)


def _add_chat(app: FastAPI, *, title: str, suggestions: Sequence[str], look: Look) -> None:
    """The chat page, the script that is the chat (there, and in other sites' pages), and the brand's picture."""
    chat_page = fill_template("index.html", title=title)
    script = widget_file(title=title, suggestions=suggestions, look=look)
    icon = icon_file(look)
    brand = brand_file(look)

    async def show_chat(_request: Request) -> Response:
        return HTMLResponse(chat_page, headers={"cache-control": "no-cache"})

    async def send_script(request: Request) -> Response:
        return script.response(request)

    async def send_icon(request: Request) -> Response:
        return icon.response(request)

    async def send_brand(request: Request) -> Response:
        return brand.response(request)

    app.add_route("/", show_chat, include_in_schema=False)
    app.add_route("/widget.js", send_script, include_in_schema=False)
    app.add_route("/logo", send_icon, include_in_schema=False)
    app.add_route("/brand.css", send_brand, include_in_schema=False)


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
