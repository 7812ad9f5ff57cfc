"""The processes that train together: who is who, what they agree on, and what each holds of a tensor.

A rank is one process with one GPU (or, without GPUs, a share of the cores). torchrun and SLURM start them and say in
the environment which is which.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from byheart.errors import TrainError
from byheart.train.checkpoint import Tensors, TrainState

TIMEOUT_S = 3600.0  # one rank may load or save for long while the others wait; a rank that died ends them all at once
_PORT = 29500  # torchrun's own default


@dataclasses.dataclass(frozen=True, slots=True)
class Ranks:
    """Which of how many processes this is. Every method but `is_first` is called by all of them, or none returns."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Tell whether this is the process that writes files and speaks."""
        return self.rank == 0

    @property
    def told_to_stop(self) -> bool:
        """Tell whether this very process got a signal to end; `agree` tells the others."""
        return _Stop.asked

    def agree(self, *wishes: bool) -> tuple[bool, ...]:
        """Return for each wish whether any rank has it."""
        return tuple(found > 0 for found in self.sum(*map(float, wishes))) if self.size > 1 else wishes

    def sum(self, *values: float) -> tuple[float, ...]:
        """Return the sums over the ranks, the same on all of them."""
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed)
        return tuple(summed.tolist())


ALONE = Ranks()


def clip(slopes: Sequence[torch.Tensor], longest: float, ranks: Ranks) -> None:
    """Shorten the gradient, of which each rank holds a part, to at most `longest` (Pascanu et al. 2013)."""
    (squared,) = ranks.sum(float(torch.nn.utils.get_total_norm(slopes)) ** 2)
    factor = longest / (math.sqrt(squared) + 1e-6)  # 1e-6: as torch does it
    if factor < 1:
        for slope in slopes:
            slope.mul_(factor)


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor lies on the ranks: in its flattened order, `chunk` elements on each, fewer or none on the last."""

    shape: tuple[int, ...]
    chunk: int

    def size_on(self, rank: int) -> int:
        """Return how many elements a rank holds."""
        return max(0, min(self.chunk, math.prod(self.shape) - rank * self.chunk))


@dataclasses.dataclass(frozen=True, slots=True)
class Pieces:
    """What each rank holds of the weights that are trained, and of their moments; a checkpoint holds them whole."""

    ranks: Ranks = ALONE
    layouts: Mapping[str, Layout] = dataclasses.field(default_factory=dict)

    def whole(self, state: TrainState) -> TrainState:
        """Return the state with whole tensors on the first rank, and with none on the others."""
        if self.ranks.size == 1:
            return state
        weights, moments, best = (
            {name: self._gathered(piece, self._layout(name)) for name, piece in pieces.items()}
            for pieces in (state.weights, state.moments, state.best_weights)
        )
        return dataclasses.replace(state, weights=weights, moments=moments, best_weights=best)

    def shared_out(self, state: TrainState | None) -> TrainState | None:
        """Return each rank's pieces of the state that the first rank has; None where it has none."""
        if self.ranks.size == 1:
            return state
        parts = [state.weights, state.moments, state.best_weights] if state else [{}, {}, {}]
        plain = dataclasses.replace(state, weights={}, moments={}, best_weights={}) if state else None
        # What is small, and the names of what is not: the first rank tells them, the pieces follow one by one.
        box: list[Any] = [(plain, [_scalars(part) for part in parts])]
        dist.broadcast_object_list(box)
        everywhere: TrainState | None
        everywhere, told = box[0]
        if everywhere is None:
            return None
        shared = [
            {
                name: self._scattered(part.get(name), self._layout(name)) if value is None else value
                for name, value in names.items()
            }
            for part, names in zip(parts, told, strict=True)
        ]
        return dataclasses.replace(everywhere, weights=shared[0], moments=shared[1], best_weights=shared[2])

    def _layout(self, name: str) -> Layout:
        """Return the layout of a weight, or of a moment, whose name begins with the weight's number."""
        if name in self.layouts:
            return self.layouts[name]
        return list(self.layouts.values())[int(name.partition("/")[0])]

    def _gathered(self, piece: torch.Tensor, layout: Layout) -> torch.Tensor:
        if piece.dim() == 0:
            return piece.cpu()
        filled = torch.zeros(layout.chunk, dtype=piece.dtype)
        filled[: len(piece)] = piece.cpu()
        found = [torch.empty_like(filled) for _ in range(self.ranks.size)] if self.ranks.is_first else None
        dist.gather(filled, found)
        return torch.cat(found)[: math.prod(layout.shape)].reshape(layout.shape) if found else torch.empty(0)

    def _scattered(self, whole: torch.Tensor | None, layout: Layout) -> torch.Tensor:
        piece, parts = torch.empty(layout.chunk), None
        if whole is not None:
            filled = torch.zeros(layout.chunk * self.ranks.size)
            filled[: whole.numel()] = whole.flatten()
            parts = list(torch.split(filled, layout.chunk))
        dist.scatter(piece, parts)
        return piece[: layout.size_on(self.ranks.rank)].clone()


def _scalars(tensors: Tensors) -> dict[str, torch.Tensor | None]:
    """Return the names, with the values of those that every rank has in full (how many steps a moment has seen)."""
    return {name: tensor if tensor.dim() == 0 else None for name, tensor in tensors.items()}


def world(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what torch needs to know about this process, from torchrun's variables or SLURM's; {} where it is alone.

    A batch script of SLURM has SLURM_NTASKS, too; only what `srun` starts has SLURM_STEP_NUM_TASKS. Raises TrainError
    where SLURM does not tell the first node.
    """
    if int(environment.get("WORLD_SIZE", "1")) > 1:
        wanted = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        return {name: environment[name] for name in wanted if name in environment}
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return {}
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "MASTER_ADDR": environment.get("MASTER_ADDR") or _first_node(environment["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(_PORT + int(environment["SLURM_JOB_ID"]) % 1000),
    }


def _first_node(nodes: str) -> str:
    """Return the first of SLURM's nodes, which it writes as "gpu[01-04,07]"."""
    try:
        found = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as fault:
        raise TrainError(f"scontrol cannot name the nodes {nodes} ({fault}). Set MASTER_ADDR to the first.") from fault
    return found.stdout.split()[0]


@contextlib.contextmanager
def joined(environment: Mapping[str, str] = os.environ) -> Iterator[Ranks]:
    """Join the processes that train together, as the environment says. Yields which one this is."""
    told = world(environment)
    if not told:
        yield ALONE
        return
    os.environ.update(told)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(told["LOCAL_RANK"]))
    # What is gathered for a checkpoint lies in the machines' memory: there, gloo; on GPUs, NCCL.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=datetime.timedelta(seconds=TIMEOUT_S))
    try:
        with _told_to_stop():
            yield Ranks(dist.get_rank(), dist.get_world_size())
    except (dist.DistBackendError, dist.DistNetworkError, RuntimeError) as fault:
        if "by peer" not in str(fault) and not _Stop.asked:
            raise
        raise TrainError(
            "A process of this training ended, so all do. Going on starts at the last checkpoint."
        ) from fault
    finally:
        dist.destroy_process_group()


class _Stop:
    """Has this process been told to stop? torchrun and SLURM say it with a signal, perhaps more than once."""

    asked = False


@contextlib.contextmanager
def _told_to_stop() -> Iterator[None]:
    """Note SIGINT and SIGTERM instead of dying: the step at hand ends, and all ranks save together."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        _Stop.asked = True

    _Stop.asked = False  # of an earlier training in this process
    before = {name: signal.signal(name, note) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
