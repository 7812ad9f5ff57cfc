"""What the blocks of each architecture are made of: linear layers, norms, and what a backward pass keeps of them.

The counts were read from transformers' code and are checked against what autograd really saves
(tests/test_memory_blocks.py). The way of counting is that of Korthikanti et al. 2022, "Reducing Activation
Recomputation in Large Transformer Models", section 4, for today's blocks and fused attention.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

# h: hidden size; q: all query heads together; kv: all key (or value) heads; qkv: q and kv and kv; f: inner size.
Width = Literal["h", "q", "kv", "qkv", "f"]
Tokens = Literal["read", "written"]  # whose tokens run through the block: a decoder-only model has read ones alone

# rms: computed in fp32, of which its input is kept, and the normalised values where its weight is trained.
# rms32: the same, and the normalised values are kept in fp32 (Gemma). rms-twice: as rms, and the input is kept as it
# was, too (T5). layer: a fused kernel that keeps its input.
NormKind = Literal["rms", "rms32", "rms-twice", "layer"]
# fused: no score is kept, one number a head and token instead (FlashAttention, Dao et al. 2022).
# scores: all scores are kept, in fp32 and once more in the format computed in.
# biased: a learned bias on every score (T5), which makes it keep them while that bias is trained.
# keys: keys and values alone; the block that asks them is another one.
AttentionKind = Literal["fused", "scores", "biased", "keys"]


@dataclasses.dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer: the end of its name, its widths, and the tensor that it reads.

    Layers that read the same tensor keep it once; "attended" is kept by the attention itself, and "shared" is one
    tensor for all blocks (what an encoder hands its decoder).
    """

    name: str
    inputs: Width
    outputs: Width
    reads: str


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One of a model's repeated blocks."""

    linears: tuple[Linear, ...]
    norms: tuple[tuple[NormKind, Width], ...]
    attention: AttentionKind
    inner_kept: int  # f-wide tensors that the activation keeps, beside what the linear layers read
    inner_passing: int = 1  # f-wide tensors that its gradient needs at once
    inner_output_kept: bool = False  # the activation keeps its output, which the next layer reads (ReLU)
    has_biases: bool = False
    asks_another: bool = False  # asks an encoder's keys, which its own `keys` block keeps
    tokens: Tokens = "read"


@dataclasses.dataclass(frozen=True, slots=True)
class Architecture:
    """A model's blocks, each kind repeated in every layer, and what stands around them."""

    blocks: tuple[Block, ...]
    positions: int = 0  # learned positions that it has beside those the config counts (OPT has two more)
    has_learned_positions: bool = False
    ties_embeddings: bool = True  # where the config does not say
    other_h: int = 0  # weights outside of the blocks, in hidden sizes: final norms, token types
    is_encoder: bool = False  # and has a pooler


_QKV = (
    Linear("q_proj", "h", "q", "in"),
    Linear("k_proj", "h", "kv", "in"),
    Linear("v_proj", "h", "kv", "in"),
)
_GATED = (
    Linear("gate_proj", "h", "f", "mid"),
    Linear("up_proj", "h", "f", "mid"),
    Linear("down_proj", "f", "h", "inner"),
)
_LLAMA = Block(
    linears=(*_QKV, Linear("o_proj", "q", "h", "attended"), *_GATED),
    norms=(("rms", "h"),) * 2,
    attention="fused",
    inner_kept=3,  # gate, its activation, up
)
_QWEN3 = dataclasses.replace(_LLAMA, norms=(*_LLAMA.norms, ("rms", "q"), ("rms", "kv")))
_GEMMA3 = dataclasses.replace(_LLAMA, norms=(*(("rms32", "h"),) * 4, ("rms32", "q"), ("rms32", "kv")))

