"""Documents to sections: the text under one heading, up to the next heading of any level."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

from byheart.ingest.plain import PARSER, plain_text
from byheart.records import Document, Section, stable_id

EXPLICIT_ANCHOR = re.compile(r"\s*\{\s*#([^\s{}]+)\s*\}\s*$")
_NOT_IN_SLUG = re.compile(r"[^\w\- ]")


@dataclasses.dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a Markdown text; `first_line` and `end_line` are its lines, from 0, the end not included."""

    level: int
    text: str  # plain
    anchor: str  # explicit id, or ""
    first_line: int
    end_line: int


def split_documents(documents: Iterable[Document]) -> Iterator[Section]:
    """Yield the sections of all documents in order."""
    order = 0
    for document in documents:
        for section in split_document(document, first_order=order):
            yield section
            order += 1


def split_document(document: Document, *, first_order: int = 0) -> list[Section]:
    """Return the document's sections: one for each heading, and one for the text before the first, where there is any.

    Ids depend on the location, the heading path and its number among equal ones alone: other pages never change them.
    """
    lines = document.markdown.split("\n")
    headings = find_headings(document.markdown)
    seen: Counter[tuple[str, ...]] = Counter()
    slugs: set[str] = set()
    sections: list[Section] = []

    def add(path: tuple[str, ...], url: str, body: list[str]) -> None:
        markdown = _trimmed(body)
        sections.append(
            Section(
                id=stable_id(document.location, *path, str(seen[path])),
                document_id=document.id,
                heading_path=path,
                url=url,
                markdown=markdown,
                order=first_order + len(sections),
                sha256=hashlib.sha256(markdown.encode()).hexdigest(),
            )
        )
        seen[path] += 1

    preamble = lines[: headings[0].first_line] if headings else lines
    if _trimmed(preamble):
        add((document.title,), document.location, preamble)
    ends = [*(heading.first_line for heading in headings), len(lines)][1:]
    paths = _heading_paths(headings, document.title)
    for heading, path, end in zip(headings, paths, ends, strict=True):
        anchor = _unique(heading.anchor or github_slug(heading.text), slugs)
        add(path, f"{document.location}#{anchor}" if anchor else document.location, lines[heading.end_line : end])
    return sections


def find_headings(markdown: str) -> list[Heading]:
    """Return every heading of a Markdown text, also those inside lists and quotes; '#' lines in code are none."""
    tokens = PARSER.parse(markdown)
    headings = []
    for token, inline in pairwise(tokens):
        if token.type != "heading_open" or token.map is None:
            continue
        anchor = EXPLICIT_ANCHOR.search(inline.content)
        text = plain_text(EXPLICIT_ANCHOR.sub("", inline.content))
        level = int(token.tag[1])
        headings.append(Heading(level, text, anchor[1] if anchor else "", token.map[0], token.map[1]))
    return headings


def github_slug(text: str) -> str:
    """Return the anchor that GitHub and most site generators give a heading."""
    return _NOT_IN_SLUG.sub("", text.lower()).strip().replace(" ", "-")


def _heading_paths(headings: list[Heading], title: str) -> list[tuple[str, ...]]:
    """Return each heading's path from the title down; a first heading that repeats the title is the title."""
    paths: list[tuple[str, ...]] = []
    above: list[Heading] = []
    candidates = headings[:1] + [h for h in headings if h.level == 1][:1]
    title_heading = next((h for h in candidates if h.text.casefold() == title.casefold()), None)
    for heading in headings:
        while above and above[-1].level >= heading.level:
            above.pop()
        if heading is title_heading:
            paths.append((title,))
            continue
        above.append(heading)
        paths.append((title, *(item.text for item in above)))
    return paths


def _unique(anchor: str, taken: set[str]) -> str:
    candidate, number = anchor, 0
    while candidate in taken:
        number += 1
        candidate = f"{anchor}-{number}" if anchor else str(number)
    if candidate:
        taken.add(candidate)
    return candidate


def _trimmed(lines: list[str]) -> str:
    """Return the lines without blank ones at both ends and without a common indent.

    Text after a heading inside a list item keeps that item's indent, and would read as a code block.
    """
    text = "\n".join(lines).strip("\n")
    return textwrap.dedent(text).strip("\n").rstrip()
