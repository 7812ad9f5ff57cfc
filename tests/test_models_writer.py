"""Models that write answers: one likeness for every architecture, batched against one by one, and how they load."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from byheart.catalog import MODELS, ModelEntry, find_model
from byheart.chat import Example, bind
from byheart.errors import ModelError
from byheart.models.hub import explain_load_failure
from byheart.models.writer import Writer, load_writer
from tiny_models import tiny_model

# One row for every architecture; rows of the same architecture differ in size and chat form, which test_chat.py covers.
ARCHITECTURES = list({entry.architecture: entry for entry in MODELS if entry.family != "encoder"}.values())
EACH = pytest.mark.parametrize("entry", ARCHITECTURES, ids=lambda entry: entry.architecture)

CONVERSATIONS = [
    ("How do I delete a board?", "Open the dashboard and choose Delete.", []),
    ("Who can invite a guest? I asked before and nobody could tell me where to look for it.", "Only an owner may.", []),
    ("timer?", "The manual does not say.", [("Who can invite?", "Only an owner may.")]),
]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ModelEntry], Writer]:
    """Return a function that loads the likeness of a row, each row once."""
    made: dict[str, Writer] = {}

    def loaded(entry: ModelEntry) -> Writer:
        if entry.name not in made:
            folder = tiny_model(entry, tmp_path_factory.mktemp("models") / "model")
            family = "seq2seq" if entry.family == "seq2seq" else "causal"
            writer = load_writer(folder, family=family, precision="fp32")
            made[entry.name] = spoken_to_as(writer, entry)
        return made[entry.name]

    return loaded


def spoken_to_as(writer: Writer, entry: ModelEntry) -> Writer:
    """Speak to the likeness as the row is spoken to: its folder's name is not in the catalogue."""
    writer.chat, _ = bind(writer.tokenizer, entry, encoder_decoder=entry.family == "seq2seq")
    return writer


def log_probabilities(writer: Writer, examples: list[Example]) -> list[torch.Tensor]:
    """Return for each example the log probabilities of all tokens at each learned position."""
    rows = writer.rows(examples)
    with torch.inference_mode():
        weight, bias = writer.head
        logits = torch.nn.functional.linear(writer.states(rows), weight, bias)
        whole = writer.logits(rows)
    torch.testing.assert_close(logits, whole, atol=1e-5, rtol=1e-5)
    return list(logits.log_softmax(-1).split([len(example.answer) for example in examples]))


@EACH
def test_a_batch_computes_what_each_of_its_rows_computes_alone(
    entry: ModelEntry, load: Callable[[ModelEntry], Writer]
) -> None:
    writer = load(entry)
    examples = writer.chat.examples(CONVERSATIONS)
    assert len({len(example.prompt) + len(example.answer) for example in examples}) == len(examples)
    together = log_probabilities(writer, examples)
    for example, found in zip(examples, together, strict=True):
        alone = log_probabilities(writer, [example])[0]
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


@EACH
def test_a_changed_neighbour_moves_nothing(entry: ModelEntry, load: Callable[[ModelEntry], Writer]) -> None:
    writer = load(entry)
    examples = writer.chat.examples(CONVERSATIONS)
    before = log_probabilities(writer, examples)[1]
    other = Example(tuple(reversed(examples[0].prompt)), tuple(reversed(examples[0].answer)))
    after = log_probabilities(writer, [other, *examples[1:]])[1]
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)


@EACH
def test_the_output_layer_sees_the_answers_positions_alone(
    entry: ModelEntry, load: Callable[[ModelEntry], Writer]
) -> None:
    writer = load(entry)
    assert not writer.whole_logits
    examples = writer.chat.examples(CONVERSATIONS)
    rows = writer.rows(examples)
    learned = sum(len(example.answer) for example in examples)
    assert len(writer.states(rows)) == learned < rows.ids_B_T.numel()
    assert rows.target_N.tolist() == [token for example in examples for token in example.answer]
    if rows.decoder_ids_B_T is None:
        assert rows.mask_B_T is None  # filled up on the right, where no decoder looks


