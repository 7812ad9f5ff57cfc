"""The loss doctor on made histories of every kind, with noise; and how often it errs on healthy ones."""

from __future__ import annotations

import dataclasses
import math

import pytest

from byheart.train.doctor import MOST_LOWERED, Reading, diagnose, next_factor
from doctor_histories import Curve, falling, history, straight, swinging, valley

SEEDS = range(40)
SOME = straight(0.2, 0.7)  # a share that is answered rightly
NOTHING = straight(0.0, 0.0)
LEARNED = falling(8.4, 0.05, pace=10)
HEALTHY: dict[str, tuple[Curve, Curve, Curve | None]] = {
    "fast, then flat": (falling(3.0, 0.3), falling(3.0, 0.8), SOME),
    "slowly bending": (falling(3.0, 0.2, pace=3), falling(3.0, 0.5, pace=3), None),
    "from a good start": (falling(0.9, 0.1), falling(0.8, 0.3), None),
    "at rest where most is known": (falling(0.9, 0.4), falling(0.9, 0.6, pace=20), straight(0.7, 0.8)),
    "trembling where all is known": (falling(3.0, 0.01), swinging(0.08, 0.15), None),
    "rising a little where all is known": (falling(3.0, 0.01), valley(3.0, 0.03, 0.045), None),
    "slow, still falling": (falling(8.4, 1.0, pace=2), falling(8.4, 2.0, pace=2), NOTHING),
}
ILL = {
    "jumpy": (swinging(2.0, 0.3), swinging(2.0, 0.2)),
    "overfitting": (falling(3.0, 0.05), valley(3.0, 0.2, 1.2)),
    "slow": (straight(3.0, 2.7), straight(3.0, 2.7)),
    "flat": (falling(3.0, 2.6, pace=30), falling(3.0, 2.7, pace=30)),
    "underfit": (falling(8.4, 3.8, pace=60), falling(8.4, 4.0, pace=60)),
    "parroting": (falling(8.4, 0.05, pace=60), falling(8.4, 4.0, pace=60)),
}


def at_validations(readings: list[Reading], *, warm_up_steps: int = 40) -> list[str]:
    """Return the kinds that are said live, at each validation."""
    total = readings[-1].step
    return [
        diagnose(readings[: position + 1], total_steps=total, warm_up_steps=warm_up_steps).kind
        for position, reading in enumerate(readings)
        if reading.unseen_loss is not None
    ]


@pytest.mark.parametrize("kind", ILL)
@pytest.mark.parametrize("noise", [0.02, 0.15, 0.4])
def test_each_illness_is_seen_in_nearly_every_run_and_for_no_other(kind: str, noise: float) -> None:
    seen = [set(at_validations(history(*ILL[kind], noise=noise, seed=seed))) for seed in SEEDS]
    assert sum(kind in kinds for kinds in seen) >= 0.9 * len(SEEDS)
    allowed = {kind, "too early", "healthy"} | ({"slow"} if kind == "flat" else set())
    assert sum(bool(kinds - allowed) for kinds in seen) <= 0.05 * len(SEEDS), seen


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("noise", [0.02, 0.15, 0.4, 0.8])
def test_healthy_noisy_runs_are_left_alone(name: str, noise: float) -> None:
    train, unseen, known = HEALTHY[name]
    called = [
        kind for seed in SEEDS for kind in at_validations(history(train, unseen, known=known, noise=noise, seed=seed))
    ]
    false_alarms = [kind for kind in called if kind not in ("healthy", "too early")]
    assert len(false_alarms) <= 0.01 * len(called), false_alarms


