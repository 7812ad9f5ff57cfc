"""The memory estimate beside the measured peak of real training steps on a GPU, at the models' real sizes.

    python bench/bench_memory.py [MODEL ...]      # default: Qwen3-0.6B, Llama-3.2-1B, Mistral-7B (random weights)

Prints for LoRA and full (where it fits) the estimate, the peak of what tensors took (torch.cuda.max_memory_allocated),
the peak of what the allocator held (max_memory_reserved), and what the GPU itself counts beyond that. Needs a GPU, and
has not been run on one yet: the estimate has been checked on CPUs alone (tests/test_memory_measured.py).
"""

from __future__ import annotations

import sys
from typing import Any

import peft
import torch

from byheart.catalog import ModelEntry, find_model
from byheart.memory import estimate
from byheart.memory.estimate import Adapters, Batch, Memory
from byheart.memory.size import Size, size_of
from byheart.models import shapes
from byheart.models.encoder import peft_warnings_off
from byheart.models.writer import fuse_activations

DEFAULT = ("Qwen/Qwen3-0.6B", "meta-llama/Llama-3.2-1B-Instruct", "mistralai/Mistral-7B-v0.1")
BATCHES = (Batch(rows=1, tokens=512, learned=128), Batch(rows=1, tokens=2048, learned=512))
RANK = 32
STEPS = 3  # the first makes the optimiser's moments; the peak is taken over the others


def built(entry: ModelEntry, *, method: str) -> Any:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            model: Any = shapes.build(entry.architecture, entry.shape)
    finally:
        torch.set_default_dtype(torch.float32)
    fuse_activations(model)
    if method == "lora":
        targets = list(entry.attention_targets + entry.linear_targets)
        with peft_warnings_off():
            model = peft.get_peft_model(model, peft.LoraConfig(r=RANK, target_modules=targets))
    return model.eval()


def measured(entry: ModelEntry, batch: Batch, *, method: str) -> tuple[int, int, int]:
    """Return the peaks of allocated and reserved bytes, and what the GPU has in use beyond those reserved."""
    model = built(entry, method=method)
    base = model.get_base_model() if method == "lora" else model
    computed = [weight for weight in model.parameters() if weight.requires_grad]
    # As in training: what is trained is kept in fp32, and the model computes with a copy in bf16.
    masters = [weight if weight.dtype == torch.float32 else weight.detach().float() for weight in computed]
    optimizer = torch.optim.AdamW(masters, fused=True)
    ids = torch.randint(5, 1000, (batch.rows, batch.tokens), device="cuda")
    for step in range(STEPS):
        if step == 1:
            torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16):
            hidden = base.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, -batch.learned :]
            logits = base.get_output_embeddings()(hidden).flatten(0, 1).float()
        loss = torch.nn.functional.cross_entropy(logits, ids[:, -batch.learned :].flatten())
        del hidden, logits
        loss.backward()
        for master, weight in zip(masters, computed, strict=True):
            if master is not weight:
                master.grad, weight.grad = weight.grad.float(), None
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for master, weight in zip(masters, computed, strict=True):
                weight.copy_(master)
    free, total = torch.cuda.mem_get_info()
    own = total - free - torch.cuda.memory_reserved()
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), own


def estimated(size: Size, batch: Batch, *, method: str) -> Memory:
    if method == "full":
        return estimate.full_training(size, batch, estimate.IN_BF16)
    return estimate.adapter_training(size, batch, estimate.IN_BF16, Adapters(RANK))


def main(names: list[str]) -> None:
    if not torch.cuda.is_available():
        sys.exit("bench_memory.py measures on a GPU, and torch finds none here.")
    print("model, method, rows x tokens: estimate, allocated, difference; reserved, the GPU's own (GB)")
    for name in names:
        entry = find_model(name)
        size = size_of(entry.architecture, entry.shape, parameters=entry.parameters) if entry else None
        if entry is None or size is None:
            sys.exit(f"{name} is not in the catalogue")
        for method in ("lora", "full"):
            for batch in BATCHES:
                expected = estimated(size, batch, method=method)
                shown = f"{name}, {method}, {batch.rows} x {batch.tokens}"
                if expected.needed > torch.cuda.get_device_properties(0).total_memory:
                    print(f"{shown}: {expected.peak / 1e9:.2f}, does not fit here")
                    continue
                allocated, reserved, own = measured(entry, batch, method=method)
                torch.cuda.empty_cache()
                figures = f"{expected.peak / 1e9:.2f}, {allocated / 1e9:.2f}, {expected.peak / allocated - 1:+.1%}"
                print(f"{shown}: {figures}; {reserved / 1e9:.2f}, {own / 1e9:.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(DEFAULT))
