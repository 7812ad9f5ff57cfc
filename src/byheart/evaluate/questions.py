"""The questions of the evaluation: sampled from the pairs, and the user's own files."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from byheart.errors import ConfigError
from byheart.records import Fact, Pair, Question, Section

SEEN = "seen phrasing"
UNSEEN = "unseen phrasing"
OUTSIDE = "outside"
YOURS = "yours"
YOURS_OUTSIDE = "yours outside"
ANSWERABLE = (YOURS, UNSEEN, SEEN)  # the manual answers these
UNANSWERABLE = (YOURS_OUTSIDE, OUTSIDE)  # a right answer declines these
GROUPS = (YOURS, UNSEEN, SEEN, YOURS_OUTSIDE, OUTSIDE)  # in the order of the report

Item = TypeVar("Item")

OUTSIDE_KINDS = frozenset({"unanswerable", "false-premise", "off-topic"})
EXPECTED_LINE = (
    'expected one JSON object a line, such as {"question": "How many boards can I have?", '
    '"key_facts": ["three boards"], "source": "plans.md#Limits"}; '
    'a question that the manual does not answer has "kind": "unanswerable" and no key_facts'
)


def questions_from_pairs(
    *, pairs: Sequence[Pair], facts: Iterable[Fact], sections: Iterable[Section], max_per_group: int, seed: int
) -> list[Question]:
    """Return the questions of the three splits, sampled evenly over the sections; a question keeps its pair's id.

    The map of the manual needs every section asked before one is asked again. So a group takes one question of each
    section, then a second, until it is full; "seen phrasing" starts with the sections that "unseen phrasing" left out.
    """
    statements = {fact.id: fact.statement for fact in facts}
    url_of_section = {section.id: section.url for section in sections}
    asked: Counter[str] = Counter()
    chosen: list[Question] = []
    for group, belongs in _MEMBERSHIP.items():
        members = [pair for pair in pairs if belongs(pair)]
        sample = _spread_over_sections(members, limit=max_per_group, asked=asked, seed=seed)
        asked.update(pair.section_id for pair in sample)
        chosen.extend(
            Question(
                id=pair.id,
                question=pair.question,
                answer="" if group == OUTSIDE else pair.answer,
                key_facts=() if group == OUTSIDE else tuple(statements[i] for i in pair.fact_ids if i in statements),
                source="" if group == OUTSIDE else url_of_section.get(pair.section_id, ""),
                kind=pair.kind,
                group=group,
            )
            for pair in sample
        )
    return chosen


def questions_from_files(*, paths: Sequence[Path], max_per_group: int, seed: int) -> list[Question]:
    """Return the user's own questions. Raises ConfigError that lists every bad line of every file at once."""
    faults: list[str] = []
    first_use: dict[str, str] = {}
    questions: list[Question] = []
    for path in paths:
        for place, line in _lines(path, faults):
            try:
                question = _parse(line, default_id=f"{path.stem}-{place.rpartition(':')[2]}")
            except ValueError as fault:
                faults.append(f"{place}: {fault}; {EXPECTED_LINE}")
                continue
            if question.id in first_use:
                faults.append(f"{place}: the id {question.id!r} is taken by {first_use[question.id]}; change one")
            first_use.setdefault(question.id, place)
            questions.append(question)
    if faults:
        raise ConfigError(faults)
    return [
        question
        for group in (YOURS, YOURS_OUTSIDE)
        for question in _sample([q for q in questions if q.group == group], limit=max_per_group, seed=seed)
    ]


# Unseen phrasing draws first: it is the figure that counts, so it gets the widest spread over the manual.
_MEMBERSHIP: dict[str, Callable[[Pair], bool]] = {
    UNSEEN: lambda pair: pair.split == "unseen phrasing" and pair.kind in ("qa", "multi-hop"),
    SEEN: lambda pair: pair.split == "train" and pair.kind == "qa",
    OUTSIDE: lambda pair: pair.split == "outside",
}


def _spread_over_sections(pairs: Sequence[Pair], *, limit: int, asked: Counter[str], seed: int) -> list[Pair]:
    """Return at most `limit` pairs, those of the sections asked least so far first."""
    shuffled = _sample(sorted(pairs, key=lambda pair: pair.id), limit=len(pairs), seed=seed)
    turn: Counter[str] = Counter(asked)
    ranked: list[tuple[int, Pair]] = []
    for pair in shuffled:
        ranked.append((turn[pair.section_id], pair))
        turn[pair.section_id] += 1
    ranked.sort(key=lambda item: item[0])
    return [pair for _, pair in ranked[:limit]]


def _sample(items: Sequence[Item], *, limit: int, seed: int) -> list[Item]:
    return random.Random(seed).sample(items, min(limit, len(items)))


def _lines(path: Path, faults: list[str]) -> list[tuple[str, str]]:
    """Return the file's lines that hold something, each with its place; a file without any is a fault."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as fault:
        faults.append(f"{path}: {fault.strerror}; `questions:` in the config names JSONL files, relative to its folder")
        return []
    except UnicodeDecodeError as fault:
        faults.append(f"{path}: not UTF-8 text ({fault.reason} at byte {fault.start}); save the file as UTF-8")
        return []
    lines = [(f"{path}:{number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        faults.append(f"{path}: holds no question; {EXPECTED_LINE}")
    return lines


def _parse(line: str, *, default_id: str) -> Question:
    """Return the question of one line. Raises ValueError that says what is wrong."""
    try:
        values = json.loads(line)
    except json.JSONDecodeError as fault:
        raise ValueError(f"not JSON ({fault.msg} at column {fault.colno})") from fault
    if not isinstance(values, dict):
        raise ValueError(f"a JSON {type(values).__name__}, not an object")
    text = {name: _text(values, name) for name in ("id", "question", "answer", "source", "kind")}
    if not text["question"]:
        raise ValueError("no question")
    key_facts = values.get("key_facts") or []
    if not isinstance(key_facts, list) or not all(isinstance(fact, str) and fact.strip() for fact in key_facts):
        raise ValueError(f"key_facts is {json.dumps(key_facts)[:80]}, not a list of texts")
    nothing_expected = not key_facts and not text["answer"]
    outside = text["kind"] in OUTSIDE_KINDS or nothing_expected
    return Question(
        id=text["id"] or default_id,
        question=text["question"],
        answer="" if outside else text["answer"],
        key_facts=() if outside else tuple(key_facts),
        source="" if outside else text["source"],
        kind=text["kind"],
        group=YOURS_OUTSIDE if outside else YOURS,
    )


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None:
        return ""
    if isinstance(value, int) and name == "id":
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"{name} is {json.dumps(value)[:80]}, not a text")
    return value.strip()
