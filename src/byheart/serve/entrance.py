"""Serving's entrance: from the config to the engine and the web app."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from fastapi import FastAPI

from byheart.answer import bot as answering
from byheart.answer.base import Answerer, AsyncAnswerer
from byheart.answer.generated import GeneratedAnswerer, RemoteWriter
from byheart.answer.written import WrittenAnswerer
from byheart.config import Project
from byheart.errors import ConfigError, EngineError
from byheart.llm import StreamedModel
from byheart.models.adapters import chat_template, read_description
from byheart.models.hub import model_source
from byheart.records import Document, Section
from byheart.serve import workers
from byheart.serve.api import create_app
from byheart.serve.backend import Backend, find, llama_command, started, vllm_command
from byheart.serve.database import open_database
from byheart.serve.gate import GateRules
from byheart.serve.keys import page_key
from byheart.serve.server import Ready, serve
from byheart.serve.suggest import suggest
from byheart.serve.widget import Look
from byheart.store import RunFolder

ENGINE_LOG = "engine.log"
_ENGINE_KEY = "BYHEART_ENGINE_KEY"  # the environment variable that workers find it in
AT_ONCE_IN_THREADS = 4  # questions that take turns at the cores
AT_ONCE_IN_BATCHES = 64  # more than a batch holds: one is filled while the last is written


def run(project: Project, *, again: Sequence[str], ready: Ready) -> None:
    """Serve the bot until Ctrl-C or SIGTERM, in one process or several. `again`: the command that does the same."""
    settings = project.config.serve
    with engine_of(project) as backend:
        if workers.is_worker():
            workers.work(web_app(project, backend), trusted_proxies=settings.trusted_proxies)
        elif settings.workers > 1:
            found = {} if backend is None else {
                "engine": "http", "engine_url": backend.base_url, "engine_model": backend.model,
                "engine_key_env": _ENGINE_KEY,
            }  # fmt: skip
            sets = [word for name, value in found.items() for word in ("--set", f"serve.{name}={value}")]
            workers.supervise(
                [*again, *sets], count=settings.workers, host=settings.host, port=settings.port, ready=ready,
                more_env={_ENGINE_KEY: backend.api_key} if backend else {},
            )  # fmt: skip
        else:
            app = web_app(project, backend)
            serve(app, host=settings.host, port=settings.port, ready=ready, trusted_proxies=settings.trusted_proxies)


@contextlib.contextmanager
def engine_of(project: Project) -> Iterator[Backend | None]:
    """Find or start the engine that the config names; None where the model runs in this process.

    Raises EngineError where it is not there, ConfigError where a setting is missing.
    """
    settings = project.config.serve
    match settings.engine:
        case "in-process":
            yield None
        case "http":
            if not settings.engine_url:
                raise ConfigError(["serve.engine_url is empty. Set it to an address such as http://127.0.0.1:11434/v1"])
            key = os.environ.get(settings.engine_key_env, "") if settings.engine_key_env else ""
            yield find(base_url=settings.engine_url, model=settings.engine_model, api_key=key)
        case "vllm":
            command = [*_vllm(project), *settings.engine_options]
            with started(command, log=project.run_path / ENGINE_LOG, start_s=settings.engine_start_s) as backend:
                yield backend
        case "llama":
            gguf = project.folder / (settings.engine_model or "model.gguf")
            command = [*llama_command(gguf), *settings.engine_options]
            with started(command, log=project.run_path / ENGINE_LOG, start_s=settings.engine_start_s) as backend:
                yield backend


def web_app(project: Project, backend: Backend | None) -> FastAPI:
    """Return the bot's web app. Raises ByheartError where the bot is not trained, or a setting does not fit."""
    folder = RunFolder(project.run_path)
    sections = folder.read("2-sections.jsonl", Section)
    chat, settings = project.config.chat, project.config.serve
    answerer = _answerer(project, folder, backend)
    at_once = AT_ONCE_IN_BATCHES if isinstance(answerer, AsyncAnswerer) else AT_ONCE_IN_THREADS
    database = open_database(settings.database, folder=project.folder)
    return create_app(
        answerer,
        model_name=project.folder.resolve().name,
        title=settings.title or project.folder.resolve().name,
        suggestions=chat.suggestions or suggest(sections),
        documents=folder.read("1-documents.jsonl", Document),
        sections=sections,
        look=Look(
            accent=chat.accent,
            theme=chat.theme,
            greeting=chat.greeting,
            language=chat.language,
            contact=chat.contact,
            logo=project.folder / chat.logo if chat.logo else None,
            key=page_key(database, settings.page_key),
        ),
        workers=settings.threads or at_once,
        waiting=settings.waiting,
        time_limit_s=settings.answer_timeout_s,
        rules=GateRules(
            keys_required=settings.require_keys,
            open_pages=settings.open_pages,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
        ),
        cors_origins=settings.cors_origins,
        database=database,
        keeps_exchanges=settings.keep_conversations,
        retention_days=settings.retention_days,
    )


def _answerer(project: Project, folder: RunFolder, backend: Backend | None) -> Answerer | AsyncAnswerer:
    settings = project.config.answer
    if backend is None:
        loaded = answering.load(
            folder, system="byheart", max_words=settings.max_words, max_citations=settings.max_citations,
            grounding=settings.grounding, unsupported=settings.unsupported,
        )  # fmt: skip
        return loaded.in_batches() if isinstance(loaded, WrittenAnswerer) else loaded
    grounds = answering.load_grounds(
        folder, max_words=settings.max_words, max_citations=settings.max_citations,
        grounding=settings.grounding, unsupported=settings.unsupported,
    )  # fmt: skip
    model = StreamedModel(
        base_url=backend.base_url, model=backend.model, api_key=backend.api_key,
        silence_s=project.config.serve.answer_timeout_s,
    )  # fmt: skip
    return GeneratedAnswerer(writer=RemoteWriter(model, most_tokens=grounds.most_tokens), grounds=grounds)


def _vllm(project: Project) -> list[str]:
    """Return how vLLM is started: with the model that the config names, else with the bot's own adapter by name."""
    named = project.config.serve.engine_model
    if named:
        local = project.folder / named
        return vllm_command(str(local) if local.is_dir() else named, adapter=None, rank=0, template=None)
    model = project.run_path / "4-model"
    trained = read_description(model)
    if trained.family != "causal":
        raise EngineError(
            f"serve.engine: vllm: {trained.base_model} writes no answers that vLLM could serve. Name another model in "
            "serve.engine_model (with answer.grounding: retrieve), or use engine: in-process."
        )
    template = model.parent / "chat-template.jinja"
    template.write_text(chat_template(model), encoding="utf-8")
    if trained.method == "full":
        return vllm_command(str(model), adapter=None, rank=0, template=template)
    return vllm_command(model_source(trained.base_model), adapter=model, rank=trained.rank, template=template)
