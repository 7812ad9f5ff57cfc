"""The estimate against what torch really takes, on models of each architecture. Deterministic: bytes, no clock."""

from __future__ import annotations

import dataclasses
from typing import Any

import peft
import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from byheart.catalog import ModelEntry, find_model
from byheart.memory import estimate
from byheart.memory.estimate import Adapters, Batch, Formats
from byheart.memory.size import Size, size_of
from byheart.models import shapes
from byheart.models.encoder import peft_warnings_off
from byheart.models.writer import fuse_activations
from byheart.train import cross_entropy
from byheart.train.cross_entropy import chunked_cross_entropy
from peak_memory import PeakMemory

KEPT_TOLERANCE = 0.01  # of what the blocks keep: small numbers a token (norms' spreads) are left out of the count
PEAK_TOLERANCE = 0.05  # of the peak: short-lived tensors are counted roughly
MOVING_TOLERANCE = 0.15  # of what the peak has beyond weights and moments
ROWS, READ, WRITTEN, RANK = 3, 50, 30, 7
ARCHITECTURES = (
    "starter", "openchat/openchat_3.5", "gpt2", "facebook/opt-350m", "bigscience/bloomz-560m", "google/flan-t5-base",
    "Qwen/Qwen3-0.6B", "HuggingFaceTB/SmolLM3-3B", "google/gemma-3-270m-it", "EleutherAI/gpt-neo-1.3B",
)  # fmt: skip
_SMALL = {
    "hidden_size": 96, "n_embd": 96, "d_model": 96, "intermediate_size": 160, "ffn_dim": 160, "d_ff": 160,
    "num_attention_heads": 4, "n_head": 4, "num_heads": 4, "head_dim": 16, "d_kv": 16, "word_embed_proj_dim": 32,
    "max_position_embeddings": 128,
}  # fmt: skip


def entry_named(name: str) -> ModelEntry:
    entry = find_model(name)
    assert entry
    return entry


