"""The state of a training run on disk, whole or not at all: safetensors and JSON, no pickle.

Dropout, learning rate and (but for spaced repetition) order depend on the seed and the step alone, so the step stands
for all of them; what is left is the weights, the optimizer's moments, the best weights so far, and the history.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from byheart.store import RunFolder, file_digest

CHECKPOINT = "4-checkpoint"
_STATE = "state.json"

Tensors = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True, slots=True)
class StepRecord:
    """A line of 4-steps.jsonl. Step 0 is the untrained model."""

    step: int  # optimizer steps done
    epoch: float
    train_loss: float | None  # of the questions in this step's batch; None where it has none, and at step 0
    unseen_loss: float | None  # None between validations
    unseen_accuracy: float | None  # share of unseen phrasings whose passage (or answer, to the last token) is likeliest
    learning_rate: float
    seconds: float  # since the start of training, pauses left out
    recall: float | None = None  # share of a sample of unseen phrasings that were answered rightly when asked
    rate_factor: float = 1.0  # of the planned learning rate, as the loss doctor had set it
    diagnosis: str = ""  # what the loss doctor says at a validation, with its evidence and advice
    evidence: str = ""
    advice: str = ""
    done: str = ""  # what it changed (train.auto)


@dataclasses.dataclass(slots=True)
class TrainState:
    """How far a training run has come."""

    step: int  # optimizer steps done
    weights: Tensors  # those that are trained
    moments: Tensors  # AdamW's, by "parameter number/name"
    best_weights: Tensors
    best_step: int
    best_loss: float | None  # on unseen phrasing; None without validation
    validations_since_best: int
    seconds: float
    history: list[StepRecord]
    rate_factor: float = 1.0  # of the planned learning rate, for the next step
    order: Tensors = dataclasses.field(default_factory=dict)  # what the order of batches depends on beside the step
    ended: str = ""  # why the loss doctor stopped the training; "" where it did not


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training run's state, and what was measured on this machine when it began."""

    state: TrainState
    precision: str  # "bf16" or "fp32"
    precision_reason: str
    neighbours: list[list[int]]  # of each section, for an encoder; empty for a model that writes


def save_checkpoint(folder: RunFolder, checkpoint: Checkpoint, *, fingerprint: str) -> None:
    """Put a checkpoint in the place of the one before. `fingerprint`: of all that the run depends on."""
    state = checkpoint.state
    with folder.replacing(CHECKPOINT) as partial:
        partial.mkdir()
        digests = {}
        for name, tensors in _tensor_files(state).items():
            path = partial / f"{name}.safetensors"
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
            digests[path.name] = file_digest(path)
        values = {
            "fingerprint": fingerprint,
            "precision": checkpoint.precision,
            "precision_reason": checkpoint.precision_reason,
            "neighbours": checkpoint.neighbours,
            "sha256": digests,
            **{field: getattr(state, field) for field in _PLAIN_FIELDS},
            "history": [dataclasses.asdict(record) for record in state.history],
        }
        (partial / _STATE).write_text(json.dumps(values), encoding="utf-8")


def load_checkpoint(folder: RunFolder, *, fingerprint: str) -> tuple[Checkpoint | None, str]:
    """Return the newest whole checkpoint of this very run, or None, and a line that says which and why.

    Between two renames only the one before is in place, under its `.old` name. The line is empty where there is none.
    """
    refusals = []
    for path in (folder / CHECKPOINT, folder / f"{CHECKPOINT}.old"):
        if not path.exists():
            continue
        try:
            checkpoint = _read(path, fingerprint)
        except _RefusedError as fault:
            refusals.append(f"{path.name} is not used: {fault}")
            continue
        refusals.append(f"goes on from {path.name} at step {checkpoint.state.step}")
        return checkpoint, "; ".join(refusals)
    return None, "; ".join(refusals)


def remove_checkpoint(folder: RunFolder) -> None:
    """Delete every checkpoint: the run is done."""
    for name in (CHECKPOINT, f"{CHECKPOINT}.old", f"{CHECKPOINT}.partial"):
        if (folder / name).exists():
            shutil.rmtree(folder / name)


_PLAIN_FIELDS = (
    "step", "best_step", "best_loss", "validations_since_best", "seconds", "rate_factor", "ended",
)  # fmt: skip


class _RefusedError(Exception):
    """A checkpoint that must not be used: the reason."""


def _tensor_files(state: TrainState) -> dict[str, Tensors]:
    return {"weights": state.weights, "moments": state.moments, "best": state.best_weights, "order": state.order}


def _read(path: Path, fingerprint: str) -> Checkpoint:
    try:
        values = json.loads((path / _STATE).read_text(encoding="utf-8"))
        if values["fingerprint"] != fingerprint:
            raise _RefusedError("it is from another config, manual or version")
        for name, digest in values["sha256"].items():
            if file_digest(path / name) != digest:
                raise _RefusedError(f"{name} is torn or damaged")
        state = TrainState(
            weights=load_file(path / "weights.safetensors"),
            moments=load_file(path / "moments.safetensors"),
            best_weights=load_file(path / "best.safetensors"),
            order=load_file(path / "order.safetensors"),
            history=[StepRecord(**record) for record in values["history"]],
            **{field: values[field] for field in _PLAIN_FIELDS},
        )
        return Checkpoint(state, values["precision"], values["precision_reason"], values["neighbours"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as fault:
        raise _RefusedError(f"it is torn or damaged ({fault})") from fault
