"""The report's plots, as inline SVG that follows the page's colours in light, dark and print.

Matplotlib draws them with stand-in colours, which become CSS variables afterwards. Every plot has a text alternative.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterator, Sequence

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from byheart.evaluate.history import Level, Step
from byheart.evaluate.metrics import Bin, Cell

# Stand-ins that no colour map produces, each replaced by a variable of style.html.
_THEME = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    "#040404": "var(--series-1)",
    "#050505": "var(--series-2)",
    "#060606": "var(--series-3)",
    "#070707": "var(--bad-soft)",
    "#080808": "var(--card)",
}
INK, MUTED, LINE, FIRST, SECOND, THIRD, REJECTED, CARD = _THEME
SYSTEM_COLOURS = (FIRST, SECOND, THIRD)
WIDTH_IN = 5.0  # 360 units, a phone's width: the lettering stays readable there


def comparison(*, cells: Sequence[Cell], names: dict[str, str]) -> Markup:
    """Draw the share of right answers of every system and group, with intervals."""
    groups = list(dict.fromkeys(cell.group for cell in cells))
    systems = list(dict.fromkeys(cell.system for cell in cells))
    with _figure(height_in=0.75 + 0.2 * len(cells) + 0.12 * len(groups)) as (figure, axes):
        centres, position = [], 0.0
        for group in groups:
            rows = [cell for cell in cells if cell.group == group]
            centres.append(position - (len(rows) - 1) / 2)
            for cell in rows:
                _dot_with_interval(axes, cell, position, *_look(systems.index(cell.system)))
                position -= 1.0
            position -= 0.6
        axes.set_yticks(centres, groups)
        axes.set_ylim(position + 1.1, 0.8)
        _percent_axis(axes)
        for index, system in enumerate(systems):
            colour, marker = _look(index)
            axes.plot([], [], marker, color=colour, label=names.get(system, system))
        figure.legend(
            loc="outside upper left", ncols=min(3, len(systems)), frameon=False, handlelength=1.0, columnspacing=1.2
        )
        return _svg(figure, label=_comparison_in_words(cells, names))


def losses(*, steps: Sequence[Step], best: Step | None) -> Markup:
    """Draw the loss in training and on unseen phrasing; the kept checkpoint is marked."""
    trained = [(step.step, step.train_loss) for step in steps if step.train_loss is not None]
    unseen = [(step.step, step.unseen_loss) for step in steps if step.unseen_loss is not None]
    with _figure(height_in=2.9) as (figure, axes):
        axes.plot(*_columns(trained), color=SECOND, linewidth=1.2, label="training")
        axes.plot(*_columns(unseen), "o-", color=FIRST, linewidth=1.8, markersize=3.5, label="unseen phrasing")
        if best is not None and best.unseen_loss is not None:
            axes.axvline(best.step, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
            axes.plot(best.step, best.unseen_loss, "o", markersize=10, fillstyle="none", color=FIRST, label="kept")
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.grid(axis="y", color=LINE, linewidth=0.7)
        _legend(axes, columns=3)
        ends = [f"{name} from {line[0][1]:.3f} to {line[-1][1]:.3f}" for name, line in _named(trained, unseen) if line]
        kept = f"; kept: step {best.step} with {best.unseen_loss:.3f}" if best and best.unseen_loss is not None else ""
        return _svg(figure, label=f"Loss over {len(steps)} steps: {', '.join(ends)}{kept}.")


def recalls(*, steps: Sequence[Step], best: Step | None) -> Markup:
    """Draw the share of a sample of unseen phrasings that were answered rightly when asked, over the training."""
    asked = [(step.step, step.recall) for step in steps if step.recall is not None]
    with _figure(height_in=2.1) as (figure, axes):
        axes.plot(*_columns(asked), "o-", color=FIRST, linewidth=1.8, markersize=3.5, label="answered when asked")
        if best is not None:
            axes.axvline(best.step, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)), label="kept")
        axes.set_xlabel("step")
        axes.set_ylim(-0.05, 1.05)
        axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        axes.grid(axis="y", color=LINE, linewidth=0.7)
        _legend(axes, columns=2)
        ends = f"from {asked[0][1]:.0%} at step {asked[0][0]} to {asked[-1][1]:.0%} at step {asked[-1][0]}"
        return _svg(figure, label=f"Share of a sample of unseen phrasings answered rightly when asked: {ends}.")


def temperatures(*, levels: Sequence[Level]) -> Markup:
    """Draw, for each temperature, the pairs kept, rejected and never delivered, and how good they are."""
    labels = [f"{level.temperature:g}" for level in levels]
    kept = [level.kept for level in levels]
    rejected = [max(0, level.delivered - level.kept) for level in levels]
    missing = [max(0, level.asked - level.delivered) for level in levels]
    came = [level.kept + dropped for level, dropped in zip(levels, rejected, strict=True)]
    with _figure(height_in=2.9) as (figure, axes):
        axes.bar(labels, kept, color=FIRST, width=0.62, label="kept")
        axes.bar(labels, rejected, bottom=kept, color=REJECTED, width=0.62, label="rejected")
        if any(missing):
            axes.bar(labels, missing, bottom=came, color=LINE, width=0.62, label="not delivered")
        axes.set_xlabel("temperature")
        axes.set_ylabel("pairs")
        axes.set_ylim(0, max(1, *(max(level.asked, level.delivered) for level in levels)) * 1.24)
        for place, level in enumerate(levels):
            qualities = (("distinct", level.distinctness), ("faithful", level.faithfulness))
            told = "\n".join(f"{share:.0%} {name}" for name, share in qualities if share is not None)
            top = (place, came[place] + missing[place])
            axes.annotate(told, top, (0, 4), textcoords="offset points", ha="center", color=MUTED, fontsize=7.5)
        _legend(axes, columns=3)
        told = "; ".join(f"at {level.temperature:g} kept {level.kept} of {level.asked}" for level in levels)
        return _svg(figure, label=f"Pairs by temperature: {told}.")


def reliability(*, bins: Sequence[Bin]) -> Markup:
    """Draw how often the manual did answer a question against how sure the model was of it."""
    most = max((item.n for item in bins), default=1)
    with _figure(height_in=3.6) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), label="perfectly calibrated")
        axes.plot(
            [item.mean_confidence for item in bins], [item.answerable for item in bins],
            color=FIRST, linewidth=1.4, label="byheart (dot size: questions)",
        )  # fmt: skip
        for item in bins:
            size = 16 + 160 * math.sqrt(item.n / most)
            axes.scatter(item.mean_confidence, item.answerable, s=size, color=FIRST, edgecolors=CARD, linewidths=1)
        _percent_axis(axes)
        axes.set_ylim(-0.05, 1.05)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        axes.grid(axis="both", color=LINE, linewidth=0.7)
        axes.set_xlabel("confidence: the manual answers this")
        axes.set_ylabel("the manual did answer it")
        _legend(axes, columns=2)
        told = "; ".join(f"{b.mean_confidence:.0%} sure, {b.answerable:.0%} answered, {b.n} questions" for b in bins)
        return _svg(figure, label=f"Confidence against outcome: {told}.")


@contextlib.contextmanager
def _figure(*, height_in: float) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure with axes in the page's colours. Without pyplot: no state is left behind."""
    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",  # text stays text: it can be searched, scaled and read aloud
            "font.size": 9.5,
            "text.color": INK,
            "axes.labelcolor": MUTED,
            "axes.edgecolor": LINE,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "text.parse_math": False,  # a heading may hold a dollar sign
        }
    ):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        yield figure, axes


