"""Taking a bot's model elsewhere: each form opened again by what it is for, and what the model card tells."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
import yaml

from byheart.catalog import find_model
from byheart.chat import Chat, bind
from byheart.config import Config
from byheart.errors import ModelError
from byheart.export.card import Story, card, read_story
from byheart.export.gguf_file import export_gguf, write_gguf
from byheart.export.hub import export_adapter, export_hub
from byheart.export.ollama import modelfile, template
from byheart.models import adapters
from byheart.models.adapters import TrainedModel
from byheart.models.hub import quiet
from byheart.models.writer import Writer, load_writer
from byheart.progress import silent
from byheart.store import RunFolder
from byheart.train import retrieval
from tiny_models import tiny_model
from training import small_project, tiny_bert

# One row for every kind of weights, tokenizer and chat form that byheart writes as GGUF by itself.
GGUF_ROWS = (
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "meta-llama/Llama-3.2-1B-Instruct",
    "meta-llama/Llama-2-7b-chat-hf",
    "chavinlo/alpaca-native",
    "openchat/openchat_3.5",
    "mistralai/Mistral-7B-Instruct-v0.2",
    "Qwen/Qwen3-0.6B",
    "distilgpt2",
)
QUESTIONS = ("How do I delete a board?", "Who can invite a guest?", "timer?", "Is it 20 or 500 cards? 3,5 – naïve…")


def likeness(name: str, folder: Path) -> Writer:
    """Return a tiny model of the row's architecture, spoken to as the row is."""
    entry = find_model(name)
    assert entry
    shape = {key: value for key, value in entry.shape.items() if key != "sliding_window"}
    writer = load_writer(tiny_model(dataclasses.replace(entry, shape=shape), folder), family="causal", precision="fp32")
    writer.chat, _ = bind(writer.tokenizer, entry, encoder_decoder=False)
    return writer


def story(**changes: Any) -> Story:
    trained = TrainedModel("distilgpt2", "", "lora", 8, 40, 0.5, family="causal", longest_answer=50)
    values: dict[str, Any] = {
        "name": "help-bot", "docs_licence": "", "sources": ("https://help.example.com", "manual"), "languages": ("en",),
        "trained": trained, "marks": {}, "figures": None,
    }  # fmt: skip
    return Story(**(values | changes))


@pytest.fixture(scope="module")
def encoder_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("encoder")
    project, run_folder = small_project(folder, tiny_bert(folder / "bert"), epochs=1)
    outcome = retrieval.run(project, run_folder, silent)
    with run_folder.replacing("4-model") as partial:
        adapters.save_weights(outcome.model, partial, method="lora")
        adapters.describe(partial, outcome.description)
    return run_folder


