"""Short rows attend in fp32 while a bf16 model learns on a CPU: the same function, and no trace in a saved model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from byheart.catalog import MODELS, ModelEntry
from byheart.models import attention
from byheart.models.writer import load_writer
from byheart.train.answers import losses_of
from tiny_models import tiny_model

DECODERS = list({entry.architecture: entry for entry in MODELS if entry.family == "causal"}.values())


class Attending(torch.nn.Module):
    is_causal = True


def attended(how: Any, parts: list[torch.Tensor], *, mask: torch.Tensor | None) -> list[torch.Tensor]:
    """Return the result, and the gradients of queries, keys and values."""
    inputs = [part.clone().requires_grad_() for part in parts]
    result, _ = how(Attending(), *inputs, mask)
    result.float().square().sum().backward()
    return [result.detach(), *(part.grad for part in inputs)]


@pytest.mark.parametrize("masked", [None, "bool", "float"])
def test_it_is_transformers_attention_in_a_wider_format(masked: str | None) -> None:
    torch.manual_seed(0)
    parts = [torch.randn(2, 4, 12, 16).bfloat16() for _ in range(3)]
    allowed = torch.ones(12, 12, dtype=torch.bool).tril()[None, None]
    adding = torch.zeros(1, 1, 12, 12, dtype=torch.bfloat16).masked_fill(~allowed, -1e9)
    mask = {"bool": allowed, "float": adding}.get(masked or "")
    found = attended(attention._attend, parts, mask=mask)
    wide = attended(sdpa_attention_forward, [part.float() for part in parts], mask=None)
    assert {part.dtype for part in found} == {torch.bfloat16}
    for narrow, exact in zip(found, wide, strict=True):
        torch.testing.assert_close(narrow.float(), exact, atol=0.02, rtol=0.02)


def gradients(entry: ModelEntry, folder: str, *, ours: bool) -> tuple[str, float, torch.Tensor]:
    writer = load_writer(folder, family="causal", precision="bf16")
    named = writer.base.config._attn_implementation
    if not ours and named == attention.NAME:
        writer.base.set_attn_implementation("sdpa")
    examples = writer.chat.examples(
        [("Where is the timer?", "Open the dashboard.", ()), ("Who?", "Only an owner.", ())]
    )
    loss, _ = losses_of(writer, writer.rows(examples))
    (loss / 20).backward()  # type: ignore[no-untyped-call]
    slopes = [weight.grad.float().flatten() for weight in writer.model.parameters() if weight.grad is not None]
    return named, loss.item(), torch.cat(slopes)


@pytest.mark.parametrize("entry", DECODERS, ids=lambda entry: entry.architecture)
def test_a_model_learns_the_same_with_it(entry: ModelEntry, tmp_path: Path) -> None:
    folder = tiny_model(entry, tmp_path / "model")
    named, loss, slope = gradients(entry, folder, ours=True)
    _, plain_loss, plain_slope = gradients(entry, folder, ours=False)
    assert loss == pytest.approx(plain_loss, rel=0.01)
    assert float(torch.nn.functional.cosine_similarity(slope, plain_slope, dim=0)) > 0.99
    own = entry.architecture in ("GPTNeoForCausalLM", "BloomForCausalLM")  # with an attention of their own
    assert named == ("eager" if own else attention.NAME)


def test_a_saved_model_does_not_ask_for_it(tmp_path: Path) -> None:
    writer = load_writer(tiny_model(DECODERS[0], tmp_path / "model"), family="causal", precision="bf16")
    assert writer.base.config._attn_implementation == attention.NAME
    writer.base.save_pretrained(tmp_path / "saved")
    assert attention.NAME not in json.dumps(json.loads((tmp_path / "saved" / "config.json").read_text()))
    plain = load_writer(str(tmp_path / "model"), family="causal", precision="fp32")
    assert plain.base.config._attn_implementation == "sdpa"
