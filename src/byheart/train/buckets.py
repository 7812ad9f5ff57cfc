"""Which examples stand in which step of a model that writes: a pure function of their lengths, the seed and the step.

A batch holds examples of like length, so that little is computed on filling; a decoder needs no mask for the rest.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence

POOL_BATCHES = 50  # sorted by length together: filling falls to a few per cent, and order stays random beyond a pool


class Buckets:
    """The batches of a training run. An epoch visits every example once."""

    def __init__(self, lengths: Sequence[tuple[int, ...]], *, batch_size: int, seed: int) -> None:
        """`lengths`: of each example, what a row is filled up to (for an encoder-decoder, of both its sides)."""
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch_batches = functools.lru_cache(maxsize=2)(self._make_epoch)

    @property
    def steps_per_epoch(self) -> int:
        """Return how many batches hold all examples."""
        return math.ceil(len(self._lengths) / self._batch_size)

    def batch(self, step: int) -> list[int]:
        """Return the positions of the examples in a step's batch, steps counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._epoch_batches(epoch)[position]

    def _make_epoch(self, epoch: int) -> list[list[int]]:
        shuffle = random.Random(f"examples {self._seed} {epoch}")
        order = list(range(len(self._lengths)))
        shuffle.shuffle(order)
        pool = self._batch_size * POOL_BATCHES
        batches: list[list[int]] = []
        for first in range(0, len(order), pool):
            alike = sorted(order[first : first + pool], key=lambda position: self._lengths[position])
            batches += [alike[at : at + self._batch_size] for at in range(0, len(alike), self._batch_size)]
        shuffle.shuffle(batches)
        return batches
