"""Made histories of training losses, of every kind that the doctor knows, with noise."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from byheart.train.doctor import Reading

Curve = Callable[[float], float]  # share of the steps done -> loss


def history(
    train: Curve, unseen: Curve, *, steps: int = 400, every: int = 25, noise: float = 0.15, jitter: float = 0.004,
    seed: int = 0, known: Curve | None = None,
) -> list[Reading]:  # fmt: skip
    """Return readings. `noise`: spread of a batch's loss as a share of its level; `jitter`: of the unseen loss.

    `known`: the share of unseen phrasings that are answered rightly; not measured where it is None.
    """
    rng = random.Random(f"history {seed}")
    readings = [Reading(0, None, unseen(0.0), known=known(0.0) if known else None)]
    for step in range(1, steps + 1):
        done = step / steps
        # Losses of single batches are skewed: most lie below their mean, a few far above.
        batch = train(done) * math.exp(rng.gauss(0, noise) - noise**2 / 2)
        measured = unseen(done) * (1 + rng.gauss(0, jitter)) if step % every == 0 else None
        share = known(done) if known and measured is not None else None
        readings.append(Reading(step, batch, measured, known=share))
    return readings


def falling(start: float, end: float, pace: float = 5.0) -> Curve:
    """Return a loss that falls fast, then less and less."""
    return lambda done: end + (start - end) * math.exp(-pace * done)


def straight(start: float, end: float) -> Curve:
    return lambda done: start + (end - start) * done


def valley(start: float, low: float, end: float, at: float = 0.4) -> Curve:
    """Return a loss that falls until `at`, then rises."""
    return lambda done: start + (low - start) * done / at if done < at else low + (end - low) * (done - at) / (1 - at)


def swinging(level: float, width: float, times: float = 5.3) -> Curve:
    return lambda done: level * (1 + width * math.sin(2 * math.pi * times * done))