def _svg(figure: Figure, *, label: str) -> Markup:
    """Return the figure as an inline SVG element with a text alternative."""
    buffer = io.StringIO()
    # The salt makes ids that differ between the plots of a page and stay the same between two runs.
    with matplotlib.rc_context({"svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    _, _, body = buffer.getvalue().partition("<svg ")
    _, _, drawing = body.partition(">")
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)  # "axes_1" in every plot: ids have to be unique in a page
    for colour, variable in _THEME.items():
        drawing = drawing.replace(colour, variable)
    width, height = figure.get_size_inches() * 72
    head = f'<svg class="plot" role="img" viewBox="0 0 {width:g} {height:g}" aria-label="{escape(label)}">'
    return Markup(head + drawing)


def _percent_axis(axes: Axes) -> None:
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(axis="x", color=LINE, linewidth=0.7)


def _look(number: int) -> tuple[str, str]:
    """Return colour and marker of a system."""
    return SYSTEM_COLOURS[number % 3], "oD"[number // 3 % 2]


def _dot_with_interval(axes: Axes, cell: Cell, position: float, colour: str, marker: str) -> None:
    share = cell.correct
    if share.share is None or share.low is None or share.high is None:
        return
    axes.plot([share.low, share.high], [position, position], color=colour, linewidth=2.2, solid_capstyle="round")
    axes.plot(share.share, position, marker, color=colour, markersize=7, markeredgecolor=CARD)


def _legend(axes: Axes, *, columns: int) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, borderaxespad=0.2, handlelength=1.4,
        columnspacing=1.4, fontsize=9,
    )  # fmt: skip


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _named(
    trained: Sequence[tuple[int, float]], unseen: Sequence[tuple[int, float]]
) -> list[tuple[str, Sequence[tuple[int, float]]]]:
    return [("training", trained), ("unseen phrasing", unseen)]


def _comparison_in_words(cells: Sequence[Cell], names: dict[str, str]) -> str:
    told = [
        f"{cell.group}, {names.get(cell.system, cell.system)}: {cell.correct.share:.0%}"
        for cell in cells
        if cell.correct.share is not None
    ]
    return f"Share of right answers. {'; '.join(told)}."
