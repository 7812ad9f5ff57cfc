"""The pipeline: what is done, stale or missing, and why; a crash at any moment loses nothing and hides nothing."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from byheart import pipeline
from byheart.config import Config, Project
from byheart.config_file import load
from byheart.errors import MissingInputError, RunFolderError, TrainError
from byheart.progress import Notify, Progress, StageResult, silent
from byheart.store import MANIFEST, RunFolder, file_digest

ALL = ["ingest", "synthesize", "train", "evaluate"]
OUTPUTS = {
    "ingest": ("1-documents.jsonl", "2-sections.jsonl", "2-facts.jsonl"),
    "synthesize": ("3-pairs.jsonl",),
    "train": ("4-model",),
    "evaluate": ("5-metrics.json",),
}


@dataclasses.dataclass
class FakeStage:
    """Writes files that depend on the stages before alone, as a real stage does."""

    name: str
    ran: list[str]
    fault: BaseException | None = None

    def source_state(self, project: Project) -> str:
        return file_digest(project.folder / "manual")

    def run(self, project: Project, folder: RunFolder, notify: Notify) -> StageResult:
        self.ran.append(self.name)
        if self.fault:
            raise self.fault
        reads = next(stage.reads for stage in pipeline.STAGES if stage.name == self.name)
        text = self.source_state(project) if self.name == "ingest" else str([file_digest(folder / n) for n in reads])
        for name in OUTPUTS[self.name]:
            if name == "4-model":
                with folder.replacing(name) as partial:
                    partial.mkdir()
                    (partial / "weights").write_text(text)
            else:
                stamp = str(len(self.ran)) if name == "1-documents.jsonl" else ""  # as fetched_at: never the same
                folder.write_text(name, text + stamp)
        return StageResult(OUTPUTS[self.name], {"documents": 3}, {"batch_size": "8: fits"})


class Stages:
    def __init__(self) -> None:
        self.ran: list[str] = []
        self.faults: dict[str, BaseException] = {}

    def __call__(self, name: str) -> FakeStage:
        return FakeStage(name, self.ran, self.faults.get(name))


@pytest.fixture
def stages() -> Stages:
    return Stages()


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual" / "page.md").write_text("# Boards\nA board holds cards.")
    (tmp_path / "byheart.yaml").write_text("docs: manual\n")
    return tmp_path


def run(bot: Path, stages: Stages, *sets: str, only: str | None = None, start: str | None = None) -> list[str]:
    """Run, and return the stages that did run."""
    stages.ran.clear()
    pipeline.run(load(bot, sets).project, silent, only=only, start=start, import_stage=stages)
    return list(stages.ran)


def plan(bot: Path, stages: Stages, *sets: str, start: str | None = None) -> dict[str, tuple[str, str]]:
    steps = pipeline.plan(load(bot, sets).project, start=start, import_stage=stages)
    return {step.stage: (step.state, step.reason) for step in steps}


def test_all_stages_run_in_order_and_then_none(bot: Path, stages: Stages) -> None:
    assert {state for state, _ in plan(bot, stages).values()} == {"missing"}
    assert run(bot, stages) == ALL
    assert run(bot, stages) == []
    assert {state for state, _ in plan(bot, stages).values()} == {"done"}


def test_a_plan_leaves_no_traces(bot: Path, stages: Stages) -> None:
    plan(bot, stages)
    assert not (bot / "run").exists()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("ingest.max_pages=5", ["ingest"]),  # writes the same sections again: nothing after it has to run
        ("ingest.language=de", ["ingest", "synthesize"]),
        ("synthesize.seed=1", ["synthesize"]),
        ("train.epochs=3", ["train"]),
        ("base_model=bert", ["train"]),
        ("answer.max_words=99", ["evaluate"]),
        ("serve.port=9000", []),
        ("synthesize.concurrency=2", []),
        ("ingest.requests_per_second=9", []),
    ],
)
def test_a_setting_makes_stale_what_depends_on_it_and_nothing_else(
    bot: Path, stages: Stages, setting: str, expected: list[str]
) -> None:
    run(bot, stages)
    first_state, reason = next(
        ((state, why) for state, why in plan(bot, stages, setting).values() if state != "done"), ("done", "")
    )
    assert run(bot, stages, setting) == expected
    if expected:
        key, value = setting.split("=")
        assert first_state == "stale"
        assert f"{key} was" in reason
        assert f"is {value}" in reason.replace('"', "").replace(".0", "")


def test_every_setting_belongs_to_a_stage_to_serving_or_to_export() -> None:
    owned = {name.partition(".")[0] for stage in pipeline.STAGES for name in stage.settings}
    assert owned | {"serve", "chat", "docs_licence"} == set(Config.model_fields)


def test_a_changed_page_runs_everything_that_follows(bot: Path, stages: Stages) -> None:
    run(bot, stages)
    (bot / "manual" / "page.md").write_text("# Boards\nA board holds 500 cards.")
    told = plan(bot, stages)
    assert told["ingest"] == ("stale", "the manual changed")
    assert told["train"] == ("stale", "ingest comes first; runs again if that changes what goes in")
    assert run(bot, stages) == ALL


def test_changed_questions_are_evaluated_again(bot: Path, stages: Stages) -> None:
    (bot / "q.jsonl").write_text("1")
    run(bot, stages, "questions=q.jsonl")
    (bot / "q.jsonl").write_text("2")
    assert plan(bot, stages, "questions=q.jsonl")["evaluate"] == ("stale", "the questions in q.jsonl changed")
    assert run(bot, stages, "questions=q.jsonl") == ["evaluate"]


@pytest.mark.parametrize("name", ["3-pairs.jsonl", "4-model/weights", "2-facts.jsonl"])
@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_damaged_output_is_made_again(bot: Path, stages: Stages, name: str, damage: str) -> None:
    run(bot, stages)
    path = bot / "run" / name
    before = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(before[:-1])
    first_reason = next(why for state, why in plan(bot, stages).values() if state == "stale")
    assert first_reason.startswith(name.partition("/")[0])
    assert len(run(bot, stages)) == 1
    assert path.read_bytes() == before


def test_a_stage_that_fails_is_not_done_and_those_before_it_are(bot: Path, stages: Stages) -> None:
    stages.faults["train"] = TrainError("the loss is not a number")
    with pytest.raises(TrainError):
        run(bot, stages)
    stages.faults.clear()
    assert [state for state, _ in plan(bot, stages).values()] == ["done", "done", "missing", "missing"]
    assert run(bot, stages) == ["train", "evaluate"]


def test_from_runs_a_stage_and_those_after_it(bot: Path, stages: Stages) -> None:
    run(bot, stages)
    assert [state for state, _ in plan(bot, stages, start="train").values()] == ["done", "done", "stale", "stale"]
    assert run(bot, stages, start="train") == ["train", "evaluate"]


def test_one_stage_alone_needs_those_before_it(bot: Path, stages: Stages) -> None:
    with pytest.raises(MissingInputError, match=r"train needs ingest: it has not run yet\. .* byheart run"):
        run(bot, stages, only="train")
    run(bot, stages, only="ingest")
    assert run(bot, stages, only="synthesize") == ["synthesize"]
    assert run(bot, stages, only="synthesize") == []
    assert run(bot, stages, only="synthesize", start="synthesize") == ["synthesize"]


def test_one_stage_alone_says_that_what_feeds_it_is_out_of_date(bot: Path, stages: Stages) -> None:
    run(bot, stages)
    events: list[Progress] = []
    project = load(bot, ["synthesize.seed=1", "train.epochs=1"]).project
    pipeline.run(project, events.append, only="train", import_stage=stages)
    assert any("synthesize is stale (synthesize.seed was 0, is 1)" in event.message for event in events)


def test_the_run_says_why_each_stage_runs(bot: Path, stages: Stages) -> None:
    events: list[Progress] = []
    pipeline.run(load(bot).project, events.append, import_stage=stages)
    pipeline.run(load(bot, ["train.epochs=2"]).project, events.append, import_stage=stages)
    told = [event.message for event in events]
    assert "ingest runs: it has not run yet" in told
    assert any(re.fullmatch(r"ingest is done in \d+\.\d s: 3 documents", message) for message in told)
    assert "train runs again: train.epochs was null, is 2.0" in told
    assert any(message.startswith("ingest is done: finished 20") for message in told)


def test_the_resolved_config_lies_beside_the_results(bot: Path, stages: Stages) -> None:
    run(bot, stages, "train.epochs=3")
    written = yaml.safe_load((bot / "run" / "config.yaml").read_text())
    assert written["train"]["epochs"] == 3
    assert written["docs"] == ["manual"]


def test_two_runs_of_one_bot_do_not_mix(bot: Path, stages: Stages) -> None:
    with RunFolder(bot / "run").locked(), pytest.raises(RunFolderError, match=f"in use by .*{os.getpid()}"):
        run(bot, stages)
    assert run(bot, stages) == ALL


def test_estimates_come_from_the_last_run_or_from_the_manuals_size(bot: Path, stages: Stages) -> None:
    before = pipeline.plan(load(bot).project, import_stage=stages)
    assert before[0].minutes == pytest.approx(pipeline.STAGES[0].seconds_per_document / 60)
    site = pipeline.plan(load(bot, ["docs=https://help.example.com"]).project, import_stage=stages)
    assert site[0].minutes is None
    run(bot, stages)
    after = pipeline.plan(load(bot).project, import_stage=stages)
    assert [step.minutes for step in after] == [step.mark.seconds / 60 for step in after if step.mark]


def test_the_estimate_counts_what_the_mix_adds_to_the_questions(bot: Path, stages: Stages) -> None:
    def minutes(*overrides: str) -> float:
        found = pipeline.plan(load(bot, ["base_model=gpt2", *overrides]).project, import_stage=stages)[2].minutes
        assert found
        return found

    questions = pipeline.STAGES[2].seconds_per_document / 60
    assert minutes("train.mix_documents=0", "train.mix_conversations=0") == pytest.approx(questions)
    assert minutes() == pytest.approx(questions / 0.55)
    assert minutes("base_model=starter") == minutes("base_model=scratch:gpt2-10m") == pytest.approx(questions)
    assert minutes("answer.grounding=retrieve") == pytest.approx(questions / 0.25)
    run(bot, stages, "base_model=gpt2")
    folder = RunFolder(bot / "run")
    went_in = folder.marks()["train"].went_in
    folder.mark_done("train", went_in=went_in, outputs=OUTPUTS["train"], seconds=600, chosen={}, counts={})
    assert minutes() == pytest.approx(10)
    assert minutes("train.mix_documents=0.7") == pytest.approx(10 * 0.55 / 0.25)


def test_a_bot_that_is_to_read_passages_is_trained_again_where_that_changes_what_it_learns(
    bot: Path, stages: Stages
) -> None:
    def why(*overrides: str) -> str:
        run(bot, stages, *overrides)
        step = pipeline.plan(load(bot, [*overrides, "answer.grounding=retrieve"]).project, import_stage=stages)[2]
        return f"{step.state}: {step.reason}"

    assert why("base_model=gpt2") == 'stale: answer.grounding was not there, is "retrieve"'
    assert why("base_model=gpt2", "train.mix_passages=0.3").startswith("done")
    assert why("base_model=starter").startswith("done")


def test_another_mix_or_another_file_to_replay_makes_the_training_stale(bot: Path, stages: Stages) -> None:
    (bot / "general.jsonl").write_text('{"question": "Why?", "answer": "So."}')
    run(bot, stages, "train.replay=general.jsonl")

    def why(*overrides: str) -> str:
        step = pipeline.plan(load(bot, ["train.replay=general.jsonl", *overrides]).project, import_stage=stages)[2]
        return f"{step.state}: {step.reason}"

    assert why().startswith("done")
    assert why("train.mix_documents=0.3") == "stale: train.mix_documents was null, is 0.3"
    (bot / "general.jsonl").write_text('{"question": "Why?", "answer": "Because."}')
    assert why() == "stale: the conversations in general.jsonl changed"


def test_choices_are_named_after_their_setting_where_there_is_one(bot: Path, stages: Stages) -> None:
    run(bot, stages)
    found = pipeline.choices(load(bot).project)
    assert found["train.batch_size"] == "8: fits"
    assert "evaluate.batch_size" in found


def test_a_torn_manifest_line_costs_one_stage_and_no_more(bot: Path, stages: Stages) -> None:
    run(bot, stages)
    manifest = bot / "run" / MANIFEST
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-20] + "é".encode()[:1])
    assert run(bot, stages) == ["evaluate"]
    assert run(bot, stages) == []


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_pipeline import Stages
from byheart import pipeline, store
from byheart.config_file import load
from byheart.progress import silent

countdown = {countdown}
def traced(real):
    def call(*args, **kwargs):
        global countdown
        countdown -= 1
        if countdown == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
for module, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (os, "mkdir"), (store, "_remove")):
    setattr(module, name, traced(getattr(module, name)))
pipeline.run(load(Path({bot!r}), {sets!r}).project, silent, import_stage=Stages())
"""


@pytest.mark.slow
@pytest.mark.parametrize("countdown", range(1, 70, 3))
def test_killed_at_any_step_on_the_disk_it_ends_as_if_nothing_had_been(
    bot: Path, stages: Stages, countdown: int
) -> None:
    run(bot, stages, "synthesize.seed=1")  # the killed run replaces an older one
    (bot / "manual" / "page.md").write_text("# Boards\nNew.")
    code = KILLED.format(tests=str(Path(__file__).parent), countdown=countdown, bot=str(bot), sets=["train.epochs=2"])
    killed = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert killed.returncode in {-signal.SIGKILL, 0}
    run(bot, stages, "train.epochs=2")
    names = ["2-sections.jsonl", "2-facts.jsonl", "3-pairs.jsonl", "4-model", "5-metrics.json"]
    resumed = [file_digest(bot / "run" / name) for name in names]
    assert run(bot, stages, "train.epochs=2") == []
    run(bot, stages, "train.epochs=2", start="ingest")
    assert resumed == [file_digest(bot / "run" / name) for name in names]
    assert "missing" not in resumed
