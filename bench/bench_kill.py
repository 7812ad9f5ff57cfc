"""Does a run that is killed at random moments end as one that was not? Kills whole runs with kill -9 and compares.

    python bench/bench_kill.py examples/whiteboard/manual --rounds 5

One run is left alone. In every round another one, of the same manual and settings, is killed at a random moment of each
stage, once or more, and started again. Its records, model and grades must be the same byte for byte; what tells the
time (seconds of a step or an answer, the date of the manifest) is left out. Prints in which stages the kills fell.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from byheart.store import MANIFEST, RunFolder, file_digest

SETTINGS = ("train.epochs=0.2", "evaluate.max_questions_per_split=20", "evaluate.baselines=false")
EXACT = ("2-sections.jsonl", "2-facts.jsonl", "3-pairs.jsonl", "3-rejected.jsonl", "4-model", "5-grades.jsonl")
TIMED = ("4-steps.jsonl", "5-predictions.jsonl")
WAIT_S = 0.1  # between looks at which stage runs
STAGES = ("ingest", "synthesize", "train", "evaluate")


def start(bot: Path) -> subprocess.Popen[bytes]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return subprocess.Popen(
        [sys.executable, "-m", "byheart", "run", str(bot), *settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def new_bot(folder: Path, manual: Path) -> Path:
    folder.mkdir()
    (folder / "byheart.yaml").write_text(f"docs: {json.dumps(str(manual.resolve()))}\n", encoding="utf-8")
    return folder


def finish(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"byheart run ended with {process.returncode}:\n{said.decode(errors='replace')}")


def results(bot: Path) -> dict[str, Any]:
    """Return what must be the same, by file."""
    run = bot / "run"
    found: dict[str, Any] = {name: file_digest(run / name) for name in EXACT}
    return found | {name: without_seconds(run / name) for name in TIMED}


def without_seconds(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file without what a clock told."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def running_stage(bot: Path) -> str:
    """Return the first stage that has no mark yet."""
    done = RunFolder(bot / "run").marks() if (bot / "run" / MANIFEST).exists() else {}
    return next((stage for stage in STAGES if stage not in done), "after the last stage")


def stage_seconds(process: subprocess.Popen[bytes], bot: Path) -> dict[str, float]:
    """Follow a run to its end, and return how long each of its stages took."""
    took = dict.fromkeys(STAGES, 0.0)
    while process.poll() is None:
        if (stage := running_stage(bot)) in took:
            took[stage] += WAIT_S
        time.sleep(WAIT_S)
    finish(process)
    return took


def killed_run(
    bot: Path, *, usual_s: dict[str, float], kills: int, chance: random.Random
) -> collections.Counter[str]:  # fmt: skip
    """Run the bot to its end, killing it `kills` times in each stage, and return in which stages it was killed."""
    hit: collections.Counter[str] = collections.Counter()
    for stage in [stage for stage in STAGES for _ in range(kills)]:
        process = start(bot)
        while process.poll() is None and running_stage(bot) != stage:
            time.sleep(WAIT_S)
        try:
            process.wait(timeout=chance.uniform(0.0, usual_s[stage]))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            hit[running_stage(bot)] += 1
        else:
            finish(process)
    finish(start(bot))
    return hit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manual", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="runs that are killed")
    parser.add_argument("--kills", type=int, default=1, help="in each stage of one run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    differ = 0
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = new_bot(Path(folder) / "undisturbed", arguments.manual)
        usual_s = stage_seconds(start(undisturbed), undisturbed)
        print("a run left alone: " + ", ".join(f"{stage} {took:.0f} s" for stage, took in usual_s.items()), flush=True)
        wanted = results(undisturbed)
        for number in range(arguments.rounds):
            bot = new_bot(Path(folder) / f"killed-{number}", arguments.manual)
            hit = killed_run(bot, usual_s=usual_s, kills=arguments.kills, chance=chance)
            found = results(bot)
            other = [name for name in wanted if found[name] != wanted[name]]
            differ += bool(other)
            where = ", ".join(f"{stage} {count}" for stage, count in hit.items()) or "none"
            print(f"round {number + 1}: killed {hit.total()} times ({where}); {other or 'the same'}", flush=True)
    print(f"{arguments.rounds - differ} of {arguments.rounds} killed runs ended as the one left alone")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
