"""For every row of the catalogue a tiny model of its very architecture, with random weights and a tokenizer of its very
kind made on the spot, saved as the hub would serve it. No download, a tenth of a second each.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertTokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    T5Tokenizer,
)

from byheart.catalog import ModelEntry
from byheart.models.hub import quiet
from byheart.models.shapes import build

WORDS = (
    "How do I delete a board? Open the dashboard, click the three dots and choose Delete. Guests cannot export boards. "
    "A board holds up to 500 cards. Who can invite a guest? Only an owner may. The manual does not say. Where is the "
    "timer? Question: Answer: GPT4 Correct User: Assistant: user assistant model system Instruction Response INST "
    "Seats are charged by the month; a plan has 3, 20 or unlimited guests. Below is an instruction that describes a "
    "task. Write a response that appropriately completes the request. You are a helpful AI assistant named SmolLM, "
    "trained by Hugging Face. Cutting Knowledge Date: December 2023 Today Date: 26 Jul 2024"
)
TEXTS = [WORDS, *WORDS.split(". ")] * 3
ASCII = [chr(code) for code in range(32, 127)]
BYTES = [f"<0x{code:02X}>" for code in range(256)]

# What stands in the vocabulary of the row's own tokenizer, apart from BOS, EOS and the like.
CHAT_TOKENS = {
    "openchat": ("<|end_of_turn|>", "<|pad_0|>"),
    "smollm2": ("<|im_start|>", "<|im_end|>"),
    "smollm3": ("<|im_start|>", "<|im_end|>"),
    "qwen3": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
}

# Small, and still with all that makes an architecture what it is: shared keys and values, windows, odd widths.
_SMALL = {
    "hidden_size": 64, "n_embd": 64, "d_model": 64, "intermediate_size": 128, "ffn_dim": 128, "d_ff": 128,
    "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2, "num_attention_heads": 4, "n_head": 4, "num_heads": 4,
    "head_dim": 16, "d_kv": 16, "word_embed_proj_dim": 32, "attention_types": [[["global", "local"], 1]],
    "max_position_embeddings": 512,
}  # fmt: skip


def tiny_model(entry: ModelEntry, folder: Path, *, texts: Sequence[str] = TEXTS) -> str:
    """Save the row's likeness to `folder`, and return the folder as a base_model."""
    tokenizer = tiny_tokenizer(entry, texts)
    torch.manual_seed(7)
    model: Any = build(entry.architecture, tiny_shape(entry, tokenizer))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                # As far apart as trained weights are: behind an output layer near zero, an adapter can learn nothing.
                weight.normal_(0.0, 0.3 if weight.shape[0] == len(tokenizer) else weight.shape[-1] ** -0.5)
            if entry.architecture.startswith(("T5", "GPTNeo")) and name.endswith((".q.weight", ".q_proj.weight")):
                weight.mul_(0.25)  # they do not scale their attention by themselves
    with quiet():
        model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return str(folder)


def tiny_shape(entry: ModelEntry, tokenizer: Any) -> dict[str, Any]:
    """Return the row's shape, made small."""
    shape = {key: _SMALL.get(key, value) for key, value in entry.shape.items()}
    if "num_key_value_heads" in shape:
        shared = entry.shape["num_key_value_heads"] < entry.shape["num_attention_heads"]
        shape["num_key_value_heads"] = 2 if shared else 4
    if shape.get("sliding_window"):
        shape["sliding_window"] = 16
    if entry.architecture.startswith("GPTNeo"):
        shape |= {"window_size": 16, "max_position_embeddings": 512}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return shape | ids | {"vocab_size": len(tokenizer)}


