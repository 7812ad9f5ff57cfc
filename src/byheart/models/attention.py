"""Attention while a model learns on a CPU: short rows in fp32, whatever the model computes in.

torch's fused attention on a CPU goes back over bf16 much slower than over fp32, where rows are short
(bench/bench_attention.py); in fp32 it is more exact, too.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "byheart_short_rows_in_fp32"
_SHORT = 160  # tokens that look at each other; from 256 on bf16 is as fast or faster


def attend_in_fp32(model: Any) -> None:
    """Let a model attend so, where it would use torch's fused attention on a CPU."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu and getattr(model.config, "_attn_implementation", None) == "sdpa":
        model.set_attn_implementation(NAME)


def _attend(
    module: torch.nn.Module, query_B_H_T_K: torch.Tensor, key_B_H_S_K: torch.Tensor, value_B_H_S_K: torch.Tensor,
    attention_mask: torch.Tensor | None, **more: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Return what transformers' own function does, in the format of the query."""
    dtype = query_B_H_T_K.dtype
    if dtype == torch.float32 or not query_B_H_T_K.requires_grad or key_B_H_S_K.shape[2] > _SHORT:
        return sdpa_attention_forward(module, query_B_H_T_K, key_B_H_S_K, value_B_H_S_K, attention_mask, **more)
    wide = (query_B_H_T_K.float(), key_B_H_S_K.float(), value_B_H_S_K.float())
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    if (bias := more.get("position_bias")) is not None:
        more["position_bias"] = bias.float()
    with torch.autocast("cpu", enabled=False):
        attended, _ = sdpa_attention_forward(module, *wide, attention_mask, **more)
    return attended.to(dtype), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
