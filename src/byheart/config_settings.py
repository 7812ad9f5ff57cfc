"""The settings as a flat list: what may be written in byheart.yaml, for errors, editors and the reference page."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from byheart.config import Config


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One key of the config."""

    key: str  # "train.epochs"
    allowed: str  # in words: "a whole number, at least 1"
    required: bool
    default: Any  # None where required, or where the value is chosen when the run starts
    description: str
    raw_text: bool  # any text is a value for it: "--set key=text" takes the text as it is


def groups() -> dict[str, type[BaseModel]]:
    """Return the config's parts by name: ingest, synthesize, …"""
    declared = {name: field.annotation for name, field in Config.model_fields.items()}
    return {name: kind for name, kind in declared.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}


@functools.cache
def settings() -> Mapping[str, Setting]:
    """Return every setting by its dotted key, in the order of the classes."""
    parts = groups()
    top: list[tuple[str, type[BaseModel]]] = [("", Config), *parts.items()]
    found: dict[str, Setting] = {}
    for prefix, part in top:
        properties = part.model_json_schema()["properties"]
        for name, field in part.model_fields.items():
            if not prefix and name in parts:
                continue
            key = f"{prefix}.{name}" if prefix else name
            required = field.is_required()
            found[key] = Setting(
                key=key,
                allowed=in_words(properties[name]),
                required=required,
                default=None if required else field.default,
                description=field.description or "",
                raw_text=field.annotation is str,
            )
    return found


def in_words(schema: Mapping[str, Any]) -> str:
    """Say what a JSON schema of one setting allows."""
    if "anyOf" in schema:
        return ", or ".join(in_words(choice) for choice in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(str(choice) for choice in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        least = f" of {schema['minItems']} or more" if schema.get("minItems") else ""
        inner = in_words(schema.get("items", {}))
        return f"text, or a list{least}, each text" if inner == "text" else f"a list{least}, each {inner}"
    if "pattern" in schema and schema.get("examples"):
        return f"text like {schema['examples'][0]}"
    bounds = {
        "minimum": "at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
    }
    said = [words.format(f"{schema[name]:g}") for name, words in bounds.items() if name in schema]
    names = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
    return ", ".join([{**names, "null": "nothing"}.get(kind, "anything"), *said])


def value_of(config: Config, key: str) -> Any:
    """Return the value that a dotted key has."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return list(value) if isinstance(value, tuple) else value


def json_schema() -> dict[str, Any]:
    """Return a JSON schema of byheart.yaml, for editors that complete and check as you type."""
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "byheart.yaml"
    for part in (schema, *schema["$defs"].values()):
        for name, declared in part["properties"].items():
            if declared.get("items", {}).get("type") == "string":
                shared = {word: declared.pop(word) for word in ("description", "default") if word in declared}
                part["properties"][name] = {"anyOf": [{"type": "string"}, declared], **shared}
    return schema


def as_yaml(config: Config, notes: Mapping[str, str]) -> str:
    """Return the config written out as YAML that byheart can read again; `notes` become comments, by key."""
    lines: list[str] = []
    group = ""
    for key in settings():
        prefix, _, name = key.rpartition(".")
        if prefix != group:
            lines.append(f"{prefix}:")
            group = prefix
        line = f"{'  ' if prefix else ''}{name}: {_inline(value_of(config, key))}"
        lines.append(f"{line:<48}  # {notes[key]}" if key in notes else line)
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    """Return a value in YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.removesuffix("...\n").strip()