def small_shape(entry: ModelEntry, layers: int) -> dict[str, Any]:
    shape = {key: _SMALL.get(key, value) for key, value in entry.shape.items()}
    shape |= {key: layers for key in ("num_hidden_layers", "n_layer", "num_layers") if key in shape}
    if "attention_types" in shape:
        shape["attention_types"] = [[["global", "local"], layers // 2]]
    if "num_key_value_heads" in shape:
        shape["num_key_value_heads"] = 2 if shape["num_key_value_heads"] < entry.shape["num_attention_heads"] else 4
    return shape | {"vocab_size": 211, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}


def built(entry: ModelEntry, shape: dict[str, Any], *, method: str, in_bf16: bool) -> Any:
    torch.manual_seed(0)
    model: Any = shapes.build(entry.architecture, shape).to(torch.bfloat16 if in_bf16 else torch.float32)
    fuse_activations(model)
    if method == "lora":
        targets = list(entry.attention_targets + entry.linear_targets)
        # GPT-2's linear layers (Conv1D in transformers) keep their weights the other way round.
        turned = any(isinstance(module, Conv1D) for module in model.modules())
        with peft_warnings_off():
            model = peft.get_peft_model(model, peft.LoraConfig(r=RANK, target_modules=targets, fan_in_fan_out=turned))
    return model.eval()


def states(model: Any, family: str, ids: torch.Tensor, written: int, *, in_bf16: bool) -> torch.Tensor:
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
        if family == "encoder":
            hidden = base(input_ids=ids).last_hidden_state
        elif family == "seq2seq":
            read = base.get_encoder()(input_ids=ids).last_hidden_state
            hidden = base.get_decoder()(
                input_ids=ids[:, :written], encoder_hidden_states=read, use_cache=False
            ).last_hidden_state
        else:
            hidden = base.base_model(input_ids=ids, use_cache=False).last_hidden_state
    result: torch.Tensor = hidden
    return result


def kept_bytes(entry: ModelEntry, layers: int, *, method: str, in_bf16: bool) -> int:
    """Return the bytes of all storages that autograd keeps, weights left out."""
    model = built(entry, small_shape(entry, layers), method=method, in_bf16=in_bf16)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(2, 200, (ROWS, READ))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states(model, entry.family, ids, WRITTEN, in_bf16=in_bf16)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def formats(*, in_bf16: bool) -> Formats:
    return dataclasses.replace(estimate.IN_BF16, fused_norms_in_fp32=False) if in_bf16 else estimate.IN_FP32


def size(entry: ModelEntry, shape: dict[str, Any]) -> Size:
    found = size_of(entry.architecture, shape)
    assert found
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("method", "in_bf16"), [("full", False), ("full", True), ("lora", False), ("lora", True)])
def test_a_block_keeps_what_the_estimate_counts(name: str, method: str, in_bf16: bool) -> None:
    entry = entry_named(name)
    # Two layers less than four: what stands around the blocks falls out.
    measured = sum(
        sign * kept_bytes(entry, layers, method=method, in_bf16=in_bf16) / 2 for layers, sign in ((4, 1), (2, -1))
    )
    dimensions = size(entry, small_shape(entry, 2))
    adapters = None if method == "full" else Adapters(RANK)
    expected = 0.0
    for block in dimensions.blocks:
        row = READ if block.tokens == "read" else WRITTEN
        expected += ROWS * row * estimate.kept_per_token(
            dimensions, block, formats(in_bf16=in_bf16), adapters, rows=ROWS, row_tokens=row
        )  # fmt: skip
    if adapters and in_bf16:
        expected += dimensions.adapter_weights(RANK, None) / dimensions.layers * 2  # their copies in bf16
    if name == "EleutherAI/gpt-neo-1.3B" and in_bf16:
        # On a CPU, autocast leaves its softmax in bf16; on a GPU it is computed in fp32, which is what is counted.
        expected -= ROWS * READ * READ * dimensions.heads * estimate.FP32
    assert expected == pytest.approx(measured, rel=KEPT_TOLERANCE)


def test_the_peak_counts_what_lives_at_once_and_not_what_is_gone() -> None:
    known = torch.ones(1000)
    with PeakMemory([known]) as memory:
        first = torch.ones(2000)
        view = first[:10]
        del first
        assert memory.now == 4 * 3000  # the view holds it
        del view
        assert memory.now == 4 * 1000
        second = known + 1
    assert (memory.peak, memory.now) == (4 * 3000, 4 * 2000)
    assert second.shape == known.shape


@pytest.mark.parametrize(
    ("name", "method", "checkpointing"),
    [
        ("scratch:llama-10m", "full", False), ("scratch:llama-10m", "lora", False), ("scratch:llama-10m", "lora", True),
        ("scratch:gpt2-10m", "full", False), ("scratch:gpt2-10m", "lora", True), ("scratch:t5-10m", "lora", False),
        ("scratch:t5-10m", "full", True),
    ],
)  # fmt: skip
def test_the_peak_of_a_step_is_within_a_twentieth_of_the_estimate(name: str, method: str, checkpointing: bool) -> None:
    entry = entry_named(name)
    batch = Batch(rows=2, tokens=96, learned=24)
    model = built(entry, dict(entry.shape), method=method, in_bf16=False)
    base = model.get_base_model() if method == "lora" else model
    if checkpointing:
        base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        for module in model.modules():
            module.training = isinstance(module, GradientCheckpointingLayer)  # it needs the mode; dropout stays off
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=True)
    ids = torch.randint(2, 200, (batch.rows, batch.tokens))

    def step() -> None:
        hidden = states(model, entry.family, ids, batch.learned, in_bf16=False)[:, -batch.learned :]
        learned = ids[:, -batch.learned :].flatten()
        loss, _ = chunked_cross_entropy(hidden.flatten(0, 1), base.get_output_embeddings().weight, None, learned)
        del hidden
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    step()  # the optimiser makes its moments in the first one
    moments = [value for state in optimizer.state.values() for value in state.values()]
    with PeakMemory([*model.parameters(), *model.buffers(), ids, *moments]) as memory:
        before = memory.now
        step()
    dimensions = size(entry, dict(entry.shape))
    if method == "full":
        expected = estimate.full_training(dimensions, batch, estimate.IN_FP32, checkpointing=checkpointing)
    else:
        expected = estimate.adapter_training(
            dimensions, batch, estimate.IN_FP32, Adapters(RANK), checkpointing=checkpointing
        )
    assert expected.peak == pytest.approx(memory.peak, rel=PEAK_TOLERANCE)
    assert expected.moving == pytest.approx(memory.peak - before, rel=MOVING_TOLERANCE)


def test_the_estimate_counts_with_the_chunks_that_the_loss_makes() -> None:
    assert estimate.LOGIT_BYTES == cross_entropy.CHUNK_BYTES
    assert estimate.LOGIT_BLOCK == cross_entropy.BLOCK_LOGITS
