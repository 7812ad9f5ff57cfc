"""What every converter returns, and the last touch on its Markdown."""

from __future__ import annotations

import dataclasses
import re


@dataclasses.dataclass(frozen=True, slots=True)
class Converted:
    """A file or page as Markdown."""

    title: str
    language: str  # "" where it does not say
    markdown: str


def tidy(markdown: str) -> str:
    """Return Markdown without invisible characters, trailing white space and runs of empty lines."""
    text = markdown.replace("\u00a0", " ").replace("\u200b", "").replace("\ufeff", "").replace("\u00ad", "")
    text = "\n".join(line.rstrip() if not line.endswith("  ") else line.rstrip() + "  " for line in text.split("\n"))
    text = re.sub(r"\n(?:[ \t]*\n){2,}", "\n\n", text).strip()
    return f"{text}\n" if text else ""
