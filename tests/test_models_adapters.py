"""What is trained of a model, and that it is the same model when it is loaded again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from byheart.catalog import MODELS, STARTER_SHA256, find_model
from byheart.errors import ModelError
from byheart.models import adapters
from byheart.models.adapters import TrainedModel, base_identity, describe, load_trained, save_weights
from byheart.models.encoder import STARTER_ADAPTER, Encoder, Vectors, load_encoder
from byheart.store import file_digest
from training import tiny_bert

TEXTS = ["open the boards menu", "how do i delete cards ?", "votes"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_bert(tmp_path_factory.mktemp("base") / "bert")


def prepared(base: str, method: adapters.Method = "lora", targets: adapters.Targets = "all-linear") -> Encoder:
    encoder = load_encoder(base, precision="fp32")
    torch.manual_seed(0)
    lora = adapters.LoraSettings(targets=targets, rank=4, alpha=8, dropout=0.0)
    adapters.prepare(encoder, base_model=base, method=method, lora=lora)
    return encoder


def trained_folder(folder: Path, base: str, method: adapters.Method, scale: float = 1.0) -> Vectors:
    """Save a model whose trained weights were moved, and return its vectors of TEXTS."""
    encoder = prepared(base, method)
    with torch.no_grad():
        for weight in adapters.trainable(encoder).values():
            weight.add_(torch.randn_like(weight) * 0.2)
    save_weights(encoder, folder, method=method)
    describe(folder, TrainedModel(base, base_identity(base), method, 4, 10, 0.5, scale))
    return encoder.vectors(TEXTS)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_saved_model_answers_the_same_when_loaded(tmp_path: Path, base: str, method: adapters.Method) -> None:
    before = trained_folder(tmp_path / "model", base, method)
    after = load_trained(tmp_path / "model", precision="fp32").vectors(TEXTS)
    np.testing.assert_allclose(after, before, atol=1e-5)
    untrained = load_encoder(base, precision="fp32").vectors(TEXTS)
    assert np.abs(after - untrained).max() > 0.01


def test_an_adapter_scale_of_zero_is_the_base_model_and_a_half_lies_between(tmp_path: Path, base: str) -> None:
    whole = trained_folder(tmp_path / "whole", base, "lora")
    untrained = load_encoder(base, precision="fp32").vectors(TEXTS)
    trained_folder(tmp_path / "none", base, "lora", scale=0.0)
    np.testing.assert_allclose(load_trained(tmp_path / "none", precision="fp32").vectors(TEXTS), untrained, atol=1e-5)
    trained_folder(tmp_path / "half", base, "lora", scale=0.5)
    half = load_trained(tmp_path / "half", precision="fp32").vectors(TEXTS)
    assert 0 < np.abs(half - untrained).max() < np.abs(whole - untrained).max()


def test_the_layers_in_a_saved_adapter_stand_in_one_order(tmp_path: Path, base: str) -> None:
    trained_folder(tmp_path / "model", base, "lora")
    layers = json.loads((tmp_path / "model" / "adapter_config.json").read_text(encoding="utf-8"))["target_modules"]
    assert layers == sorted(layers)
    assert len(layers) > 1


def test_attention_alone_trains_fewer_weights_than_all_linear_layers(base: str) -> None:
    attention = set(adapters.trainable(prepared(base, targets="attention")))
    both = set(adapters.trainable(prepared(base)))
    assert attention < both
    assert all("attention" in name for name in attention)
    assert any("intermediate" in name for name in both)
    assert not any("pooler" in name for name in both)


@pytest.mark.parametrize("name", [entry.name for entry in MODELS if entry.family == "encoder"])
def test_the_catalogues_targets_are_those_found_by_looking(base: str, name: str) -> None:
    """Every catalogued encoder is a BERT: its names must hit the very layers that a look at the model finds."""
    model = load_encoder(base, precision="fp32").model
    targets: adapters.Targets
    for targets in ("attention", "all-linear"):
        named, _ = adapters.lora_targets(model, base_model=name, targets=targets)
        found, _ = adapters.lora_targets(model, base_model=base, targets=targets)
        modules = {module for module, _ in model.named_modules()}
        assert {module for module in modules if any(f".{module}".endswith(f".{end}") for end in named)} == set(found)


def test_a_model_without_attention_layers_is_refused_with_a_way_out() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(ModelError, match=r"none of its 1 linear layers.*Use all-linear"):
        adapters.lora_targets(model, base_model="somewhere/else", targets="attention")


def test_a_changed_base_model_is_refused(tmp_path: Path, base: str) -> None:
    trained_folder(tmp_path / "model", base, "lora")
    described = adapters.read_description(tmp_path / "model")
    describe(tmp_path / "model", dataclasses.replace(described, base="0" * 64))
    with pytest.raises(ModelError, match="the adapter does not fit"):
        load_trained(tmp_path / "model")


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"base_model": 1, "surprise": 2}'])
def test_a_damaged_description_is_a_model_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "byheart.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"byheart\.json cannot be read.*byheart train"):
        load_trained(tmp_path)


@pytest.mark.parametrize(
    ("method", "name"),
    [("lora", "adapter_model.safetensors"), ("lora", "adapter_config.json"), ("full", "model.safetensors")],
)
@pytest.mark.parametrize("damage", ["torn", "empty", "gone"])
def test_damaged_weights_are_a_model_error(
    tmp_path: Path, base: str, method: adapters.Method, name: str, damage: str
) -> None:
    trained_folder(tmp_path / "model", base, method)
    path = tmp_path / "model" / name
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "torn" else b"")
    with pytest.raises(ModelError):
        load_trained(tmp_path / "model", precision="fp32")


def test_an_adapter_of_another_shape_is_a_model_error(tmp_path: Path, base: str) -> None:
    trained_folder(tmp_path / "model", base, "lora")
    path = tmp_path / "model" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "r": 2}), encoding="utf-8")
    with pytest.raises(ModelError, match="the adapter cannot be loaded"):
        load_trained(tmp_path / "model", precision="fp32")


def test_the_catalogue_finds_models_by_name_and_by_hub_id() -> None:
    starter = find_model("starter")
    assert starter is find_model("sentence-transformers/all-MiniLM-L6-v2")
    assert starter is not None
    assert find_model("nobody/knows") is None
    assert len({entry.name for entry in MODELS}) == len(MODELS)


def test_encoding_leaves_no_inference_mode_and_no_lock_behind_while_it_is_consumed(base: str) -> None:
    encoder = load_encoder(base, precision="fp32")
    results = encoder.encode(["open boards", "delete cards"])
    next(results)
    assert not torch.is_inference_mode_enabled()
    assert encoder.encode_one("votes").vector_D.shape == (32,)  # would wait for ever if the lock were held


def test_texts_come_back_in_their_order_whatever_their_length(base: str) -> None:
    encoder = load_encoder(base, precision="fp32")
    texts = ["votes", "open the menu and find the boards settings . how do i use the menu ?", "", "delete cards"]
    together = encoder.vectors(texts)
    alone = np.stack([encoder.encode_one(text).vector_D for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert [len(encoder.encode_one(text).starts_T) for text in texts] == [1, 16, 0, 2]


def test_the_starter_brings_an_adapter_beside_the_published_weights_and_is_named_by_both() -> None:
    published = load_encoder("starter", precision="fp32", starter_adapter=False).vectors(TEXTS)
    starter = load_encoder("starter", precision="fp32").vectors(TEXTS)
    assert np.abs(starter - published).max() > 0.01
    weights, _, adapter = base_identity("starter").partition("+")
    assert weights == STARTER_SHA256
    assert adapter == file_digest(STARTER_ADAPTER)
    config = json.loads((STARTER_ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert sum(file.stat().st_size for file in STARTER_ADAPTER.iterdir()) < 1_000_000