@pytest.mark.parametrize(
    ("unseen", "known", "kind"),
    [
        (falling(8.4, 4.0, pace=20), None, "underfit"),  # 1 in 55 for the right token
        (falling(8.4, 4.0, pace=20), 0.0, "underfit"),
        (falling(2.4, 0.9, pace=20), 0.3, "underfit"),  # the loss of a model that knew the language before
        (falling(2.4, 0.5, pace=20), 0.0, "underfit"),  # a low loss, and not one whole answer
        (falling(2.4, 0.5, pace=20), 0.3, "healthy"),
        (falling(2.4, 0.5, pace=20), None, "healthy"),
        (falling(2.4, 0.9, pace=20), 0.7, "healthy"),  # what it does not know makes the loss high
        (falling(8.4, 4.0, pace=20), 0.7, "healthy"),
        (falling(8.4, 3.0, pace=2), 0.0, "unfinished"),
        (falling(8.4, 0.3, pace=2), 0.7, "healthy"),  # falls still, but most is known
        (straight(8.4, 2.0), 0.0, "unfinished"),
    ],
)
def test_at_the_end_what_counts_is_what_is_known_and_whether_more_steps_would_pay(
    unseen: Curve, known: float | None, kind: str
) -> None:
    share = None if known is None else straight(known, known)
    for every in (5, 25, 50):
        readings = history(unseen, unseen, every=every, noise=0.1, known=share)
        found = diagnose(readings, total_steps=400, warm_up_steps=40, is_last=True)
        assert found.kind == kind, (every, found)
        assert found.action == "none"


def test_a_run_that_is_cut_short_says_what_it_has_not_learned_after_a_single_validation() -> None:
    readings = history(falling(8.4, 3.0), falling(8.4, 3.0), known=NOTHING)[:51]
    assert diagnose(readings, total_steps=400, warm_up_steps=40).kind == "too early"
    found = diagnose(readings, total_steps=50, warm_up_steps=40, is_last=True)
    assert found.kind == "unfinished"
    assert "0% of its questions are answered rightly" in found.evidence


def test_a_plateau_after_which_it_still_learns_is_taken_back() -> None:
    def late(done: float) -> float:
        return 4.0 if done < 0.5 else 4.0 - 7.6 * (done - 0.5)

    kinds = at_validations(history(late, late, noise=0.02))
    assert "underfit" in at_validations(history(falling(8.4, 4.0, pace=20), falling(8.4, 4.0, pace=20), noise=0.02))
    assert kinds[-1] == "healthy"


def test_steps_that_scatter_ever_more_are_jumpy_even_without_validation() -> None:
    readings = history(falling(3.0, 1.0), straight(3.0, 1.0), steps=100, noise=0.02)
    wild = [
        Reading(100 + step, 2.0 + (1.5 if step % 2 else -1.5) * step / 100, None) for step in range(1, 101)
    ]  # fmt: skip
    found = diagnose([*readings[:101], *wild], total_steps=400)
    assert (found.kind, found.action) == ("jumpy", "lower the rate")
    assert "from step to step" in found.evidence


def test_steps_that_scatter_where_nearly_all_is_known_are_not_jumpy() -> None:
    readings = history(falling(6.0, 0.02, pace=10), falling(6.0, 0.02, pace=10), steps=300, noise=0.02)
    trembling = [
        Reading(300 + step, 0.04 if step % 2 else 0.02, 0.03 if step % 25 == 0 else None) for step in range(1, 101)
    ]
    assert diagnose([*readings, *trembling], total_steps=400).kind == "healthy"


@pytest.mark.parametrize(
    ("train", "low", "known", "kind"),
    [
        (LEARNED, 0.4, None, "overfitting"),
        (LEARNED, 0.4, 0.3, "overfitting"),
        (LEARNED, 2.0, 0.7, "overfitting"),  # what it does not know makes the loss high
        (LEARNED, 2.0, None, "parroting"),
        (LEARNED, 2.0, 0.2, "parroting"),
        (LEARNED, 0.4, 0.0, "parroting"),  # a low loss, and not one whole answer
        (straight(8.4, 1.2), 2.0, 0.0, "parroting"),  # what is seen is not known yet, and already costs the rest
    ],
)
@pytest.mark.parametrize("noise", [0.02, 0.15, 0.4])
def test_a_loss_that_rises_again_is_parroting_where_little_was_known_at_its_best(
    train: Curve, low: float, known: float | None, kind: str, noise: float
) -> None:
    share = None if known is None else straight(known, known)
    for seed in SEEDS:
        readings = history(train, valley(8.4, low, 3 * low), known=share, noise=noise, seed=seed)
        found = diagnose(readings, total_steps=400, warm_up_steps=40, is_last=True)
        assert (found.kind, found.action) == (kind, "stop"), (seed, found)
        assert f"rose from {low:.1f}"[:-1] in found.evidence


