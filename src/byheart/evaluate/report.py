"""The report: one self-contained page, rendered from the figures. Pure functions; the stage reads and writes files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlsplit

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from byheart.evaluate import charts, wording
from byheart.evaluate.advice import CLEAR, advise, groups_missing
from byheart.evaluate.coverage import Coverage
from byheart.evaluate.history import Level, Rejection, Step, best_step, doctor_visits
from byheart.evaluate.metrics import Graded, Metrics, Share
from byheart.evaluate.questions import ANSWERABLE, GROUPS, OUTSIDE, SEEN, UNANSWERABLE, UNSEEN, YOURS, YOURS_OUTSIDE

WORST_PER_GROUP = 5
WEAK_SECTIONS_LISTED = 200
PAGES_WITH_NAMES = 250  # a larger map shows its pages' names on hover alone, to stay within a few screens
GROUP_MEANINGS = {
    YOURS: "your own questions, in your customers' words",
    UNSEEN: "facts of the manual, asked in words that were not trained on",
    SEEN: "questions as they were trained on",
    YOURS_OUTSIDE: "your questions that the manual does not answer: right means declined",
    OUTSIDE: "questions that the manual does not answer: right means declined",
}
ASKED_AS = {
    YOURS: "questions of your own",
    UNSEEN: "questions asked in new words",
    SEEN: "questions as they were trained on",
}

# Answers are Markdown from pages that others wrote: no HTML of theirs, no images (they would be fetched), no links.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink"])


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What the report tells of the run beside its figures."""

    title: str
    base_model: str
    method: str
    pages: int
    sections: int
    facts: int
    pairs: int
    finished_at: datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Headline:
    """A big number."""

    label: str
    value: str
    meaning: str
    beside: tuple[tuple[str, str], ...]  # the baselines' names and figures
    aim: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Worst:
    """A question that went wrong, with everything to judge it by."""

    item: Graded
    answer: Markup
    expected: Markup
    others: tuple[tuple[str, str], ...]  # baseline's name, its verdict


def render(
    *,
    about: Facts,
    metrics: Metrics,
    graded: Sequence[Graded],
    coverage: Coverage,
    taught_sections: frozenset[str],
    steps: Sequence[Step],
    levels: Sequence[Level],
    rejections: Sequence[Rejection],
) -> str:
    """Return the page. Empty steps, levels and rejections are said to be missing."""
    best = best_step(steps)
    weak = [tile for tile in coverage.tiles if tile.status in ("unknown", "partly")]
    weak.sort(key=lambda tile: (tile.correct / tile.asked, -tile.asked))
    answerable_cells = [cell for cell in metrics.cells if cell.correct.n]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("byheart.evaluate", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=wording.percent,
        interval=wording.interval,
        seconds=wording.seconds,
        chance=wording.chance,
        plural=wording.plural,
        weblink=weblink,
    )
    return environment.get_template("report.html").render(
        about=about,
        metrics=metrics,
        names=wording.SYSTEM_NAMES,
        meanings=GROUP_MEANINGS,
        outside_groups=UNANSWERABLE,
        verdict=verdict_sentence(metrics),
        headlines=headlines(metrics),
        missing_groups=groups_missing(metrics),
        comparison=charts.comparison(cells=answerable_cells, names=wording.SYSTEM_NAMES) if answerable_cells else "",
        coverage=coverage,
        with_names=len(coverage.pages) <= PAGES_WITH_NAMES,
        weak=weak[:WEAK_SECTIONS_LISTED],
        weak_left_out=max(0, len(weak) - WEAK_SECTIONS_LISTED),
        worst=worst_questions(metrics=metrics, graded=graded),
        best=best,
        losses=charts.losses(steps=steps, best=best) if len(steps) > 1 else "",
        recalls=charts.recalls(steps=steps, best=best) if any(step.recall is not None for step in steps) else "",
        visits=doctor_visits(steps),
        levels=levels,
        temperatures=charts.temperatures(levels=levels) if levels else "",
        rejections=rejections,
        rejected_count=sum(rejection.count for rejection in rejections),
        reliability=charts.reliability(bins=metrics.calibration) if metrics.calibration else "",
        advice=advise(
            metrics=metrics,
            coverage=coverage,
            pairs_by_section=taught_sections,
            levels=levels,
            rejections=rejections,
            steps=steps,
            best=best,
        ),
    )


