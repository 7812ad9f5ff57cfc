"""Sections to facts: every statement, step, definition, limit and table cell, with its span. Deterministic."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from byheart.ingest.blocks import Block, Cell, section_blocks
from byheart.ingest.plain import HTML_TAGS, plain_text, without_leftover_marks
from byheart.records import Fact, FactKind, Section, stable_id
from byheart.sentences import sentence_spans

_MAX_DEFINITION_CHARACTERS = 400  # a longer one is cut into its sentences, each with the term before it

_LABELLED = re.compile(  # "**Term:** …", "**Term** - …", "`term`: …"
    r"(?P<mark>\*\*|__|`)(?P<term>[^*_`\n][^*`\n]{0,79}?)(?P<inner>[:：])?(?P=mark)"
    r"(?(inner)\s+|(?:\s*[:：]\s+|\s+[-–—]\s+))(?=\S)"
)
_ONLY_LABEL = re.compile(r"(\*\*|__|`)[^*`\n]{1,80}\1[.:]?$")
_NOTE_LABEL = re.compile(r"(?:note|tip|warning|caution|danger|important|info|details|example)\b", re.IGNORECASE)
_IS_A = re.compile(
    r"(?!(?:it|this|that|these|those|there|here|if|when|you|we|they|he|she|which|what|who|where|the following)\b)"
    r"(?:[\w'’()/-]+ ){1,6}?(?:is|are) (?:an?|called|short for|the (?!same|only|best|following|default))\b",
    re.IGNORECASE,
)
_UNITS = (
    r"%|[kKMGT]i?B|bytes?|pixels?|px|dpi|characters?|words?|users?|members?|people|guests?|participants?|seats?|"
    r"licen[cs]es?|seconds?|minutes?|hours?|days?|weeks?|months?|years?|ms|s|times|files?|pages?|boards?|projects?|"
    r"items?|entries|messages?|requests?|devices?|lines?|columns?|rows?|GB|MB|KB|megabytes|gigabytes"
)
_LIMIT = re.compile(
    r"\b(?:at (?:most|least)|up to|no (?:more|less|fewer|longer) than|(?:more|less|fewer|longer) than|maximum|minimum|"
    r"max\.|min\.|only|limited (?:to|by)|limits? (?:is|are|of)|exceeds?|exceeding|cannot|can't|can’t|must not|"
    rf"not (?:possible|supported|available)|unlimited|not allowed)(?!\w)|(?<![\w.])\d[\d.,]*\s?(?:{_UNITS})(?!\w)",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?([A-Za-z][\w-]*)[^<>]*>|<!--.*?-->", re.DOTALL)


def facts_of_sections(sections: Iterable[Section]) -> Iterator[Fact]:
    """Yield the facts of all sections in order."""
    for section in sections:
        yield from extract_facts(section)


def extract_facts(section: Section) -> list[Fact]:
    """Return the section's facts in the order of its text; together they hold every word of it."""
    maker = _FactMaker(section)
    header: tuple[Cell, ...] = ()
    lead_ins: list[tuple[int, str]] = []  # (depth, "To delete a board:"): what the items below it belong to
    for block in section_blocks(section.markdown):
        if block.kind == "table row":
            header = maker.add_row(block, header)
        elif block.kind == "html":
            maker.add(block, 0, len(block.text), "statement", is_html=True)
        elif block.kind == "code":
            context = next((text for depth, text in reversed(lead_ins) if depth <= block.depth), "")
            maker.add(block, 0, len(block.text), "statement", context=context, is_code=True)
        else:
            lead_ins = [(depth, text) for depth, text in lead_ins if depth < block.depth]
            if block.kind == "paragraph":
                maker.add_paragraph(block)
            else:
                maker.add_item(block, lead_ins[-1][1] if lead_ins else "")
            if block.text.rstrip("* ").endswith((":", "：")):
                lead_ins.append((block.depth, maker.last_statement))
    return maker.facts