def test_a_loss_that_rises_everywhere_asks_for_a_lower_rate_and_not_for_a_stop() -> None:
    found = diagnose(history(valley(2.0, 1.0, 4.0), valley(2.0, 1.0, 4.0), noise=0.02), total_steps=400)
    assert (found.kind, found.action) == ("jumpy", "lower the rate")
    assert "training rose with it" in found.evidence


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("field", ["train_loss", "unseen_loss"])
def test_a_loss_that_is_no_number_is_said_at_once_with_its_step(bad: float, field: str) -> None:
    readings = [Reading(0, None, 2.0), dataclasses.replace(Reading(1, 2.0, None), **{field: bad})]
    found = diagnose(readings, total_steps=100)
    assert (found.kind, found.action) == ("not a number", "lower the rate")
    assert "step 1 " in found.evidence


@pytest.mark.parametrize("length", [0, 1, 2, 26, 51, 76])
def test_short_and_empty_histories_are_too_early_to_judge(length: int) -> None:
    assert diagnose(history(*ILL["slow"])[:length], total_steps=400).kind == "too early"


def test_without_validation_and_without_training_losses_nothing_is_claimed() -> None:
    no_unseen = [dataclasses.replace(reading, unseen_loss=None) for reading in history(*HEALTHY["fast, then flat"][:2])]
    assert diagnose(no_unseen, total_steps=400).kind == "too early"
    no_train = [dataclasses.replace(reading, train_loss=None) for reading in history(*ILL["overfitting"])]
    assert diagnose(no_train, total_steps=400).kind in ("healthy", "too early")


def test_evidence_and_advice_name_figures_and_settings() -> None:
    for kind, setting in {
        "jumpy": "train.learning_rate", "overfitting": "synthesize.questions_per_section",
        "slow": "train.learning_rate", "flat": "train.lora_rank", "underfit": "train.epochs",
        "parroting": "synthesize.questions_per_section",
    }.items():  # fmt: skip
        readings = history(*ILL[kind], noise=0.02)
        found = next(
            found
            for end in range(1, len(readings) + 1)
            if (found := diagnose(readings[:end], total_steps=400, warm_up_steps=40)).kind == kind
        )
        assert setting in found.advice
        assert any(character.isdigit() for character in found.evidence)


def test_only_what_came_after_the_last_change_of_the_rate_counts() -> None:
    wild = history(*ILL["jumpy"], steps=200)
    assert diagnose(wild, total_steps=400).kind == "jumpy"
    calm = [
        dataclasses.replace(reading, step=reading.step + 200, rate_factor=1 / 3)
        for reading in history(*HEALTHY["from a good start"][:2], steps=200)[1:]
    ]
    assert diagnose([*wild, *calm[:30]], total_steps=400).kind == "too early"
    assert diagnose([*wild, *calm], total_steps=400).kind in ("healthy", "too early")


def test_the_rate_is_changed_a_few_times_at_most_and_never_raised_after_it_was_lowered() -> None:
    readings = [Reading(0, None, 2.0)]
    factors = []
    for step in range(1, 6):
        readings.append(Reading(step, 2.0, 2.0, rate_factor=next_factor(readings, "lower the rate")))
        factors.append(readings[-1].rate_factor)
    assert factors[:MOST_LOWERED] == pytest.approx([1 / 3, 1 / 9, 1 / 27])
    assert len(set(factors)) == MOST_LOWERED
    assert next_factor(readings, "raise the rate") == factors[-1]
    raised = [Reading(0, None, 2.0), Reading(1, 2.0, 2.0, rate_factor=2.0)]
    assert next_factor(raised, "raise the rate") == 4.0
    assert next_factor([*raised, Reading(2, 2.0, 2.0, rate_factor=4.0)], "raise the rate") == 4.0
    assert next_factor(raised, "stop") == next_factor(raised, "none") == 2.0
