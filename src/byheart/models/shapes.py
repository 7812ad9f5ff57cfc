"""A catalogued model at its real size, without its weights: to count, plan and check on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

from byheart.catalog import ModelEntry
from byheart.models.hub import quiet


def build_empty(entry: ModelEntry) -> torch.nn.Module:
    """Return the entry's architecture at its real size on the meta device: shapes and names, no memory, no download."""
    with torch.device("meta"), quiet():
        return build(entry.architecture, entry.shape)


def build(architecture: str, shape: Mapping[str, Any]) -> torch.nn.Module:
    """Return an architecture of transformers with random weights. `shape`: arguments of its config class."""
    kind: Any = getattr(transformers, architecture)
    model: Any = kind(kind.config_class(**shape))
    if architecture.startswith("T5") and not shape.get("tie_word_embeddings", True):
        # transformers 5 ties a new T5's head to its embeddings whatever the config says; a checkpoint that has a head
        # of its own (Flan-T5) keeps it when loaded, and so must its likeness.
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.02)
    built: torch.nn.Module = model
    return built


def count_parameters(model: torch.nn.Module) -> int:
    """Return the number of weights; what is shared (tied embeddings) is counted once."""
    return sum(weight.numel() for weight in model.parameters())
