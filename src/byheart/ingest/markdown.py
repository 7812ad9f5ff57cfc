"""Markdown and MDX files to plain Markdown: front matter, notes, tabs, JSX, HTML and reference links resolved."""

from __future__ import annotations

import re
import tomllib
from pathlib import PurePosixPath
from typing import Any

import yaml

from byheart.ingest.containers import unwrap_containers
from byheart.ingest.inline import resolve_inline
from byheart.ingest.markdown_text import Converted, tidy
from byheart.ingest.sections import find_headings

_FRONT_MATTER = re.compile(r"\A(?P<fence>---|\+\+\+)[ \t]*\n(?P<body>.*?)\n?(?P=fence)[ \t]*(?:\n|\Z)", re.DOTALL)
_YAML_FIELD = re.compile(r"^(title|sidebar_label|lang|language):[ \t]*(.+)$", re.MULTILINE)


def convert_markdown(text: str, *, location: str) -> Converted:
    """Return a Markdown or MDX text with everything resolved that plain Markdown does not know."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    fields, body = split_front_matter(text)
    markdown = tidy(resolve_inline(unwrap_containers(body)))
    title = _text(fields.get("title")) or _text(fields.get("sidebar_label"))
    if not title:
        headings = find_headings(markdown)
        first = next((h for h in headings if h.level == 1), headings[0] if headings else None)
        title = first.text if first and first.text else title_of_path(location)
    language = _text(fields.get("lang")) or _text(fields.get("language"))
    return Converted(title, language, markdown)


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Return the fields of the YAML (---) or TOML (+++) front matter, and the text after it."""
    match = _FRONT_MATTER.match(text)
    if match is None:
        return {}, text
    body = match["body"]
    try:
        fields = yaml.safe_load(body) if match["fence"] == "---" else tomllib.loads(body)
    except (yaml.YAMLError, tomllib.TOMLDecodeError, ValueError):
        # Titles with an unquoted colon are common and no reason to lose the page.
        fields = {name: value.strip().strip("'\"") for name, value in _YAML_FIELD.findall(body)}
        return fields, text[match.end() :]
    if not isinstance(fields, dict):
        # "---" was a rule, not front matter.
        return ({}, text) if fields is not None else ({}, text[match.end() :])
    return fields, text[match.end() :]


def title_of_path(location: str) -> str:
    """Return a readable title for a file that has none: "guides/first-steps.md" gives "First steps"."""
    path = PurePosixPath(location)
    stem = path.parent.name if path.stem.lower() in {"index", "readme"} and path.parent.name else path.stem
    words = re.sub(r"[-_]+", " ", stem).strip()
    return words[:1].upper() + words[1:] if words else location


def _text(value: Any) -> str:
    return " ".join(str(value).split()) if isinstance(value, str | int | float) else ""