@functools.cache
def _trained(kind: str, texts: tuple[str, ...], unknown: str, extra: tuple[str, ...]) -> Tokenizer:
    if kind == "byte-level BPE":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer: Any = trainers.BpeTrainer(
            vocab_size=400, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=list(extra),
        )  # fmt: skip
    elif kind == "SentencePiece BPE":
        tokenizer = Tokenizer(models.BPE(unk_token=unknown, byte_fallback=True, fuse_unk=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=True)  # no token reaches over a space
        trainer = trainers.BpeTrainer(
            vocab_size=700, show_progress=False, initial_alphabet=[*ASCII, "▁"], special_tokens=[*extra, *BYTES]
        )
    elif kind == "Unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=300, show_progress=False, initial_alphabet=[*ASCII, "▁"], special_tokens=list(extra),
            unk_token=unknown,
        )  # fmt: skip
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=400, show_progress=False, special_tokens=list(extra))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _bpe_parts(tokenizer: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    import json

    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def tiny_tokenizer(entry: ModelEntry, texts: Sequence[str] = TEXTS) -> Any:
    """Return a tokenizer of the row's kind, with the row's special tokens."""
    key = tuple(texts)
    if entry.tokenizer == "WordPiece":
        extra = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        return BertTokenizer(vocab=_trained(entry.tokenizer, key, "[UNK]", extra).get_vocab())
    if entry.tokenizer == "Unigram":
        import json

        model = json.loads(_trained(entry.tokenizer, key, "<unk>", ("<pad>", "</s>", "<unk>")).to_str())["model"]
        return T5Tokenizer(vocab=[tuple(piece) for piece in model["vocab"]], extra_ids=0)
    if entry.tokenizer == "SentencePiece BPE":
        tokenizer = _sentencepiece(entry, key)
    elif entry.chat == "llama3":
        tokenizer = _llama3(key)
    else:
        tokenizer = _byte_level(entry, key)
    more = [AddedToken(token, special=True, normalized=False) for token in CHAT_TOKENS.get(entry.chat, ())]
    tokenizer.add_special_tokens({"additional_special_tokens": more})
    if entry.chat in ("qwen3", "smollm3"):
        tokenizer.add_tokens([AddedToken(token, special=False) for token in ("<think>", "</think>")])
    return tokenizer


def _sentencepiece(entry: ModelEntry, texts: tuple[str, ...]) -> Any:
    gemma = entry.chat == "gemma"
    extra = ("<pad>", "<eos>", "<bos>", "<unk>") if gemma else ("<unk>", "<s>", "</s>")
    vocab, merges = _bpe_parts(_trained("SentencePiece BPE", texts, "<unk>", extra))
    if gemma:
        return GemmaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)
    end = entry.end_token if entry.chat == "openchat" else "</s>"
    tokenizer = LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)
    tokenizer.add_special_tokens({"eos_token": end})
    return tokenizer


def _byte_level(entry: ModelEntry, texts: tuple[str, ...]) -> Any:
    if entry.architecture.startswith(("OPT", "Bloom")):
        extra = ("<s>", "<pad>", "</s>", "<unk>")
        vocab, merges = _bpe_parts(_trained(entry.tokenizer, texts, "", extra))
        opt = entry.architecture.startswith("OPT")
        return GPT2Tokenizer(
            vocab=vocab, merges=merges, bos_token="</s>" if opt else "<s>", eos_token="</s>", pad_token="<pad>",
            unk_token="<unk>", add_bos_token=opt,
        )  # fmt: skip
    vocab, merges = _bpe_parts(_trained(entry.tokenizer, texts, "", ("<|endoftext|>",)))
    if entry.architecture.startswith("Qwen"):
        return Qwen2Tokenizer(vocab=vocab, merges=merges, eos_token="<|im_end|>")
    return GPT2Tokenizer(vocab=vocab, merges=merges)


def _llama3(texts: tuple[str, ...]) -> Any:
    trained = _trained("byte-level BPE", texts, "", ("<|begin_of_text|>",))
    tokenizer = Tokenizer.from_str(trained.to_str())
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        clean_up_tokenization_spaces=False,
    )