def test_an_encoder_is_opened_by_sentence_transformers_and_by_plain_transformers(
    encoder_run: RunFolder, tmp_path: Path
) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    told = read_story(encoder_run, Config(docs=("manual",)), name="bot")
    out = tmp_path / "model"
    assert export_hub(encoder_run / "4-model", out, told, questions=["find boards", "delete votes"]) == 2
    ours = adapters.load_trained(encoder_run / "4-model", precision="fp32").vectors(["find boards", "guests ?"])
    with quiet():
        theirs = SentenceTransformer(str(out), device="cpu").encode(["find boards", "guests ?"])
        plain = transformers.AutoModel.from_pretrained(str(out))
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(out))
    with torch.inference_mode():
        hidden = plain(**tokenizer(["find boards"], return_tensors="pt")).last_hidden_state.mean(1)
    np.testing.assert_allclose(torch.nn.functional.normalize(hidden)[0].numpy(), ours[0], atol=1e-5)
    assert "sentence-transformers" in (out / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ModelError, match="is there already"):
        export_hub(encoder_run / "4-model", out, told, questions=[])
    with pytest.raises(ModelError, match="Leave --adapter out"):
        export_adapter(encoder_run / "4-model", tmp_path / "adapter", told)
    with pytest.raises(ModelError, match=r"is an encoder.*byheart export hf"):
        export_gguf(encoder_run / "4-model", tmp_path / "x.gguf", precision="f16", name="x", questions=[])
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("name", ["meta-llama/Llama-3.2-1B-Instruct", "distilgpt2"])
def test_a_gguf_holds_every_weight_and_what_ends_an_answer(name: str, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = likeness(name, tmp_path / "model")
    for precision, tolerance in (("f32", 0.0), ("f16", 1e-3), ("q8_0", 2e-2)):
        path = tmp_path / f"{precision}.gguf"
        assert write_gguf(writer, path, precision=precision, name="bot") == "byheart"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the reader's numpy calls
            reader = gguf.GGUFReader(path)
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        embedding = writer.base.get_input_embeddings().weight.detach().numpy()
        found = gguf.dequantize(tensors["token_embd.weight"].data, tensors["token_embd.weight"].tensor_type)
        np.testing.assert_allclose(found, embedding, atol=tolerance * float(np.abs(embedding).max()))
    weights = sum(weight.numel() for weight in writer.base.parameters())
    assert sum(int(np.prod(tensor.shape)) for tensor in reader.tensors) == weights
    fields = reader.fields
    assert fields["tokenizer.ggml.eos_token_id"].contents() == writer.chat.end_id
    assert fields["tokenizer.ggml.add_bos_token"].contents() is bool(writer.chat.form.start_token)
    assert "messages" in fields["tokenizer.chat_template"].contents()


def test_an_architecture_without_a_mapping_names_llama_cpps_converter(tmp_path: Path) -> None:
    writer = likeness("google/gemma-3-270m-it", tmp_path / "model")
    with pytest.raises(ModelError, match=r"Gemma3ForCausalLM, get llama.cpp and name its convert_hf_to_gguf.py"):
        write_gguf(writer, tmp_path / "x.gguf", precision="f16", name="x")
    converter = tmp_path / "convert_hf_to_gguf.py"
    converter.write_text(
        "import json, pathlib, sys\n"
        "assert json.loads(pathlib.Path(sys.argv[1], 'config.json').read_text())['model_type'] == 'gemma3_text'\n"
        "assert sys.argv[4:] == ['--outtype', 'f16'], sys.argv\n"
        "pathlib.Path(sys.argv[3]).write_bytes(b'GGUF')\n"
    )
    assert "llama.cpp's" in write_gguf(writer, tmp_path / "x.gguf", precision="f16", name="x", converter=converter)
    converter.write_text("raise SystemExit('no such model type')")
    with pytest.raises(ModelError, match="no such model type"):
        write_gguf(writer, tmp_path / "y.gguf", precision="f16", name="x", converter=converter)


def llama_python() -> str | None:
    """Return a Python that has llama_cpp: $BYHEART_LLAMA_PYTHON, or this one."""
    named = os.environ.get("BYHEART_LLAMA_PYTHON")
    return named or (sys.executable if importlib.util.find_spec("llama_cpp") else None)


@pytest.mark.slow
@pytest.mark.parametrize("name", GGUF_ROWS)
def test_llama_cpp_answers_a_gguf_as_transformers_answers_the_model(name: str, tmp_path: Path) -> None:
    python = llama_python()
    if not python:
        pytest.skip("NOT CHECKED: no llama.cpp here, so no GGUF was opened. Run make test-exports, which builds it.")
    writer = likeness(name, tmp_path / "model")
    write_gguf(writer, tmp_path / "model.gguf", precision="f32", name="bot")
    history = [("Who can invite?", "Only an owner may.")]
    prompts = [writer.chat.prompt(question) for question in QUESTIONS] + [writer.chat.prompt(QUESTIONS[0], history)]
    turns = [[{"role": "user", "content": question}] for question in QUESTIONS]
    turns.append(
        [{"role": "user", "content": history[0][0]}, {"role": "assistant", "content": history[0][1]}, turns[0][0]]
    )
    texts = [writer.chat._prompt_text(question, ()) for question in QUESTIONS]
    texts.append(writer.chat._prompt_text(QUESTIONS[0], history))
    asked = [{"text": text, "messages": messages} for text, messages in zip(texts, turns, strict=True)]
    done = subprocess.run(
        [python, str(Path(__file__).with_name("llama_asks.py")), str(tmp_path / "model.gguf"), "16"],
        input=json.dumps(asked), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout)
    assert [answer["ids"] for answer in answers] == prompts
    assert [answer["chat"] for answer in answers] == prompts
    written = [ids[: ids.index(stop)] if (stop := _first_stop(ids, writer.chat)) is not None else ids
               for ids in writer.write(prompts, most_tokens=16)]  # fmt: skip
    assert [answer["written"] for answer in answers] == written


def _first_stop(ids: list[int], chat: Chat) -> int | None:
    return next((token for token in ids if token in chat.stop_ids), None)


def test_a_modelfile_has_the_models_own_form_and_stops(tmp_path: Path) -> None:
    chat = likeness("openchat/openchat_3.5", tmp_path / "model").chat
    text = modelfile(chat, gguf_name="model.gguf", window=4096, longest_answer=80, licence="Apache-2.0")
    assert text.startswith("FROM ./model.gguf\n")
    assert 'PARAMETER stop "<|end_of_turn|>"\n' in text
    assert "PARAMETER temperature 0\nPARAMETER repeat_penalty 1.0\n" in text
    assert text.count('"""') == 4
    assert go_text(template(chat), ["Why?"]) == "GPT4 Correct User: Why?<|end_of_turn|>GPT4 Correct Assistant:"
    assert "<s>" not in template(chat)  # Ollama puts it there, as the GGUF says


@pytest.mark.parametrize("name", GGUF_ROWS)
def test_ollamas_template_asks_in_the_words_of_training(name: str, tmp_path: Path) -> None:
    chat = likeness(name, tmp_path / "model").chat
    one, two = chat._prompt_text("Why?", ()), chat._prompt_text("And how?", [("Why?", "Because.")])
    assert chat.form.start_token + go_text(template(chat), ["Why?"]) == one
    assert chat.form.start_token + go_text(template(chat), ["Why?", "Because.", "And how?"]) == two


def go_text(text: str, turns: list[str]) -> str:
    """Run the few words of Go's text/template that a Modelfile uses, over turns of user and assistant."""
    opening, rest = text.removeprefix("{{ $asked := false }}{{ range .Messages }}").split('{{ if eq .Role "user" }}')
    question, rest = rest.split('{{ else if eq .Role "assistant" }}')
    answer, rest = rest.split("{{ end }}{{ end }}")
    later, rest_of_question = question.removeprefix("{{ if $asked }}").split("{{ else }}")
    first, after = rest_of_question.split("{{ end }}{{ $asked = true }}")
    assert opening == ""
    parts = []
    for number, turn in enumerate(turns):
        part = answer if number % 2 else (later if number else first) + after
        parts.append(part.replace("{{ .Content }}", f"{{{{ {json.dumps(turn)} }}}}"))
    return "".join(json.loads(piece) for piece in _pieces("".join(parts) + rest))


def _pieces(text: str) -> list[str]:
    assert text.startswith("{{ ")
    return text.removeprefix("{{ ").removesuffix(" }}").split(" }}{{ ")


def test_a_card_tells_data_training_figures_limits_and_licences() -> None:
    share = {"count": 30, "n": 60, "share": 0.5, "low": 0.38, "high": 0.62}
    mark = {"fingerprint": "", "outputs": {}, "seconds": 1.0, "finished_at": "2026-05-06T10:00:00", "went_in": {}}
    from byheart.store import Mark

    told = story(
        marks={
            "ingest": Mark(stage="ingest", chosen={}, counts={"documents": 50, "sections": 393, "facts": 2189}, **mark),
            "synthesize": Mark(
                stage="synthesize", chosen={"teacher": "offline: rules"},
                counts={"pairs": 9000, "train": 8000, "unseen phrasing": 700, "outside": 300}, **mark,
            ),
            "train": Mark(stage="train", chosen={"train.epochs": "2: enough"}, counts={}, **mark),
            "evaluate": Mark(stage="evaluate", chosen={}, counts={}, **mark),
        },
        figures={
            "systems": ["byheart", "bm25"],
            "cells": [{"system": name, "group": "yours", "n": 60, "correct": share} for name in ("byheart", "bm25")],
        },
        docs_licence="CC BY 4.0",
    )  # fmt: skip
    text = card(told, "merged", use="```python\n```", prompt="Question: QUESTION\nAnswer:", end_token="<|endoftext|>")
    front = yaml.safe_load(text.split("---")[1])
    assert front["base_model"] == "distilbert/distilgpt2"
    assert front["license"] == "apache-2.0"
    assert front["pipeline_tag"] == "text-generation"
    for words in (
        "50 pages, 393 sections, 2,189 facts", "8,000 to learn", "2: enough", "50% (38%–62%)", "whole bot",
        "CC BY 4.0", "Question: QUESTION\nAnswer:", "<|endoftext|>", "https://help.example.com", "local files",
    ):  # fmt: skip
        assert words in text


def test_a_card_names_no_path_of_this_machine_and_no_figures_of_another_model(encoder_run: RunFolder) -> None:
    encoder_run.write_text("5-metrics.json", "{}")
    told = read_story(encoder_run, Config(docs=("/home/me/manual",)), name="bot")
    text = card(told, "sentence-transformers", use="")
    assert "not evaluated" in text
    assert "/home/me" not in text
    assert told.trained.base_model not in text  # the folder of the base model
    assert "ask the manual's owner" in text


def test_a_licence_that_hubs_do_not_know_is_named() -> None:
    trained = TrainedModel("meta-llama/Llama-3.2-1B-Instruct", "", "lora", 8, 40, None, family="causal")
    text = card(story(trained=trained), "gguf", use="")
    front = yaml.safe_load(text.split("---")[1])
    assert (front["license"], front["license_name"]) == ("other", "Llama 3.2 Community License")
    assert "Its terms must be accepted" in text
