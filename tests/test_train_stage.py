"""The train stage from pairs to model, on a tiny random BERT."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from byheart.errors import TrainError
from byheart.evaluate.history import parse_steps
from byheart.models.adapters import load_trained, read_description
from byheart.progress import Progress, StageResult, silent
from byheart.store import RunFolder
from byheart.train import loop, plan, retrieval, stage
from byheart.train.checkpoint import CHECKPOINT
from training import TOPICS, default_pairs, pair, small_project, tiny_bert


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_bert(tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(autouse=True)
def frequent_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "LEAST_STEPS_BETWEEN_VALIDATIONS", 3)


class Killed(BaseException):
    """Stands for kill -9: nothing in byheart catches it."""


class Watcher:
    """A Notify that remembers, and does something at a step."""

    def __init__(self, at_step: int = -1, act: Any = None) -> None:
        self.at_step = at_step
        self.act = act
        self.messages: list[str] = []
        self.steps: list[int] = []

    def __call__(self, event: Progress) -> None:
        if event.message:
            self.messages.append(event.message)
        elif event.task == loop.TASK:
            self.steps.append(int(event.done))
            if event.done == self.at_step:
                self.act()


def die() -> None:
    raise Killed


def weights(folder: RunFolder) -> bytes:
    return (folder / "4-model" / "adapter_model.safetensors").read_bytes()


def run(folder: Path, base: str, notify: Any = silent, **train: Any) -> tuple[RunFolder, StageResult]:
    project, run_folder = small_project(folder, base, **train)
    return run_folder, stage.run(project, run_folder, notify)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, base: str) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "LEAST_STEPS_BETWEEN_VALIDATIONS", 3)
        folder, _ = run(tmp_path_factory.mktemp("whole"), base)
    return weights(folder)


def test_training_lowers_the_loss_on_unseen_phrasing_and_leaves_a_model_that_loads(tmp_path: Path, base: str) -> None:
    folder, result = run(tmp_path, base, epochs=20)
    steps = [json.loads(line) for line in (folder / "4-steps.jsonl").read_text().splitlines()]
    unseen = [step["unseen_loss"] for step in steps if step["unseen_loss"] is not None]
    assert steps[0]["step"] == 0
    assert min(unseen) < 0.7 * unseen[0]
    assert [step["step"] for step in steps] == list(range(result.counts["steps"] + 1))
    assert len(parse_steps((folder / "4-steps.jsonl").read_text())) == len(steps)
    described = read_description(folder / "4-model")
    assert described.unseen_loss == min(unseen)
    assert steps[described.best_step]["unseen_loss"] == min(unseen)
    encoder = load_trained(folder / "4-model", precision="fp32")
    questions = encoder.vectors([f"where is the menu for {topic} ?" for topic in TOPICS])
    passages = encoder.vectors([f"{topic}. Open the menu and find {topic} settings." for topic in TOPICS])
    assert ((questions @ passages.T).argmax(1) == range(len(TOPICS))).mean() >= 0.8
    assert not list(folder.path.glob("4-checkpoint*"))
    assert result.outputs == ("4-model", "4-steps.jsonl")


def test_the_loss_doctor_is_asked_at_each_validation_and_goes_on_after_a_broken_loss(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = retrieval.EncoderLearner.learn
    monkeypatch.setattr(
        retrieval.EncoderLearner, "learn", lambda self, step: float("nan") if step == 4 else learn(self, step)
    )
    watcher = Watcher()
    folder, result = run(tmp_path, base, watcher, auto=True)
    steps = [json.loads(line) for line in (folder / "4-steps.jsonl").read_text().splitlines()]
    assert all(step["diagnosis"] for step in steps[1:] if step["unseen_loss"] is not None)
    assert (steps[5]["train_loss"], steps[5]["diagnosis"]) == (None, "not a number")
    assert [step["rate_factor"] for step in steps[5:7]] == pytest.approx([1.0, 1 / 3])
    assert "step 5, not a number: the learning rate was lowered" in result.chosen["loss doctor"]
    assert any(line.startswith("loss doctor, step 5: not a number") for line in watcher.messages)


def test_choices_are_said_and_stored_with_their_reasons(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "ENOUGH_STEPS", 7)
    watcher = Watcher()
    _, result = run(tmp_path, base, watcher, learning_rate=None, epochs=None)
    said = "\n".join(watcher.messages)
    for name in ("train.precision", "train.learning_rate", "train.epochs", "trained weights", "end"):
        assert f"{name}: {result.chosen[name]}" in said
    assert result.chosen["train.learning_rate"].startswith("0.0001: ")
    assert result.chosen["train.epochs"].startswith("2: ")
    assert "not in byheart's catalogue" in result.chosen["trained weights"]


@pytest.mark.parametrize("step", [1, 4, 7, 11])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, base: str, undisturbed: bytes, step: int) -> None:
    project, folder = small_project(tmp_path, base)
    with pytest.raises(Killed):
        stage.run(project, folder, Watcher(step, die))
    again = Watcher()
    stage.run(project, folder, again)
    assert weights(folder) == undisturbed
    assert again.steps[0] == step - step % 3 + 1  # it was saved at every third step


def test_a_process_killed_by_the_system_goes_on_to_the_same_weights(
    tmp_path: Path, base: str, undisturbed: bytes
) -> None:
    project, folder = small_project(tmp_path, base)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from byheart.train import plan, stage\n"
        "from training import small_project\n"
        "plan.LEAST_STEPS_BETWEEN_VALIDATIONS = 3\n"
        "def notify(event):\n"
        "    if event.task == 'training' and event.done == 8: os.kill(os.getpid(), 9)\n"
        "project, folder = small_project(Path(sys.argv[1]), sys.argv[2])\n"
        "stage.run(project, folder, notify)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path), base], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    again = Watcher()
    stage.run(project, folder, again)
    assert again.steps[0] == 7
    assert weights(folder) == undisturbed


def test_ctrl_c_saves_the_step_at_hand(tmp_path: Path, base: str, undisturbed: bytes) -> None:
    project, folder = small_project(tmp_path, base)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        stage.run(project, folder, Watcher(4, lambda: signal.raise_signal(signal.SIGINT)))
    assert signal.getsignal(signal.SIGINT) is before
    again = Watcher()
    stage.run(project, folder, again)
    assert again.steps[0] == 6  # the signal came after the fourth step: the fifth was finished and saved
    assert weights(folder) == undisturbed


def test_a_run_killed_after_its_last_step_trains_no_more(tmp_path: Path, base: str, undisturbed: bytes) -> None:
    project, folder = small_project(tmp_path, base)
    with pytest.raises(Killed):
        stage.run(project, folder, Watcher(12, die))
    again = Watcher()
    result = stage.run(project, folder, again)
    assert again.steps == []
    assert result.counts["steps"] == 12
    assert weights(folder) == undisturbed


@pytest.mark.parametrize("name", ["weights.safetensors", "moments.safetensors", "best.safetensors", "state.json"])
def test_a_torn_checkpoint_is_refused_and_said(tmp_path: Path, base: str, undisturbed: bytes, name: str) -> None:
    project, folder = small_project(tmp_path, base)
    with pytest.raises(Killed):
        stage.run(project, folder, Watcher(7, die))
    path = folder / CHECKPOINT / name
    path.write_bytes(path.read_bytes()[:-20])
    again = Watcher()
    stage.run(project, folder, again)
    assert again.steps[0] == 1
    assert any("4-checkpoint is not used" in message and "torn" in message for message in again.messages)
    assert weights(folder) == undisturbed


def test_the_checkpoint_before_is_used_where_a_kill_fell_between_two_renames(
    tmp_path: Path, base: str, undisturbed: bytes
) -> None:
    project, folder = small_project(tmp_path, base)
    with pytest.raises(Killed):
        stage.run(project, folder, Watcher(7, die))
    (folder / CHECKPOINT).rename(folder / f"{CHECKPOINT}.old")
    again = Watcher()
    stage.run(project, folder, again)
    assert again.steps[0] == 7
    assert weights(folder) == undisturbed
    assert not list(folder.path.glob("4-checkpoint*"))


def test_a_checkpoint_of_another_config_is_refused(tmp_path: Path, base: str) -> None:
    project, folder = small_project(tmp_path, base)
    with pytest.raises(Killed):
        stage.run(project, folder, Watcher(7, die))
    other, _ = small_project(tmp_path, base, learning_rate=0.02)
    again = Watcher()
    stage.run(other, folder, again)
    assert again.steps[0] == 1
    assert any("another config" in message for message in again.messages)


def test_training_stops_early_and_keeps_the_best_weights(tmp_path: Path, base: str) -> None:
    folder, result = run(tmp_path, base, learning_rate=0.5, epochs=40, patience=2)
    assert result.counts["steps"] < 80
    assert "stopped early" in result.chosen["end"]
    steps = parse_steps((folder / "4-steps.jsonl").read_text())
    unseen = {step.step: step.unseen_loss for step in steps if step.unseen_loss is not None}
    best = min(unseen, key=lambda step: unseen[step] or 0.0)
    assert read_description(folder / "4-model").best_step == best
    assert f"step {best} is kept" in result.chosen["end"]


def test_weights_that_never_beat_the_untrained_ones_are_not_kept(tmp_path: Path, base: str) -> None:
    project, folder = small_project(tmp_path, base, patience=3, epochs=20)
    # Unseen phrasings that contradict the training: the more is learned, the higher their loss.
    learned = [item for item in default_pairs() if item.split == "train"]
    after = dict(zip(TOPICS, TOPICS[1:] + TOPICS[:1], strict=True))
    folder.write(
        "3-pairs.jsonl", [*learned, *(pair(t, "unseen phrasing", question=f"find {after[t]}") for t in TOPICS)]
    )
    result = stage.run(project, folder, silent)
    assert read_description(folder / "4-model").best_step == 0
    assert result.counts["steps"] == 9
    adapter = load_file(folder / "4-model" / "adapter_model.safetensors")
    assert all(tensor.abs().max() == 0 for name, tensor in adapter.items() if "lora_B" in name)


def test_without_unseen_phrasing_the_last_weights_are_kept(tmp_path: Path, base: str) -> None:
    project, folder = small_project(tmp_path, base)
    folder.write("3-pairs.jsonl", [item for item in default_pairs() if item.split == "train"])
    result = stage.run(project, folder, silent)
    assert "no unseen phrasing" in result.chosen["validation"]
    described = read_description(folder / "4-model")
    assert (described.best_step, described.unseen_loss) == (12, None)


def test_a_loss_that_is_no_number_ends_training_with_advice(tmp_path: Path, base: str) -> None:
    with pytest.raises(TrainError, match=r"step \d+ of 12.*Set train.learning_rate lower \(a tenth: 1e\+29\)"):
        run(tmp_path, base, learning_rate=1e30)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], "no training question"),
        ([pair("boards", "unseen phrasing"), pair("boards", "outside", section_id="")], "no training question"),
        ([pair("gone", "train")], "no training question"),
        ([pair("boards", "train"), pair("boards", "train", question="find boards")], "a single passage"),
    ],
)
def test_pairs_that_teach_nothing_are_an_error_with_a_way_out(
    tmp_path: Path, base: str, pairs: list[Any], expected: str
) -> None:
    project, folder = small_project(tmp_path, base)
    folder.write("3-pairs.jsonl", pairs)
    with pytest.raises(TrainError, match=expected):
        stage.run(project, folder, silent)


def test_full_fine_tuning_trains_and_loads(tmp_path: Path, base: str) -> None:
    folder, result = run(tmp_path, base, method="full", learning_rate=None)
    assert result.chosen["train.learning_rate"].startswith("1e-05: ")
    assert (folder / "4-model" / "model.safetensors").exists()
    before = load_file(Path(base) / "model.safetensors")["encoder.layer.0.attention.self.query.weight"]
    after = load_trained(folder / "4-model").model.state_dict()["encoder.layer.0.attention.self.query.weight"]
    assert not after.cpu().equal(before)


def test_method_none_serves_the_base_model(tmp_path: Path, base: str) -> None:
    folder, result = run(tmp_path, base, method="none")
    assert result.counts["steps"] == 0
    assert (folder / "4-steps.jsonl").read_text() == ""
    assert read_description(folder / "4-model").method == "none"
    assert load_trained(folder / "4-model").dimensions == 32


def test_bf16_trains_weights_in_fp32(tmp_path: Path, base: str) -> None:
    folder, result = run(tmp_path, base, precision="bf16")
    assert result.chosen["train.precision"].startswith("bf16: ")
    adapter = load_file(folder / "4-model" / "adapter_model.safetensors")
    assert {str(tensor.dtype) for tensor in adapter.values()} == {"torch.float32"}


def test_the_model_folder_names_no_path_of_this_machine(tmp_path: Path, base: str) -> None:
    folder, _ = run(tmp_path, base)
    assert base not in (folder / "4-model" / "adapter_config.json").read_text()
    files = [path for path in (folder / "4-model").iterdir() if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
