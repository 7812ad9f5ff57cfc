"""Does a training step fit into memory, or must layers be computed twice? From the estimate, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import psutil

from byheart.catalog import find_model
from byheart.chat import Example
from byheart.memory import choose
from byheart.memory.choose import GB, Machine, Work
from byheart.memory.estimate import Adapters, Batch
from byheart.memory.size import Size, size_of
from byheart.models.adapters import LoraSettings, Method
from byheart.models.devices import gpus
from byheart.models.writer import Writer

Wish = Literal["auto", "always", "never"]

# Enough to be computed together on a CPU: more are no faster there, and take memory (docs/experiments.md).
TOKENS_AT_ONCE = 1024
TOKENS_SHARED = 2 * TOKENS_AT_ONCE  # where rows go on from one prefix: the more of them, the more that saves


def size_of_writer(writer: Writer, *, parameters: int) -> Size | None:
    """Return the dimensions of a model, its weights not yet wrapped; None where its architecture is not known."""
    return size_of(type(writer.base).__name__, writer.base.config.to_dict(), parameters=parameters)


def rows_at_once(rows: int, examples: Sequence[Example], *, on_cpu: bool, tokens: int = TOKENS_AT_ONCE) -> int:
    """Return how many of the examples are computed together, where it may be `rows`; `tokens`: the most on a CPU."""
    longest = max(len(example.prompt) + len(example.answer) for example in examples)
    return min(rows, math.ceil(tokens / longest)) if on_cpu else rows


def work_of(
    examples: Sequence[Example], *, rows: int, base_model: str, lora: LoraSettings, eight_bit_moments: bool = False
) -> Work:
    """Return what a step computes at its most: `rows` examples as long as the longest."""
    learned = max(len(example.answer) for example in examples)
    tokens = max(len(example.prompt) + len(example.answer) for example in examples)
    entry = find_model(base_model)
    names = frozenset(entry.attention_targets) if entry and lora.targets == "attention" else None
    adapters = Adapters(rank=lora.rank, names=names, dropout=lora.dropout > 0)
    return Work(
        batch=Batch(rows=rows, tokens=tokens, learned=learned),
        adapters=adapters,
        window=tokens,
        eight_bit_moments=eight_bit_moments,
    )


def this_machine(*, in_bf16: bool, gpus_together: int = 1) -> Machine:
    """Return the GPUs that train together, all like the first one here; or this machine's CPU and memory."""
    found = gpus()
    if found:
        return Machine(gpus_together, found[0][1], found[0][0], in_bf16)
    return Machine(0, psutil.virtual_memory().total, "this machine's memory", in_bf16)


def longest_that_fits(
    wished: int, *, least: int, size: Size | None, base_model: str, lora: LoraSettings, machine: Machine, method: Method
) -> int:
    """Return how many tokens an example may have that can be cut: `wished`, halved while one alone would not fit."""
    while size is not None and wished > least:
        example = Example(prompt=(0,), answer=(0,) * (wished - 1))
        work = work_of([example], rows=1, base_model=base_model, lora=lora)
        if any(option.method == method and option.fits for option in choose.options(size, work, machine)):
            break
        wished //= 2
    return max(wished, least)


def choose_checkpointing(
    wish: Wish, *, size: Size | None, work: Work, machine: Machine, method: Method
) -> tuple[bool, str]:
    """Return whether layers are computed a second time for their gradients (Chen et al. 2016), and the reason.

    It saves most of the activations' memory and costs about a third of the speed.
    """
    if wish != "auto":
        return wish == "always", "as train.gradient_checkpointing says"
    if size is None:
        return False, "the memory of this architecture cannot be told beforehand; it is switched on where it runs out"
    option = next((option for option in choose.options(size, work, machine) if option.method == method), None)
    if option is None:
        return False, f"the memory of {method} on this machine cannot be told beforehand"
    figures = f"a step takes about {option.needed / GB:.1f} GB of {machine.bytes_each / GB:.1f} GB"
    if not option.checkpointing:
        return False, f"{figures} without it"
    if option.fits:
        return True, f"{figures} with it, and does not fit without"
    return True, f"{figures} with it: that will not fit; see byheart plan"
