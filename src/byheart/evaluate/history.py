"""What the stages before left for the report: steps of the training, levels of the temperature ladder, rejections.

The report must not fail because a stage was left out (`train.method: none`) or writes a field more: so these are
read leniently, and what is not there is None and said in the report.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from byheart.records import Rejected


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """A line of 4-steps.jsonl: the losses after so many steps."""

    step: int
    train_loss: float | None
    unseen_loss: float | None  # None between validations
    recall: float | None = None  # share of a sample of unseen phrasings, asked outright, that were answered rightly
    diagnosis: str = ""  # what the loss doctor said at this validation: a kind, figures, what to do, what it did
    evidence: str = ""
    advice: str = ""
    done: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Level:
    """A temperature of the ladder: how many pairs were asked for, came and were kept, and how good they are."""

    temperature: float
    asked: int
    delivered: int
    kept: int
    distinctness: float | None = None  # share of the questions' word pairs that are no repeat
    faithfulness: float | None = None  # share of the answers that the manual bears out


@dataclasses.dataclass(frozen=True, slots=True)
class Rejection:
    """Why pairs were turned away: the reason, how often, and an example."""

    reason: str
    count: int
    question: str
    evidence: str


def parse_steps(text: str) -> list[Step]:
    """Return the steps of 4-steps.jsonl. A line without a loss (kill -9 in mid-write) is left out."""
    steps = []
    for line in text.splitlines():
        values = _object(line)
        step, loss = _number(values, "step"), _number(values, "train_loss")
        unseen_loss = _number(values, "unseen_loss")
        if step is not None and (loss is not None or unseen_loss is not None or values.get("diagnosis")):
            told = (str(values.get(name) or "") for name in ("diagnosis", "evidence", "advice", "done"))
            steps.append(Step(int(step), loss, unseen_loss, _number(values, "recall"), *told))
    return steps


def parse_levels(text: str) -> list[Level]:
    """Return the levels of 3-levels.json, coldest first: a list of levels, or an object that holds one as "levels"."""
    values = json.loads(text)
    rows = values.get("levels", []) if isinstance(values, dict) else values
    levels = []
    for row in rows:
        temperature, asked, kept = (_number(row, name) for name in ("temperature", "asked", "kept"))
        if temperature is not None and asked is not None and kept is not None:
            delivered = _number(row, "delivered")
            levels.append(
                Level(
                    temperature=temperature,
                    asked=int(asked),
                    delivered=int(asked if delivered is None else delivered),
                    kept=int(kept),
                    distinctness=_number(row, "distinctness"),
                    faithfulness=_number(row, "faithfulness"),
                )
            )
    return sorted(levels, key=lambda level: level.temperature)


def count_rejections(rejected: Iterable[Rejected]) -> list[Rejection]:
    """Return the reasons for rejection, most frequent first, each with its first example."""
    counts: Counter[str] = Counter()
    examples: dict[str, Rejected] = {}
    for item in rejected:
        counts[item.reason] += 1
        examples.setdefault(item.reason, item)
    return [
        Rejection(reason, count, examples[reason].pair.question, examples[reason].evidence)
        for reason, count in counts.most_common()
    ]


def best_step(steps: Iterable[Step]) -> Step | None:
    """Return the step with the lowest loss on unseen phrasing: its checkpoint is the one that is kept."""
    validated = [step for step in steps if step.unseen_loss is not None]
    return min(validated, key=lambda step: step.unseen_loss or 0.0, default=None)


def doctor_visits(steps: Iterable[Step]) -> list[Step]:
    """Return the steps at which the loss doctor said something new, or did something."""
    visits: list[Step] = []
    said = ""
    for step in steps:
        if step.diagnosis not in ("", "too early") and (step.diagnosis != said or step.done):
            visits.append(step)
        said = step.diagnosis or said
    return visits


def _object(line: str) -> Mapping[str, Any]:
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return values if isinstance(values, dict) else {}


def _number(values: Any, name: str) -> float | None:
    value = values.get(name) if isinstance(values, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
