"""The records that flow between the stages: frozen dataclasses, one JSON object a line.

Every record names its parent's id, so that an answer can be followed back to the sentence of the manual it came from.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

FactKind = Literal["step", "definition", "limit", "table cell", "UI label", "statement"]
PairKind = Literal["qa", "statement", "multi-hop", "refusal", "multi-turn"]
Split = Literal["train", "unseen phrasing", "outside"]
Verdict = Literal["correct", "incorrect", "not attempted", "unscored"]


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """One page or file of the manual, as Markdown."""

    id: str
    location: str  # its address, or its path relative to the docs folder
    title: str
    language: str  # BCP 47, "en" where the page does not say
    markdown: str
    sha256: str  # of the markdown
    fetched_at: str  # ISO 8601, UTC


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """A file or page that could not be read, and why."""

    location: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """The text under one heading of a document, up to the next heading (of any level)."""

    id: str  # stays the same while its document and heading path do
    document_id: str
    heading_path: tuple[str, ...]  # from the document's title down to this heading
    url: str  # the document's location with the heading's anchor
    markdown: str  # without its own heading line; may be empty
    order: int  # position in the manual, from 0
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True)
class Fact:
    """One statement of the manual that a customer may ask for."""

    id: str
    section_id: str
    statement: str  # plain text that stands on its own
    start: int  # span in Section.markdown, in characters
    end: int
    kind: FactKind


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A question and its answer, made from the facts of one section (or from none, for a refusal)."""

    id: str
    fact_ids: tuple[str, ...]
    section_id: str  # "" for a question that the manual does not answer
    question: str
    answer: str
    kind: PairKind
    perspective: str
    temperature: float
    teacher: str  # "offline" or the teacher model's name
    prompt_id: str  # the template or prompt file that made it
    split: Split


@dataclasses.dataclass(frozen=True, slots=True)
class TypicalQuestion:
    """A question as customers ask it about products of all kinds: what a question for a manual sounds like, or not."""

    question: str
    answered: bool  # whether the manuals of such products answer it


@dataclasses.dataclass(frozen=True, slots=True)
class Rejected:
    """A pair that was not kept."""

    pair: Pair
    reason: str
    evidence: str


@dataclasses.dataclass(frozen=True, slots=True)
class Coverage:
    """How many questions a section was to get, and got."""

    section_id: str
    heading: str  # heading path, joined with " › "
    url: str
    asked: int
    delivered: int  # by the teacher
    kept: int
    reason: str  # why none was kept; "" where some were


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A question of the evaluation, with what a right answer holds."""

    id: str
    question: str
    answer: str  # a reference answer; "" where the manual has none
    key_facts: tuple[str, ...]  # strings that a right answer contains; () for questions outside the manual
    source: str  # "page#heading" of the page that answers it; "" outside
    kind: str
    group: str  # "seen phrasing", "unseen phrasing", "outside", "yours", "yours outside"


@dataclasses.dataclass(frozen=True, slots=True)
class Citation:
    """Where in the manual an answer comes from."""

    title: str
    heading: str  # heading path, joined with " › "
    url: str
    score: float  # 0..1
    section_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """What a system answered to a question of the evaluation."""

    id: str
    question_id: str
    system: str  # "byheart", "untrained", "bm25"
    answer: str
    citations: tuple[Citation, ...]
    confidence: float  # 0..1
    abstained: bool
    seconds: float
    intent: str = ""  # the part of the manual that it took the question to be about; "" where it does not tell


@dataclasses.dataclass(frozen=True, slots=True)
class Grade:
    """A prediction's verdict."""

    prediction_id: str
    verdict: Verdict
    page_first: bool | None  # the first citation names the right page; None where there is no right page
    grader: str
    evidence: str
    intent_right: bool | None = None  # None where the system tells no intent, or the right one is not known


Record = TypeVar("Record")


def stable_id(*parts: str) -> str:
    """Return 16 hex digits that depend on the parts alone: the same text has the same id on every machine."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def to_json(record: Any) -> str:
    """Return the record as one line of JSON."""
    return json.dumps(dataclasses.asdict(record), ensure_ascii=False)


def from_json(line: str, record_type: type[Record]) -> Record:
    """Return the record in one line of JSON. Raises ValueError naming the field that does not fit."""
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError(f"a {record_type.__name__} is a JSON object, not {type(values).__name__}")
    return _build(values, record_type)


def read_jsonl(path: Path, record_type: type[Record]) -> Iterator[Record]:
    """Yield the records of a file. Raises ValueError naming file and line of a record that does not fit."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield from_json(line, record_type)
            except (ValueError, TypeError) as fault:
                raise ValueError(f"{path}:{number}: {fault}") from fault


def write_jsonl(path: Path, records: Iterable[Any]) -> int:
    """Write records to a new file, one a line, and return how many. The caller renames it into place."""
    count = 0
    with path.open("w", encoding="utf-8") as lines:
        for record in records:
            lines.write(to_json(record) + "\n")
            count += 1
    return count


@functools.cache
def _hints(record_type: Any) -> dict[str, Any]:
    """Return the types of a record's fields; resolving them takes longer than building the record."""
    return typing.get_type_hints(record_type)


def _build(values: dict[str, Any], record_type: type[Record]) -> Record:
    hints: dict[str, Any] = _hints(record_type)  # type: ignore[arg-type]  # classes hash; a bare TypeVar hides it
    missing = hints.keys() - values.keys()
    unknown = values.keys() - hints.keys()
    if missing or unknown:
        raise ValueError(f"{record_type.__name__}: missing {sorted(missing)}, unknown {sorted(unknown)}")
    return record_type(**{name: _coerce(values[name], hint) for name, hint in hints.items()})


def _coerce(value: Any, hint: Any) -> Any:
    """JSON has neither tuples nor records: turn lists and objects back into what the field declares."""
    if typing.get_origin(hint) is tuple:
        item_hint = typing.get_args(hint)[0]
        return tuple(_coerce(item, item_hint) for item in value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(value, hint)
    if typing.get_origin(hint) is types.UnionType and value is None:
        return None
    return value