def headlines(metrics: Metrics) -> list[Headline]:
    """Return the big numbers: on the user's own questions where there are some, else on unseen phrasing."""
    model = metrics.systems[0]
    cell = next((found for group in ANSWERABLE if (found := metrics.cell(model, group))), None)
    refusals = metrics.refusals[0]
    numbers: list[Headline] = []
    if cell is not None:
        whose = "Your questions" if cell.group == YOURS else "Questions in new words"
        correct = {c.system: c.correct for c in metrics.cells if c.group == cell.group}
        page = {c.system: c.page_first for c in metrics.cells if c.group == cell.group}
        numbers.append(_headline(f"{whose} answered in full", cell.correct, correct, model))
        numbers.append(_headline("Right page cited first", cell.page_first, page, model))
    if refusals.outside.n:
        outside = {r.system: r.outside for r in metrics.refusals}
        numbers.append(_headline("Declined where the manual is silent", refusals.outside, outside, model))
    if refusals.answerable.n:
        refused = {r.system: r.answerable for r in metrics.refusals}
        numbers.append(
            _headline("Declined though the manual answers", refusals.answerable, refused, model, "less is better")
        )
    if cell is not None:
        numbers.append(
            Headline(
                "Typical time to answer",
                wording.seconds(cell.median_s),
                f"half of the answers are faster; 95 of 100 within {wording.seconds(cell.p95_s)}",
                (),
            )
        )
    return numbers


def verdict_sentence(metrics: Metrics) -> str:
    """Return the result in a sentence or two: what it answers, and whether that beats the baselines."""
    model = metrics.systems[0]
    cell = next((found for group in ANSWERABLE if (found := metrics.cell(model, group))), None)
    if cell is None or cell.correct.share is None:
        return "There was no question with an expected answer to measure it on."
    parts = [f"It answers {wording.percent(cell.correct.share)} of {cell.correct.n} {ASKED_AS[cell.group]} in full."]
    for paired in metrics.paired:
        rival = metrics.cell(paired.baseline, cell.group)
        if paired.group != cell.group or rival is None:
            continue
        if paired.p_value >= CLEAR:
            kind = "no clear difference"
        else:
            kind = "clearly fewer" if paired.only_system > paired.only_baseline else "clearly more"
        name = wording.SYSTEM_NAMES.get(paired.baseline, paired.baseline)
        parts.append(
            f"The {name} answers {wording.percent(rival.correct.share)}, {kind} ({wording.chance(paired.p_value)})."
        )
    return " ".join(parts)


def worst_questions(*, metrics: Metrics, graded: Sequence[Graded]) -> list[Worst]:
    """Return the model's failures, a few of each group: wrong before declined, the surest first."""
    model = metrics.systems[0]
    others: dict[str, list[tuple[str, str]]] = {}
    for item in graded:
        if item.prediction.system != model:
            name = wording.SYSTEM_NAMES.get(item.prediction.system, item.prediction.system)
            others.setdefault(item.question.id, []).append((name, item.grade.verdict))
    worst: list[Worst] = []
    for group in (name for name in GROUPS if name != SEEN):
        failed = [
            item
            for item in graded
            if item.prediction.system == model
            and item.question.group == group
            and item.grade.verdict in ("incorrect", "not attempted")
        ]
        failed.sort(key=lambda item: (item.grade.verdict != "incorrect", -item.prediction.confidence, item.question.id))
        worst.extend(
            Worst(
                item,
                answer=Markup(_MARKDOWN.render(item.prediction.answer)),
                expected=Markup(_MARKDOWN.render(item.question.answer)),
                others=tuple(others.get(item.question.id, ())),
            )
            for item in failed[:WORST_PER_GROUP]
        )
    return worst


def weblink(url: str) -> str:
    """Return the address where a browser may follow it, else "": a manual could name a `javascript:` one."""
    return url if urlsplit(url).scheme in ("http", "https") else ""


def _headline(label: str, share: Share, by_system: dict[str, Share], model: str, aim: str = "") -> Headline:
    rivals = tuple(
        (wording.SYSTEM_NAMES.get(system, system), wording.percent(other.share))
        for system, other in by_system.items()
        if system != model and other.n
    )
    return Headline(label, wording.percent(share.share), wording.sure(share), rivals, aim)
