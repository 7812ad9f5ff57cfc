"""Attention of short rows on a CPU: forward and back in bf16, and in fp32 around it. python bench/bench_attention.py

Prints for several shapes the milliseconds of torch's fused attention in bf16, of the same turned into fp32 and back, as
models/attention.py does it while a bf16 model trains, and their ratio. The best of a few, taking turns.
"""

from __future__ import annotations

import argparse
import os
import time

import torch

# Rows, heads, tokens, numbers a head: DistilGPT-2's and MiniLM's batches, and a row of a 7B model.
SHAPES = (
    (8, 12, 20, 64), (8, 12, 50, 64), (8, 12, 150, 64), (4, 12, 256, 64), (2, 12, 512, 64), (1, 12, 1024, 64),
    (64, 12, 20, 32), (16, 12, 96, 32), (1, 32, 256, 128), (1, 32, 512, 128),
)  # fmt: skip


def main() -> None:
    """Measure each shape and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{'rows':>5}{'heads':>6}{'tokens':>7}{'a head':>7}{'bf16 ms':>9}{'fp32 ms':>9}{'ratio':>7}")
    for shape in SHAPES:
        best = [min(times) for times in zip(*(both(shape) for _ in range(arguments.repeats)), strict=True)]
        print("".join(f"{size:{width}}" for size, width in zip(shape, (5, 6, 7, 7), strict=True)), end="")
        print(f"{best[0] * 1e3:9.1f}{best[1] * 1e3:9.1f}{best[0] / best[1]:7.1f}", flush=True)


def both(shape: tuple[int, int, int, int]) -> tuple[float, float]:
    """Return the seconds in bf16 and around fp32."""
    return seconds(shape, torch.bfloat16), seconds(shape, torch.float32)


def seconds(shape: tuple[int, int, int, int], inside: torch.dtype) -> float:
    """Return how long forward and backward pass take from bf16 to bf16, with attention in the format `inside`."""
    rows, heads, tokens, width = shape
    read = torch.randn(rows, tokens, 3 * heads * width).bfloat16().requires_grad_()
    slope = torch.ones(rows, heads, tokens, width).bfloat16()
    started = time.perf_counter()
    parts = [part.view(rows, tokens, heads, width).transpose(1, 2).to(inside) for part in read.chunk(3, dim=-1)]
    attended = torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
    attended.bfloat16().backward(slope)  # type: ignore[no-untyped-call]
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
