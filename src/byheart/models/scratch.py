"""Models from scratch: random weights, and a tokenizer trained on the manual. They need no download."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Tokenizer, T5Tokenizer

from byheart.catalog import ModelEntry
from byheart.models.hub import quiet
from byheart.models.shapes import build
from byheart.models.writer import Writer, WritingFamily, wrap


def make_scratch(entry: ModelEntry, texts: Sequence[str], *, seed: int) -> Writer:
    """Return the entry's architecture with random weights, and a tokenizer trained on `texts`.

    The same texts and seed give the same model.
    """
    tokenizer = train_tokenizer(entry, texts)
    torch.manual_seed(seed)
    return random_weights(entry, tokenizer)


def random_weights(entry: ModelEntry, tokenizer: Any) -> Writer:
    """Return the entry's architecture with random weights behind a tokenizer that is there already."""
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    if entry.family == "seq2seq":
        ids["decoder_start_token_id"] = tokenizer.pad_token_id
    with quiet():
        model: Any = build(entry.architecture, {**entry.shape, **ids, "vocab_size": len(tokenizer)})
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    family: WritingFamily = "seq2seq" if entry.family == "seq2seq" else "causal"
    return wrap(model, tokenizer, base_model=entry.name, family=family, precision=torch.float32)


def train_tokenizer(entry: ModelEntry, texts: Sequence[str]) -> Any:
    """Return a tokenizer of the entry's kind, with at most as many tokens as its shape has."""
    size = int(entry.shape["vocab_size"])
    trainer: Any
    if entry.tokenizer == "Unigram":
        trained = Tokenizer(models.Unigram())
        trained.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=size, show_progress=False, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"
        )
    else:
        trained = Tokenizer(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=size, show_progress=False, special_tokens=[entry.end_token],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
    trained.train_from_iterator(texts, trainer)
    model = json.loads(trained.to_str())["model"]
    if entry.tokenizer == "Unigram":
        pieces: Any = [tuple(piece) for piece in model["vocab"]]
        return T5Tokenizer(vocab=pieces, extra_ids=0)
    merges: Any = [tuple(pair) for pair in model["merges"]]
    return GPT2Tokenizer(vocab=model["vocab"], merges=merges)
