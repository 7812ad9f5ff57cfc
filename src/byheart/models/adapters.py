"""What of a model is trained (LoRA adapters, or all weights), how that is saved, and how it is loaded again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, Protocol

import peft
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import AutoTokenizer
from transformers.pytorch_utils import Conv1D

from byheart.catalog import STARTER, Family, find_model
from byheart.chat import as_template, bind
from byheart.errors import ModelError
from byheart.models.encoder import STARTER_ADAPTER, Encoder, load_encoder
from byheart.models.hub import model_source, peft_warnings_off, quiet
from byheart.models.scratch import random_weights
from byheart.models.writer import Writer, WritingFamily, load_writer
from byheart.store import file_digest, fingerprint

DESCRIPTION = "byheart.json"

Method = Literal["lora", "qlora", "full", "none"]
Targets = Literal["all-linear", "attention"]


class Trainable(Protocol):
    """What is trained: an Encoder or a Writer."""

    model: torch.nn.Module

    @property
    def tokenizer(self) -> Any:
        """Return the tokenizer."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class LoraSettings:
    """How adapters are made (LoRA, Hu et al. 2021)."""

    targets: Targets
    rank: int
    alpha: int
    dropout: float
    rslora: bool = False  # scale by 1/sqrt(rank) instead of 1/rank (Kalajdzievski 2023)
    dora: bool = False  # magnitude and direction apart (Liu et al. 2024)


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
    family: Family = "encoder"
    longest_answer: int = 0  # tokens that a written answer may have; 0 for an encoder


def prepare(trainee: Trainable, *, base_model: str, method: Method, lora: LoraSettings) -> str:
    """Make the model's weights trainable as `method` says, and return what is trained, with the reason.

    Call torch.manual_seed first: the adapters' start is drawn at random.
    """
    model: Any = trainee.model
    total = sum(weight.numel() for weight in model.parameters())
    if method == "full":
        return f"all {total:,} weights (train.method: full)"
    names, reason = lora_targets(model, base_model=base_model, targets=lora.targets)
    modules = dict(model.named_modules())
    turned = any(isinstance(modules[name], Conv1D) for name in linear_layers(model))  # GPT-2 keeps its weights turned
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(names),
        use_rslora=lora.rslora, use_dora=lora.dora,
        fan_in_fan_out=turned,
    )  # fmt: skip
    # The adapter names its base where that has a name; a path of this machine has no place in it.
    entry = find_model(base_model)
    model.name_or_path = entry.hub_id if entry and entry.family != "encoder" else ""
    with peft_warnings_off():
        trainee.model = peft.get_peft_model(model, config)
    trained = sum(weight.numel() for weight in trainable(trainee).values())
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


def train_mode(trainee: Trainable) -> None:
    """Switch on the dropout of the adapters, and none in the base model.

    Drawing the base model's dropout masks took a fifth of a step on a CPU, and a run of a few epochs with early stop
    does not need them.
    """
    trainee.model.eval()
    for name, module in trainee.model.named_modules():
        if "lora_dropout" in name:
            module.train()
        elif getattr(module, "gradient_checkpointing", False):
            module.training = True  # a layer computes its insides again only while it believes it is in training


def trainable(trainee: Trainable) -> dict[str, torch.nn.Parameter]:
    """Return the weights that are trained, by name."""
    return {name: weight for name, weight in trainee.model.named_parameters() if weight.requires_grad}


def save_weights(trainee: Trainable, folder: Path, *, method: Method) -> None:
    """Write what was trained to a new folder: a LoRA adapter, or the whole model with its tokenizer.

    A model that writes answers gets its tokenizer in any case, with the chat template that it was trained with, so
    that transformers or another server asks it in the same words.
    """
    folder.mkdir()
    model: Any = trainee.model
    if method in ("lora", "qlora"):
        # No adapter is on an embedding; left to itself, peft asks the model hub whether the vocabulary has grown.
        found = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
        state = {name: weight.detach().cpu().contiguous() for name, weight in found.items()}
        save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = model.peft_config["default"]
        config.inference_mode = True
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)  # a set's order differs from process to process
        config.save_pretrained(str(folder))
    elif method == "full":
        with quiet():
            model.save_pretrained(str(folder))
    if isinstance(trainee, Writer):
        save_tokenizer(trainee, folder)
    elif method == "full":
        trainee.tokenizer.save_pretrained(str(folder))


