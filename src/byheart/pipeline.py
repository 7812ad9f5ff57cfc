"""The stages in order: what is done, what is stale and why, and running what is not done.

A stage is done when its mark says so, the files it wrote are still the same, and nothing that went in has changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from byheart.catalog import find_model
from byheart.config import Project
from byheart.config_file import is_address
from byheart.config_settings import as_yaml, settings, value_of
from byheart.errors import MissingInputError
from byheart.progress import Notify, Progress, StageResult
from byheart.store import Mark, RunFolder, file_digest, fingerprint
from byheart.train import mix

State = Literal["done", "stale", "missing"]
ImportStage = Callable[
    [str], Any
]  # stage name -> its module: run(project, folder, notify), ingest's source_state(project)

RESOLVED_CONFIG = "config.yaml"
_ASKED_FOR = "you asked for it"

# Settings that change how a stage gets there, never what it writes: turning them must not throw work away.
_WITHOUT_EFFECT_ON_RESULTS = {
    "ingest.requests_per_second",
    "synthesize.api_key_env",
    "synthesize.concurrency",
    "synthesize.timeout_s",
    "synthesize.max_retries",
    "synthesize.max_calls",
    "train.sharding",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """One step of the way from manual to report."""

    name: str  # the entrance is byheart.<name>.stage.run
    settings: tuple[str, ...]  # groups and keys that its result depends on
    reads: tuple[str, ...]  # what earlier stages wrote
    version: int  # raise it when the stage writes something else from the same input
    seconds_per_document: float  # for the estimate before the first run


# Seconds per document are rough, for the first estimate alone (later ones go by the last run): the starter and the
# offline teacher on two cores, at the budget of 15 minutes for 212 pages.
STAGES = (
    Stage("ingest", settings=("docs", "ingest"), reads=(), version=1, seconds_per_document=0.1),
    Stage(
        "synthesize",
        settings=("synthesize", "ingest.language"),
        reads=("2-sections.jsonl", "2-facts.jsonl"),
        version=3,
        seconds_per_document=0.5,
    ),
    Stage(
        "train",
        settings=("base_model", "train", "answer.refuse_answerable"),
        reads=("2-sections.jsonl", "2-facts.jsonl", "3-pairs.jsonl", "3-typical.jsonl"),
        version=5,
        seconds_per_document=2.5,
    ),
    Stage(
        "evaluate",
        settings=("questions", "answer", "evaluate"),
        reads=("2-sections.jsonl", "2-facts.jsonl", "3-pairs.jsonl", "4-model"),
        version=2,
        seconds_per_document=1.0,
    ),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """A stage in the plan."""

    stage: str
    state: State
    reason: str
    minutes: float | None  # an estimate; None where the size of the manual is not known yet
    mark: Mark | None  # of the last time it finished


def import_stage(name: str) -> Any:
    """Import a stage at its turn: torch and its kin take seconds, and neither a typo nor --help must wait for them."""
    return importlib.import_module(f"byheart.{name}.stage")


def plan(project: Project, *, start: str | None = None, import_stage: ImportStage = import_stage) -> list[Step]:
    """Say for each stage what a run would do, and why. `start`: the first stage that runs even if it is done."""
    marks = _marks(project.run_path)
    documents = _documents(project, marks)
    steps: list[Step] = []
    forced = False
    for stage in STAGES:
        forced = forced or stage.name == start
        state, reason = _state(stage, project, marks.get(stage.name), import_stage)
        waiting = next((step.stage for step in steps if step.state != "done"), None)
        if state == "done" and forced:
            state, reason = "stale", _ASKED_FOR
        elif state == "done" and waiting:
            state, reason = "stale", f"{waiting} comes first; runs again if that changes what goes in"
        mark = marks.get(stage.name)
        minutes = _minutes(stage, mark, documents)
        if minutes is not None and stage.name == "train":
            minutes *= _reads_more(project, mark)
        steps.append(Step(stage.name, state, reason, minutes, mark))
    return steps


def run(
    project: Project,
    notify: Notify,
    *,
    only: str | None = None,
    start: str | None = None,
    import_stage: ImportStage = import_stage,
) -> dict[str, Mark]:
    """Run every stage that is not done, and return the marks of all that are.

    `only`: no other stage than this one; `start`: the first stage that runs even if it is done.
    """
    folder = RunFolder(project.run_path)
    with folder.locked():
        folder.write_text(RESOLVED_CONFIG, as_yaml(project.config, {}))
        forced = False
        for stage in STAGES:
            forced = forced or stage.name == start
            mark = folder.marks().get(stage.name)
            state, reason = _state(stage, project, mark, import_stage)
            if state == "done" and forced:
                state, reason = "stale", _ASKED_FOR
            if only and stage.name != only:
                _require(stage, state, reason, needed_by=only, notify=notify)
            elif state == "done":
                notify(Progress(stage.name, message=f"{stage.name} is done: {reason}"))
            else:
                verb = "runs" if state == "missing" else "runs again"
                notify(Progress(stage.name, message=f"{stage.name} {verb}: {reason}"))
                _run_stage(stage, project, folder, notify, import_stage)
            if stage.name == only:
                break
        return folder.marks()


def follow(project: Project, name: str, *, start: str | None = None, import_stage: ImportStage = import_stage) -> None:
    """Take part in a stage that another process runs, as one of many ranks; return at once where it is done.

    Every rank sees the same marks, and so comes to the same plan. Only the first one, in `run`, writes.
    """
    step = next(step for step in plan(project, start=start, import_stage=import_stage) if step.stage == name)
    if step.state != "done":
        import_stage(name).follow(project, RunFolder(project.run_path))


def choices(project: Project) -> dict[str, str]:
    """Return what the stages chose by themselves and why: setting (or "stage.name") -> "value: reason"."""
    known = settings()
    return {
        name if name in known else f"{stage}.{name}": why
        for stage, mark in _marks(project.run_path).items()
        for name, why in mark.chosen.items()
    }


def _run_stage(stage: Stage, project: Project, folder: RunFolder, notify: Notify, import_stage: ImportStage) -> None:
    went_in = _went_in(stage, project, import_stage)  # before it runs: what changes meanwhile is seen by the next run
    started = time.monotonic()
    result: StageResult = import_stage(stage.name).run(project, folder, notify)
    mark = folder.mark_done(
        stage.name,
        went_in=went_in,
        outputs=result.outputs,
        seconds=time.monotonic() - started,
        chosen=result.chosen,
        counts=result.counts,
    )
    made = ", ".join(f"{count:,} {name}" for name, count in mark.counts.items())
    notify(Progress(stage.name, message=f"{stage.name} is done in {mark.seconds:.1f} s: {made}"))


def _require(stage: Stage, state: State, reason: str, *, needed_by: str, notify: Notify) -> None:
    """Refuse to go on without an earlier stage; warn where it is out of date."""
    if state == "missing":
        raise MissingInputError(f"{needed_by} needs {stage.name}: {reason}. Run both with: byheart run")
    if state == "stale":
        advice = f"{needed_by} uses what it wrote before; byheart run brings both up to date"
        notify(Progress(needed_by, message=f"{stage.name} is stale ({reason}): {advice}"))


def _state(stage: Stage, project: Project, mark: Mark | None, import_stage: ImportStage) -> tuple[State, str]:
    """Tell whether a stage is done, and why (not)."""
    if mark is None:
        return "missing", "it has not run yet"
    for name, digest in mark.outputs.items():
        found = file_digest(project.run_path / name)
        if found != digest:
            return "stale", f"{name} is {'gone' if found == 'missing' else 'not what it wrote (changed or damaged)'}"
    went_in = _went_in(stage, project, import_stage)
    if fingerprint(went_in) == mark.fingerprint:
        return "done", f"finished {mark.finished_at.replace('T', ' ').removesuffix('+00:00')} UTC"
    changes = [
        _change(name, before=mark.went_in.get(name), now=went_in.get(name))
        for name in sorted(went_in.keys() | mark.went_in.keys())
        if went_in.get(name) != mark.went_in.get(name)
    ]
    rest = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return "stale", "; ".join(changes[:3]) + rest


def _change(name: str, *, before: str | None, now: str | None) -> str:
    if name in settings():
        return f"{name} was {before or 'not there'}, is {now or 'not there'}"
    return f"{name} changed"


def _went_in(stage: Stage, project: Project, import_stage: ImportStage) -> dict[str, str]:
    """Return all that a stage's result depends on, by name."""
    went_in = {"the way byheart does it": str(stage.version)}
    for key in settings():
        group = key.partition(".")[0]
        if (key in stage.settings or group in stage.settings) and key not in _WITHOUT_EFFECT_ON_RESULTS:
            went_in[key] = json.dumps(value_of(project.config, key), ensure_ascii=False)
    for name in stage.reads:
        went_in[name] = file_digest(project.run_path / name)
    if stage.name == "ingest":
        went_in["the manual"] = fingerprint(import_stage("ingest").source_state(project))
    if stage.name == "train" and project.config.train.replay:
        name = project.config.train.replay
        went_in[f"the conversations in {name}"] = file_digest(project.folder / name)
    if stage.name == "train" and _learns_to_read(project):
        went_in["answer.grounding"] = json.dumps(project.config.answer.grounding)
    if stage.name == "evaluate":
        for name in project.config.questions:
            went_in[f"the questions in {name}"] = file_digest(project.folder / name)
    return went_in


