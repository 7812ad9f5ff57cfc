"""What the CLI shows: progress while stages run, the plan, and the summary at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from byheart import progress
from byheart.pipeline import Step
from byheart.store import Mark

_PLAIN_STEPS = 10  # lines per task where there is no terminal to draw a bar on


class Screen:
    """Draws a stage's events: bars with the time left on a terminal, plain lines in a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, int] = {}  # task -> tenths of it that a log already shows
        self._bars = Progress(
            TextColumn("{task.description:<24}", markup=False),
            BarColumn(bar_width=28),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Screen:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def notify(self, event: progress.Progress) -> None:
        """Show one event."""
        if event.message:
            self._console.print(Text(_printable(event.message)), soft_wrap=True)
        elif self._console.is_terminal:
            self._draw(event)
        else:
            self._log(event)

    def _draw(self, event: progress.Progress) -> None:
        if event.task not in self._tasks:
            self._tasks[event.task] = self._bars.add_task(event.task, total=event.total, note="")
        self._bars.update(self._tasks[event.task], completed=event.done, total=event.total, note=event.note)

    def _log(self, event: progress.Progress) -> None:
        tenths = int(_PLAIN_STEPS * event.done / event.total) if event.total else 0
        if tenths == self._said.get(event.task):
            return
        self._said[event.task] = tenths
        share = f" {event.done:g} of {event.total:g}" if event.total else ""
        note = f"  {event.note}" if event.note else ""
        self._console.print(Text(f"{event.task}{share}{note}"), soft_wrap=True)


def show_plan(console: Console, steps: Sequence[Step]) -> None:
    """Show what a run would do."""
    table = _table("stage", "state", "why", "minutes")
    for step in steps:
        style = {"done": "green", "stale": "yellow"}.get(step.state, "")
        minutes = "" if step.state == "done" else _minutes(step.minutes)
        table.add_row(step.stage, Text(step.state, style), Text(step.reason), minutes)
    console.print(table)
    open_steps = [step for step in steps if step.state != "done"]
    if open_steps and all(step.minutes is not None for step in open_steps):
        console.print(f"About {_minutes(sum(step.minutes or 0 for step in open_steps))} minutes in all.")
    elif open_steps:
        console.print("The time depends on how many pages the site has: known once it is ingested.")


def show_summary(console: Console, marks: Mapping[str, Mark], run_path: Path) -> None:
    """Show what the stages made, and the figures that count."""
    table = _table("stage", "seconds", "made")
    for mark in marks.values():
        made = ", ".join(f"{count:,} {name}" for name, count in mark.counts.items())
        table.add_row(mark.stage, f"{mark.seconds:.1f}", Text(made))
    console.print(table)
    show_figures(console, run_path)


def show_figures(console: Console, run_path: Path) -> None:
    """Show the headline figures of the last evaluation, where there was one."""
    path = run_path / "5-metrics.json"
    if not path.exists():
        return
    metrics = json.loads(path.read_text(encoding="utf-8"))
    table = _table("questions", "system", "asked", "correct", "incorrect", "not attempted", "right page first")
    for cell in metrics["cells"]:
        shares = (cell[name] for name in ("correct", "incorrect", "not_attempted", "page_first"))
        table.add_row(cell["group"], cell["system"], str(cell["n"]), *map(_share, shares))
    console.print(table)
    console.print(Text(f"Report: {run_path / 'report.html'}"), soft_wrap=True)


def _printable(text: str) -> str:
    """Drop control characters: a page's title in a message must not steer the terminal."""
    return "".join(character for character in text if character.isprintable() or character == "\n")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _share(share: Mapping[str, Any]) -> str:
    if share["share"] is None:
        return "–"
    return f"{share['share']:.0%} ({share['low']:.0%}–{share['high']:.0%})"


def _minutes(minutes: float | None) -> str:
    if minutes is None:
        return "?"
    return "under 1" if minutes < 1 else f"{minutes:.0f}"
