"""The train stage for models that write: from pairs to a bot that answers by heart, killed, resumed, and loaded."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from byheart.answer import bot as answering
from byheart.answer.base import BatchAnswerer
from byheart.answer.bot import complete_model
from byheart.answer.written import WrittenAnswerer
from byheart.catalog import find_model
from byheart.chat import REFUSAL
from byheart.config import AnswerConfig, Project
from byheart.errors import ModelError, TrainError
from byheart.export.card import read_story
from byheart.export.hub import export_adapter, export_hub
from byheart.models import adapters
from byheart.models.hub import peft_warnings_off
from byheart.models.writer import Writer
from byheart.progress import Progress, StageResult, silent
from byheart.records import Pair, stable_id
from byheart.store import RunFolder
from byheart.train import plan, stage, writing
from byheart.train.checkpoint import CHECKPOINT
from tiny_models import tiny_model
from training import TOPICS, pair, small_project

GPT2 = find_model("distilgpt2")


class Killed(BaseException):
    """Stands for kill -9: nothing in byheart catches it."""


def kill_at(step: int, project: Project, folder: RunFolder) -> None:
    """Run the training up to a step, and no further."""

    def die(event: Progress) -> None:
        if event.task == "training" and not event.message and event.done == step:
            raise Killed

    with pytest.raises(Killed):
        stage.run(project, folder, die)


def outside(question: str) -> Pair:
    return Pair(
        id=stable_id(question), fact_ids=(), section_id="", question=question, answer="", kind="refusal",
        perspective="", temperature=0.0, teacher="offline", prompt_id="", split="train",
    )  # fmt: skip


def pairs() -> list[Pair]:
    """Return two phrasings a topic, one that is not trained on, and a question that the manual does not answer."""
    asked = [outside("what is the weather ?")]
    for topic in TOPICS:
        asked += [
            pair(topic, "train", question=f"how do i use {topic} ?"),
            pair(topic, "train", question=f"find {topic}"),
        ]
        asked.append(pair(topic, "unseen phrasing", question=f"where is {topic} ?"))
    return asked


def project_of(folder: Path, base_model: str, **train: Any) -> tuple[Project, RunFolder]:
    settings = {
        "epochs": 6, "batch_size": 4, "learning_rate": 5e-3, "patience": 50, "lora_rank": 8, "lora_alpha": 16,
        "mix_documents": 0, "mix_conversations": 0,
    }  # fmt: skip
    project, run_folder = small_project(folder, base_model, **(settings | train))
    run_folder.write("3-pairs.jsonl", pairs())
    return project, run_folder


def tiny_gpt2(folder: Path) -> str:
    """Return the folder of a GPT-2 with random weights, whose tokenizer knows the words of the pairs."""
    assert GPT2
    texts = [text for item in pairs() for text in (item.question, item.answer)]
    return tiny_model(GPT2, folder / "gpt2", texts=[*texts, REFUSAL])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_gpt2(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def frequent_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MEASURED_ANSWERS", 4)
    monkeypatch.setattr(plan, "ASKED_QUESTIONS", 2)
    # What answering needs is tested with the bot; here it would only load the starter again and again.
    monkeypatch.setattr(stage, "_finish", lambda *args: {"declining": "not in this test"})


def run(folder: Path, base: str, notify: Any = silent, **train: Any) -> tuple[RunFolder, StageResult]:
    project, run_folder = project_of(folder, base, **train)
    return run_folder, stage.run(project, run_folder, notify)


def weights(folder: RunFolder) -> bytes:
    return (folder / "4-model" / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, base: str) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "MEASURED_ANSWERS", 4)
        patch.setattr(plan, "ASKED_QUESTIONS", 2)
        patch.setattr(stage, "_finish", lambda *args: {})
        folder, _ = run(tmp_path_factory.mktemp("whole"), base)
    return weights(folder)


def test_answers_are_learned_and_questions_outside_the_manual_are_refused(tmp_path: Path, base: str) -> None:
    said: list[str] = []
    folder, result = run(tmp_path, base, lambda event: said.append(event.message), epochs=30)
    writer = adapters.load_trained_writer(folder / "4-model", precision="fp32")
    description = adapters.read_description(folder / "4-model")
    assert (description.family, description.method) == ("causal", "lora")
    asked = ["find boards", "how do i use votes ?", "what is the weather ?"]
    assert writer.answers([(question, ()) for question in asked], most_tokens=description.longest_answer) == [
        "Open the menu and find boards settings.", "Open the menu and find votes settings.", REFUSAL,
    ]  # fmt: skip
    for name in ("family", "chat form", "train.precision", "trained weights", "end"):
        assert f"{name}: {result.chosen[name]}" in said
    assert result.chosen["chat form"].startswith("plain: not in byheart's catalogue")
    assert result.counts["pairs"] == 21
    steps = (folder / "4-steps.jsonl").read_text().splitlines()
    assert '"recall": 1.0' in steps[-1] or '"recall": 0.5' in steps[-1]
    assert not list(folder.path.glob(f"{CHECKPOINT}*"))


@pytest.mark.parametrize("step", [1, 13])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, base: str, undisturbed: bytes, step: int) -> None:
    project, folder = project_of(tmp_path, base)
    kill_at(step, project, folder)
    stage.run(project, folder, silent)
    assert weights(folder) == undisturbed


def test_a_torn_checkpoint_is_refused_and_the_one_before_is_taken(
    tmp_path: Path, base: str, undisturbed: bytes
) -> None:
    project, folder = project_of(tmp_path, base)

    def die(event: Progress) -> None:
        if event.task == "training" and not event.message and event.done == 20:
            (folder / CHECKPOINT).rename(folder / f"{CHECKPOINT}.old")
            (folder / CHECKPOINT).mkdir()
            (folder / CHECKPOINT / "state.json").write_text('{"fingerp', encoding="utf-8")
            raise Killed

    with pytest.raises(Killed):
        stage.run(project, folder, die)
    said: list[str] = []
    stage.run(project, folder, lambda event: said.append(event.message))
    told = next(line for line in said if "goes on from" in line)
    assert f"{CHECKPOINT} is not used: it is torn or damaged" in told
    assert f"goes on from {CHECKPOINT}.old at step 18" in told
    assert weights(folder) == undisturbed


WAYS: dict[str, dict[str, Any]] = {
    "DoRA": {"lora_dora": True},
    "rsLoRA": {"lora_rslora": True},
    "spaced repetition": {"repetition": "spaced"},
    "8-bit AdamW on all weights": {"optimizer": "adamw-8bit", "method": "full", "learning_rate": 0.003},
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_train_resumes_bit_for_bit_and_loads_with_the_same_answers(
    tmp_path: Path, base: str, way: str
) -> None:
    if "optimizer" in WAYS[way]:
        pytest.importorskip("bitsandbytes")
    settings = {"epochs": 30} | WAYS[way]
    whole, result = run(tmp_path / "whole", base, **settings)
    project, folder = project_of(tmp_path / "killed", base, **settings)
    kill_at(40, project, folder)
    stage.run(project, folder, silent)
    name = "model.safetensors" if settings.get("method") == "full" else "adapter_model.safetensors"
    assert (whole / "4-model" / name).read_bytes() == (folder / "4-model" / name).read_bytes()
    assert result.chosen["train.gradient_checkpointing"].startswith("no: a step takes about ")
    merged = adapters.load_trained_writer(whole / "4-model", precision="fp32")
    apart = adapters.load_trained_writer(whole / "4-model", precision="fp32", merge=False)
    asked = [("find boards", ()), ("how do i use votes ?", ())]
    said = ["Open the menu and find boards settings.", "Open the menu and find votes settings."]
    assert merged.answers(asked, most_tokens=20) == apart.answers(asked, most_tokens=20) == said


MIX: dict[str, Any] = {"mix_documents": None, "mix_conversations": 0.1, "repetition": "spaced"}


def test_a_model_learns_from_the_mix_and_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, base: str) -> None:
    said: list[str] = []
    whole, result = run(tmp_path / "whole", base, lambda event: said.append(event.message), **MIX)
    assert result.counts["pairs"] == 21  # none is dropped
    assert min(result.counts[name] for name in ("documents", "conversations")) > 0
    assert "replay" not in result.counts
    assert result.chosen["train.mix_documents"].startswith("0.4: ")
    assert result.chosen["train.mix_replay"].startswith("0: train.replay names no file")
    shares = re.findall(r"(\d+)%", result.chosen["the mix"])
    assert [int(share) for share in shares] == pytest.approx([50, 40, 10], abs=3)
    assert f"the mix: {result.chosen['the mix']}" in said
    steps = [json.loads(line) for line in (whole / "4-steps.jsonl").read_text().splitlines()]
    assert steps[-1]["unseen_loss"] < steps[0]["unseen_loss"]
    project, folder = project_of(tmp_path / "killed", base, **MIX)
    kill_at(25, project, folder)
    again: list[str] = []
    stage.run(project, folder, lambda event: again.append(event.message))
    assert any("goes on from" in line for line in again)
    assert weights(folder) == weights(whole)


def test_a_bot_that_reads_is_trained_on_passages_and_a_killed_run_goes_on_to_the_same_weights(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading(folder: Path) -> tuple[Project, RunFolder]:
        project, run_folder = project_of(folder, base, epochs=4)
        run_folder.write("3-pairs.jsonl", [replace(item, fact_ids=(item.id,)) for item in pairs()])  # two a section
        config = project.config.model_copy(update={"answer": AnswerConfig(grounding="retrieve")})
        return Project(folder=project.folder, config=config), run_folder

    saved: list[int] = []

    def noted(self: Writer, prefix_1_P: torch.Tensor, rows: int, past_of: Any = Writer._past) -> Any:
        saved.append(prefix_1_P.shape[1] * (rows - 1))
        return past_of(self, prefix_1_P, rows)

    monkeypatch.setattr(Writer, "_past", noted)
    project, whole = reading(tmp_path / "whole")
    result = stage.run(project, whole, silent)
    assert result.chosen["train.mix_passages"].startswith("0.3: of the tokens")
    assert sum(saved) > 0.3 * 4 * result.counts["passages"] * 200  # tokens in a prompt, at least
    project, folder = reading(tmp_path / "killed")
    kill_at(result.counts["steps"] // 2, project, folder)
    stage.run(project, folder, silent)
    assert weights(folder) == weights(whole)


def test_another_mix_does_not_go_on_from_this_ones_checkpoint(tmp_path: Path, base: str) -> None:
    project, folder = project_of(tmp_path, base, **MIX)
    kill_at(25, project, folder)
    other, _ = project_of(tmp_path, base, **(MIX | {"mix_documents": 0.2}))
    said: list[str] = []
    stage.run(other, folder, lambda event: said.append(event.message))
    assert not any("goes on from" in line for line in said)


def test_general_conversations_are_replayed_from_the_file_that_is_named(tmp_path: Path, base: str) -> None:
    tmp_path.joinpath("general.jsonl").write_text('{"question": "find a", "answer": "Open."}\n{torn\n')
    with pytest.raises(TrainError, match=r"general\.jsonl:2: no conversation"):
        run(tmp_path, base, epochs=1, replay="general.jsonl")
    tmp_path.joinpath("general.jsonl").write_text('{"question": "find a", "answer": "Open."}\n')
    _, result = run(tmp_path, base, epochs=1, replay="general.jsonl")
    assert list(result.counts) == ["pairs", "replay", "steps"]
    assert result.chosen["the mix"].endswith("3 replayed conversations (9%, each 3.0 times)")


def test_layers_computed_twice_learn_the_same(tmp_path: Path, base: str, undisturbed: bytes) -> None:
    folder, result = run(tmp_path, base, gradient_checkpointing="always")
    assert result.chosen["train.gradient_checkpointing"] == "yes: as train.gradient_checkpointing says"
    assert weights(folder) == undisturbed


def test_a_loss_that_is_no_number_ends_training_with_advice(tmp_path: Path, base: str) -> None:
    with pytest.raises(TrainError, match=r"training has diverged\. Set train\.learning_rate lower"):
        run(tmp_path, base, method="full", learning_rate=1e30)


def test_pairs_that_teach_nothing_are_an_error_with_a_way_out(tmp_path: Path, base: str) -> None:
    project, folder = project_of(tmp_path, base)
    folder.write("3-pairs.jsonl", [outside("what is the weather ?")])
    with pytest.raises(TrainError, match="nothing to learn"):
        stage.run(project, folder, silent)


def test_without_unseen_phrasing_the_last_weights_are_kept(tmp_path: Path, base: str) -> None:
    project, folder = project_of(tmp_path, base, epochs=1)
    folder.write("3-pairs.jsonl", [item for item in pairs() if item.split == "train"])
    result = stage.run(project, folder, silent)
    assert "no unseen phrasing" in result.chosen["validation"]
    assert adapters.read_description(folder / "4-model").best_step == result.counts["steps"] == 6


def test_plain_transformers_and_peft_load_what_was_trained(tmp_path: Path, base: str) -> None:
    import peft

    folder, _ = run(tmp_path / "lora", base)
    writer = adapters.load_trained_writer(folder / "4-model", precision="fp32")
    prompt = writer.chat.prompt("find boards")
    expected = writer.write([prompt], most_tokens=12)[0]
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base)
    with peft_warnings_off():
        adapted = peft.PeftModel.from_pretrained(model, str(folder / "4-model"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder / "4-model"))
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "find boards"}], add_generation_prompt=True, return_tensors="pt"
    )
    assert asked["input_ids"][0].tolist() == prompt
    written = adapted.generate(**asked, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert written[0, len(prompt) :].tolist() == expected

    story = read_story(folder, project_of(tmp_path / "lora", base)[0].config, name="bot")
    assert export_hub(folder / "4-model", tmp_path / "merged", story, questions=["find boards", "find votes"]) == 2
    merged: Any = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"))
    again = merged.generate(**asked, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert again[0, len(prompt) :].tolist() == expected
    with pytest.raises(ModelError, match="is there already"):
        export_hub(folder / "4-model", tmp_path / "merged", story, questions=[])
    card = (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")
    assert "Question: QUESTION\nAnswer:" in card
    export_adapter(folder / "4-model", tmp_path / "adapter", story)
    assert {"adapter_model.safetensors", "README.md", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "adapter").iterdir()
    }
    assert not (tmp_path / "adapter" / "byheart.json").exists()

    folder, _ = run(tmp_path / "full", base, method="full", epochs=1)
    whole = transformers.AutoModelForCausalLM.from_pretrained(str(folder / "4-model"))
    trained = adapters.load_trained_writer(folder / "4-model", precision="fp32")
    assert whole.lm_head.weight.equal(trained.base.lm_head.weight)
    assert load_file(folder / "4-model" / "model.safetensors")


def test_a_model_from_scratch_trains_all_its_weights_and_says_so(tmp_path: Path) -> None:
    folder, result = run(
        tmp_path, "scratch:gpt2-10m", epochs=1, batch_size=21, mix_documents=None, mix_conversations=None
    )  # fmt: skip
    assert result.chosen["train.mix_documents"].startswith("0: a model from scratch reads few tokens")
    assert list(result.counts) == ["pairs", "steps"]
    assert result.chosen["train.method"].startswith("full: a model from scratch has nothing that an adapter")
    description = adapters.read_description(folder / "4-model")
    assert (description.base_model, description.method) == ("scratch:gpt2-10m", "full")
    trained = adapters.load_trained_writer(folder / "4-model")
    untrained = adapters.load_untrained_writer(folder / "4-model")
    assert trained.tokenizer.get_vocab() == untrained.tokenizer.get_vocab()
    assert not trained.base.lm_head.weight.equal(untrained.base.lm_head.weight)
    assert answering.systems(folder, grounding="closed-book") == ("byheart", "closed-book", "bm25")
    with pytest.raises(TrainError, match="untrained, it knows no word"):
        run(tmp_path / "none", "scratch:gpt2-10m", method="none")


def test_a_trained_writer_is_a_bot_that_cites_and_declines(tmp_path: Path, base: str) -> None:
    project, folder = project_of(tmp_path, base, epochs=30)
    outcome = writing.run(project, folder, silent, family="causal")
    with folder.replacing("4-model") as partial:
        adapters.save_weights(outcome.model, partial, method="lora")
        adapters.describe(partial, outcome.description)
        complete_model(folder, partial, refuse_answerable=0.05, with_intents=False, on_done=lambda *args: None)
    bot = answering.load(folder, system="byheart", max_words=150, max_citations=2)
    assert isinstance(bot, BatchAnswerer)
    known = bot.answer("find boards")
    assert known.text == "Open the menu and find boards settings."
    assert known.citations[0].section_id == "boards"
    assert not known.abstained
    unknown = bot.answer("what is the weather ?")
    assert unknown.abstained
    assert unknown.text.startswith(REFUSAL)
    assert isinstance(bot, WrittenAnswerer)
    served = bot.in_batches()
    assert asyncio.run(served.answer_async("find boards")) == known
    assert asyncio.run(served.answer_async("what is the weather ?")).abstained
    together = bot.answer_many(["find boards", "", "what is the weather ?"], lambda done: None)
    assert [item.text for item in together] == [known.text, "Please ask a question about the manual.", unknown.text]
    # Receipts would put the manual's passage in the place of what it makes up, and give it the credit.
    untrained = answering.load(folder, system="untrained", max_words=150, max_citations=2).answer("find boards")
    most_tokens = outcome.description.longest_answer
    own = adapters.load_untrained_writer(folder / "4-model").answers([("find boards", ())], most_tokens=most_tokens)
    assert [untrained.text] == own != [known.text]
