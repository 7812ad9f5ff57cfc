"""The blocks of a section (paragraphs, list items, table cells, code) with the place of every character in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Literal

from markdown_it.token import Token

from byheart.ingest.plain import PARSER

BlockKind = Literal["paragraph", "step", "bullet", "table row", "code", "html"]


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """A table cell: its text and its span in the section."""

    text: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A piece of a section. `text` is free of list and quote marks; `offsets[i]` is where `text[i]` stands in it."""

    kind: BlockKind
    text: str
    offsets: Sequence[int]
    depth: int  # of lists and quotes around it
    cells: tuple[Cell, ...] = ()
    is_header: bool = False  # a table's first row

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the span in the section of text[start:end]."""
        return self.offsets[start], self.offsets[end - 1] + 1


@dataclasses.dataclass(slots=True)
class _Place:
    """Where the walk through the parser's tokens is."""

    lists: list[str] = dataclasses.field(default_factory=list)
    depth: int = 0
    is_item_start: bool = False  # the next paragraph is its list item's own
    is_header: bool = False

    def pass_token(self, token: Token) -> None:
        """Keep up with the token."""
        if token.type in {"ordered_list_open", "bullet_list_open"}:
            self.lists.append(token.type)
        elif token.type in {"ordered_list_close", "bullet_list_close"}:
            self.lists.pop()
        if token.type in {"list_item_open", "blockquote_open"}:
            self.depth += 1
        elif token.type in {"list_item_close", "blockquote_close"}:
            self.depth -= 1
        if token.type in {"thead_open", "thead_close"}:
            self.is_header = token.type == "thead_open"
        if token.type not in {"paragraph_open", "inline"}:
            self.is_item_start = token.type == "list_item_open"

    def paragraph_kind(self) -> BlockKind:
        """Return what a paragraph here is."""
        if not self.is_item_start:
            return "paragraph"
        return "step" if self.lists[-1] == "ordered_list_open" else "bullet"


def section_blocks(markdown: str) -> Iterator[Block]:
    """Yield the blocks of a section in order."""
    source = _Source(markdown)
    place = _Place()
    before = ""
    for token in PARSER.parse(markdown):
        place.pass_token(token)
        first = token.map[0] if token.map else -1
        if token.type == "inline" and before == "paragraph_open":
            yield source.block(place.paragraph_kind(), token.content, first, place.depth)
        elif token.type == "tr_open":
            yield source.row(first, place.depth, is_header=place.is_header)
        elif token.type == "fence":
            yield source.block("code", token.content.rstrip("\n"), first + 1, place.depth)
        elif token.type in {"code_block", "html_block"}:
            kind: BlockKind = "code" if token.type == "code_block" else "html"
            yield source.block(kind, token.content.rstrip("\n"), first, place.depth)
        before = token.type


class _Source:
    """A section's lines and where they start."""

    def __init__(self, markdown: str) -> None:
        self._lines = markdown.split("\n")
        self._starts = [0, *accumulate(len(line) + 1 for line in self._lines)]

    def block(self, kind: BlockKind, text: str, first: int, depth: int) -> Block:
        """Find a block's text, line by line: the parser takes indents and marks off the starts of lines, no more."""
        offsets: list[int] = []
        for number, piece in enumerate(text.split("\n"), first):
            line, start = self._lines[number], self._starts[number]
            column = line.rfind(piece) if piece else len(line)
            widened = 0
            if column < 0:  # the parser has made spaces of a tab before the text: they stand where the text begins
                widened = len(piece) - len(piece.lstrip())
                column = max(0, line.rfind(piece.lstrip()))
            offsets.extend([start + column] * widened)
            last = start + len(line) - 1
            offsets.extend(min(start + column + i, last) for i in range(len(piece) - widened))
            offsets.append(start + len(line))  # the line break
        return Block(kind, text, offsets, depth)

    def row(self, number: int, depth: int, *, is_header: bool) -> Block:
        """Return a table row with its cells."""
        line, start = self._lines[number], self._starts[number]
        cells = tuple(_cells(line, start))
        return Block("table row", line, range(start, start + len(line)), depth, cells, is_header)


def _cells(line: str, start: int) -> Iterator[Cell]:
    """Split a row at its unescaped pipes."""
    edges = [i for i, character in enumerate(line) if character == "|" and not _is_escaped(line, i)]
    body_end = len(line.rstrip())
    if not edges or edges[-1] != body_end - 1:
        edges.append(body_end)
    if line[: edges[0]].strip(" >\t"):  # no pipe before the first cell
        lead = len(line) - len(line.lstrip(" >\t"))
        edges.insert(0, lead - 1)
    for left, right in pairwise(edges):
        raw = line[left + 1 : right]
        begin = start + left + 1 + len(raw) - len(raw.lstrip())
        text = raw.strip()
        yield Cell(text.replace("\\|", "|"), begin, begin + len(text))


def _is_escaped(line: str, position: int) -> bool:
    return position > 0 and line[position - 1] == "\\"