@EACH
def test_a_loaded_model_computes_what_transformers_computes(entry: ModelEntry, tmp_path: Path) -> None:
    folder = tiny_model(entry, tmp_path / "model")
    family = "seq2seq" if entry.family == "seq2seq" else "causal"
    kind = AutoModelForSeq2SeqLM if family == "seq2seq" else AutoModelForCausalLM
    ids = torch.arange(6).view(2, 3)
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if family == "seq2seq" else {})
    writer = load_writer(folder, family=family, precision="fp32")
    with torch.inference_mode():
        expected = kind.from_pretrained(folder, dtype=torch.float32).eval()(**inputs).logits
        torch.testing.assert_close(writer.base(**inputs).logits, expected, atol=1e-5, rtol=1e-5)


@EACH
def test_answers_written_side_by_side_are_those_written_alone(
    entry: ModelEntry, load: Callable[[ModelEntry], Writer]
) -> None:
    writer = load(entry)
    prompts = [writer.chat.prompt(question, history) for question, _, history in CONVERSATIONS]
    done: list[int] = []
    together = writer.write(prompts, most_tokens=8, on_done=done.append)
    alone = [writer.write([prompt], most_tokens=8)[0] for prompt in prompts]
    assert [writer.chat.text(ids) for ids in together] == [writer.chat.text(ids) for ids in alone]
    assert done == [len(prompts)]
    # Greedy: each token is the likeliest one after those before it.
    example = Example(tuple(prompts[0]), tuple(alone[0]))
    assert log_probabilities(writer, [example])[0].argmax(-1).tolist() == alone[0]


def row(name: str) -> ModelEntry:
    entry = find_model(name)
    assert entry
    return entry


def test_an_encoder_decoders_own_output_layer_survives_loading(tmp_path: Path) -> None:
    folder = tiny_model(row("google/flan-t5-base"), tmp_path / "t5")
    model = load_writer(folder, family="seq2seq", precision="fp32").base
    assert not model.lm_head.weight.equal(model.shared.weight)


def test_a_long_conversation_and_a_long_question_fit_the_window(tmp_path: Path) -> None:
    writer = load_writer(tiny_model(row("gpt2"), tmp_path / "gpt2"), family="causal", precision="fp32")
    writer.base.config.n_positions = 64
    assert writer.window == 64
    assert writer.answers([("board " * 100, [("one", "two")] * 20)], most_tokens=4)


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    folder = Path(tiny_model(row("gpt2"), tmp_path / "gpt2"))
    other = Path(tiny_model(row("bigscience/bloomz-560m"), tmp_path / "bloom"))
    for file in other.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    first = len(tokenizer["model"]["vocab"])
    more = [{**tokenizer["added_tokens"][0], "id": first + n, "content": f"<more {n}>"} for n in range(900)]
    tokenizer["added_tokens"] += more
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(ModelError, match="do not belong together"):
        load_writer(str(folder), family="causal", precision="fp32")


def test_weights_that_are_a_pickle_are_not_loaded(tmp_path: Path) -> None:
    folder = Path(tiny_model(row("gpt2"), tmp_path / "gpt2"))
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="Only safetensors weights are loaded"):
        load_writer(str(folder), family="causal", precision="fp32")


def test_a_model_that_brings_code_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = Path(tiny_model(row("gpt2"), tmp_path / "gpt2"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "own.py").write_text("raise SystemExit('was run')", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_writer(str(folder), family="causal", precision="fp32")


def test_a_model_that_is_nowhere_is_told_with_a_way_out() -> None:
    with pytest.raises(ModelError, match=r"The model hub cannot be reached\. Give a folder"):
        load_writer("meta-llama/Llama-2-7b-hf", family="causal", precision="fp32")


@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        ("Access to model x is restricted: 403 Client Error. You must accept the gated repo", "hf auth login"),
        ("401 Client Error: Unauthorized", "hf auth login"),
        ("x is not a local folder and is not a valid model identifier", "Check the spelling"),
        ("[Errno 28] No space left on device", "HF_HOME"),
        ("We couldn't connect to 'https://huggingface.co'", "cannot be reached"),
        ("Please pass the argument `trust_remote_code=True`", "which byheart never runs"),
        ("x does not appear to have a file named model.safetensors", "Only safetensors"),
        ("CUDA out of memory. Tried to allocate 1 GiB", "train.method: qlora"),
        ("something else", "complete transformers model"),
        ("", "complete transformers model"),
    ],
)
def test_every_way_that_a_hub_fails_says_what_to_do(text: str, way_out: str) -> None:
    said = explain_load_failure("some/model", OSError(text))
    assert said.startswith("base_model 'some/model' cannot be loaded: ")
    assert way_out in said.splitlines()[1]
