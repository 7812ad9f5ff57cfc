"""A model's dimensions as flat numbers, read from the arguments of its config class; and how many weights they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from byheart.memory.blocks import ARCHITECTURES, Architecture, Block, Linear, Width, stem_of


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """A model's dimensions. Lengths are numbers of weights or activations, not bytes."""

    parameters: int
    layers: int  # of each kind of block
    hidden: int
    inner: int
    heads: int
    queries: int  # all query heads together
    keys: int  # all key heads together; as many for the values
    vocabulary: int
    embeddings: int  # weights in tables of tokens and positions, and the output layer
    tied: int  # of these, weights in a table that is both read from and written with; 0 where there are two tables
    blocks: tuple[Block, ...]
    is_encoder: bool  # turns text into vectors, and writes nothing

    def width(self, name: Width) -> int:
        """Return the number behind a block's letter."""
        widths = {"h": self.hidden, "q": self.queries, "kv": self.keys, "f": self.inner}
        return widths.get(name, self.queries + 2 * self.keys)

    def weights_of(self, linear: Linear) -> int:
        """Return the number of weights in a linear layer, its bias left out."""
        return self.width(linear.inputs) * self.width(linear.outputs)

    @property
    def linear_weights(self) -> int:
        """Return the number of weights in all linear layers of the blocks: what 4-bit quantisation packs."""
        return self.layers * sum(self.weights_of(linear) for block in self.blocks for linear in block.linears)

    @property
    def block_weights(self) -> int:
        """Return the number of weights in the largest block: what is gathered at a time where weights are sharded."""
        return max(sum(self.weights_of(linear) for linear in block.linears) for block in self.blocks)

    def adapter_weights(self, rank: int, names: frozenset[str] | None) -> int:
        """Return the number of LoRA's weights: rank x (inputs + outputs) a layer (Hu et al. 2021, section 4.1).

        `names`: ends of the names of the adapted layers; None for all linear ones.
        """
        return self.layers * sum(
            rank * (self.width(linear.inputs) + self.width(linear.outputs))
            for block in self.blocks
            for linear in block.linears
            if names is None or linear.name in names
        )


# What the config classes of transformers call the same thing.
_NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "inner": ("intermediate_size", "ffn_dim", "d_ff", "n_inner"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim", "d_kv"),
    "positions": ("max_position_embeddings", "n_positions"),
    "vocabulary": ("vocab_size",),
    "embedded": ("word_embed_proj_dim",),
}
# The defaults of those config classes, for what a shape leaves out.
_DEFAULT_VOCABULARY = {"Bert": 30522, "GPT2": 50257, "GPTNeo": 50257, "OPT": 50272}
_DEFAULT_POSITIONS = {"Bert": 512, "GPT2": 1024, "GPTNeo": 2048, "OPT": 2048}


def size_of(architecture: str, shape: Mapping[str, Any], *, parameters: int | None = None) -> Size | None:
    """Return a model's size; None where the architecture is not known.

    `architecture`: the class in transformers; `shape`: arguments of its config class, or its config.json;
    `parameters`: their exact number, where known (else they are counted from the shape, to about 1 %).
    Raises KeyError where the shape lacks the number of layers or the hidden size.
    """
    stem = stem_of(architecture)
    known = ARCHITECTURES.get(stem)
    if known is None:
        return None
    layers, hidden, heads = (_value(shape, name) for name in ("layers", "hidden", "heads"))
    head_dim = _value(shape, "head_dim", hidden // heads)
    vocabulary = _value(shape, "vocabulary", _DEFAULT_VOCABULARY.get(stem, 32000))
    size = Size(
        parameters=parameters or 0,
        layers=layers,
        hidden=hidden,
        inner=_value(shape, "inner", 4 * hidden),
        heads=heads,
        queries=heads * head_dim,
        keys=_value(shape, "kv_heads", heads) * head_dim,
        vocabulary=vocabulary,
        embeddings=0,
        tied=0,
        blocks=known.blocks,
        is_encoder=known.is_encoder,
    )
    tied = bool(shape.get("tie_word_embeddings", known.ties_embeddings))
    embedded = _value(shape, "embedded", hidden)
    embeddings = vocabulary * embedded * (1 if tied else 2)
    if known.has_learned_positions:
        embeddings += (_value(shape, "positions", _DEFAULT_POSITIONS.get(stem, 0)) + known.positions) * hidden
    if embedded != hidden:
        embeddings += 2 * embedded * hidden  # the way in and out
    shared = vocabulary * embedded if tied and not known.is_encoder else 0
    size = dataclasses.replace(size, embeddings=embeddings, tied=shared)
    return size if parameters else dataclasses.replace(size, parameters=_count(size, known))


def _value(shape: Mapping[str, Any], name: str, default: int | None = None) -> int:
    for key in _NAMES[name]:
        if isinstance(found := shape.get(key), int):
            return found
    if default is None:
        raise KeyError(_NAMES[name][0])
    return default


def _count(size: Size, known: Architecture) -> int:
    """Return the number of weights that the dimensions make."""
    norms = sum(
        size.width(width) * (2 if kind == "layer" else 1)
        for block in size.blocks
        for kind, width in block.norms
        if width == "h"
    )
    biases = sum(size.width(linear.outputs) for block in size.blocks if block.has_biases for linear in block.linears)
    pooler = size.hidden * size.hidden if known.is_encoder else 0
    around = size.embeddings + known.other_h * size.hidden + pooler
    return size.linear_weights + size.layers * (norms + biases) + around
