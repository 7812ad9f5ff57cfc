"""The encoder family: a BERT-like model that turns text into one vector, and into one vector a token.

The text's vector is the mean over its tokens (Sentence-BERT, Reimers & Gurevych 2019); the tokens' own vectors serve
late interaction (ColBERT, Khattab & Zaharia 2020). Both come out of the same forward pass and are trained together.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoModel, AutoTokenizer

from byheart.catalog import STARTER
from byheart.errors import ModelError
from byheart.models.attention import attend_in_fp32
from byheart.models.hub import explain_load_failure, model_source, peft_warnings_off, quiet
from byheart.models.precision import choose_precision

MAX_TOKENS = 256  # all-MiniLM-L6-v2 was trained on no longer texts
# What every starter knows before it reads a manual: the language of customers (scripts/train_starter.py).
STARTER_ADAPTER = Path(__file__).parent / "starter_adapter"
_FEW_TOKENS = 128
_TOKENS_PER_BATCH = 4096  # enough to fill the cores, little enough to stay under 200 MB

Vectors = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class Encoded:
    """A text's vectors, all of length 1. T tokens (special ones left out), D dimensions."""

    vector_D: Vectors
    tokens_T_D: Vectors
    starts_T: NDArray[np.int32]  # first character of each token in the text


class Encoder:
    """An encoder with its tokenizer. `encode` may be called from several threads; they take turns."""

    def __init__(self, model: torch.nn.Module, tokenizer: Any, *, precision: torch.dtype) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.precision = precision
        self.device = next(model.parameters()).device
        self._turn = threading.Lock()

    @property
    def dimensions(self) -> int:
        """Return D, the length of a vector."""
        return int(self.model.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def forward(self, texts: Sequence[str], *, max_tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (vectors_B_D, tokens_B_T_D, mask_B_T), normalised, with gradients; special tokens are masked out."""
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt",
            return_special_tokens_mask=True,
        ).to(self.device)  # fmt: skip
        special = batch.pop("special_tokens_mask")
        # Autocast turns every weight into bf16 anew in each call: one question is through in fp32 before that is done.
        worth_it = self.precision != torch.float32 and batch["input_ids"].numel() > _FEW_TOKENS
        with torch.autocast(self.device.type, self.precision, enabled=worth_it):
            hidden_B_T_D = self.model(**batch).last_hidden_state.float()
        mask_B_T = batch["attention_mask"]
        weights = mask_B_T.unsqueeze(-1).float()
        vectors_B_D = torch.nn.functional.normalize((hidden_B_T_D * weights).sum(1) / weights.sum(1), dim=-1)
        return vectors_B_D, torch.nn.functional.normalize(hidden_B_T_D, dim=-1), mask_B_T * (1 - special)

    def encode(
        self, texts: Sequence[str], *, max_tokens: int = MAX_TOKENS, on_done: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, Encoded]]:
        """Yield (index, its vectors) for every text, in an order that wastes little padding.

        `on_done` is called with the number of texts done so far.
        """
        done = 0
        for indices in self._batches(texts, max_tokens):
            yield from zip(indices, self._encode_batch([texts[i] for i in indices], max_tokens), strict=True)
            done += len(indices)
            if on_done:
                on_done(done)

    def vectors(
        self, texts: Sequence[str], *, max_tokens: int = MAX_TOKENS, on_done: Callable[[int], None] | None = None
    ) -> Vectors:
        """Return vectors_N_D of the texts, in their order."""
        result = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for index, encoded in self.encode(texts, max_tokens=max_tokens, on_done=on_done):
            result[index] = encoded.vector_D
        return result

    def encode_one(self, text: str, *, max_tokens: int = 64) -> Encoded:
        """Return the vectors of one text."""
        return next(encoded for _, encoded in self.encode([text], max_tokens=max_tokens))

    def _encode_batch(self, texts: Sequence[str], max_tokens: int) -> list[Encoded]:
        """Return the texts' vectors. Not a generator: between two yields the caller would hold lock and mode."""
        with self._turn, torch.inference_mode():
            self.model.eval()
            vectors_B_D, tokens_B_T_D, mask_B_T = (found.cpu() for found in self.forward(texts, max_tokens=max_tokens))
            starts = self._token_starts(texts, max_tokens)
            return [
                Encoded(vectors_B_D[row].numpy(), tokens_B_T_D[row][mask_B_T[row].bool()].numpy(), starts[row])
                for row in range(len(texts))
            ]

    def _batches(self, texts: Sequence[str], max_tokens: int) -> Iterator[list[int]]:
        """Yield indices of texts of like length, at most _TOKENS_PER_BATCH tokens with padding."""
        found = self.tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"] if texts else []
        lengths = [len(ids) for ids in found]
        batch: list[int] = []
        for index in sorted(range(len(texts)), key=lambda i: (-lengths[i], i)):
            if batch and (len(batch) + 1) * lengths[batch[0]] > _TOKENS_PER_BATCH:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _token_starts(self, texts: Sequence[str], max_tokens: int) -> list[NDArray[np.int32]]:
        found = self.tokenizer(
            list(texts), truncation=True, max_length=max_tokens, return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )  # fmt: skip
        return [
            np.array([start for (start, _), skip in zip(offsets, special, strict=True) if not skip], dtype=np.int32)
            for offsets, special in zip(found["offset_mapping"], found["special_tokens_mask"], strict=True)
        ]


class DualEncoder:
    """Text vectors from the fine-tuned encoder, token vectors from the base model: the same calls as an Encoder.

    Fine-tuning on whole texts sharpens their vectors and blurs the tokens' (docs/experiments.md has the figures), so
    late interaction stays with the base model.
    """

    def __init__(self, *, tuned: Encoder, base: Encoder) -> None:
        self.tuned = tuned
        self.base = base

    @property
    def dimensions(self) -> int:
        """Return D, the length of a vector."""
        return self.tuned.dimensions

    def encode(
        self, texts: Sequence[str], *, max_tokens: int = MAX_TOKENS, on_done: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, Encoded]]:
        """Yield (index, its vectors) for every text; see Encoder.encode."""
        vectors_N_D = self.tuned.vectors(texts, max_tokens=max_tokens)
        for index, encoded in self.base.encode(texts, max_tokens=max_tokens, on_done=on_done):
            yield index, dataclasses.replace(encoded, vector_D=vectors_N_D[index])

    def vectors(
        self, texts: Sequence[str], *, max_tokens: int = MAX_TOKENS, on_done: Callable[[int], None] | None = None
    ) -> Vectors:
        """Return vectors_N_D of the texts, in their order."""
        return self.tuned.vectors(texts, max_tokens=max_tokens, on_done=on_done)

    def encode_one(self, text: str, *, max_tokens: int = 64) -> Encoded:
        """Return the vectors of one text."""
        return next(encoded for _, encoded in self.encode([text], max_tokens=max_tokens))


def load_encoder(
    base_model: str,
    *,
    adapter: Path | None = None,
    precision: str = "auto",
    adapter_scale: float = 1.0,
    starter_adapter: bool = True,
) -> Encoder:
    """Load a base model, and on top of it a LoRA adapter or the fully trained weights in the folder `adapter`.

    `adapter_scale`: how much of a LoRA adapter is added, 1 for all of it. `starter_adapter`: False leaves the starter
    as all-MiniLM-L6-v2 was published.

    Raises ModelError where the weights are missing, damaged or of a kind that this family cannot run.
    """
    dtype, _ = choose_precision(precision)
    full = adapter is not None and (adapter / "model.safetensors").exists()
    source = str(adapter) if full else model_source(base_model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        with quiet():
            model = AutoModel.from_pretrained(source, use_safetensors=True, dtype=torch.float32)
        if base_model == STARTER and starter_adapter and not full:
            model = _merged(model, STARTER_ADAPTER, 1.0)
        if adapter is not None and not full:
            model = _merged(model, adapter, adapter_scale)
    except (OSError, ValueError, KeyError, SafetensorError) as fault:
        raise ModelError(explain_load_failure(source, fault)) from fault
    model = model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if dtype != torch.float32:
        attend_in_fp32(model)
    return Encoder(model, tokenizer, precision=dtype)


def _merged(model: Any, adapter: Path, scale: float) -> Any:
    """Return the model with the LoRA adapter added to its weights."""
    from peft import PeftModel  # noqa: PLC0415 - half a second to import, and only adapters need it
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415

    try:
        with peft_warnings_off():
            adapted = PeftModel.from_pretrained(model, str(adapter))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as fault:
        why = str(fault).strip().splitlines()[0]
        raise ModelError(f"{adapter}: the adapter cannot be loaded ({why}). Train again: byheart train") from fault
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            module.scale_layer(scale)
    return adapted.merge_and_unload()
