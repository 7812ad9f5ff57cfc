"""The models that byheart knows, as data."""

from __future__ import annotations

import dataclasses
from typing import Literal

STARTER = "starter"
# Equal to the published weights of sentence-transformers/all-MiniLM-L6-v2; checked at every load.
STARTER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclasses.dataclass(frozen=True, slots=True)
class ModelEntry:
    """One base model."""

    name: str  # what the config's `base_model` says
    hub_id: str
    family: Literal["encoder"]
    parameters: int
    licence: str
    attention_targets: tuple[str, ...]  # module names that LoRA adapts with `lora_targets: attention`
    linear_targets: tuple[str, ...]  # and those it adds with `all-linear`
    about: str


_BERT_ATTENTION = ("query", "key", "value", "attention.output.dense")
_BERT_LINEAR = ("intermediate.dense", "output.dense")

MODELS: tuple[ModelEntry, ...] = (
    ModelEntry(
        name=STARTER,
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        family="encoder",
        parameters=22_713_216,
        licence="Apache-2.0",
        attention_targets=_BERT_ATTENTION,
        linear_targets=_BERT_LINEAR,
        about="the default: comes with the package, fine-tunes in minutes on two cores",
    ),
    *(
        ModelEntry(
            name=f"google/bert_uncased_{shape}",
            hub_id=f"google/bert_uncased_{shape}",
            family="encoder",
            parameters=parameters,
            licence="Apache-2.0",
            attention_targets=_BERT_ATTENTION,
            linear_targets=_BERT_LINEAR,
            about=about,
        )
        for shape, parameters, about in (
            ("L-2_H-128_A-2", 4_385_920, "BERT tiny: not trained for search; learns it from the pairs alone"),
            ("L-4_H-256_A-4", 11_170_560, "BERT mini: not trained for search; learns it from the pairs alone"),
            ("L-4_H-512_A-8", 28_763_648, "BERT small: not trained for search; learns it from the pairs alone"),
        )
    ),
)


def find_model(name: str) -> ModelEntry | None:
    """Return the catalogue's entry for a `base_model`, by name or hub id; None where it has none."""
    return next((entry for entry in MODELS if name in (entry.name, entry.hub_id)), None)
