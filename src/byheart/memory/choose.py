"""Which way to use a model fits a machine: every method beside what there is, and the one to take, with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from byheart.memory import estimate
from byheart.memory.estimate import Adapters, Batch, Formats, Memory
from byheart.memory.size import Size

MethodName = Literal["inference", "qlora", "lora", "full"]
METHODS: tuple[MethodName, ...] = ("inference", "qlora", "lora", "full")
GB = 1e9
# On a CPU the checkpoint in hand (weights and moments) and the best weights so far lie in the same memory, in fp32.
_CHECKPOINT_BYTES = 4 * estimate.FP32
_CPU_PROCESS = 600_000_000  # Python with torch and transformers loaded: measured 0.5 to 0.6 GB


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """Where it is to run."""

    gpus: int  # 0: on the CPU
    bytes_each: float  # of one GPU's memory; on a CPU of the machine's
    found: str  # how this is known, in words
    in_bf16: bool  # computes in bf16


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What is to be done, as flat numbers."""

    batch: Batch
    adapters: Adapters
    window: int  # tokens of prompt and answer in sight at inference
    asked_at_once: int = 1  # at inference
    eight_bit_moments: bool = False  # of the optimizer


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """A method on a machine: what it takes on each GPU, and whether that is there."""

    method: MethodName
    gpus: int  # that the weights are sharded over; 1 on a CPU
    checkpointing: bool
    memory: Memory
    needed: float
    fits: bool


def options(size: Size, work: Work, machine: Machine) -> list[Option]:
    """Return every method, cheapest first, without gradient checkpointing where that fits, else with it.

    Over several GPUs, full fine-tuning and LoRA are sharded (ZeRO-3, FSDP) where they do not fit otherwise.
    """
    found = [_inference(size, work, machine)]
    methods: tuple[MethodName, ...] = ("lora", "full") if size.is_encoder or machine.gpus == 0 else (
        "qlora", "lora", "full"
    )  # fmt: skip
    for method in methods:
        spreads = (1, machine.gpus) if machine.gpus > 1 and method != "qlora" else (1,)
        tries = [
            _training(size, work, machine, method, gpus=gpus, checkpointing=checkpointing)
            for gpus in spreads
            for checkpointing in (False, True)
        ]
        found.append(next((option for option in tries if option.fits), tries[-1]))
    return found


def recommend(size: Size, work: Work, machine: Machine, found: Sequence[Option]) -> tuple[str, str]:
    """Return the method to take ("none" where nothing fits), and the reason.

    LoRA before QLoRA, which trains slower and rounds the weights; LoRA before full, which learns no more of a manual
    ("LoRA Without Regret", Schulman et al. 2025) and takes several times the memory.
    """
    by_method = {option.method: option for option in found}
    lora, full = by_method["lora"], by_method["full"]
    if lora.fits:
        if not full.fits:
            return "lora", f"{_fit(lora, machine)}; full fine-tuning would need {_size(full.needed)}"
        where = f"on each of {full.gpus}" if full.gpus > 1 else "as well"
        more = f"full fine-tuning would fit {where} ({_size(full.needed)}), and learns no more of a manual"
        return "lora", f"{_fit(lora, machine)}; {more}"
    if (qlora := by_method.get("qlora")) and qlora.fits:
        return "qlora", f"{_fit(qlora, machine)}; LoRA over 16-bit weights would need {_size(lora.needed)}"
    return "none", _way_out(size, work, machine, by_method)


def gpus_needed(size: Size, work: Work, machine: Machine, method: MethodName, *, most: int = 64) -> int | None:
    """Return the least number of such GPUs (a power of two) that a sharded method fits on; None if more than `most`."""
    count = 1
    while count <= most:
        if _training(size, work, machine, method, gpus=count, checkpointing=True).fits:
            return count
        count *= 2
    return None


def formats_for(size: Size, machine: Machine) -> Formats:
    """Return the formats that byheart trains in on such a machine."""
    if not machine.in_bf16:
        return estimate.IN_FP32
    formats = estimate.AUTOCAST_ENCODER if size.is_encoder else estimate.IN_BF16
    return formats if machine.gpus else dataclasses.replace(formats, fused_norms_in_fp32=False)


def _inference(size: Size, work: Work, machine: Machine) -> Option:
    formats = formats_for(size, machine)
    memory = estimate.inference(
        size, rows=work.asked_at_once, tokens=work.window, weight_bytes=formats.weights, cache_bytes=formats.computed
    )
    return _option("inference", machine, memory, gpus=1, checkpointing=False, trained=0)


def _training(
    size: Size, work: Work, machine: Machine, method: MethodName, *, gpus: int, checkpointing: bool
) -> Option:
    formats = formats_for(size, machine)
    if work.eight_bit_moments:  # such an optimiser takes gradients in the format of the weights that it moves
        formats = dataclasses.replace(formats, states=estimate.EIGHT_BIT_STATES, gradients=estimate.FP32)
    if method == "full":
        trained = size.parameters
        memory = estimate.full_training(size, work.batch, formats, checkpointing=checkpointing, gpus=gpus)
    else:
        trained = size.adapter_weights(work.adapters.rank, work.adapters.names)
        memory = estimate.adapter_training(
            size, work.batch, formats, work.adapters, checkpointing=checkpointing, four_bit=method == "qlora",
            gpus=gpus,
        )  # fmt: skip
    return _option(method, machine, memory, gpus=gpus, checkpointing=checkpointing, trained=trained)


def _option(
    method: MethodName, machine: Machine, memory: Memory, *, gpus: int, checkpointing: bool, trained: int
) -> Option:
    needed = memory.needed if machine.gpus else memory.peak + trained * _CHECKPOINT_BYTES + _CPU_PROCESS
    return Option(method, gpus, checkpointing, memory, needed, needed <= machine.bytes_each)


def _fit(option: Option, machine: Machine) -> str:
    where = "of memory" if machine.gpus == 0 else "on each of them" if option.gpus > 1 else "on one GPU"
    how = " with gradient checkpointing" if option.checkpointing else ""
    return f"it needs {_size(option.needed)}{how} {where}, and {_size(machine.bytes_each)} are there"


def _way_out(size: Size, work: Work, machine: Machine, by_method: dict[MethodName, Option]) -> str:
    """Return what nothing fits into, and what to do."""
    least = min((option for name, option in by_method.items() if name != "inference"), key=lambda o: o.needed)
    said = f"the least is {least.method} with {_size(least.needed)}, and {_size(machine.bytes_each)} are there"
    ways = ["a smaller base_model (docs/models.md)"]
    if machine.gpus and not size.is_encoder and (count := gpus_needed(size, work, machine, "lora")):
        ways.insert(0, f"{count} such GPUs (LoRA, sharded)")
    if machine.gpus == 0:
        ways.insert(0, "a machine with a GPU")
    if work.batch.rows > 1:
        ways.append("train.batch_size: 1")
    return f"{said}. Ways out: {'; '.join(ways)}"


def _size(number: float) -> str:
    return f"{number / GB:.1f} GB"
