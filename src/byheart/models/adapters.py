"""What of an encoder is trained (LoRA adapters, or all weights), how that is saved, and how it is loaded again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import peft
import torch
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

from byheart.catalog import STARTER, find_model
from byheart.errors import ModelError
from byheart.models.encoder import STARTER_ADAPTER, Encoder, load_encoder, model_source, peft_warnings_off, quiet
from byheart.store import file_digest

DESCRIPTION = "byheart.json"

Method = Literal["lora", "full", "none"]
Targets = Literal["all-linear", "attention"]


@dataclasses.dataclass(frozen=True, slots=True)
class TrainedModel:
    """What 4-model/byheart.json says."""

    base_model: str  # as the config names it
    base: str  # sha256 of the base model's weights, or its hub id
    method: Method
    rank: int  # of the adapters; 0 where there are none
    best_step: int
    unseen_loss: float | None  # at that step; None where there was no validation
    adapter_scale: float = 1.0  # how much of the adapter is added to the base at load


def prepare(
    encoder: Encoder, *, base_model: str, method: Method, targets: Targets, rank: int, alpha: int, dropout: float
) -> str:
    """Make the encoder's weights trainable as `method` says, and return what is trained, with the reason.

    Call torch.manual_seed first: the adapters' start is drawn at random.
    """
    model: Any = encoder.model
    total = sum(weight.numel() for weight in model.parameters())
    if method == "full":
        return f"all {total:,} weights (train.method: full)"
    names, reason = lora_targets(model, base_model=base_model, targets=targets)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(names))
    # Where the adapter is read, byheart.json names the base; a path of this machine has no place in it.
    model.name_or_path = ""
    with peft_warnings_off():
        encoder.model = peft.get_peft_model(model, config)
    trained = sum(weight.numel() for weight in trainable(encoder).values())
    return f"LoRA on {', '.join(_short(names))} ({reason}): {trained:,} of {total:,} weights, {trained / total:.1%}"


def lora_targets(model: torch.nn.Module, *, base_model: str, targets: Targets) -> tuple[tuple[str, ...], str]:
    """Return the modules that get an adapter, and the reason. Raises ModelError where the model has none of them."""
    asked = f"lora_targets: {targets}"
    entry = find_model(base_model)
    if entry:
        linear = () if targets == "attention" else entry.linear_targets
        return entry.attention_targets + linear, asked
    linear = linear_layers(model)
    found = tuple(name for name in linear if targets == "all-linear" or _is_attention(name))
    if not found:
        raise ModelError(
            f"base_model {base_model!r}: none of its {len(linear)} linear layers is called attention, so "
            "train.lora_targets: attention finds nothing. Use all-linear, or train.method: full."
        )
    return found, f"{asked}; not in byheart's catalogue, so found among the model's linear layers"


def linear_layers(model: torch.nn.Module) -> tuple[str, ...]:
    """Return the names of the linear layers inside the model's blocks, which are numbered: no head, no embedding.

    GPT-2 writes its linear layers as Conv1D, which a search for Linear alone would miss.
    """
    return tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and any(part.isdigit() for part in name.split("."))
    )


def _is_attention(name: str) -> bool:
    return any("attn" in part or "attention" in part for part in name.lower().split("."))


def train_mode(encoder: Encoder) -> None:
    """Switch on the dropout of the adapters, and none in the base model.

    Drawing the base model's dropout masks took a fifth of a step on a CPU, and a run of a few epochs with early stop
    does not need them.
    """
    encoder.model.eval()
    for name, module in encoder.model.named_modules():
        if "lora_dropout" in name:
            module.train()


def trainable(encoder: Encoder) -> dict[str, torch.nn.Parameter]:
    """Return the weights that are trained, by name."""
    return {name: weight for name, weight in encoder.model.named_parameters() if weight.requires_grad}


def save_weights(encoder: Encoder, folder: Path, *, method: Method) -> None:
    """Write what was trained to a new folder: a LoRA adapter, or the whole model with its tokenizer."""
    folder.mkdir()
    model: Any = encoder.model
    if method == "lora":
        state = {
            name: weight.detach().cpu().contiguous() for name, weight in peft.get_peft_model_state_dict(model).items()
        }
        save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = model.peft_config["default"]
        config.inference_mode = True
        config.save_pretrained(str(folder))
    elif method == "full":
        with quiet():
            model.save_pretrained(str(folder))
        encoder.tokenizer.save_pretrained(str(folder))


def describe(folder: Path, trained: TrainedModel) -> None:
    """Write byheart.json, which makes the folder complete."""
    text = json.dumps(dataclasses.asdict(trained), indent=2) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def read_description(folder: Path) -> TrainedModel:
    """Return what byheart.json says. Raises ModelError where it is missing or damaged."""
    path = folder / DESCRIPTION
    try:
        return TrainedModel(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as fault:
        raise ModelError(f"{path} cannot be read ({fault}). Train again: byheart train") from fault


def load_trained(folder: Path, *, precision: str = "auto") -> Encoder:
    """Load the model that a training left in `folder`, adapters merged into their base.

    Raises ModelError where the folder is damaged, or the base model is no longer the one that was trained.
    """
    trained = read_description(folder)
    base = base_identity(trained.base_model)
    if base != trained.base:
        raise ModelError(
            f"{folder} was trained on {trained.base_model} with weights {trained.base}, but they are {base} now: the "
            "adapter does not fit. Train again: byheart train"
        )
    return load_encoder(
        trained.base_model,
        adapter=None if trained.method == "none" else folder,
        precision=precision,
        adapter_scale=trained.adapter_scale,
    )


def base_identity(base_model: str) -> str:
    """Return what tells a base model from another: the sha256 of its weights (all of them), or its hub id."""
    source = model_source(base_model)
    weights = Path(source) / "model.safetensors"
    digest = file_digest(weights) if weights.exists() else source
    return f"{digest}+{file_digest(STARTER_ADAPTER)}" if base_model == STARTER else digest


def _short(names: tuple[str, ...]) -> list[str]:
    """Leave the layers' numbers out: encoder.layer.0.attention.self.query is query in every layer."""
    return list(dict.fromkeys(name.rpartition(".")[2] if "." in name and len(names) > 8 else name for name in names))
