"""Prompts that begin alike, as questions about one passage do: which they are, and which are computed together.

The common prefix of some examples is computed once, and each goes on from it (models.writer): the same losses and
gradients from fewer tokens, as with a tree of prompts (Hydragen, Juravsky et al. 2024, does so in generation).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from byheart.chat import Example

SHARED = 32  # tokens; a shorter prefix is not worth a pass of its own
# Tokens that must be saved for that. A GPU reads its weights for a pass as long as it computes with some 200 tokens
# (in bf16, operations a second over bytes a second), however few there are; not measured.
A_PASS = {"cpu": SHARED, "cuda": 256}
# Of all that a token keeps for its gradients, its keys and values, of which each row has a copy where it stands in the
# prefix: at most, in tiny models of all architectures (tests/test_train_prefixes.py).
KEYS_AND_VALUES = 1 / 4

Part = tuple[list[int], int]  # places in a batch, and how many tokens they share


def groups_of(examples: Sequence[Example]) -> list[int]:
    """Return for each example a number that it shares with those whose prompts begin alike; -1 where there is none.

    What all prompts begin with, such as a chat model's instructions, makes no group.
    """
    order = sorted(range(len(examples)), key=lambda place: examples[place].prompt)
    shared = [shared_by(examples[one], examples[other]) for one, other in itertools.pairwise(order)]
    least = min(shared, default=0) + SHARED
    groups = [-1] * len(examples)
    for (one, other), tokens in zip(itertools.pairwise(order), shared, strict=True):
        if tokens >= least:
            groups[one] = groups[other] = groups[one] if groups[one] >= 0 else one
    return groups


def parts_of(
    batch: Sequence[Example], *, most: int, a_pass: float, most_alone: int | None = None, most_kept: int | None = None
) -> list[Part]:  # fmt: skip
    """Return the parts of a batch, of at most `most` examples, that together compute the fewest tokens.

    A part is a run of the prompts in sorted order, where those that begin alike are neighbours.
    `a_pass`: tokens that a further part costs; infinite: nothing is shared. What shares nothing comes last, in order,
    at most `most_alone` examples together. No part keeps more for its gradients than `most_kept` whole examples would.
    """
    room = (most_kept or most) * max(map(_length, batch), default=0)  # tokens
    order = sorted(range(len(batch)), key=lambda place: batch[place].prompt)
    alike = [shared_by(batch[one], batch[other]) for one, other in itertools.pairwise(order)]
    best: list[tuple[float, list[Part]]] = [(0, [])]  # for so many of the first: tokens saved, and the parts that do
    for end in range(1, len(order) + 1):
        best.append(best[-1])
        for first in range(end - 2, max(-1, end - most - 1), -1):
            shared = min(alike[first : end - 1])
            rows, longest = end - first, max(_length(batch[place]) for place in order[first:end])
            kept = shared * (1 + KEYS_AND_VALUES * rows) + rows * (longest - shared)
            if shared < SHARED or kept > room:
                break
            saved = best[first][0] + shared * (rows - 1) - a_pass
            if saved > best[end][0]:
                best[end] = saved, [*best[first][1], (order[first:end], shared)]
    parts = best[-1][1]
    taken = {place for places, _ in parts for place in places}
    left = [place for place in range(len(batch)) if place not in taken]
    step = most_alone or most
    return parts + [(left[first : first + step], 0) for first in range(0, len(left), step)]


def _length(example: Example) -> int:
    return len(example.prompt) + len(example.answer)


def shared_by(one: Example, other: Example) -> int:
    """Return how many tokens two prompts begin with alike, short of their last: its state tells the answer's first."""
    both = zip(one.prompt[:-1], other.prompt[:-1], strict=False)
    return sum(1 for _ in itertools.takewhile(lambda tokens: tokens[0] == tokens[1], both))
