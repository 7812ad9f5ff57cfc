"""Which family a base model belongs to: as the catalogue says, or as a look at its config shows."""

from __future__ import annotations

from transformers import AutoConfig

from byheart.catalog import SCRATCH, Family, find_model
from byheart.errors import ModelError
from byheart.models.hub import explain_load_failure, model_source, quiet


def family_of(base_model: str) -> tuple[Family, str]:
    """Return the family and the reason. Raises ModelError where the model cannot be found or looked at."""
    entry = find_model(base_model)
    if entry:
        return entry.family, "as the catalogue says"
    if base_model.startswith(SCRATCH):
        raise ModelError(
            f"base_model {base_model!r}: there is no such model from scratch. See docs/models.md for those."
        )
    source = model_source(base_model)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as fault:
        raise ModelError(explain_load_failure(source, fault)) from fault
    architecture = next(iter(config.architectures or []), "")
    family: Family = "encoder"
    if getattr(config, "is_encoder_decoder", False):
        family = "seq2seq"
    elif architecture.endswith(("ForCausalLM", "LMHeadModel")):
        family = "causal"
    return family, f"not in byheart's catalogue; its config names {architecture or 'no architecture'}"