def save_tokenizer(writer: Writer, folder: Path) -> None:
    """Write a writer's tokenizer, with its chat form as the chat template."""
    if not writer.chat.encoder_decoder:
        writer.tokenizer.chat_template = as_template(writer.chat)
    writer.tokenizer.save_pretrained(str(folder))


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
    _demand_same_base(folder, trained)
    return load_encoder(
        trained.base_model,
        adapter=None if trained.method == "none" else folder,
        precision=precision,
        adapter_scale=trained.adapter_scale,
    )


def load_trained_writer(folder: Path, *, precision: str = "auto", merge: bool = True) -> Writer:
    """Load the writer that a training left in `folder`; `merge`: with the adapter added to the base's weights.

    Raises ModelError where the folder is damaged, or the base model is no longer the one that was trained.
    """
    trained = read_description(folder)
    family: WritingFamily = "seq2seq" if trained.family == "seq2seq" else "causal"
    if trained.method == "full":
        return load_writer(trained.base_model, family=family, weights=folder, precision=precision)
    _demand_same_base(folder, trained)
    # What was quantised for the training is whole again for the answers where it is merged: the adapter fits both.
    writer = load_writer(trained.base_model, family=family, precision=precision)
    if trained.method == "none":
        return writer
    try:
        with peft_warnings_off():
            adapted: Any = peft.PeftModel.from_pretrained(writer.model, str(folder))
            writer.model = adapted.merge_and_unload() if merge else adapted
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as fault:
        why = next(iter(str(fault).strip().splitlines()), type(fault).__name__)
        raise ModelError(f"{folder}: the adapter cannot be loaded ({why}). Train again: byheart train") from fault
    return writer


def load_untrained_writer(folder: Path) -> Writer:
    """Load the base model of a training as it was before; one from scratch gets random weights again."""
    trained = read_description(folder)
    family: WritingFamily = "seq2seq" if trained.family == "seq2seq" else "causal"
    entry = find_model(trained.base_model)
    if entry and entry.from_scratch:
        torch.manual_seed(0)
        return random_weights(entry, load_trained_writer(folder).tokenizer)
    return load_writer(trained.base_model, family=family)


def chat_template(folder: Path) -> str:
    """Return the chat form of the trained writer in `folder` as a Jinja template, for other software to ask it by."""
    trained = read_description(folder)
    source = str(folder) if trained.method == "full" else model_source(trained.base_model)
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    return as_template(bind(tokenizer, find_model(trained.base_model), encoder_decoder=False)[0])


def base_identity(base_model: str) -> str:
    """Return what tells a base model from another: the sha256 of its weights (all of them), or its hub id."""
    source = model_source(base_model)
    whole = Path(source) / "model.safetensors"
    if whole.exists():
        digest = file_digest(whole)
        return f"{digest}+{file_digest(STARTER_ADAPTER)}" if base_model == STARTER else digest
    shards = sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else []
    return fingerprint([file_digest(shard) for shard in shards]) if shards else source


def _demand_same_base(folder: Path, trained: TrainedModel) -> None:
    base = base_identity(trained.base_model)
    if base != trained.base:
        raise ModelError(
            f"{folder} was trained on {trained.base_model} with weights {trained.base}, but they are {base} now: the "
            "adapter does not fit. Train again: byheart train"
        )


def _short(names: tuple[str, ...]) -> list[str]:
    """Leave the layers' numbers out: encoder.layer.0.attention.self.query is query in every layer."""
    return list(dict.fromkeys(name.rpartition(".")[2] if "." in name and len(names) > 8 else name for name in names))
