"""Spaced repetition: what a model does not know yet comes back soon, what it knows ever later (Leitner 1972).

Training goes in rounds. An example that was known when it came up (its loss was low before the step that learned from
it) moves up a box, and rests one, three, seven rounds; one that was not comes back in the next round. As many steps as
with uniform repetition are made, and more of them on what is not known. The order depends on the seed and the losses,
so a checkpoint keeps the boxes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence

import torch

from byheart.train.buckets import batches_of
from byheart.train.checkpoint import Tensors

KNOWN = 0.2  # loss a token: the answer's tokens have a mean probability of 0.82 on the way to it
MOST_BOXES = 3  # 1, 2, 4 or 8 rounds from one visit to the next


class Spaced:
    """The batches of a training run, as losses ask for them (beside it, with the same calls: Buckets)."""

    def __init__(
        self, lengths: Sequence[tuple[int, ...]], *, batch_size: int, seed: int,
        facts: Sequence[Collection[str]] = (), groups: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """`lengths`, `facts` and `groups`: of each example, as for Buckets."""
        self._lengths = lengths
        self._facts = facts
        self._groups = groups
        self._batch_size = batch_size
        self._seed = seed
        self._box = [0] * len(lengths)
        self._due = [0] * len(lengths)  # the round in which it comes up again
        self._round = -1
        self._first_step = 0  # of the round
        self._batches: list[list[int]] = []

    @property
    def steps_per_epoch(self) -> int:
        """Return how many batches hold all examples."""
        return math.ceil(len(self._lengths) / self._batch_size)

    def batch(self, step: int) -> list[int]:
        """Return the positions of the examples in a step's batch. Steps are asked for in order, each maybe twice."""
        if step >= self._first_step + len(self._batches):
            self._begin_round(step)
        return self._batches[step - self._first_step]

    def note(self, positions: Sequence[int], losses: Sequence[float]) -> None:
        """Remember how well the examples of a batch were known before they were learned from."""
        for position, loss in zip(positions, losses, strict=True):
            self._box[position] = min(self._box[position] + 1, MOST_BOXES) if loss < KNOWN else 0
            self._due[position] = self._round + 2 ** self._box[position]

    @property
    def state(self) -> Tensors:
        """Return the boxes and the round at hand, for a checkpoint."""
        rows = [batch + [-1] * (self._batch_size - len(batch)) for batch in self._batches]
        return {
            "box": torch.tensor(self._box),
            "due": torch.tensor(self._due),
            "round": torch.tensor([self._round, self._first_step]),
            "batches": torch.tensor(rows),
        }

    def restore(self, saved: Tensors) -> None:
        """Go on as `state` was."""
        self._box = saved["box"].tolist()
        self._due = saved["due"].tolist()
        self._round, self._first_step = saved["round"].tolist()
        self._batches = [[position for position in row if position >= 0] for row in saved["batches"].tolist()]

    def _begin_round(self, step: int) -> None:
        self._round = max(self._round + 1, min(self._due))  # rounds in which nothing is due are passed over
        order = [position for position, due in enumerate(self._due) if due <= self._round]
        shuffle = random.Random(f"round {self._seed} {self._round}")
        shuffle.shuffle(order)
        self._first_step = step
        self._batches = batches_of(
            order, self._lengths, self._facts, self._groups, batch_size=self._batch_size, shuffle=shuffle
        )  # fmt: skip
