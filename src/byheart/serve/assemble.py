"""The bot behind the server: loads the model and the manual, and makes the web app of them.

Apart from the entrance because it brings torch, which the parent of several workers has no use for.
"""

from __future__ import annotations

from fastapi import FastAPI

from byheart.answer import bot as answering
from byheart.answer.base import Answerer, AsyncAnswerer
from byheart.answer.generated import GeneratedAnswerer, RemoteWriter
from byheart.answer.written import WrittenAnswerer
from byheart.config import Project
from byheart.llm import StreamedModel
from byheart.records import Document, Section
from byheart.serve.api import create_app
from byheart.serve.backend import Backend
from byheart.serve.database import open_database
from byheart.serve.gate import GateRules
from byheart.serve.keys import page_key
from byheart.serve.pulse import Pulse
from byheart.serve.suggest import suggest
from byheart.serve.widget import Look
from byheart.store import RunFolder

AT_ONCE_IN_THREADS = 4  # questions that take turns at the cores
AT_ONCE_IN_BATCHES = 64  # more than a batch holds: one is filled while the last is written


def web_app(project: Project, backend: Backend | None) -> FastAPI:
    """Return the bot's web app. Raises ByheartError where the bot is not trained, or a setting does not fit."""
    folder = RunFolder(project.run_path)
    sections = folder.read("2-sections.jsonl", Section)
    chat, settings = project.config.chat, project.config.serve
    model = _model(backend, silence_s=settings.answer_timeout_s) if backend else None
    answerer = _answerer(project, folder, model)
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
        pulse=Pulse(model, restarts=backend.restarts) if model and backend else None,
    )


def _answerer(project: Project, folder: RunFolder, model: StreamedModel | None) -> Answerer | AsyncAnswerer:
    settings = project.config.answer
    if model is None:
        loaded = answering.load(
            folder, system="byheart", max_words=settings.max_words, max_citations=settings.max_citations,
            grounding=settings.grounding, unsupported=settings.unsupported,
        )  # fmt: skip
        return loaded.in_batches() if isinstance(loaded, WrittenAnswerer) else loaded
    grounds = answering.load_grounds(
        folder, max_words=settings.max_words, max_citations=settings.max_citations,
        grounding=settings.grounding, unsupported=settings.unsupported,
    )  # fmt: skip
    return GeneratedAnswerer(writer=RemoteWriter(model, most_tokens=grounds.most_tokens), grounds=grounds)


def _model(backend: Backend, *, silence_s: float) -> StreamedModel:
    return StreamedModel(base_url=backend.base_url, model=backend.model, api_key=backend.api_key, silence_s=silence_s)
