"""A tokenizer in the words of GGUF. llama.cpp has its own code for each kind: what it has none for is refused."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

from byheart.chat import Chat, as_template
from byheart.errors import ModelError

_SPACE = "▁"
# How a byte-level tokenizer cuts text before it merges, as llama.cpp names it.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CUTS = {_WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe", _WORDS + r"\p{N}" + _REST: "qwen2"}


def add_tokenizer(gguf: ModuleType, out: Any, chat: Chat, *, size: int) -> None:
    """Add the tokenizer and the chat form. `size`: rows of the model's table, of which the last may have no token.

    Raises ModelError where llama.cpp would cut text into other tokens.
    """
    tokenizer = chat.tokenizer
    inner = json.loads(tokenizer.backend_tokenizer.to_str())
    if inner["model"]["type"] != "BPE":
        raise ModelError(f"A tokenizer of the kind {inner['model']['type']} cannot be written as GGUF.")
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in inner["model"]["merges"]]
    vocabulary = {index: text for text, index in tokenizer.get_vocab().items()}
    tokens = [vocabulary.get(index, f"[PAD{index}]") for index in range(size)]
    sentencepiece = bool(inner["model"].get("byte_fallback"))
    out.add_tokenizer_model("llama" if sentencepiece else "gpt2")
    out.add_token_list(tokens)
    out.add_token_types([_type_of(gguf, tokenizer, token, index, vocabulary) for index, token in enumerate(tokens)])
    if sentencepiece:
        out.add_tokenizer_pre("default")
        out.add_token_scores(_scores(tokens, merges))
        out.add_add_space_prefix(_puts_space_first(inner))
    else:
        out.add_tokenizer_pre(_cut(inner["pre_tokenizer"]))
        out.add_token_merges([" ".join(pair) for pair in merges])
    _add_special(out, chat)


def _add_special(out: Any, chat: Chat) -> None:
    tokenizer, form = chat.tokenizer, chat.form
    start = tokenizer.convert_tokens_to_ids(form.start_token) if form.start_token else tokenizer.bos_token_id
    if start is not None:
        out.add_bos_token_id(start)
    out.add_eos_token_id(chat.end_id)
    others = [token for token in chat.stop_ids if token != chat.end_id]
    if others:
        out.add_eot_token_id(others[0])
    out.add_pad_token_id(chat.pad_id)
    if tokenizer.unk_token_id is not None:
        out.add_unk_token_id(tokenizer.unk_token_id)
    out.add_add_bos_token(bool(form.start_token))
    out.add_add_eos_token(False)
    out.add_chat_template(as_template(chat))


def _type_of(gguf: ModuleType, tokenizer: Any, token: str, index: int, vocabulary: dict[int, str]) -> int:
    kinds = gguf.TokenType
    if index not in vocabulary:
        return int(kinds.UNUSED)
    added = tokenizer.added_tokens_decoder.get(index)
    if index == tokenizer.unk_token_id and tokenizer.unk_token_id not in (
        tokenizer.eos_token_id,
        tokenizer.bos_token_id,
    ):
        return int(kinds.UNKNOWN)
    if added is not None:
        return int(kinds.CONTROL if added.special or index in tokenizer.all_special_ids else kinds.USER_DEFINED)
    is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
    return int(kinds.BYTE if is_byte else kinds.NORMAL)


def _scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """Return scores under which the pair that merges first has the highest: the order is all that they mean."""
    rank: dict[str, int] = {}
    for place, (left, right) in enumerate(merges):
        rank.setdefault(left + right, place)
    return [-float(rank.get(token, len(merges))) for token in tokens]


def _puts_space_first(inner: dict[str, Any]) -> bool:
    """Tell whether text that follows a special token gets a space before it, as llama.cpp's one switch means it."""
    steps = [inner.get("normalizer"), inner.get("pre_tokenizer")]
    flat = [part for step in steps if step for part in step.get("normalizers", step.get("pretokenizers", [step]))]
    return any(
        (part["type"] == "Metaspace" and part.get("prepend_scheme") == "always")
        or (part["type"] == "Prepend" and part.get("prepend") == _SPACE)
        for part in flat
    )


def _cut(step: dict[str, Any] | None) -> str:
    parts = (step or {}).get("pretokenizers", [step] if step else [])
    kinds = [part["type"] for part in parts]
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True) and not parts[0].get("add_prefix_space"):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = parts[0]["pattern"].get("Regex", "")
        if pattern in _CUTS:
            return _CUTS[pattern]
    raise ModelError(
        "Its tokenizer cuts text in a way that byheart has no name for in GGUF. Name llama.cpp's "
        "convert_hf_to_gguf.py with --converter."
    )
