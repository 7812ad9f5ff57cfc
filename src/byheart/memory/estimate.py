"""Memory of inference and of a training step: weights, gradients, optimiser, activations, output layer. In bytes.

Sources: ZeRO (Rajbhandari et al. 2020, section 3.1) for weights, gradients and optimiser; Korthikanti et al. 2022 for
activations; QLoRA (Dettmers et al. 2023, section 3) for 4-bit weights. What is estimated is the most that tensors take
at once; a GPU needs more (`Memory.needed`). Rows that begin alike are counted whole, though they go on from one prefix
(train/prefixes.py) and take less.

Checked against torch's own allocations on a CPU, in models of 10 million weights in fp32: within 5 % of the peak for
Llama, GPT-2 and T5 (tests/test_memory_measured.py); T5 trained in full on short rows takes 7 % more than estimated. It
has not been measured on a GPU, nor for QLoRA and shards: there the counts are those of the papers.
"""

from __future__ import annotations

import dataclasses

from byheart.memory.blocks import Block, Linear, NormKind
from byheart.memory.size import Size

FP32 = 4
BF16 = 2
# NF4 packs two weights a byte; a scale for 64 weights takes 8 bits, and an fp32 one for 256 of those scales.
NF4_BYTES = 4 / 8 + 1 / 64 + 4 / (64 * 256)
# 8-bit AdamW (Dettmers et al. 2022): two states of a byte each, with an fp32 scale for 256 of them.
EIGHT_BIT_STATES = 2 * (1 + 4 / 256)
# A GPU's own: its context and loaded kernels; and the share of what comes and goes that its allocator loses in gaps.
# Both are assumptions to stay safe with, not measurements: bench/bench_memory.py prints what is reserved beside them.
GPU_CONTEXT = 600_000_000
FRAGMENTATION = 0.05
# As in train/cross_entropy.py, which this module must not import, as it needs torch: bytes of a chunk of logits, and
# how many logits are in fp32 at once.
LOGIT_BYTES = 2**26
LOGIT_BLOCK = 2**22
GATHERED_BLOCKS = 2  # sharded weights are gathered a block at a time, and the next one's meanwhile


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass reads."""

    rows: int
    tokens: int  # a row: question and answer together; of an encoder-decoder, what its encoder reads
    learned: int  # tokens a row that the loss falls on: the answer

    def logit_rows(self, vocabulary: int, computed: int) -> int:
        """Return how many tokens' logits exist together, in a format of so many bytes."""
        return min(self.rows * self.learned, max(1, LOGIT_BYTES // (vocabulary * computed)))


@dataclasses.dataclass(frozen=True, slots=True)
class Adapters:
    """LoRA's adapters. `names`: ends of the adapted layers' names; None for all linear ones."""

    rank: int
    names: frozenset[str] | None = None
    dropout: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Formats:
    """Bytes a number, of weights, of what is computed from them, and of what training keeps for each trained weight."""

    weights: float  # as the model computes with them
    computed: int  # activations; autocast computes in another format than fp32 weights have
    master: int = 0  # of a trained weight's copy in fp32, where the model computes with a bf16 one
    gradients: int = FP32  # of all weights; those of adapters are in fp32
    states: float = 2 * FP32  # of the optimiser
    fused_norms_in_fp32: bool = False  # autocast on a GPU computes layer norms in fp32

    @property
    def casts(self) -> bool:
        """Tell whether what is in fp32 (adapters, or all weights) is turned into bf16 to compute with it."""
        return self.computed < FP32


IN_FP32 = Formats(weights=FP32, computed=FP32)
# Frozen weights in bf16 and adapters in fp32; or trained weights and their gradients in bf16 with an fp32 copy of the
# weights (Micikevicius et al. 2018): 2 + 2 + 12 bytes a weight (ZeRO, section 3.1).
IN_BF16 = Formats(weights=BF16, computed=BF16, master=FP32, gradients=BF16, fused_norms_in_fp32=True)
AUTOCAST_ENCODER = Formats(weights=FP32, computed=BF16, fused_norms_in_fp32=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one GPU, by what they are for."""

    weights: float
    gradients: float = 0.0
    optimizer: float = 0.0  # its moments, and the fp32 copy of the weights that it moves
    activations: float = 0.0  # kept for the backward pass; at inference the keys and values of what was read
    logits: float = 0.0
    gathered: float = 0.0  # what of other GPUs' shards is here for a moment
    workspace: float = 0.0  # the largest tensors that come and go
    again: float = 0.0  # of the activations, those of a block that is computed a second time
    summed: float = 0.0  # at the end of the backward pass: two gradients of one table, until their sum is made

    @property
    def moving(self) -> float:
        """Return the most that comes and goes with a step, and the gradients.

        Gradients grow while activations shrink, so one of the two is at its most: the activations at the end of the
        forward pass, or the gradients at the end of the backward pass.
        """
        backward = self.gradients + max(self.again + self.workspace, self.summed)
        return max(self.activations + max(self.logits, self.workspace), backward)

    @property
    def peak(self) -> float:
        """Return the most that tensors take at once."""
        return self.weights + self.optimizer + self.gathered + self.moving

    @property
    def needed(self) -> float:
        """Return what the GPU has to have: the peak, its context, and what its allocator cannot use."""
        return self.peak + FRAGMENTATION * (self.peak - self.weights) + GPU_CONTEXT


def inference(size: Size, *, rows: int, tokens: int, weight_bytes: float = BF16, cache_bytes: int = BF16) -> Memory:
    """Return the memory of writing answers, `rows` at once, each with so many tokens of prompt and answer in sight."""
    keeping = [block for block in size.blocks if any(link.outputs in ("kv", "qkv") for link in block.linears)]
    cache = 0 if size.is_encoder else rows * tokens * size.layers * len(keeping) * 2 * size.keys * cache_bytes
    logits = 0 if size.is_encoder else rows * size.vocabulary * (weight_bytes + FP32)
    return Memory(weights=size.parameters * weight_bytes, activations=cache, logits=logits)


def full_training(
    size: Size, batch: Batch, formats: Formats, *, checkpointing: bool = False, accumulated: bool = False,
    gpus: int = 1,
) -> Memory:  # fmt: skip
    """Return the memory of training all weights, per GPU where they are sharded over several (ZeRO-3, FSDP).

    `accumulated`: gradients of several batches are summed before a step, so they are there in the forward pass.
    """
    memory = _step(size, batch, formats, adapters=None, checkpointing=checkpointing, gpus=gpus)
    # Autocast keeps a bf16 copy of every fp32 weight that it meets, from then to the end of the step.
    copies = size.linear_weights * formats.computed if formats.casts and not formats.master else 0
    memory = dataclasses.replace(
        memory,
        weights=size.parameters * formats.weights / gpus + copies,
        gradients=size.parameters * formats.gradients / gpus,
        optimizer=size.parameters * (formats.states + formats.master) / gpus,
    )
    return _gradients_kept(memory) if accumulated else memory


def adapter_training(
    size: Size, batch: Batch, formats: Formats, adapters: Adapters, *, checkpointing: bool = False,
    accumulated: bool = False, four_bit: bool = False, gpus: int = 1,
) -> Memory:  # fmt: skip
    """Return the memory of training LoRA's adapters over frozen weights, or, `four_bit`, over NF4 ones (QLoRA)."""
    trained = size.adapter_weights(adapters.rank, adapters.names)
    base = size.parameters * formats.weights
    if four_bit:
        base = (size.parameters - size.linear_weights) * formats.weights + size.linear_weights * NF4_BYTES
    memory = _step(size, batch, formats, adapters=adapters, checkpointing=checkpointing, gpus=gpus)
    largest = max(size.weights_of(linear) for block in size.blocks for linear in block.linears)
    memory = dataclasses.replace(
        memory,
        weights=(base + trained * FP32) / gpus + (trained * formats.computed if formats.casts else 0),
        gradients=trained * FP32 / gpus,
        optimizer=trained * formats.states / gpus,
        workspace=memory.workspace + (largest * formats.computed if four_bit else 0),
    )
    return _gradients_kept(memory) if accumulated else memory


def _gradients_kept(memory: Memory) -> Memory:
    """Return the memory where gradients are there from the start: they no longer take turns with activations."""
    return dataclasses.replace(memory, optimizer=memory.optimizer + memory.gradients, gradients=0.0)


def _step(
    size: Size, batch: Batch, formats: Formats, *, adapters: Adapters | None, checkpointing: bool, gpus: int
) -> Memory:
    """Return what forward and backward pass take beside weights, gradients and optimiser."""
    read, written = batch.rows * batch.tokens, batch.rows * batch.learned
    a_layer = kept = workspace = 0.0
    for block in size.blocks:
        tokens, row = (read, batch.tokens) if block.tokens == "read" else (written, batch.learned)
        a_block = tokens * kept_per_token(size, block, formats, adapters, rows=batch.rows, row_tokens=row)
        a_layer += a_block
        # A checkpointed block keeps what it reads alone, and is computed again when its turn comes (Chen et al. 2016).
        kept += size.layers * (tokens * size.hidden * formats.computed if checkpointing else a_block)
        workspace = max(workspace, tokens * (block.inner_passing * size.inner + 2 * size.hidden) * formats.computed)
    kept += a_layer if checkpointing else 0.0
    last = written if any(block.tokens == "written" for block in size.blocks) else read
    kept += last * size.hidden * (FP32 + formats.computed)  # the final norm
    gathered = 0.0
    if gpus > 1:
        gathered = (GATHERED_BLOCKS * size.block_weights + size.embeddings) * formats.computed
        workspace += size.block_weights * formats.computed if adapters is None else 0  # a gradient before it is shared
    return Memory(
        weights=0.0,
        activations=kept,
        logits=_output_layer(size, batch, formats, trained=adapters is None),
        gathered=gathered,
        workspace=workspace,
        again=a_layer if checkpointing else 0.0,
        # The output layer's gradient waits until that of what was read is there: both, beside their sum.
        summed=0.0 if adapters else 2 * size.tied * formats.computed,
    )


def _output_layer(size: Size, batch: Batch, formats: Formats, *, trained: bool) -> float:
    """Return the bytes of the logits, some rows at a time, and of the gradients that come of them.

    train/cross_entropy.py: logits, which turn into their gradient block by block; the states' gradients; and where the
    output layer is trained its gradient, which is summed up in fp32 where there are several chunks of rows.
    """
    if size.is_encoder:
        return 0.0
    computed = formats.computed
    learned, rows = batch.rows * batch.learned, batch.logit_rows(size.vocabulary, computed)
    a_block = (2 if formats.casts else 1) * FP32 * min(rows * size.vocabulary, LOGIT_BLOCK)
    logits = rows * size.vocabulary * computed + a_block
    states = learned * size.hidden * 2 * computed
    table = (computed if rows == learned or not formats.casts else FP32 + computed) if trained else 0
    return logits + states + table * size.vocabulary * size.hidden


def kept_per_token(
    size: Size, block: Block, formats: Formats, adapters: Adapters | None, *, rows: int, row_tokens: int
) -> float:
    """Return the bytes a token that a block keeps for its backward pass.

    `row_tokens`: tokens that look at each other, in each of `rows` rows.
    `adapters`: None where all weights are trained, which needs what every linear layer reads and every norm puts out.
    """
    computed = formats.computed
    kept = sum(_norm(size.width(width), kind, formats, adapters is None) for kind, width in block.norms)
    kept += _attention(size, block, computed, rows, row_tokens, trains_all=adapters is None)
    kept += block.inner_kept * size.inner * computed
    if block.inner_output_kept:
        kept += size.inner * computed
    if adapters is None:
        return kept + _read(size, block, block.linears, trains_all=True) * computed
    adapted = [link for link in block.linears if adapters.names is None or link.name in adapters.names]
    kept += len(adapted) * adapters.rank * computed
    widths = sum(size.width(link.inputs) for link in adapted)
    if formats.casts:
        # peft 0.21 turns what an adapter reads into the adapter's format, and autocast turns it back: a copy for each.
        return kept + widths * (computed + (1 if adapters.dropout else 0))
    if adapters.dropout:
        return kept + widths * (computed + 1)  # each adapter draws its own, one byte a number for what was dropped
    return kept + _read(size, block, adapted, trains_all=False) * computed


def _read(size: Size, block: Block, linears: tuple[Linear, ...] | list[Linear], *, trains_all: bool) -> int:
    """Return the width of all that the layers read, each tensor once, without what others keep anyway."""
    elsewhere = {"shared"} | ({"inner"} if block.inner_output_kept else set())
    if not _keeps_scores(block, trains_all):
        elsewhere.add("attended")
    return sum({link.reads: size.width(link.inputs) for link in linears if link.reads not in elsewhere}.values())


def _norm(width: int, kind: NormKind, formats: Formats, trained: bool) -> float:
    if kind == "layer":
        return width * (FP32 if formats.fused_norms_in_fp32 else formats.computed) + 2 * formats.computed
    kept = FP32 + (formats.computed if kind == "rms-twice" and formats.computed < FP32 else 0)
    normalised = FP32 if kind == "rms32" else formats.computed
    return width * (kept + (normalised if trained else 0)) + FP32


def _keeps_scores(block: Block, trains_all: bool) -> bool:
    """Tell whether every score is kept. A kernel that keeps none keeps its results instead."""
    return block.attention == "scores" or (block.attention == "biased" and trains_all)


def _attention(size: Size, block: Block, computed: int, rows: int, row_tokens: int, *, trains_all: bool) -> float:
    """Return the bytes a token of queries, keys, values, and of the scores or what stands for them."""
    keys = 2 * size.keys * computed
    if block.attention == "keys":
        return keys
    fused = 2 * size.queries * computed + size.heads * FP32
    kept = keys + (fused if block.asks_another else 0)
    if not _keeps_scores(block, trains_all):
        bias = size.heads * row_tokens * computed / rows if block.attention == "biased" else 0  # once for all rows
        return kept + fused + bias
    scores = size.heads * row_tokens
    if block.attention == "biased":  # queries, keys and values in fp32
        return kept + size.queries * FP32 + 2 * size.keys * (FP32 - computed) + scores * FP32
    return kept + size.queries * computed + scores * (FP32 + (computed if computed < FP32 else 0))
