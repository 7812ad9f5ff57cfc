"""The optimizers to choose from: AdamW, and its variants whose moments take a quarter of the memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch

from byheart.errors import MissingExtraError

OptimizerName = Literal["adamw", "adamw-8bit", "paged-adamw-8bit"]


def choose_optimizer(
    asked: OptimizerName, *, has_gpu: bool, in_pieces: bool = False
) -> tuple[OptimizerName, dict[str, str]]:
    """Return the optimizer to use, and under its setting's name the reason where it is not the one asked for."""
    if asked != "adamw" and in_pieces:
        why = "adamw: moments of 8 bits lie in blocks, which do not fit weights that lie in pieces on many ranks"
        return "adamw", {"train.optimizer": why}
    if asked == "paged-adamw-8bit" and not has_gpu:
        why = "adamw-8bit: there is no GPU, from whose memory moments could be paged out"
        return "adamw-8bit", {"train.optimizer": why}
    return asked, {}


def make_optimizer(
    name: OptimizerName, weights: Iterable[torch.Tensor], *, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter 2019), fused; or with moments of 8 bits (Dettmers et al. 2022).

    Paged moments move to the machine's memory where the GPU's runs out (QLoRA, Dettmers et al. 2023). Raises
    MissingExtraError where bitsandbytes is needed and not installed.
    """
    moved: Any = list(weights)
    if name == "adamw":
        return torch.optim.AdamW(moved, lr=learning_rate, weight_decay=weight_decay, fused=True)
    try:
        import bitsandbytes  # noqa: PLC0415 - an extra, and a second to import
    except ImportError as missing:
        raise MissingExtraError("bitsandbytes", "qlora", f"train.optimizer: {name}") from missing
    optim: Any = bitsandbytes.optim
    kind = optim.AdamW8bit if name == "adamw-8bit" else optim.PagedAdamW8bit
    optimizer: torch.optim.Optimizer = kind(moved, lr=learning_rate, weight_decay=weight_decay)
    return optimizer
