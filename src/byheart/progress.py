"""How a stage tells what it is doing: events, which the CLI draws and a program may count or ignore."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of a task (total None: not known yet), or a line of text for the person watching."""

    task: str  # "crawling", "training", …
    done: float = 0.0
    total: float | None = None
    note: str = ""  # shown beside the bar: "loss 0.41, unseen phrasing 0.52"
    message: str = ""  # a line that stays on the screen: a choice and its reason, a warning


Notify = Callable[[Progress], None]


@dataclasses.dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage wrote: outputs by file name, counts for the summary line, choices with their reasons."""

    outputs: tuple[str, ...]
    counts: dict[str, int]
    chosen: dict[str, str]


def silent(event: Progress) -> None:
    """A Notify that shows nothing."""
