"""The catalogue against the real architectures, each built at its real size on the meta device, without a download."""

from __future__ import annotations

import functools

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from byheart.catalog import MODELS, STARTER, ModelEntry, find_model
from byheart.models import adapters
from byheart.models.shapes import build_empty, count_parameters

ROWS = pytest.mark.parametrize("entry", MODELS, ids=lambda entry: entry.name)


@functools.cache
def layers_of(name: str) -> tuple[int, frozenset[str], dict[str, type]]:
    """Return parameters, all modules, and the linear layers (name and class) of an entry's real size."""
    entry = find_model(name)
    assert entry
    model = build_empty(entry)
    assert all(weight.is_meta for weight in model.parameters())
    modules = dict(model.named_modules())
    linear = {key: type(module) for key, module in modules.items() if isinstance(module, torch.nn.Linear | Conv1D)}
    return count_parameters(model), frozenset(modules), linear


def matched(targets: tuple[str, ...], modules: frozenset[str]) -> dict[str, set[str]]:
    """Return for each target the modules that peft would adapt: the target is the end of their name."""
    return {end: {module for module in modules if f".{module}".endswith(f".{end}")} for end in targets}


@ROWS
def test_the_real_size_has_the_published_number_of_parameters(entry: ModelEntry) -> None:
    parameters, _, _ = layers_of(entry.name)
    assert abs(parameters / entry.parameters - 1) < 0.01


@ROWS
def test_every_target_finds_layers_and_all_linear_misses_none_in_the_blocks(entry: ModelEntry) -> None:
    _, modules, linear = layers_of(entry.name)
    found = matched(entry.attention_targets + entry.linear_targets, modules)
    assert all(found.values()), found
    in_blocks = {name for name in linear if any(part.isdigit() for part in name.split("."))}
    assert set().union(*found.values()) == in_blocks
    outside = set(linear) - in_blocks  # heads, poolers, and OPT-350m's way between its two widths
    assert {name.rpartition(".")[2] for name in outside} <= {"lm_head", "project_in", "project_out", "dense"}


@ROWS
def test_the_attention_targets_are_the_linear_layers_of_attention_and_no_others(entry: ModelEntry) -> None:
    _, modules, linear = layers_of(entry.name)
    found = set().union(*matched(entry.attention_targets, modules).values())
    assert found == {name for name in linear if "attn" in name.lower() or "attention" in name.lower()}
    assert len(found) >= 2


def test_gpt2s_linear_layers_are_found_though_they_are_no_linear_modules() -> None:
    _, _, linear = layers_of("gpt2")
    assert set(linear.values()) == {Conv1D, torch.nn.Linear}  # the head alone is a Linear
    entry = find_model("gpt2")
    assert entry
    assert len(adapters.linear_layers(build_empty(entry))) == 12 * 4


@ROWS
def test_a_look_at_an_unknown_model_finds_what_the_catalogue_names(entry: ModelEntry) -> None:
    model = build_empty(entry)
    targets: adapters.Targets
    for targets in ("attention", "all-linear"):
        seen, reason = adapters.lora_targets(model, base_model="somewhere/else", targets=targets)
        named, _ = adapters.lora_targets(model, base_model=entry.name, targets=targets)
        assert set(seen) == set().union(*matched(named, frozenset(dict(model.named_modules()))).values())
        assert "not in byheart's catalogue" in reason


def test_rows_are_found_by_name_and_by_hub_id_and_none_twice() -> None:
    names = [entry.name for entry in MODELS]
    assert len(set(names)) == len(names)
    assert find_model("openai-community/gpt2-xl") is find_model("gpt2-xl")
    openchat = find_model("openchat/openchat_3.5")
    assert openchat
    assert openchat.parameters == 7_241_748_480  # a Mistral-7B, whatever its name suggests
    assert openchat.end_token == "<|end_of_turn|>"
    assert [entry.name for entry in MODELS if entry.from_scratch] == [
        "scratch:llama-10m", "scratch:gpt2-10m", "scratch:t5-10m",
    ]  # fmt: skip
    assert MODELS[0].name == STARTER


@ROWS
def test_a_row_says_how_it_is_spoken_to_and_what_its_licence_is(entry: ModelEntry) -> None:
    assert (entry.chat == "none") == (entry.family == "encoder") == (entry.end_token == "")
    assert entry.licence
    assert entry.gated == (entry.licence.startswith(("Llama", "Gemma")))
