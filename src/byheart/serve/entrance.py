"""Serving's entrance: from the config to the engine and the processes that serve.

It brings neither torch nor a model where it only watches workers: these are imported where they are needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastapi import FastAPI

from byheart.config import Project
from byheart.errors import ConfigError, EngineError
from byheart.serve import workers
from byheart.serve.backend import Backend, find, llama_command, started, vllm_command
from byheart.serve.server import Ready, serve

ENGINE_LOG = "engine.log"
_ENGINE_KEY = "BYHEART_ENGINE_KEY"  # the environment variables that workers find these in
_ENGINE_RESTARTS = "BYHEART_ENGINE_RESTARTS"


def run(project: Project, *, again: Sequence[str], ready: Ready) -> None:
    """Serve the bot until Ctrl-C or SIGTERM, in one process or several. `again`: the command that does the same."""
    settings = project.config.serve
    with engine_of(project) as backend:
        if workers.is_worker():
            workers.work(_web_app(project, backend), trusted_proxies=settings.trusted_proxies)
        elif settings.workers > 1:
            found = {} if backend is None else {
                "engine": "http", "engine_url": backend.base_url, "engine_model": backend.model,
                "engine_key_env": _ENGINE_KEY,
            }  # fmt: skip
            sets = [word for name, value in found.items() for word in ("--set", f"serve.{name}={value}")]
            handed = {_ENGINE_KEY: backend.api_key, _ENGINE_RESTARTS: str(backend.restarts or "")} if backend else {}
            workers.supervise(
                [*again, *sets], count=settings.workers, host=settings.host, port=settings.port, ready=ready,
                more_env=handed,
            )  # fmt: skip
        else:
            app = _web_app(project, backend)
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
            found = find(base_url=settings.engine_url, model=settings.engine_model, api_key=key)
            restarts = os.environ.get(_ENGINE_RESTARTS, "") if workers.is_worker() else ""
            yield dataclasses.replace(found, restarts=Path(restarts) if restarts else None)
        case "vllm":
            command = [*_vllm(project), *settings.engine_options]
            with started(command, log=project.run_path / ENGINE_LOG, start_s=settings.engine_start_s) as backend:
                yield backend
        case "llama":
            gguf = project.folder / (settings.engine_model or "model.gguf")
            command = [*llama_command(gguf), *settings.engine_options]
            with started(command, log=project.run_path / ENGINE_LOG, start_s=settings.engine_start_s) as backend:
                yield backend


def _web_app(project: Project, backend: Backend | None) -> FastAPI:
    from byheart.serve.assemble import web_app

    return web_app(project, backend)


def _vllm(project: Project) -> list[str]:
    """Return how vLLM is started: with the model that the config names, else with the bot's own adapter by name."""
    from byheart.models.adapters import chat_template, read_description
    from byheart.models.hub import model_source

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