_GPT2 = Block(
    linears=(
        Linear("attn.c_attn", "h", "qkv", "in"),
        Linear("attn.c_proj", "q", "h", "attended"),
        Linear("mlp.c_fc", "h", "f", "mid"),
        Linear("mlp.c_proj", "f", "h", "inner"),
    ),
    norms=(("layer", "h"),) * 2,
    attention="fused",
    inner_kept=1,  # what GELU reads, computed in one go (models/writer.py)
    has_biases=True,
)
_GPT_NEO = Block(
    linears=(
        *_QKV,
        Linear("out_proj", "q", "h", "attended"),
        Linear("c_fc", "h", "f", "mid"),
        Linear("c_proj", "f", "h", "inner"),
    ),
    norms=_GPT2.norms,
    attention="scores",
    inner_kept=1,
    has_biases=True,
)
_BLOOM = Block(
    linears=(
        Linear("query_key_value", "h", "qkv", "in"),
        Linear("self_attention.dense", "q", "h", "attended"),
        Linear("dense_h_to_4h", "h", "f", "mid"),
        Linear("dense_4h_to_h", "f", "h", "inner"),
    ),
    norms=_GPT2.norms,
    attention="scores",
    inner_kept=1,
    has_biases=True,
)
_OPT = Block(
    linears=(
        *_QKV,
        Linear("out_proj", "q", "h", "attended"),
        Linear("fc1", "h", "f", "mid"),
        Linear("fc2", "f", "h", "inner"),
    ),
    norms=_GPT2.norms,
    attention="fused",
    inner_kept=0,
    inner_output_kept=True,
    has_biases=True,
)
_BERT = Block(
    linears=(
        Linear("query", "h", "q", "in"),
        Linear("key", "h", "kv", "in"),
        Linear("value", "h", "kv", "in"),
        Linear("attention.output.dense", "q", "h", "attended"),
        Linear("intermediate.dense", "h", "f", "mid"),
        Linear("output.dense", "f", "h", "inner"),
    ),
    norms=_GPT2.norms,
    attention="fused",
    inner_kept=1,
    has_biases=True,
)

_T5_ATTENTION = (
    Linear("q", "h", "q", "in"),
    Linear("k", "h", "kv", "in"),
    Linear("v", "h", "kv", "in"),
    Linear("o", "q", "h", "attended"),
)
_T5_INNER = (
    Linear("wi_0", "h", "f", "mid"),
    Linear("wi_1", "h", "f", "mid"),
    Linear("wo", "f", "h", "inner"),
)
_T5_ENCODER = Block(
    linears=(*_T5_ATTENTION, *_T5_INNER),
    norms=(("rms-twice", "h"),) * 2,
    attention="biased",
    inner_kept=3,  # what GELU reads, its output, and what it gates
)
_T5_DECODER = dataclasses.replace(
    _T5_ENCODER,
    linears=(*_T5_ATTENTION, Linear("q", "h", "q", "asking"), Linear("o", "q", "h", "attended"), *_T5_INNER),
    norms=(("rms-twice", "h"),) * 3,
    asks_another=True,
    tokens="written",
)
_T5_KEYS = Block(
    linears=(Linear("k", "h", "kv", "shared"), Linear("v", "h", "kv", "shared")),
    norms=(),
    attention="keys",
    inner_kept=0,
)

# By what the names of its classes in transformers start with (stem_of).
ARCHITECTURES: dict[str, Architecture] = {
    "Llama": Architecture((_LLAMA,), ties_embeddings=False, other_h=1),
    "Mistral": Architecture((_LLAMA,), ties_embeddings=False, other_h=1),
    "SmolLM3": Architecture((_LLAMA,), other_h=1),
    "Qwen3": Architecture((_QWEN3,), other_h=1),
    "Gemma3": Architecture((_GEMMA3,), other_h=1),
    "GPT2": Architecture((_GPT2,), has_learned_positions=True, other_h=2),
    "GPTNeo": Architecture((_GPT_NEO,), has_learned_positions=True, other_h=2),
    "Bloom": Architecture((_BLOOM,), other_h=4),
    "OPT": Architecture((_OPT,), has_learned_positions=True, positions=2),
    "Bert": Architecture((_BERT,), has_learned_positions=True, other_h=4, is_encoder=True),
    "T5": Architecture((_T5_ENCODER, _T5_DECODER, _T5_KEYS), other_h=2),
}


def stem_of(name: str) -> str:
    """Return what the classes of one architecture share: "MistralForCausalLM" is a Mistral."""
    return re.sub(r"(ForCausalLM|LMHeadModel|ForConditionalGeneration|ForMaskedLM|Model)$", "", name)
