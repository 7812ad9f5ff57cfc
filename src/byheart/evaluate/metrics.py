"""The figures: shares with their intervals, a paired comparison with the baselines, calibration. Pure functions."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from byheart.records import Grade, Prediction, Question

Z_95 = 1.959963984540054  # two-sided 95 %


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """`count` of `n`, with the Wilson 95 % interval of the share; share, low and high are None where n is 0."""

    count: int
    n: int
    share: float | None
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One system on one group of questions."""

    system: str
    group: str
    n: int
    unscored: int
    correct: Share
    incorrect: Share
    not_attempted: Share
    page_first: Share  # of the questions that have a right page
    intent: Share  # told rightly, of the questions whose part of the manual is known
    median_s: float
    p95_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Refusals:
    """How often a system declines what the manual answers (should be low), and what it does not (should be high).

    "seen phrasing" is left out: the model was trained on these very questions.
    """

    system: str
    answerable: Share
    outside: Share


@dataclasses.dataclass(frozen=True, slots=True)
class Paired:
    """The same questions put to the model and to a baseline: McNemar's exact test on those where they differ."""

    system: str
    baseline: str
    group: str
    n: int
    only_system: int  # correct where the baseline is not
    only_baseline: int
    p_value: float


@dataclasses.dataclass(frozen=True, slots=True)
class Bin:
    """Predictions with a confidence in [low, high): how sure the model was, and how often rightly so."""

    low: float
    high: float
    n: int
    mean_confidence: float
    answerable: float  # share of them that the manual answers


@dataclasses.dataclass(frozen=True, slots=True)
class Metrics:
    """All figures of an evaluation; the first system is the model, the others are baselines."""

    systems: tuple[str, ...]
    cells: tuple[Cell, ...]
    refusals: tuple[Refusals, ...]
    paired: tuple[Paired, ...]
    calibration: tuple[Bin, ...]

    def cell(self, system: str, group: str) -> Cell | None:
        """Return the figures of one system on one group, None where the group has no question."""
        return next((cell for cell in self.cells if (cell.system, cell.group) == (system, group)), None)


@dataclasses.dataclass(frozen=True, slots=True)
class Graded:
    """A question, what one system answered to it, and the grade."""

    question: Question
    prediction: Prediction
    grade: Grade


def join(*, questions: Iterable[Question], predictions: Iterable[Prediction], grades: Iterable[Grade]) -> list[Graded]:
    """Return the records put together by their ids. Raises KeyError where a parent is missing."""
    question_by_id = {question.id: question for question in questions}
    grade_by_id = {grade.prediction_id: grade for grade in grades}
    return [Graded(question_by_id[p.question_id], p, grade_by_id[p.id]) for p in predictions]


def compute(
    *,
    graded: Sequence[Graded],
    systems: Sequence[str],
    groups: Sequence[str],
    answerable: Collection[str],
    trained_on: Collection[str],
) -> Metrics:
    """Return all figures. `groups` are in the order of the report; `answerable` of them the manual answers.

    The groups in `trained_on` count for their own cells alone, not for refusals and calibration.
    """
    by_cell: dict[tuple[str, str], list[Graded]] = defaultdict(list)
    for item in graded:
        by_cell[item.prediction.system, item.question.group].append(item)
    fresh = [item for item in graded if item.question.group not in trained_on]
    asked = [(system, group) for group in groups for system in systems if (system, group) in by_cell]
    return Metrics(
        systems=tuple(systems),
        cells=tuple(_cell(system, group, by_cell[system, group]) for system, group in asked),
        refusals=tuple(_refusals(system, fresh, answerable) for system in systems),
        paired=tuple(
            _paired(system, group, by_cell[systems[0], group], by_cell[system, group])
            for system, group in asked
            if system != systems[0]
        ),
        calibration=reliability(
            [
                (item.prediction.confidence, item.question.group in answerable)
                for item in fresh
                if item.prediction.system == systems[0]
            ]
        ),
    )