def _learns_to_read(project: Project) -> bool:
    """Tell whether passages are learned from because the bot reads some: a model that writes, and no share is set."""
    entry, config = find_model(project.config.base_model), project.config
    is_told = config.train.mix_passages is not None or (entry and (entry.family == "encoder" or entry.from_scratch))
    return config.answer.grounding == "retrieve" and not is_told


def _marks(run_path: Path) -> dict[str, Mark]:
    """Return the marks without making a run folder: a plan leaves no traces."""
    return RunFolder(run_path).marks() if run_path.is_dir() else {}


def _minutes(stage: Stage, mark: Mark | None, documents: int | None) -> float | None:
    """Estimate from the last time where there was one."""
    if mark is not None:
        return mark.seconds / 60
    return None if documents is None else stage.seconds_per_document * documents / 60


def _reads_more(project: Project, mark: Mark | None) -> float:
    """Return how many times as many tokens as last time are read in an epoch; the first time, as the questions have.

    The mix of the training alone tells: where the model or the questions are others, it is an estimate like before.
    """
    keys = (
        "base_model", "answer.grounding", "train.epochs", "train.replay",
        *(f"train.mix_{name}" for name in mix.NAMES),
    )  # fmt: skip
    now = {key: value_of(project.config, key) for key in keys}
    before = {key: json.loads(mark.went_in[key]) for key in keys if key in mark.went_in} if mark else {}
    return _question_share(before) / _question_share(now)


