"""Does a training that is killed with kill -9, again and again, end with the weights of one that was left alone?

    python bench/bench_kill_training.py --kills 200

A tiny GPT-2 with random weights is trained with LoRA (with dropout), and with all weights in spaced repetition under
the loss doctor: about a second a training. One of each is left alone. The others are killed after some random CPU time,
half of them at a random moment of the save that follows, and started again, until they end. Their weights, and every
loss on the way, must be the same bit by bit, nothing may be left over, and a training may never go on from an older
step than the last one saved. Each start is a real process, forked from one that has imported everything, so that it
takes a tenth of a second.

What comes after the weights (the index, the calibration) is left out: bench_kill.py kills whole runs.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # a process with threads must not be forked
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psutil
import torch
from accelerate.utils import extract_model_from_parallel
from transformers import GPT2LMHeadModel, GPT2Tokenizer  # noqa: F401  imported now, not after each fork

from bench_kill import without_seconds
from byheart.catalog import find_model
from byheart.config import Project
from byheart.progress import Progress
from byheart.store import RunFolder, file_digest
from byheart.train import plan, stage
from byheart.train.checkpoint import CHECKPOINT
from tiny_models import tiny_model
from training import default_pairs, small_project

EPOCHS = 8  # with a save after each: about a second
SETTINGS: dict[str, dict[str, Any]] = {
    "LoRA": {"lora_dropout": 0.1, "lora_rank": 8, "lora_alpha": 16},
    "all weights, spaced": {"method": "full", "repetition": "spaced", "auto": True},
}
LATEST = 0.5  # share of a whole training's CPU time in which a start is killed
AIMED = 0.5  # share of the kills that wait for a save
SAVED_FILES = 5  # of a checkpoint
LOOK_EVERY_S = 0.003
LOOK_CLOSELY_S = 0.0005  # for a save
TRACES = {  # what a kill leaves behind in the midst of it
    "saving a checkpoint": (f"{CHECKPOINT}.partial", f"{CHECKPOINT}.old"),
    "writing the result": (f"{stage.MODEL}.partial", f"{stage.MODEL}.old", f"{stage.STEPS}.partial"),
}

State = dict[Path, tuple[int, int]]


@dataclasses.dataclass
class Training:
    """A training in a folder of its own, as often as it is started."""

    project: Project
    folder: RunFolder
    resumed: list[int] = dataclasses.field(default_factory=list)  # the step that each start went on from

    @property
    def log(self) -> Path:
        return self.folder.path.parent / "log"

    def start(self) -> int:
        """Fork a process that trains, and return its id."""
        self.log.write_text("", encoding="utf-8")
        process = os.fork()
        if not process:
            self._train()
        return process

    def _train(self) -> NoReturn:
        code = 1
        try:
            with self.log.open("w", encoding="utf-8", buffering=1) as log:

                def note(event: Progress) -> None:
                    log.write(f"{event.message or event.done}\n")

                try:
                    stage.run(self.project, self.folder, note)
                    code = 0
                except BaseException:  # noqa: BLE001  whatever it is, it must not go on as a copy of the parent
                    traceback.print_exc(file=log)
        finally:
            os._exit(code)

    def account(self, *, every: int, before: int) -> int:
        """Note where the last start went on from, and return the step that is surely saved (`before`: until then)."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        resumed = next((int(line.rsplit(" ", 1)[1]) for line in lines if " at step " in line[-16:]), None)
        steps = [int(line) for line in lines if line.isdigit()]
        if resumed is not None or steps:
            self.resumed.append(resumed or 0)
            if (resumed or 0) < before:
                sys.exit(f"step {before} was saved, but it went on from step {resumed or 0}:\n{self.log.read_text()}")
        return max([before, resumed or 0, *(step for step in steps if step % every == 0)])

    def traces(self) -> State:
        """Return what is there of interrupted writing, and since when: earlier kills leave traces, too."""
        paths = [self.folder / name for names in TRACES.values() for name in names]
        return {path: stamp for path in paths if (stamp := _stamp(path))}

    def results(self) -> dict[str, Any]:
        """Return what must be the same."""
        left = [path.name for path in self.folder.path.glob("4-*") if path.name not in stage.OUTPUTS]
        return {
            "weights": file_digest(self.folder / stage.MODEL),
            "losses": without_seconds(self.folder / stage.STEPS),
            "left over": left,
        }


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


def wait(process: int, until: Callable[[], bool], *, look_every_s: float = LOOK_CLOSELY_S) -> int | None:
    """Wait until the process ends, and return its exit code, or until something else; then None."""
    while not until():
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(look_every_s)
    return None


def save_has_come(training: Training, files: int) -> Callable[[], bool]:
    """Return whether the next save has begun so many files, or one more than there are: is being renamed into place."""
    partial, old = (training.folder / f"{CHECKPOINT}.{name}" for name in ("partial", "old"))
    before = _stamp(partial), _stamp(old)

    def has() -> bool:
        if files > SAVED_FILES:
            return _stamp(old) not in (None, before[1])
        try:
            return _stamp(partial) not in (None, before[0]) and sum(1 for _ in partial.iterdir()) >= files
        except FileNotFoundError:
            return False

    return has