class _FactMaker:
    """Collects the facts of one section."""

    def __init__(self, section: Section) -> None:
        self.section = section
        self.facts: list[Fact] = []
        self.last_statement = ""
        self._seen: Counter[str] = Counter()

    def add(
        self,
        block: Block,
        start: int,
        end: int,
        kind: FactKind,
        *,
        context: str = "",
        is_code: bool = False,
        is_html: bool = False,
    ) -> None:
        """Add the fact that text[start:end] of the block states."""
        raw = block.text[start:end]
        if is_code:
            statement = raw.strip()
        else:
            statement = without_leftover_marks(plain_text(_without_tags(raw) if is_html else raw))
        first, last = start + len(raw) - len(raw.lstrip()), end - (len(raw) - len(raw.rstrip()))
        if statement and first < last:
            self._append(_in_context(statement, context), *block.span(first, last), kind)

    def add_paragraph(self, block: Block) -> None:
        """Add a paragraph: a definition as a whole, or its sentences."""
        if _ONLY_LABEL.match(block.text.strip()):
            self.add(block, 0, len(block.text), "UI label")
            return
        if not self._add_definition(block):
            for start, end in sentence_spans(block.text):
                self.add(block, start, end, _kind_of(block.text[start:end]))

    def add_item(self, block: Block, lead_in: str) -> None:
        """Add a list item's own paragraph: one step, one definition, or its sentences."""
        context = (lead_in or self.section.heading_path[-1]) if _is_fragment(block) else ""
        if block.kind == "step":
            self.add(block, 0, len(block.text), "step", context=context)
        elif _ONLY_LABEL.match(block.text.strip()):
            self.add(block, 0, len(block.text), "UI label", context=context)
        elif not self._add_definition(block):
            for start, end in sentence_spans(block.text):
                sentence = block.text[start:end]
                self.add(block, start, end, _kind_of(sentence), context=context if start == 0 else "")

    def add_row(self, row: Block, header: tuple[Cell, ...]) -> tuple[Cell, ...]:
        """Add a table row's cells ("row header – column header: cell") and return the header of the rows to come."""
        filled = [cell for cell in row.cells if cell.text]
        if row.is_header:
            if filled:
                names = ", ".join(plain_text(cell.text) for cell in filled)
                statement = _in_context(names, self.section.heading_path[-1])
                self._append(statement, filled[0].start, filled[-1].end, "table cell")
            return row.cells
        if not filled:
            return header
        columns = [plain_text(cell.text) for cell in header]
        row_name = plain_text(row.cells[0].text)
        start = filled[0].start  # the first fact of a row takes the row's name into its span
        for index, cell in enumerate(row.cells):
            if not cell.text or (index == 0 and len(filled) > 1):
                continue
            column = columns[index] if index < len(columns) else ""
            statement = _in_context(plain_text(cell.text), column)
            if index > 0 and row_name:
                statement = f"{row_name} – {statement}"
            self._append(statement, start, cell.end, "table cell")
            start = row.cells[index + 1].start if index + 1 < len(row.cells) else cell.end
        return header

    def _add_definition(self, block: Block) -> bool:
        """Add "**Term:** meaning" as one fact, or sentence by sentence where it is long. Return whether it is one."""
        label = _LABELLED.match(block.text)
        if label is None:
            return False
        is_note = bool(_NOTE_LABEL.match(label["term"]))
        if is_note or len(block.text) > _MAX_DEFINITION_CHARACTERS:
            term = plain_text(label["term"])
            for index, (start, end) in enumerate(sentence_spans(block.text)):
                kind: FactKind = _kind_of(block.text[start:end]) if is_note or index else "definition"
                self.add(block, start, end, kind, context="" if is_note or not index else term)
            return True
        self.add(block, 0, len(block.text), "definition")
        return True

    def _append(self, statement: str, start: int, end: int, kind: FactKind) -> None:
        self.last_statement = statement
        fact_id = stable_id(self.section.id, statement, str(self._seen[statement]))
        self._seen[statement] += 1
        self.facts.append(Fact(fact_id, self.section.id, statement, start, end, kind))


def _kind_of(sentence: str) -> FactKind:
    plain = plain_text(sentence)
    if _IS_A.match(plain):
        return "definition"
    return "limit" if _LIMIT.search(plain) else "statement"


def _is_fragment(block: Block) -> bool:
    """Tell whether a list item does not stand on its own ("Settings", "the whole board")."""
    plain = plain_text(block.text)
    words = len(plain.split())
    if block.kind == "step":
        return words < 2
    return plain[:1].islower() or words < 4 or (words < 10 and not plain.endswith((".", "!", "?", "。", ":")))


def _in_context(statement: str, context: str) -> str:
    context = context.rstrip(":： ")
    return f"{context}: {statement}" if context and not statement.startswith(context) else statement


def _without_tags(html: str) -> str:
    return _TAG.sub(lambda tag: " " if not tag[1] or tag[1].lower() in HTML_TAGS else tag[0], html)
