"""What a training, of whichever family, hands to the stage; and what both families say in the same words."""

from __future__ import annotations

import dataclasses

from byheart.config import Config
from byheart.models import adapters
from byheart.progress import Notify, Progress
from byheart.train import loop
from byheart.train.checkpoint import StepRecord, TrainState


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """The trained model, still to be written to disk, and the account of its training."""

    model: adapters.Trainable
    description: adapters.TrainedModel
    history: list[StepRecord]
    counts: dict[str, int]
    chosen: dict[str, str]


def lora_settings(config: Config) -> adapters.LoraSettings:
    """Return how the config wants its adapters."""
    train = config.train
    return adapters.LoraSettings(
        targets=train.lora_targets, rank=train.lora_rank, alpha=train.lora_alpha, dropout=train.lora_dropout,
        rslora=train.lora_rslora, dora=train.lora_dora,
    )  # fmt: skip


def how_it_ended(state: TrainState, recipe: loop.Recipe) -> str:
    """Return which step is kept, and why training ended."""
    why = loop.why_it_ended(state, recipe)
    reached = "" if state.best_loss is None else f"unseen phrasing {state.best_loss:.3f}; "
    return f"step {state.best_step} is kept: {reached}{why}"


def say(notify: Notify, reasons: dict[str, str]) -> dict[str, str]:
    """Say each choice with its reason, and return them to be stored."""
    for name, reason in reasons.items():
        notify(Progress(loop.TASK, message=f"{name}: {reason}"))
    return reasons
