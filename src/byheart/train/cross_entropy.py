"""Cross-entropy without the table of all logits: the output layer and its loss, some rows at a time.

A vocabulary of 150,000 makes the logits of one long batch larger than the model; so each chunk's logits live only until
its gradients are known, as in Liger's fused linear cross-entropy (Hsu et al. 2024), here in plain torch for any device.
A chunk's logits turn into their gradients in place, on a CPU a block of rows at a time, which does not leave its cache.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

CHUNK_BYTES = 2**26  # of logits, in the format of the output layer; memory/estimate.py counts with the same
_BLOCK_LOGITS_ON = {"cpu": 2**18}  # 1 MB in fp32
BLOCK_LOGITS = 2**22
ALIGNED = 64  # numbers; whole cache lines in every format. With GPT-2's 50,257 a row, products took a quarter longer


@dataclasses.dataclass(slots=True)
class Table:
    """Where the gradient of the output layer's weight is added up, step after step in the same memory."""

    slope_V_D: torch.Tensor
    scale: float = 1.0  # what the loss is multiplied by, once it is summed
    is_empty: bool = True  # what the memory holds does not count


def chunked_cross_entropy(
    states_N_D: torch.Tensor, weight_V_D: torch.Tensor, bias_V: torch.Tensor | None, targets_N: torch.Tensor,
    table: Table | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Return the sum over N of the cross-entropy of softmax(states · weightᵀ + bias) with the targets, in fp32.

    Beside it the summands losses_N, which have no gradient. With a `table`, the weight's gradient is added there at
    once, and none comes of the backward pass.
    """
    weight_V_D = weight_V_D if table is None else weight_V_D.detach()
    both: tuple[torch.Tensor, torch.Tensor] = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        states_N_D, weight_V_D, bias_V, targets_N, table
    )
    return both


def judge(
    states_N_D: torch.Tensor, weight_V_D: torch.Tensor, bias_V: torch.Tensor | None, targets_N: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """Return the loss as above, and for each position whether its target is the likeliest token; without gradients."""
    total = 0.0
    right = []
    for states, targets in zip(*_chunks(states_N_D, targets_N, weight_V_D), strict=True):
        logits = _logits(states, weight_V_D, bias_V).float()
        total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        right.append(logits.argmax(-1) == targets)
    return total, torch.cat(right)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch hands them over in a row
        ctx: Any, states_N_D: Any, weight_V_D: Any, bias_V: Any, targets_N: Any, table: Table | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the loss and, where they are asked for, its gradients at once."""
        wants_states, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        losses = []
        to_states = []
        to_weight = None
        to_bias = torch.zeros_like(bias_V, dtype=torch.float32) if wants_bias else None
        for states, targets in zip(*_chunks(states_N_D, targets_N, weight_V_D), strict=True):
            slope = _logits(states, weight_V_D, bias_V)
            losses.append(_turned_into_slopes(slope, targets))
            if to_bias is not None:
                to_bias += slope.sum(0, dtype=torch.float32)
            if wants_states:
                to_states.append((slope @ weight_V_D).to(states_N_D.dtype))
            if wants_weight:
                to_weight = _with_product(to_weight, slope.T, states.to(slope.dtype))
            if table is not None:
                beta = 0.0 if table.is_empty else 1.0
                table.slope_V_D.addmm_(slope.T, states.to(slope.dtype), beta=beta, alpha=table.scale)
                table.is_empty = False
        ctx.gradients = (
            torch.cat(to_states) if wants_states else None,
            to_weight.to(weight_V_D.dtype) if to_weight is not None else None,
            to_bias.to(bias_V.dtype) if to_bias is not None else None,
            None,
            None,
        )
        losses_N = torch.cat(losses)
        ctx.mark_non_differentiable(losses_N)
        return losses_N.sum(), losses_N

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        """Scale the gradients that were computed on the way: in place, so once."""
        gradients, ctx.gradients = ctx.gradients, ()
        return tuple(None if gradient is None else gradient.mul_(slopes[0]) for gradient in gradients)


def _turned_into_slopes(logits_N_V: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Turn logits into the gradient of their loss, in place, and return losses_N; computed in fp32."""
    rows = max(1, _BLOCK_LOGITS_ON.get(logits_N_V.device.type, BLOCK_LOGITS) // logits_N_V.shape[1])
    losses = []
    for logits, targets in zip(torch.split(logits_N_V, rows), torch.split(targets_N, rows), strict=True):
        slope = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
        losses.append(-slope.gather(-1, targets[:, None]).squeeze(-1))
        slope.exp_()  # the probabilities; less 1 at the target, they are the gradient
        slope[torch.arange(len(targets), device=slope.device), targets] -= 1
        logits.copy_(slope)
    return torch.cat(losses)


def _logits(states_N_D: torch.Tensor, weight_V_D: torch.Tensor, bias_V: torch.Tensor | None) -> torch.Tensor:
    """Return the logits. Their rows start on cache lines, for the sake of the products that read them again."""
    vocabulary = weight_V_D.shape[0]
    room = weight_V_D.new_empty(len(states_N_D), math.ceil(vocabulary / ALIGNED) * ALIGNED)
    logits = torch.mm(states_N_D.to(weight_V_D.dtype), weight_V_D.T, out=room[:, :vocabulary])
    return logits if bias_V is None else logits.add_(bias_V)


def _with_product(total: torch.Tensor | None, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the sum with one more product: in fp32, as in bf16 a small summand would vanish in a large sum."""
    if total is None:
        return left @ right
    if total.dtype == left.dtype == torch.float32:
        return total.addmm_(left, right)  # without a second table of the size of the first
    return total.float().add_(left @ right)


def _chunks(
    states_N_D: torch.Tensor, targets_N: torch.Tensor, weight_V_D: torch.Tensor
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Return as few chunks as possible, all of like size."""
    most = max(1, CHUNK_BYTES // (weight_V_D.shape[0] * weight_V_D.itemsize))
    rows = max(1, math.ceil(len(targets_N) / math.ceil(len(targets_N) / most))) if len(targets_N) else 1
    return torch.split(states_N_D, rows), torch.split(targets_N, rows)
