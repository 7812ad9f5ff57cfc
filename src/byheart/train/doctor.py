"""The loss doctor: what the losses of a training run say about it, with the evidence, and what to do. Pure functions.

It goes by two things. The loss on unseen phrasing is measured on the same questions each time, so that every change of
it is one of the model. The loss of a step's batch differs from batch to batch whatever the model does, so it is judged
in windows, and only by what that scatter cannot explain.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Literal

Kind = Literal["too early", "not a number", "jumpy", "overfitting", "flat", "slow", "healthy"]
Action = Literal["none", "lower the rate", "raise the rate", "stop"]

# All thresholds were set on made histories so that fewer than 1 % of healthy noisy runs are called anything else, at
# any of their validations (tests/test_train_doctor.py).
WINDOW = 20  # steps: the mean absolute difference of so many is known to a fifth
LEAST_VALIDATIONS = 4  # measured after the warm-up, before anything is said but "not a number"
SCATTER_GROWTH = 3.0  # windows of healthy runs differ up to twofold
SWING = 0.04  # a rise or fall of the unseen loss that is no rounding, as a share of its level
SWINGS = 2  # rises with a fall between them, among the last validations: a single bump is none
RECENT = 6  # validations that swings, and a loss that does not move, are looked for in
RISE = 0.03  # of the unseen loss above its best, for overfitting
RISES = 2  # validations in a row that are above the best
STILL = 0.01  # a loss that changes less than this, as a share of its level, does not move
LEARNED = 0.5  # of the first unseen loss: below that, a flat curve has learned what it can
SLOW_END = 0.75  # of the first unseen loss: where it would end at its pace if nothing changed
STEADY = 0.7  # the newest fall as a share of the mean fall: less is a curve that bends, and not slow but nearly there
LOWER, RAISE = 1 / 3, 2.0
MOST_LOWERED, MOST_RAISED = 3, 2


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """A step's losses."""

    step: int
    train_loss: float | None
    unseen_loss: float | None  # None between validations
    rate_factor: float = 1.0  # of the learning rate, as the doctor had set it


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the losses say: the kind, the figures that show it, what to do about it, and what `auto` does."""

    kind: Kind
    evidence: str
    advice: str
    action: Action = "none"


def diagnose(readings: Sequence[Reading], *, total_steps: int, warm_up_steps: int = 0) -> Diagnosis:
    """Return what a run's losses say up to its last reading. Step 0 is the untrained model.

    Only what was read since the learning rate was last changed counts, and nothing of the warm-up but the start.
    """
    if not readings:
        return Diagnosis("too early", "no step is done", "")
    if bad := next((reading for reading in readings if not _is_finite(reading)), None):
        return Diagnosis(
            "not a number",
            f"the loss of step {bad.step} is infinite or not a number",
            "Lower train.learning_rate to a tenth, or set train.precision to fp32 if it is bf16.",
            "lower the rate",
        )
    start = next((reading.unseen_loss for reading in readings if reading.unseen_loss is not None), None)
    current = _since_last_change(readings, warm_up_steps)
    unseen = [(reading.step, reading.unseen_loss) for reading in current if reading.unseen_loss is not None]
    train = [reading.train_loss for reading in current if reading.train_loss is not None]
    if found := _jumpy(train, [loss for _, loss in unseen]):
        return found
    if start is None or len(unseen) < LEAST_VALIDATIONS:
        return Diagnosis("too early", f"{len(unseen)} of {LEAST_VALIDATIONS} validations since the warm-up", "")
    return (
        _overfitting(current, unseen)
        or _flat(train, unseen, start=start)
        or _slow(unseen, start=start, total_steps=total_steps)
        or Diagnosis("healthy", f"unseen phrasing fell from {start:.3f} to {unseen[-1][1]:.3f}", "")
    )


def next_factor(readings: Sequence[Reading], action: Action) -> float:
    """Return the learning rate's factor after an action; as it was where it was changed often enough already.

    It depends on the readings alone, so that a run that was stopped goes on with the same one.
    """
    factors = [1.0, *(reading.rate_factor for reading in readings)]
    lowered = sum(after < before for before, after in itertools.pairwise(factors))
    raised = sum(after > before for before, after in itertools.pairwise(factors))
    if action == "lower the rate" and lowered < MOST_LOWERED:
        return factors[-1] * LOWER
    # A rate that had to be lowered is near the highest that goes well.
    if action == "raise the rate" and raised < MOST_RAISED and not lowered:
        return factors[-1] * RAISE
    return factors[-1]


def _is_finite(reading: Reading) -> bool:
    return all(loss is None or math.isfinite(loss) for loss in (reading.train_loss, reading.unseen_loss))


def _since_last_change(readings: Sequence[Reading], warm_up_steps: int) -> list[Reading]:
    """Return the readings under the rate that holds now, from its first validation on."""
    factor = readings[-1].rate_factor
    first = len(readings)
    while first and readings[first - 1].rate_factor == factor:
        first -= 1
    return [reading for reading in readings[first:] if reading.step > warm_up_steps]


def _jumpy(train: Sequence[float], unseen: Sequence[float]) -> Diagnosis | None:
    """The unseen loss swings up and down, or steps scatter far more than they did."""
    advice = "Lower train.learning_rate to a third."
    recent = unseen[-RECENT:]
    turns = [_sign(after - before, SWING * before) for before, after in itertools.pairwise(recent)]
    moves = [turn for turn in turns if turn]
    if sum(turn > 0 for turn, _ in itertools.groupby(moves)) >= SWINGS:
        seen = ", ".join(f"{loss:.3f}" for loss in recent)
        return Diagnosis("jumpy", f"unseen phrasing goes up and down: {seen}", advice, "lower the rate")
    windows = [train[first : first + WINDOW] for first in range(0, len(train) - WINDOW + 1, WINDOW)]
    if len(windows) >= 3:
        levels = [sum(window) / WINDOW for window in windows]
        # As a share of the level: a higher loss scatters more by itself.
        scatters = [_scatter(window) / max(level, 1e-9) for window, level in zip(windows, levels, strict=True)]
        calm, now = min(scatters[:-2]), min(scatters[-2:])  # twice in a row: one odd batch is no diagnosis
        if now > SCATTER_GROWTH * calm and levels[-1] > min(levels[:-2]):
            evidence = f"from step to step the loss differs by {now:.0%} of it; it did by {calm:.0%}, and was lower"
            return Diagnosis("jumpy", evidence, advice, "lower the rate")
    return None


def _overfitting(current: Sequence[Reading], unseen: Sequence[tuple[int, float]]) -> Diagnosis | None:
    best_step, best = min(unseen, key=lambda point: point[1])
    after = [loss for step, loss in unseen if step > best_step]
    if len(after) < RISES or min(after[-RISES:]) < best * (1 + RISE):
        return None
    trained = [(reading.step, reading.train_loss) for reading in current if reading.train_loss is not None]
    around = [loss for step, loss in trained if step <= best_step][-WINDOW:]
    newest = [loss for step, loss in trained if step > best_step][-WINDOW:]
    if not around or not newest:
        return None
    then, now = sum(around) / len(around), sum(newest) / len(newest)
    noise = _unsure(around, newest)
    said = f"since step {best_step} unseen phrasing rose from {best:.3f} to {after[-1]:.3f}"
    if abs(now - then) <= noise:
        return None
    if now < then:
        return Diagnosis(
            "overfitting",
            f"{said}, while training fell from {then:.3f} to {now:.3f}",
            "Stop, and keep the best weights (that is done). More phrasings a fact (synthesize.questions_per_section) "
            "or fewer epochs come before another model.",
            "stop",
        )
    return Diagnosis(
        "jumpy",
        f"{said}, and training rose with it, from {then:.3f} to {now:.3f}",
        "Lower train.learning_rate to a third.",
        "lower the rate",
    )


def _flat(train: Sequence[float], unseen: Sequence[tuple[int, float]], *, start: float) -> Diagnosis | None:
    recent = [loss for _, loss in unseen[-RECENT:]]
    if len(recent) < RECENT or max(recent) - min(recent) > STILL * max(recent) or len(train) < 2 * WINDOW:
        return None
    earlier, newest = sum(train[-2 * WINDOW : -WINDOW]) / WINDOW, sum(train[-WINDOW:]) / WINDOW
    if earlier - newest > STILL * earlier + _unsure(train[-2 * WINDOW : -WINDOW], train[-WINDOW:]):
        return None  # training still falls
    figures = f"unseen phrasing stays at {recent[-1]:.3f} ({start:.3f} at the start), training at {newest:.3f}"
    if recent[-1] < LEARNED * start:
        return Diagnosis("healthy", f"{figures}: it has learned what it can", "")
    return Diagnosis(
        "flat",
        figures,
        "The model has no room for more, or the pairs nothing more to learn: raise train.lora_rank, use "
        "train.lora_targets: all-linear or a larger base_model; or look at 3-pairs.jsonl for contradictions.",
        "stop",
    )


def _slow(unseen: Sequence[tuple[int, float]], *, start: float, total_steps: int) -> Diagnosis | None:
    """It falls steadily, each time, and at that pace will not get far by the end."""
    recent = unseen[-LEAST_VALIDATIONS:]
    falls = [(before[1] - after[1]) / (after[0] - before[0]) for before, after in itertools.pairwise(recent)]
    mean = sum(falls) / len(falls)
    moved = recent[0][1] - recent[-1][1] > STILL * recent[-1][1]
    if not moved or min(falls) <= 0 or falls[-1] < STEADY * mean:
        return None
    step, loss = recent[-1]
    end = loss - mean * max(0, total_steps - step)
    if end < SLOW_END * start:
        return None
    return Diagnosis(
        "slow",
        f"unseen phrasing falls smoothly, by {mean * 100:.3g} in 100 steps: from {start:.3f} to about "
        f"{max(0, end):.3f} at the end",
        "There is room to raise train.learning_rate: double it.",
        "raise the rate",
    )


def _scatter(losses: Sequence[float]) -> float:
    """Return the mean absolute difference from step to step: noise, whatever the trend, and odd values count once."""
    return sum(abs(after - before) for before, after in itertools.pairwise(losses)) / max(1, len(losses) - 1)


def _unsure(first: Sequence[float], second: Sequence[float]) -> float:
    """Return what the means of two windows may differ by chance: about two and a half standard errors."""
    return 3 * (_scatter(first) + _scatter(second)) / math.sqrt(len(first) + len(second))


def _sign(change: float, least: float) -> int:
    return 0 if abs(change) < least else 1 if change > 0 else -1
