"""Two processes that train together on this machine's cores, forked from a test: they meet over gloo, as GPUs would."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from byheart.train.ranks import Ranks, joined


def on_ranks(size: int, work: Callable[[Ranks], Any], folder: Path) -> list[Any]:
    """Return what `work` returned on each of the ranks (tensors and plain values). A rank that fails fails the test."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(_rank, (size, port, work, folder), nprocs=size, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _rank(rank: int, size: int, port: int, work: Callable[[Ranks], Any], folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)  # DeepSpeed compiles
    environment = {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    with joined(environment) as ranks:
        torch.save(work(ranks), folder / f"{rank}.pt")
