"""Starting one process for each GPU, by torch's own launcher (torchrun), and saying which of them failed, and why."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed.run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from byheart.errors import TrainError

_torchrun: Any = torch.distributed.run  # it comes without types

STOPPED = 130  # exit code of a process that was told to stop
STOP_S = 120  # for the step at hand and a checkpoint, until processes that were told to stop are killed


def launch(words: Sequence[str], *, gpus: int, nodes: int = 1, rendezvous: str = "") -> int:
    """Run `byheart` with these words once for each GPU, and return the exit code. The first of them speaks alone.

    On several nodes the same command is given on each; they meet at `rendezvous`, HOST:PORT of one of them. Raises
    TrainError where that is missing, where there are fewer GPUs, or where a process fails.
    """
    if nodes > 1 and not rendezvous:
        raise TrainError(f"--nodes {nodes} needs a place to meet: give --rendezvous HOST:PORT of one of them, on each.")
    found = torch.cuda.device_count()
    if 0 < found < gpus:
        raise TrainError(f"--gpus {gpus}: this machine has {found}.")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // gpus)))
    for part in ("agent.server.api", "multiprocessing.api"):  # what they tell is told below
        logging.getLogger(f"torch.distributed.elastic.{part}").setLevel(logging.CRITICAL)
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", rendezvous, "--rdzv-id", "byheart"]
    with tempfile.TemporaryDirectory(prefix="byheart-ranks-") as logs:
        arguments = [
            "--nproc-per-node", str(gpus), "--nnodes", str(nodes), *(meeting if nodes > 1 else ["--standalone"]),
            "--local-ranks-filter", "0", "--log-dir", logs, "--shutdown-timeout", str(STOP_S),
            "-m", "byheart", *words,
        ]  # fmt: skip
        try:
            _torchrun.run(_torchrun.parse_args(arguments))
        except SignalException:
            return STOPPED
        except ChildFailedError as fault:
            rank, failure = fault.get_first_failure()
            if rank == 0 and failure.exitcode > 0:
                return int(failure.exitcode)  # it has said why
            why = failure.message if failure.error_file != "<N/A>" else f"exit code {failure.exitcode}"
            if failure.exitcode < 0:
                why = f"it was ended by {failure.signal_name()}"
                why += "; its machine's memory may have run out" if failure.exitcode == -signal.SIGKILL else ""
            raise TrainError(
                f"Rank {rank} of {gpus * nodes} failed: {why}. All others were ended. The same command goes on from "
                "the last checkpoint."
            ) from fault
    return 0