def after_work(process: int, seconds: float) -> Callable[[], bool]:
    """Return whether a process has had so much CPU time: on a busy machine it would else be killed before it begins."""
    watched = psutil.Process(process)

    def had() -> bool:
        times = watched.cpu_times()
        return times.user + times.system >= seconds

    return had


def killed(training: Training, *, longest_s: float, chance: random.Random) -> str:
    """Start it, kill it at a random moment, and return what it was doing; "" where it ended before."""
    before = training.traces()
    process = training.start()
    code = wait(process, after_work(process, chance.uniform(0, longest_s)), look_every_s=LOOK_EVERY_S)
    if code is None and chance.random() < AIMED:
        code = wait(process, save_has_come(training, chance.randint(0, SAVED_FILES + 1)))
    if code is None:
        os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code == -signal.SIGKILL:
        new = {path.name for path, stamp in training.traces().items() if before.get(path) != stamp}
        return next((doing for doing, names in TRACES.items() if new.intersection(names)), "between")
    if code:
        sys.exit(f"the training ended with {code}:\n{training.log.read_text(encoding='utf-8')}")
    return ""


def left_alone(training: Training) -> float:
    """Train to the end, and return the CPU seconds of it."""
    before, process = _children_s(), training.start()
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
        sys.exit(f"the training failed:\n{training.log.read_text(encoding='utf-8')}")
    return _children_s() - before


def _children_s() -> float:
    """Return the CPU seconds of all processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def killed_training(
    training: Training, *, kills: int, every: int, longest_s: float, chance: random.Random
) -> collections.Counter[str]:
    """Train to the end with at most so many kills, and return what it was doing at each."""
    hit: collections.Counter[str] = collections.Counter()
    saved = 0
    while True:
        longest = longest_s if hit.total() < kills else float("inf")
        doing = killed(training, longest_s=longest, chance=chance)
        saved = training.account(every=every, before=saved)
        if not doing:
            return hit
        hit[doing] += 1


def new_training(folder: Path, base: Path, settings: dict[str, Any]) -> Training:
    project, run_folder = small_project(folder, str(base), **{"epochs": EPOCHS, "batch_size": 4} | settings)
    return Training(project, run_folder)


def make_base(folder: Path) -> None:
    """Save the tiny model, in a process of its own: what makes a tokenizer leaves threads behind."""
    if not (process := os.fork()):
        entry = find_model("distilgpt2")
        assert entry
        tiny_model(entry, folder, texts=[text for pair in default_pairs() for text in (pair.question, pair.answer)])
        os._exit(0)
    os.waitpid(process, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    vars(plan)["ASKED_QUESTIONS"] = 2  # else most of the time goes into the recall
    vars(stage)["_finish"] = lambda *words: {}  # what comes after the weights
    extract_model_from_parallel(torch.nn.Identity())  # imports what saving a model does: two seconds where DeepSpeed is
    hits: collections.Counter[str] = collections.Counter()
    differ = resumed = 0
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        make_base(base)
        alone = {kind: new_training(Path(name) / f"alone, {kind}", base, more) for kind, more in SETTINGS.items()}
        times = {kind: left_alone(training) for kind, training in alone.items()}
        wanted = {kind: training.results() for kind, training in alone.items()}
        every = {
            kind: next(row["step"] for row in found["losses"] if row["step"] and row["unseen_loss"] is not None)
            for kind, found in wanted.items()
        }
        for kind, whole_s in times.items():
            print(f"{kind}, left alone: {whole_s:.1f} CPU s, with a save every {every[kind]} steps", flush=True)
        for number, kind in enumerate(itertools.cycle(SETTINGS)):
            if hits.total() >= arguments.kills:
                break
            training = new_training(Path(name) / f"killed {number}", base, SETTINGS[kind])
            hit = killed_training(
                training, kills=arguments.kills - hits.total(), every=every[kind], longest_s=LATEST * times[kind],
                chance=chance,
            )  # fmt: skip
            found = training.results()
            other = [what for what, value in wanted[kind].items() if found[what] != value]
            hits += hit
            differ += bool(other)
            resumed += sum(step > 0 for step in training.resumed)
            where = ", ".join(f"{doing} {count}" for doing, count in hit.items()) or "not at all"
            said = f"other {', '.join(other)}" if other else "the same bit by bit"
            print(f"{number + 1}. {kind}: killed {where}; {said}; {hits.total()} kills so far", flush=True)
    print(
        f"{number} trainings, {hits.total()} kills ({', '.join(f'{doing} {hits[doing]}' for doing in hits)}), "
        f"{resumed} times gone on from a checkpoint: {number - differ} ended as the one left alone, {differ} did not"
    )
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
