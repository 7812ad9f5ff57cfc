"""Which examples stand in which step of a model that writes: a pure function of their lengths, the seed and the step.

A batch holds examples of like length, so that little is computed on filling; a decoder needs no mask for the rest. What
begins alike, such as questions about one passage, stands together, as it is computed once a batch. Two renderings of
one fact do not stand in one batch: they would teach in one step what is better repeated in two.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from byheart.train.checkpoint import Tensors

POOL_BATCHES = 50  # sorted by length together: filling falls to a few per cent, and order stays random beyond a pool


class Planned:
    """An order that the seed and the step tell, whatever comes of the steps before."""

    @property
    def state(self) -> Tensors:
        """Return nothing: the step tells all."""
        return {}

    def restore(self, saved: Tensors) -> None:
        """Go on as `state` was."""


class Buckets(Planned):
    """The batches of a training run. An epoch visits every example once, whatever its loss (Spaced asks for more)."""

    def __init__(
        self, lengths: Sequence[tuple[int, ...]], *, batch_size: int, seed: int,
        facts: Sequence[Collection[str]] = (), groups: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """`lengths`: of each example, what a row is filled up to (for an encoder-decoder, of both its sides).

        `facts`: the ids of each example's facts; none where they are not known. `groups`: the number of each example's
        group, -1 for none (see prefixes.groups_of); none where nothing is to stand together.
        """
        self._lengths = lengths
        self._facts = facts
        self._groups = groups
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

    def note(self, positions: Sequence[int], losses: Sequence[float]) -> None:
        """Take no notice of how well the examples of a batch were known."""

    def _make_epoch(self, epoch: int) -> list[list[int]]:
        shuffle = random.Random(f"examples {self._seed} {epoch}")
        order = list(range(len(self._lengths)))
        shuffle.shuffle(order)
        return batches_of(
            order, self._lengths, self._facts, self._groups, batch_size=self._batch_size, shuffle=shuffle
        )  # fmt: skip


def batches_of(
    order: Sequence[int], lengths: Sequence[tuple[int, ...]], facts: Sequence[Collection[str]], groups: Sequence[int],
    *, batch_size: int, shuffle: random.Random,
) -> list[list[int]]:  # fmt: skip
    """Return batches of like length of the examples in `order`, themselves in random order; groups stay together."""
    group_of = {position: groups[position] if groups and groups[position] >= 0 else ~position for position in order}
    members: dict[int, list[int]] = {}
    for position in order:
        members.setdefault(group_of[position], []).append(position)
    longest = {group: max(lengths[position] for position in found) for group, found in members.items()}
    order = [position for found in members.values() for position in found]
    pool = batch_size * POOL_BATCHES
    batches: list[list[int]] = []
    for first in range(0, len(order), pool):
        # A group is as long as its longest: so it stays together, beside what is as long.
        alike = sorted(order[first : first + pool], key=lambda position: longest[group_of[position]])
        while alike:
            batches.append(_take(alike, facts, batch_size))
    shuffle.shuffle(batches)
    return batches


def _take(alike: list[int], facts: Sequence[Collection[str]], batch_size: int) -> list[int]:
    """Take a batch off the front, passing over examples of a fact that it has already, unless no others are left."""
    taken: list[int] = []
    seen: set[str] = set()
    for position in alike:
        if len(taken) == batch_size:
            break
        if not facts or seen.isdisjoint(facts[position]):
            taken.append(position)
            seen.update(facts[position] if facts else ())
    left = [position for position in alike if position not in taken]
    fill = left[: batch_size - len(taken)]
    alike[:] = left[len(fill) :]
    taken += fill
    return taken
