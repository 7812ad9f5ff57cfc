"""The figures: shares, intervals, the paired comparison, calibration, coverage."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byheart.evaluate import metrics
from byheart.evaluate.coverage import map_coverage
from byheart.evaluate.metrics import Graded, mcnemar, percentile, reliability, wilson
from byheart.records import Document, Grade, Prediction, Question, Section, Verdict


def make_graded(
    number: int,
    group: str,
    verdict: Verdict,
    *,
    system: str = "byheart",
    page_first: bool | None = None,
    confidence: float = 0.9,
    seconds: float = 0.1,
    abstained: bool = False,
) -> Graded:
    question = Question(f"{group}-{number}", "How?", "", ("x",), "", "qa", group)
    prediction = Prediction(f"{system}-{question.id}", question.id, system, "x", (), confidence, abstained, seconds)
    return Graded(question, prediction, Grade(prediction.id, verdict, page_first, "key facts", ""))


def compute(graded: list[Graded], *systems: str) -> metrics.Metrics:
    return metrics.compute(
        graded=graded,
        systems=systems or ("byheart",),
        groups=("yours", "seen", "outside"),
        answerable=("yours", "seen"),
        trained_on=("seen",),
    )


def test_wilsons_interval_matches_published_values() -> None:
    share = wilson(81, 263)  # Newcombe 1998, table I, method 3
    assert (share.low, share.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    none = wilson(0, 20)
    assert (none.low, none.high) == (0.0, pytest.approx(0.1611, abs=5e-5))


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_share_and_stays_within_0_and_1(counts: tuple[int, int]) -> None:
    share = wilson(*counts)
    assert share.low is not None and share.share is not None and share.high is not None
    assert 0 <= share.low <= share.share <= share.high <= 1


def test_a_share_of_nothing_is_not_a_number_and_an_impossible_one_is_refused() -> None:
    assert wilson(0, 0).share is None
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)


def test_mcnemars_exact_p_values() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 6) == mcnemar(6, 0) == pytest.approx(2 / 64)
    assert mcnemar(12, 21) == pytest.approx(0.1628, abs=5e-5)
    assert mcnemar(2000, 1000) < 1e-70  # no overflow


def test_the_95th_percentile_is_the_nearest_rank() -> None:
    assert percentile([float(n) for n in range(1, 101)], 0.95) == 95
    assert percentile([3.0, 1.0], 0.95) == 3.0
    assert percentile([], 0.95) == 0.0


def test_a_cell_counts_verdicts_over_the_scored_and_pages_over_those_with_a_page() -> None:
    verdicts: list[Verdict] = ["correct", "correct", "incorrect", "not attempted", "unscored"]
    pages = [True, False, None, True, None]
    figures = compute(
        [make_graded(n, "yours", v, page_first=pages[n], seconds=n + 1.0) for n, v in enumerate(verdicts)]
    )
    cell = figures.cell("byheart", "yours")
    assert cell is not None
    assert (cell.n, cell.unscored) == (5, 1)
    assert [(s.count, s.n) for s in (cell.correct, cell.incorrect, cell.not_attempted, cell.page_first)] == [
        (2, 4),
        (1, 4),
        (1, 4),
        (2, 3),
    ]
    assert (cell.median_s, cell.p95_s) == (3.0, 5.0)
    assert figures.cell("byheart", "outside") is None


def test_refusals_leave_out_the_questions_of_the_training() -> None:
    figures = compute(
        [
            make_graded(0, "yours", "not attempted", abstained=True),
            make_graded(1, "yours", "correct"),
            make_graded(2, "seen", "correct"),
            make_graded(3, "outside", "correct", abstained=True),
        ]
    )
    (refusals,) = figures.refusals
    assert (refusals.answerable.count, refusals.answerable.n) == (1, 2)
    assert (refusals.outside.count, refusals.outside.n) == (1, 1)


def test_a_baseline_is_compared_question_by_question_whatever_the_order() -> None:
    ours: list[Verdict] = ["correct", "correct", "incorrect", "correct", "unscored"]
    theirs: list[Verdict] = ["incorrect", "correct", "correct", "not attempted", "correct"]
    graded = [make_graded(n, "yours", v) for n, v in enumerate(ours)]
    graded += [make_graded(n, "yours", v, system="bm25") for n, v in reversed(list(enumerate(theirs)))]
    (paired,) = compute(graded, "byheart", "bm25").paired
    assert (paired.n, paired.only_system, paired.only_baseline) == (4, 2, 1)
    assert paired.p_value == mcnemar(2, 1)


def test_confidence_is_binned_with_1_in_the_last_bin() -> None:
    bins = reliability([(0.05, False), (0.95, True), (1.0, False)])
    assert [(item.low, item.n, item.answerable) for item in bins] == [(0.0, 1, 0.0), (0.9, 2, 0.5)]
    assert math.isclose(bins[1].mean_confidence, 0.975)


def test_the_map_tells_known_partly_unknown_and_unasked_sections_apart() -> None:
    document = Document("d", "page.md", "Page", "en", "", "", "")
    sections = [
        Section(name, "d", ("Page", name), f"page.md#{name}", text, order, "")
        for order, (name, text) in enumerate(
            [("known", "x"), ("partly", "x"), ("unknown", "x"), ("unasked", "x"), ("unscored", "x"), ("empty", " \n")]
        )
    ]
    coverage = map_coverage(
        documents=[document],
        sections=sections[::-1],
        verdicts={
            "known": ["correct", "unscored"],
            "partly": ["correct", "incorrect"],
            "unknown": ["not attempted"],
            "unscored": ["unscored"],
        },
    )
    assert [tile.status for tile in coverage.tiles] == ["known", "partly", "unknown", "unasked", "unasked"]
    assert coverage.textless == 1
    assert coverage.counts["unasked"] == 2