def wilson(count: int, n: int) -> Share:
    """Return count / n with Wilson's 95 % interval, which stays honest for few questions and near 0 and 1."""
    if not 0 <= count <= n:
        raise ValueError(f"a share needs 0 <= count <= n, not {count} of {n}")
    if n == 0:
        return Share(0, 0, None, None, None)
    share = count / n
    spread = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    middle, scale = share + Z_95**2 / (2 * n), 1 + Z_95**2 / n
    # At 0 and n the bound is exactly 0 and 1; floating point would miss it by 1e-17.
    low = 0.0 if count == 0 else (middle - spread) / scale
    high = 1.0 if count == n else (middle + spread) / scale
    return Share(count, n, share, low, high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value that two systems which differ so often, so split, are equally good."""
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return float(min(1.0, 2 * tail / 2**n))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of the values that is not below `share` of them (nearest rank); 0 without values."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)] if ranked else 0.0


def reliability(outcomes: Iterable[tuple[float, bool]], *, bins: int = 10) -> tuple[Bin, ...]:
    """Return the confidences in bins of equal width, each with the share that came true; empty bins are left out."""
    members: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, came_true in outcomes:
        members[min(bins - 1, max(0, int(confidence * bins)))].append((confidence, came_true))
    return tuple(
        Bin(
            low=index / bins,
            high=(index + 1) / bins,
            n=len(inside),
            mean_confidence=statistics.fmean(confidence for confidence, _ in inside),
            answerable=statistics.fmean(came_true for _, came_true in inside),
        )
        for index, inside in sorted(members.items())
    )


def by_section(graded: Iterable[Graded], *, section_of_question: Mapping[str, str]) -> dict[str, list[Graded]]:
    """Return the graded answers of each section that was asked for."""
    found: dict[str, list[Graded]] = defaultdict(list)
    for item in graded:
        section_id = section_of_question.get(item.question.id)
        if section_id:
            found[section_id].append(item)
    return dict(found)


def _cell(system: str, group: str, items: Sequence[Graded]) -> Cell:
    verdicts = [item.grade.verdict for item in items]
    scored = len(verdicts) - verdicts.count("unscored")
    paged = [item.grade.page_first for item in items if item.grade.page_first is not None]
    intents = [item.grade.intent_right for item in items if item.grade.intent_right is not None]
    seconds = [item.prediction.seconds for item in items]
    return Cell(
        system=system,
        group=group,
        n=len(items),
        unscored=verdicts.count("unscored"),
        correct=wilson(verdicts.count("correct"), scored),
        incorrect=wilson(verdicts.count("incorrect"), scored),
        not_attempted=wilson(verdicts.count("not attempted"), scored),
        page_first=wilson(sum(paged), len(paged)),
        intent=wilson(sum(intents), len(intents)),
        median_s=statistics.median(seconds),
        p95_s=percentile(seconds, 0.95),
    )


def _refusals(system: str, items: Sequence[Graded], answerable: Collection[str]) -> Refusals:
    def share(inside: bool) -> Share:
        declined = [
            item.prediction.abstained
            for item in items
            if item.prediction.system == system and (item.question.group in answerable) == inside
        ]
        return wilson(sum(declined), len(declined))

    return Refusals(system, answerable=share(True), outside=share(False))


def _paired(baseline: str, group: str, ours: Sequence[Graded], theirs: Sequence[Graded]) -> Paired:
    right_of_theirs = {
        item.question.id: item.grade.verdict == "correct" for item in theirs if item.grade.verdict != "unscored"
    }
    both = [
        (item.grade.verdict == "correct", right_of_theirs[item.question.id])
        for item in ours
        if item.grade.verdict != "unscored" and item.question.id in right_of_theirs
    ]
    only_system = both.count((True, False))
    only_baseline = both.count((False, True))
    return Paired(
        system=ours[0].prediction.system if ours else "",
        baseline=baseline,
        group=group,
        n=len(both),
        only_system=only_system,
        only_baseline=only_baseline,
        p_value=mcnemar(only_system, only_baseline),
    )