def _question_share(went_in: Mapping[str, Any]) -> float:
    """Return the share of questions in the tokens that a training reads; 1 where the mix does not make it longer."""
    entry = find_model(went_in.get("base_model", ""))
    from_scratch = bool(entry and entry.from_scratch)
    is_budget = from_scratch and went_in.get("train.epochs") is None  # so many tokens, whatever they are
    if "train.mix_documents" not in went_in or is_budget or (entry and entry.family == "encoder"):
        return 1.0
    shares, _ = mix.choose_shares(
        **{name: went_in.get(f"train.mix_{name}") for name in mix.NAMES}, has_replay=bool(went_in["train.replay"]),
        reads=went_in.get("answer.grounding") == "retrieve", from_scratch=from_scratch,
    )  # fmt: skip
    return shares.questions


def _documents(project: Project, marks: dict[str, Mark]) -> int | None:
    """Return how many documents the manual has: as ingested, else counted in its folders; None for a site."""
    if "ingest" in marks and "documents" in marks["ingest"].counts:
        return marks["ingest"].counts["documents"]
    if any(is_address(source) for source in project.config.docs):
        return None
    return sum(_files_under(project.folder / source) for source in project.config.docs)


def _files_under(path: Path) -> int:
    if not path.is_dir():
        return 1
    with contextlib.suppress(OSError):  # an unreadable folder is ingest's to report; this is only an estimate
        return sum(1 for item in path.rglob("*") if item.is_file())
    return 0
