"""The optimizers to choose from: AdamW, and its variants whose moments take a quarter of the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch.optim.adamw import adamw

from byheart.errors import MissingExtraError

OptimizerName = Literal["adamw", "adamw-8bit", "paged-adamw-8bit"]

# Numbers whose gradients are in fp32 at once, more or less: on a CPU they stay in its cache.
_PIECE = {"cpu": 2**20}
_PIECE_ELSEWHERE = 2**24


class MixedAdamW(torch.optim.AdamW):
    """Fused AdamW (Loshchilov and Hutter 2019) of fp32 weights, with the gradients of the copies a model computes with.

    Gradients in bf16 turn into fp32 a piece at a time, so that there is no fp32 copy of them all, and a CPU goes over
    its memory once.
    """

    def __init__(
        self, weights: Iterable[torch.Tensor], computed: Iterable[torch.Tensor], *, learning_rate: float,
        weight_decay: float,
    ) -> None:  # fmt: skip
        """`weights`: each contiguous; `computed`: the copy of each, which holds its gradient."""
        super().__init__(list(weights), lr=learning_rate, weight_decay=weight_decay, fused=True)
        self.computed = list(computed)
        self._groups = _pieces(self.param_groups[0]["params"])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the weights that have a gradient."""
        (group,) = self.param_groups
        options = {name: group[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize")}
        beta1, beta2 = group["betas"]
        whole: dict[int, tuple[torch.Tensor, ...]] = {}
        for number, (weight, computed) in enumerate(zip(group["params"], self.computed, strict=True)):
            if computed.grad is not None:
                state = self.state[weight] or self._begun(weight)
                tensors = (weight, computed.grad, state["exp_avg"], state["exp_avg_sq"])
                whole[number] = tuple(tensor.reshape(-1) for tensor in tensors)
        for pieces in self._groups:
            here = [(number, piece) for number, piece in pieces if number in whole]
            moved, slopes, means, squares = (
                [whole[number][which][piece] for number, piece in here] for which in range(4)
            )
            steps = [self.state[group["params"][number]]["step"].clone() for number, _ in here]
            adamw(
                moved, [slope.float() for slope in slopes], means, squares, [], steps, fused=True, beta1=beta1,
                beta2=beta2, **options,
            )  # fmt: skip
        for number in whole:
            self.state[group["params"][number]]["step"] += 1

    def _begun(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the state of a weight that has not moved yet."""
        state: dict[str, torch.Tensor] = self.state[weight]
        state["step"] = torch.zeros((), device=weight.device)
        state |= {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
        return state

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for computed in self.computed:
            computed.grad = None


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
    name: OptimizerName, weights: Iterable[torch.Tensor], *, learning_rate: float, weight_decay: float,
    computed: Iterable[torch.Tensor] = (),
) -> torch.optim.Optimizer:  # fmt: skip
    """Return AdamW (Loshchilov and Hutter 2019), fused; or with moments of 8 bits (Dettmers et al. 2022).

    `computed`: of each weight what the model computes with, where that is a copy in another format; AdamW takes its
    gradients as they are, moments of 8 bits want them at the weights. Paged moments move to the machine's memory where
    the GPU's runs out (QLoRA, Dettmers et al. 2023). Raises MissingExtraError where bitsandbytes is needed and not
    installed.
    """
    moved: Any = list(weights)
    if name == "adamw":
        copies = list(computed)
        if any(copy.dtype != weight.dtype for copy, weight in zip(copies, moved, strict=False)):
            return MixedAdamW(moved, copies, learning_rate=learning_rate, weight_decay=weight_decay)
        return torch.optim.AdamW(moved, lr=learning_rate, weight_decay=weight_decay, fused=True)
    try:
        import bitsandbytes  # noqa: PLC0415 - an extra, and a second to import
    except ImportError as missing:
        raise MissingExtraError("bitsandbytes", "qlora", f"train.optimizer: {name}") from missing
    optim: Any = bitsandbytes.optim
    kind = optim.AdamW8bit if name == "adamw-8bit" else optim.PagedAdamW8bit
    optimizer: torch.optim.Optimizer = kind(moved, lr=learning_rate, weight_decay=weight_decay)
    return optimizer


def gradients_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return the gradients that the next step follows, in the format that they are in."""
    holders: Iterable[torch.Tensor] = (
        optimizer.computed if isinstance(optimizer, MixedAdamW) else optimizer.param_groups[0]["params"]
    )
    return [holder.grad for holder in holders if holder.grad is not None]


def _pieces(weights: Sequence[torch.Tensor]) -> list[list[tuple[int, slice]]]:
    """Return the weights in groups of like size: (number of the weight, which of its numbers)."""
    groups: list[list[tuple[int, slice]]] = []
    room = 0
    for number, weight in enumerate(weights):
        size = _PIECE.get(weight.device.type, _PIECE_ELSEWHERE)
        for first in range(0, weight.numel(), size):
            count = min(size, weight.numel() - first)
            if count > room:
                groups.append([])
                room = size
            groups[-1].append((number, slice(first, first + count)))
            room -= count
    return groups
