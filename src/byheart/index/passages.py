"""Sections cut into passages that the encoder reads whole, and into units that an answer is composed of.

A unit is what a reader takes in at once: a sentence, a list item, a table row, a code block. It keeps the Markdown of
the manual, so that an answer shows steps as steps, and the ids of the facts that it states.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from byheart.records import Document, Fact, Section

MAX_PASSAGE_WORDS = 150  # with its headings, a passage stays under the encoder's 256 tokens

UnitKind = Literal["sentence", "item", "row", "code"]

_MARKER = re.compile(r"^[ \t>]*(?P<marker>[-*+]|\d{1,4}[.)])[ \t]+")
_FENCE = re.compile(r"^[ \t>]*(?:```|~~~)")
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)[^)\s]*(?:\s+\"[^\"]*\")?\)")  # relative: dead outside the manual


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """The smallest part of an answer."""

    text: str  # plain, as the encoder and BM25 read it
    markdown: str  # as it is shown
    kind: UnitKind
    block: int  # units with the same number stand in one paragraph, list or table
    header: str  # of a table, in Markdown; "" elsewhere
    fact_ids: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Passage:
    """A section, or a part of a long one."""

    section_id: str
    document_id: str
    title: str
    heading_path: tuple[str, ...]
    url: str
    is_link_list: bool  # a menu of other pages: it names everything and explains nothing
    units: tuple[Unit, ...]

    @property
    def prefix(self) -> str:
        """Return the headings, as they stand before the passage's text."""
        return " > ".join(self.heading_path) + ". "

    @property
    def text(self) -> str:
        """Return what the encoder reads: headings, then the units."""
        return self.prefix + " ".join(unit.text for unit in self.units)


def make_passages(sections: Iterable[Section], facts: Iterable[Fact], documents: Iterable[Document]) -> list[Passage]:
    """Return the passages of all sections with text, in order."""
    titles = {document.id: document.title for document in documents}
    by_section: dict[str, list[Fact]] = {}
    for fact in facts:
        by_section.setdefault(fact.section_id, []).append(fact)
    passages = []
    for section in sections:
        units = make_units(section.markdown, by_section.get(section.id, []))
        for part in _windows(units):
            passages.append(
                Passage(
                    section_id=section.id,
                    document_id=section.document_id,
                    title=titles.get(section.document_id, section.heading_path[0]),
                    heading_path=section.heading_path,
                    url=section.url,
                    is_link_list=_is_link_list(section.markdown),
                    units=tuple(part),
                )
            )
    return passages


def make_units(markdown: str, facts: Sequence[Fact]) -> list[Unit]:
    """Return the units of a section: its facts, joined where they stand in one list item or table row."""
    lines = _Lines(markdown)
    grouped = itertools.groupby(facts, key=lambda fact: lines.group_of(fact.start))
    return [lines.unit(group, list(members)) for group, members in grouped]


@dataclasses.dataclass(frozen=True, slots=True)
class _Group:
    """Facts of one group make one unit."""

    kind: UnitKind
    block: int
    first: int  # lines
    end: int
    number: int  # a sentence is a group of its own: its start


class _Lines:
    """A section's Markdown by lines: which of them are list items, table rows, code."""

    def __init__(self, markdown: str) -> None:
        self.markdown = markdown
        self.lines = markdown.split("\n")
        self.starts = list(itertools.accumulate((len(line) + 1 for line in self.lines), initial=0))
        self.kinds: list[UnitKind] = []
        self.items: list[int] = []  # the line that each line's list item begins at
        self.blocks: list[int] = []
        self._read()

    def _read(self) -> None:
        block, item, in_code, blank, before = 0, 0, False, True, ""
        for number, line in enumerate(self.lines):
            is_fence = bool(_FENCE.match(line))
            marker = _MARKER.match(line)
            kind: UnitKind = "sentence"
            if in_code or is_fence:
                kind = "code"
                block, item = (block, item) if in_code else (block + 1, number)
                in_code = in_code != is_fence
            elif line.lstrip(" >").startswith("|"):
                kind, item = "row", number
                block += before != "row"
            elif marker:
                kind, item = "item", number
                block += before not in ("item", "code")
            elif before == "item" and (not line.strip() or not blank or line[:1] in " \t"):
                kind = "item"  # an empty line, too: the steps of a list may stand apart and are one list
            elif blank or before not in ("sentence",):
                block, item = block + 1, number
            self.kinds.append(kind)
            self.items.append(item)
            self.blocks.append(block)
            blank = not line.strip(" >")
            before = before if blank and before == "item" else kind

    def line_at(self, position: int) -> int:
        """Return the line of a character."""
        low, high = 0, len(self.lines) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.starts[middle] <= position else (low, middle - 1)
        return low

    def group_of(self, position: int) -> _Group:
        """Return the group of the fact that starts at a character."""
        line = self.line_at(position)
        kind, item = self.kinds[line], self.items[line]
        end = next(
            (n for n in range(item + 1, len(self.lines)) if self.items[n] != item or self.kinds[n] != kind),
            len(self.lines),
        )
        number = position if kind == "sentence" else item
        return _Group(kind, self.blocks[line], item, end, number)

    def unit(self, group: _Group, facts: Sequence[Fact]) -> Unit:
        """Return the unit that the facts of one group make."""
        header = ""
        if group.kind == "sentence":
            shown = " ".join(re.sub(r"\n[ \t>]*", " ", self.markdown[fact.start : fact.end]) for fact in facts)
        else:
            shown = "\n".join(self.lines[group.first : group.end]).strip("\n").rstrip()
        if group.kind == "row":
            table = [line for line, block in zip(self.lines, self.blocks, strict=True) if block == group.block]
            header = "\n".join(line.strip(" >") for line in table[:2])
            shown = shown.strip(" >")
        elif group.kind == "item":
            shown = re.sub(r"^[ \t>]*", "", shown)
        return Unit(
            text=" ".join(_ended(fact.statement) for fact in facts),
            markdown=_LINK.sub(r"\1", shown),
            kind=group.kind,
            block=group.block,
            header=header,
            fact_ids=tuple(fact.id for fact in facts),
        )


def _ended(statement: str) -> str:
    return statement if statement.endswith((".", "!", "?", ":", ";")) else statement + "."


def _windows(units: Sequence[Unit]) -> Iterable[list[Unit]]:
    """Yield runs of units of at most MAX_PASSAGE_WORDS; a single longer unit stays whole."""
    window: list[Unit] = []
    words = 0
    for unit in units:
        length = len(unit.text.split())
        if window and words + length > MAX_PASSAGE_WORDS:
            yield window
            window, words = [], 0
        window.append(unit)
        words += length
    if window:
        yield window


def _is_link_list(markdown: str) -> bool:
    """Tell whether nearly all of the text is links."""
    linked = sum(len(found.split()) for found in re.findall(r"\[([^\]]*)\]\(", markdown))
    every = len(re.sub(r"\]\([^)]*\)", "", markdown).split())
    return linked > 0 and linked >= 0.7 * every
