"""Composing an answer from the manual's own text: the units that answer, in the manual's order and Markdown."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Sequence

from byheart.index.index import Match
from byheart.index.passages import Passage, Unit

# An answer is built from the best passages. The first may take most of the room, so that a list of steps stays whole;
# the others follow under their headings while they are nearly as relevant (docs/experiments.md has what was tried).
FIRST_SHARE = 0.85
MAX_PASSAGES = 3
NEAR_ENOUGH = 0.5  # how far below the best passage's score a further one may lie


@dataclasses.dataclass(frozen=True, slots=True)
class Composed:
    """An answer's text, and the matches it was made from, the first one first."""

    markdown: str
    used: tuple[Match, ...]


def compose(matches: Sequence[Match], *, max_words: int) -> Composed:
    """Return an answer of at most `max_words` words (a single longer unit is cut). `matches`: best first, not empty."""
    parts: list[str] = []
    used: list[Match] = []
    left = max_words
    seen: set[str] = set()
    for match in _sources(matches):
        label = "" if not used else f"**{label_of(match.passage)}**\n\n"
        room = left - len(label.split())
        if used and room < max_words // 8:
            break
        limit = int(max_words * FIRST_SHARE) if not used else room
        chosen = _chosen(match, limit=min(limit, room), at_least_one=not used, seen=seen)
        if not chosen:
            continue
        text = label + render([match.passage.units[number] for number in chosen])
        seen.update(match.passage.units[number].text for number in chosen)
        left -= len(text.split())
        parts.append(text)
        used.append(match)
    return Composed(cut_words("\n\n".join(parts), max_words), tuple(used))


def label_of(passage: Passage) -> str:
    """Return the heading that tells a passage from others: the last, with the title where they differ."""
    return (
        passage.heading_path[-1]
        if len(passage.heading_path) < 2
        else " › ".join(dict.fromkeys((passage.title, passage.heading_path[-1])))
    )


def render(units: Sequence[Unit]) -> str:
    """Return the units' Markdown: sentences joined to paragraphs, items to lists, rows to tables with their header."""
    blocks = []
    for (_, kind), members in itertools.groupby(units, key=lambda unit: (unit.block, unit.kind)):
        group = list(members)
        if kind == "sentence":
            blocks.append(" ".join(unit.markdown.strip() for unit in group))
        elif kind == "row":
            rows = [unit.markdown for unit in group if unit.markdown not in unit.header]
            blocks.append("\n".join([group[0].header, *rows]))
        else:
            blocks.append("\n".join(unit.markdown for unit in group))
    return "\n\n".join(block for block in blocks if block.strip())


def cut_words(markdown: str, max_words: int) -> str:
    """Return the text's first `max_words` words, its lines kept."""
    kept: list[str] = []
    left = max_words
    for line in markdown.split("\n"):
        words = line.split(" ")
        count = len(line.split())
        if count > left:
            kept.append(" ".join(words[:left]) + " …")
            break
        kept.append(line)
        left -= count
    return "\n".join(kept).strip()


def _sources(matches: Sequence[Match]) -> list[Match]:
    """Return the passages that an answer may draw from: the best, and those nearly as good; link lists only alone."""
    best = matches[0]
    near = [m for m in matches[1:] if m.score >= best.score - NEAR_ENOUGH and not m.passage.is_link_list]
    return [best, *near[: 2 * MAX_PASSAGES]][: MAX_PASSAGES + 1]


def _chosen(match: Match, *, limit: int, at_least_one: bool, seen: set[str]) -> list[int]:
    """Return the numbers of the passage's units that fit into `limit` words, the best first, in the manual's order.

    A unit brings what it cannot be read without: a list its lead-in, a step the steps before it.
    """
    units = match.passage.units
    fresh = [number for number, unit in enumerate(units) if unit.text not in seen]
    if _words(units, fresh) <= limit:
        return fresh
    chosen: set[int] = set()
    for number in sorted(fresh, key=lambda n: (-match.unit_scores[n], n)):
        for wanted in (_with_context(units, number), [number]):
            if _words(units, chosen.union(wanted)) <= limit:
                chosen.update(wanted)
                break
        else:
            if at_least_one and not chosen:
                chosen.add(number)
    return sorted(chosen)


def _with_context(units: Sequence[Unit], number: int) -> list[int]:
    """Return the unit and what it needs: the whole list that it stands in, and the sentence that leads in."""
    unit = units[number]
    if unit.kind not in ("item", "row"):
        return [number]
    first = number
    while first > 0 and units[first - 1].block == unit.block and units[first - 1].kind == unit.kind:
        first -= 1
    wanted = [number]
    if unit.markdown[:1].isdigit():
        last = number
        while last + 1 < len(units) and units[last + 1].block == unit.block and units[last + 1].kind == unit.kind:
            last += 1
        wanted = list(range(first, last + 1))
    if first > 0 and units[first - 1].kind == "sentence" and units[first - 1].text.rstrip().endswith(":"):
        wanted = [first - 1, *wanted]
    return wanted


def _words(units: Sequence[Unit], numbers: Collection[int]) -> int:
    """Return how many words the units take when shown: each table with its header, once."""
    shown = [units[number] for number in numbers]
    headers = {unit.block: unit.header for unit in shown if unit.kind == "row"}
    texts = [*headers.values(), *(unit.markdown for unit in shown if unit.markdown not in unit.header)]
    return sum(len(text.split()) for text in texts)
