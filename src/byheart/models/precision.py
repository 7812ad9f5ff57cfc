"""Which floating-point format this machine computes faster in."""

from __future__ import annotations

import functools
import time

import torch

# A CPU without bf16 instructions emulates them at a fraction of fp32's speed; one with them gains two to four times.
_WORTH_IT = 1.2
_HOPELESS = 0.3


@functools.cache
def choose_precision(wanted: str = "auto") -> tuple[torch.dtype, str]:
    """Return the dtype for matrix products and the reason. `wanted`: "auto", "bf16" or "fp32"."""
    if wanted != "auto":
        return (torch.bfloat16 if wanted == "bf16" else torch.float32), "as the config says"
    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported():
            return torch.bfloat16, "the GPU computes in bf16"
        return torch.float32, "the GPU has no bf16"
    # A glance first: a CPU that emulates bf16 takes seconds for the full measurement, at every start.
    for tokens in (32, 1024):
        speedup = _matmul_seconds(torch.float32, tokens) / _matmul_seconds(torch.bfloat16, tokens)
        if speedup < _HOPELESS:
            break
    if speedup >= _WORTH_IT:
        return torch.bfloat16, f"matrix products are {speedup:.1f} times faster than in fp32 on this CPU"
    return torch.float32, f"bf16 matrix products are only {speedup:.2f} times as fast as fp32 on this CPU"


def _matmul_seconds(dtype: torch.dtype, tokens: int) -> float:
    """Return the best of five timings of a product in an encoder layer's shape (384 to 1,536)."""
    left, right = torch.ones(tokens, 384, dtype=dtype), torch.ones(384, 1536, dtype=dtype)
    timings = []
    for _ in range(5):
        start = time.perf_counter()
        left @ right
        timings.append(time.perf_counter() - start)
    return min(timings)
