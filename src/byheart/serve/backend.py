"""The engine behind the server, where it is a program of its own: found at an address, or started on this machine.

What is started listens on loopback alone and asks for a key that only this server knows. So nobody gets around the
receipts, keys and limits in front of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from byheart.errors import EngineError
from byheart.llm import StreamedModel
from byheart.serve.signals import sigterm_unwinds

NAME = "byheart"  # what a started engine calls the model
LOOPBACK = "127.0.0.1"
STOP_S = 10.0  # for an engine to end by itself
RESTARTS_S = (1.0, 5.0, 30.0, 60.0, 120.0)  # waits before starts in a row: what always fails must not load for ever
STEADY_S = 600.0  # an engine that ran for so long has its restarts anew
_POLL_S = 0.2
_INSTALL = {
    "vllm": "Install it where byheart is: pip install vllm (it needs a GPU)",
    "llama-server": "Install llama.cpp: brew install llama.cpp, or https://github.com/ggml-org/llama.cpp/releases",
}
_KEY_VARIABLES = ("VLLM_API_KEY", "LLAMA_API_KEY")  # read by the programs: a key in their arguments is seen by all

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Backend:
    """Where an engine is."""

    base_url: str
    model: str
    api_key: str
    restarts: Path | None = None  # a line for each time that byheart started it again; None: it is not byheart's


def find(*, base_url: str, model: str, api_key: str) -> Backend:
    """Return the engine at an address. Without a model's name it is the one that the server has.

    Raises EngineError where nothing answers there, or another model.
    """
    names = asyncio.run(_models(base_url, api_key, silence_s=10.0))
    if not model and len(names) == 1:
        model = names[0]
    if model not in names:
        wanted = f"has no model {model!r}" if model else "has several models"
        raise EngineError(
            f"serve.engine_url: {base_url} {wanted}. Set serve.engine_model to one of: {', '.join(names)}"
        )
    return Backend(base_url, model, api_key)


def vllm_command(model: str, *, adapter: Path | None, rank: int, template: Path | None) -> list[str]:
    """Return the arguments that start vLLM with a model, or with a LoRA adapter under its name."""
    name = ["--served-model-name", f"{NAME}-base" if adapter else NAME]
    lora = ["--enable-lora", "--max-lora-rank", str(_vllm_rank(rank)), "--lora-modules", f"{NAME}={adapter}"]
    form = ["--chat-template", str(template)] if template else []
    return ["vllm", "serve", model, *name, *(lora if adapter else []), *form]


def llama_command(gguf: Path) -> list[str]:
    """Return the arguments that start llama.cpp's server. Raises EngineError where the file is missing."""
    if not gguf.is_file():
        raise EngineError(f"serve.engine_model: {gguf} is not there. Name the bot's model as a GGUF file.")
    return ["llama-server", "--model", str(gguf), "--alias", NAME]


@contextlib.contextmanager
def started(command: Sequence[str], *, log: Path, start_s: float) -> Iterator[Backend]:
    """Run an engine while the block runs; it ends with it. What it prints goes to `log`.

    One that was ready and ends by itself is started again (RESTARTS_S), at the same address.

    Raises EngineError where the program is not installed, or does not get ready within `start_s` seconds.
    """
    program = shutil.which(command[0])
    if program is None:
        raise EngineError(f"There is no program {command[0]} on this machine. {_INSTALL[command[0]]}.")
    port, key = _free_port(), secrets.token_urlsafe(32)
    arguments = [program, *command[1:], "--host", LOOPBACK, "--port", str(port)]
    restarts = log.with_suffix(".restarts")  # a file: workers tell the figure, and this process the engine
    restarts.write_bytes(b"")
    backend = Backend(f"http://{LOOPBACK}:{port}/v1", NAME, key, restarts)
    with log.open("wb") as output:
        running = _Program(arguments, key=key, output=output, restarts=restarts)
        try:
            with sigterm_unwinds():
                _wait_until_ready(running.process, backend, log=log, start_s=start_s)
                running.keep()
                yield backend
        finally:
            running.stop()


class _Program:
    """A process that takes the place of one that ended, until it is stopped."""

    def __init__(self, arguments: Sequence[str], *, key: str, output: IO[bytes], restarts: Path) -> None:
        self._arguments = arguments
        self._env = os.environ | dict.fromkeys(_KEY_VARIABLES, key)
        self._output = output
        self._restarts = restarts
        self._stopping = threading.Event()
        self._has_ended = False
        self._keeper = threading.Thread(target=self._keep, name="byheart-engine", daemon=True)
        self.process = self._start()

    def keep(self) -> None:
        """From now on start it again where it ends by itself, and say so in the log."""
        self._keeper.start()

    def stop(self) -> None:
        """End the process; another does not take its place."""
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join()
        if not self._has_ended:  # else its number may be another's by now
            _stop(self.process)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._arguments, stdout=self._output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self._env,
            start_new_session=True,  # Ctrl-C is for this server, which ends the engine after the last answer
        )  # fmt: skip

    def _keep(self) -> None:
        waits_s, since = iter(RESTARTS_S), time.monotonic()
        while not self._stopping.wait(_POLL_S):
            if self.process.poll() is None:
                continue
            if time.monotonic() - since > STEADY_S:
                waits_s = iter(RESTARTS_S)
            wait_s = next(waits_s, None)
            then = "it is not started again" if wait_s is None else f"it is started again in {wait_s:g} s"
            code, log = self.process.returncode, self._output.name
            logger.error("the engine ended with code %s: %s (all: %s); %s", code, _last_line(Path(log)), log, then)
            _stop(self.process)  # helpers that it left behind hold the GPU's memory
            self._has_ended = True
            if wait_s is None or self._stopping.wait(wait_s):
                return
            try:
                self.process, since = self._start(), time.monotonic()
            except OSError as fault:  # the program is gone, or the machine has no room for it
                logger.error("the engine could not be started again: %s", fault)
                return
            self._has_ended = False
            with self._restarts.open("a", encoding="utf-8") as lines:
                lines.write(f"{time.time():.0f} started again after code {code}\n")


def _wait_until_ready(process: subprocess.Popen[bytes], backend: Backend, *, log: Path, start_s: float) -> None:
    deadline = time.monotonic() + start_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EngineError(f"The engine ended with code {process.returncode}: {_last_line(log)} (all: {log})")
        with contextlib.suppress(EngineError):
            if backend.model in asyncio.run(_models(backend.base_url, backend.api_key, silence_s=2.0)):
                return
        time.sleep(_POLL_S)
    raise EngineError(f"The engine was not ready within {start_s:g} s (serve.engine_start_s). It printed: {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # it has ended, and its helpers with it
            os.killpg(process.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
            return


async def _models(base_url: str, api_key: str, *, silence_s: float) -> list[str]:
    model = StreamedModel(base_url=base_url, model="", api_key=api_key, silence_s=silence_s)
    try:
        return await model.models()
    finally:
        await model.close()


def _vllm_rank(rank: int) -> int:
    return next(size for size in (8, 16, 32, 64, 128, 256, 320, 512, rank) if size >= rank)  # what vLLM takes


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][-300:] if lines else "it printed nothing"
