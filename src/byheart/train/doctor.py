"""The loss doctor: what the losses of a training run say about it, with the evidence, and what to do. Pure functions.

It goes by two things. The loss on unseen phrasing is measured on the same questions each time, so that every change of
it is one of the model. The loss of a step's batch differs from batch to batch whatever the model does, so it is judged
in windows, and only by what that scatter cannot explain.

A loss that falls no more may have come to rest because all is known, or far above that. Where it began does not tell:
with random weights that is the logarithm of the vocabulary, and much less where the model knows the language. What
tells is the chance that the right token (or passage) is given, of which the loss is the mean negative logarithm, and
how many unseen phrasings are answered rightly.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Literal

Kind = Literal[
    "too early", "not a number", "jumpy", "overfitting", "slow", "flat", "underfit", "parroting", "unfinished",
    "healthy",
]  # fmt: skip
Action = Literal["none", "lower the rate", "raise the rate", "stop"]

# All thresholds were set on made histories so that fewer than 1 % of healthy noisy runs are called anything else, at
# any of their validations (tests/test_train_doctor.py).
WINDOW = 20  # steps: the mean absolute difference of so many is known to a fifth
LEAST_VALIDATIONS = 4  # measured after the warm-up, before anything is said but "not a number"
SCATTER_GROWTH = 3.0  # windows of healthy runs differ up to twofold
SWING = 0.04  # a rise or fall of the loss that is no rounding, as a share of its level
SWINGS = 2  # rises with a fall between them, among the last validations: a single bump is none
RECENT = 6  # validations that swings are looked for in, and at least so many in which a loss does not move
RISE = 0.03  # of the unseen loss above its best, for overfitting
RISES = 2  # validations in a row that are above the best
STILL = 0.01  # a loss that changes less than this, as a share of its level, does not move
KNOWN_LOSS = math.log(2)  # above it, the right token gets less than an even chance: greedy writing goes astray
KNOWN_SHARE = 0.5  # right outright: then it has learned, though what it does not know makes the loss high
UNKNOWN_SHARE = 0.1  # right outright: below that it has not learned, however low the loss
LATEST_SHARE = 0.25  # of the validations: where the loss must have fallen for more steps to pay
LEAST_LATEST = 3  # validations at the end of a run in which that is looked for
HARDLY = 0.5  # of the first unseen loss: a curve that rests above that has learned hardly anything
SEEN_BETTER = 0.5  # the training loss as a share of the unseen one: below that the phrasings are known, not the facts
SLOW_END = 0.75  # of the first unseen loss: where it would end at its pace if nothing changed
STEADY = 0.7  # the newest fall as a share of the mean fall: less is a curve that bends, and not slow but nearly there
LOWER, RAISE = 1 / 3, 2.0
MOST_LOWERED, MOST_RAISED = 3, 2

_MORE_PHRASINGS = (
    "It learns the phrasings of its questions, not what they are about: more phrasings a fact "
    "(synthesize.questions_per_section), or a teacher model (synthesize.teacher: openai)."
)


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """A step's losses."""

    step: int
    train_loss: float | None
    unseen_loss: float | None  # None between validations
    rate_factor: float = 1.0  # of the learning rate, as the doctor had set it
    known: float | None = None  # share of unseen phrasings that were answered rightly, or whose passage was found


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the losses say: the kind, the figures that show it, what to do about it, and what `auto` does."""

    kind: Kind
    evidence: str
    advice: str
    action: Action = "none"


def diagnose(
    readings: Sequence[Reading], *, total_steps: int, warm_up_steps: int = 0, is_last: bool = False
) -> Diagnosis:
    """Return what a run's losses say up to its last reading. Step 0 is the untrained model.

    Only what was read since the learning rate was last changed counts, and nothing of the warm-up but the start.
    `is_last`: training ends here, so that a loss which has not come to rest never will.
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
    known = max((share for reading in current if (share := reading.known) is not None), default=None)
    if found := _jumpy(train, [loss for _, loss in unseen]):
        return found
    not_learned = None
    if start is not None and not _has_learned(unseen, known):
        losses = [start, *(loss for _, loss in unseen)]
        not_learned = _at_the_end(train, losses, known) if is_last else _at_rest(train, losses, known)
    if start is None or len(unseen) < LEAST_VALIDATIONS:
        few = f"{len(unseen)} of {LEAST_VALIDATIONS} validations since the warm-up"
        return not_learned or Diagnosis("too early", few, "")
    return (
        _rising(current, unseen, known)
        or _slow(unseen, start=start, total_steps=total_steps)
        or not_learned
        or Diagnosis("healthy", f"unseen phrasing fell from {start:.3f} to {unseen[-1][1]:.3f}{_right(known)}", "")
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
    turns = [_sign(after - before, SWING * _level(before)) for before, after in itertools.pairwise(recent)]
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
        lost = levels[-1] - min(levels[:-2])
        if now > SCATTER_GROWTH * calm and lost > SWING * _level(min(levels[:-2])):
            evidence = f"from step to step the loss differs by {now:.0%} of it; it did by {calm:.0%}, and was lower"
            return Diagnosis("jumpy", evidence, advice, "lower the rate")
    return None


def _rising(current: Sequence[Reading], unseen: Sequence[tuple[int, float]], known: float | None) -> Diagnosis | None:
    """The unseen loss rises since its best: what to make of that tells the training loss, and what was known then.

    Where it was little, the best weights are no good either, and fewer epochs no way out.
    """
    best_step, best = min(unseen, key=lambda point: point[1])
    after = [loss for step, loss in unseen if step > best_step]
    if len(after) < RISES or min(after[-RISES:]) < best + RISE * _level(best):
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
    evidence = f"{said}, while training fell from {then:.3f} to {now:.3f}"
    if now < then and not _has_learned(unseen, known):
        return Diagnosis("parroting", f"{evidence}: {_chance(best)}{_right(known)}", _MORE_PHRASINGS, "stop")
    if now < then:
        return Diagnosis(
            "overfitting",
            evidence,
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


def _has_learned(unseen: Sequence[tuple[int, float]], known: float | None) -> bool:
    """Tell whether most is known; what was not measured yet counts as learned."""
    loss = min((loss for _, loss in unseen), default=0.0)
    if known is None:
        return loss <= KNOWN_LOSS
    return known >= KNOWN_SHARE or (known >= UNKNOWN_SHARE and loss <= KNOWN_LOSS)


def _at_rest(train: Sequence[float], losses: Sequence[float], known: float | None) -> Diagnosis | None:
    """Return what to make of losses that move no more, though little is known; None where they do."""
    latest = max(RECENT, math.ceil(LATEST_SHARE * len(losses)))
    recent = losses[-RECENT:]
    moves = max(recent) - min(recent) > STILL * max(recent)
    if len(losses) <= latest + 1 or moves or _fell(losses, latest) or len(train) < 2 * WINDOW:
        return None
    earlier, newest = train[-2 * WINDOW : -WINDOW], train[-WINDOW:]
    fall = (sum(earlier) - sum(newest)) / WINDOW
    if fall > STILL * sum(earlier) / WINDOW + _unsure(earlier, newest):
        return None  # training still falls
    return _resting(train, losses, known)


def _at_the_end(train: Sequence[float], losses: Sequence[float], known: float | None) -> Diagnosis:
    """Return why a run has ended although little is known."""
    latest = max(LEAST_LATEST, math.ceil(LATEST_SHARE * len(losses)))
    latest = min(latest, len(losses) - 1)
    if not _fell(losses, latest):
        return _resting(train, losses, known)
    return Diagnosis(
        "unfinished",
        f"unseen phrasing was still falling at the end, to {losses[-1]:.3f} ({losses[0]:.3f} at the start): "
        f"{_chance(losses[-1])}{_right(known)}",
        "More steps would lower it further: double train.epochs.",
    )


def _fell(losses: Sequence[float], latest: int) -> bool:
    """Tell whether the latest losses went below all before them."""
    return min(losses[-latest:]) < (1 - STILL) * min(losses[:-latest])


def _resting(train: Sequence[float], losses: Sequence[float], known: float | None) -> Diagnosis:
    start, loss = losses[0], min(losses)
    seen = sum(train[-WINDOW:]) / max(1, len(train[-WINDOW:])) if train else math.inf
    at = f", training at {seen:.3f}" if train else ""
    figures = f"unseen phrasing rests at {loss:.3f} ({start:.3f} at the start){at}: {_chance(loss)}{_right(known)}"
    if seen < SEEN_BETTER * loss:
        return Diagnosis("parroting", figures, _MORE_PHRASINGS)
    if loss >= HARDLY * start:
        return Diagnosis(
            "flat",
            figures,
            "Where a higher train.learning_rate does not move it, the model has no room for more, or the pairs nothing "
            "more to learn: raise train.lora_rank, use train.lora_targets: all-linear or a larger base_model; or look "
            "at 3-pairs.jsonl for contradictions.",
            "stop",
        )
    return Diagnosis(
        "underfit",
        figures,
        "It has learned how answers look, not what they say. Give it more train.epochs, then twice the "
        "train.learning_rate (or a third of it, if it rests as high again); then a higher train.lora_rank or a larger "
        "base_model.",
    )


def _chance(loss: float) -> str:
    return f"the right word or passage gets a chance of 1 in {math.exp(loss):.3g}"


def _right(known: float | None) -> str:
    return "" if known is None else f", and {known:.0%} of its questions are answered rightly"


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


def _level(loss: float) -> float:
    """Return what a change is a share of: where nearly all is known, a loss that doubles still means little."""
    return max(loss, KNOWN_LOSS)


def _sign(change: float, least: float) -> int:
    return 0 if abs(change) < least else 1 if change > 0 else -1
