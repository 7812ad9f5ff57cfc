"""The byheart.yaml that `byheart init` writes: short, and each line says what it does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from byheart.config_file import is_address
from byheart.errors import ConfigError

_TEMPLATE = """\
# A chatbot that knows a manual by heart. Build it with `byheart run`; see all settings with `byheart config`.

docs:                       # the manual: an address, or folders, zips and files (paths start at this file)
{docs}

# questions: real.jsonl     # questions that customers really asked, and the facts a right answer holds

# base_model: starter       # the model to fine-tune; starter runs anywhere, without a GPU or a download

# synthesize:
#   teacher: openai         # questions written by a model behind an OpenAI-compatible server; default: rules, no key
#   base_url: http://127.0.0.1:11434/v1
#   model: gpt-4o-mini

# train:
#   epochs: 3               # at most; stops by itself when questions it has not seen get no better

# serve:
#   title: Ask the manual   # shown on the chat page
#   port: 8000

# chat:                     # how the chat page and the widget look
#   accent: "#0f766e"
#   contact: help@example.com   # the way to a person where the bot is not sure
"""


def write_new(file: Path, docs: Sequence[str]) -> None:
    """Write a new config. Raises ConfigError where there is one already, or a source is not there."""
    text = new_config(docs, folder=file.parent)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError as there:
        raise ConfigError([f"{there.filename}: is there already. Edit it, or name another folder."]) from there
    except OSError as fault:
        raise ConfigError([f"{file}: cannot be written: {fault.strerror}. Name another folder."]) from fault


def new_config(docs: Sequence[str], *, folder: Path) -> str:
    """Return the text of a new config in `folder`. Raises ConfigError for each source that is not there."""
    faults = [fault for source in docs if (fault := _fault(source))]
    if faults:
        raise ConfigError(faults)
    written = [source if is_address(source) else _as_seen_from(folder, Path(source)) for source in docs]
    lines = yaml.safe_dump(written, allow_unicode=True, width=float("inf"))
    return _TEMPLATE.format(docs="".join(f"  {line}\n" for line in lines.splitlines()).rstrip("\n"))


def _fault(source: str) -> str:
    if is_address(source) or (source.strip() and Path(source).exists()):
        return ""
    host = source.partition("/")[0]
    looks_like_host = "." in host.strip(".") and "://" not in source
    advice = f"If it is a website, write https://{source}" if looks_like_host else "Give an http(s) address or a path."
    return f"--docs {source}: is not there. {advice}"


def _as_seen_from(folder: Path, source: Path) -> str:
    """Return a path that still holds when bot and manual move together; one that was given in full stays as it is."""
    absolute = source.resolve()
    inside = absolute.is_relative_to(folder.resolve())
    if source.is_absolute() and not inside:
        return str(source)
    return Path(os.path.relpath(absolute, folder.resolve())).as_posix()
