"""How fast does a model that writes learn, beside other tools? python bench/bench_train.py [--peers all] [--passages 8]

The same DistilGPT-2-shaped model (random weights), the same rows (pairs that byheart made from the example manual), the
same passes, rate and optimizer, all weights and LoRA. Each training is a process of its own; the tools take turns, so
that a busy machine slows all alike. Prints for each the median of wall and CPU seconds of the training itself, learned
tokens a second, the process's peak memory, the loss on held-out rows after it, and the share of the matrix product's
measured speed that the needed arithmetic comes to, each row counted whole.

With --passages N, each N questions are asked with the same 160 words of the manual in their prompts, as a bot that
reads passages is trained.

The tools, their settings and their installation are peers.py's; `--peers all` adds LLaMA-Factory to TRL.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peers
from peers import LORA, Clock, Task

ROOT = Path(__file__).resolve().parent.parent
RATES = {"full": 3e-4, "lora": 1e-3}
HELD_OUT = 64
PASSAGE_WORDS = 160  # in a prompt
Measured = dict[str, float]
Asked = tuple[str, str]  # with the answer


def main() -> None:
    """Prepare, let the tools take turns, and print a table for each method."""
    parser = turns_parser(__doc__, repeats=5, passes=1, work="/tmp/byheart-bench-train")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--passages", type=int, default=0, metavar="N", help="N questions about each; 0: no passages")
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(train_one(*arguments.child, arguments.work, arguments.passes, arguments.threads)))
        return
    systems = systems_of(arguments, ours=("byheart",))
    pythons = pythons_of(systems, arguments.work)
    shape = prepare(arguments.work, rows=arguments.rows, about_each=arguments.passages)
    systems = worthwhile(systems, arguments.work)
    precision = "bf16" if peers.in_bf16_here(arguments.work) else "fp32"
    peak = matmul_flops(arguments.threads, precision)
    mean, learned = shape["tokens"] / arguments.rows, shape["learned"] / shape["tokens"]
    about = f", {arguments.passages} about each passage" if arguments.passages else ""
    print(f"{arguments.rows} rows of {mean:.0f} tokens{about}, {learned:.0%} learned; {arguments.threads} threads")
    load = f"load of the machine {os.getloadavg()[0]:.1f}"
    print(f"matrix product in {precision} {peak / 1e9:.0f} GFLOP/s; {load}", flush=True)
    for method in arguments.methods.split(","):
        runs: dict[str, list[Measured]] = {system: [] for system in systems}
        for repeat in range(arguments.repeats):
            for system in systems[repeat % len(systems) :] + systems[: repeat % len(systems)]:
                python = pythons[system.split(",")[0]]
                command = [python, __file__, "--child", system, method, "--work", arguments.work,
                           "--passes", arguments.passes, "--threads", arguments.threads]  # fmt: skip
                runs[system].append(child([str(word) for word in command]))
                print(f"  {method}, {system}: {runs[system][-1]}", file=sys.stderr, flush=True)
        show(method, runs, shape, passes=arguments.passes, peak=peak)


def turns_parser(description: str | None, *, repeats: int, passes: int, work: str) -> argparse.ArgumentParser:
    """Return a parser of what any comparison of tools that take turns is asked."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--passes", type=int, default=passes, help="over the rows, in which the rate falls to 0")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--methods", default="full,lora")
    parser.add_argument("--peers", choices=("trl", "all"), default="trl", help="all: LLaMA-Factory, too")
    parser.add_argument("--systems", help="these alone, separated by semicolons")
    parser.add_argument("--work", type=Path, default=Path(work))
    parser.add_argument("--child", nargs=2, metavar=("SYSTEM", "METHOD"), help=argparse.SUPPRESS)
    return parser


def systems_of(arguments: argparse.Namespace, *, ours: Sequence[str]) -> list[str]:
    """Return what takes turns: what was asked for, or byheart's and the peers' ways."""
    if arguments.systems:
        return list(arguments.systems.split(";"))
    return [*ours, *peers.TRL, *(peers.LLAMA_FACTORY if arguments.peers == "all" else ())]


def pythons_of(systems: Sequence[str], work: Path) -> dict[str, Path]:
    """Return for the name of each tool the Python that it is installed for."""
    tools = {system.split(",")[0] for system in systems}
    return {tool: Path(sys.executable) if tool == "byheart" else peers.python_of(tool, work) for tool in tools}


def worthwhile(systems: Sequence[str], work: Path) -> list[str]:
    """Return what is not hopelessly slow here: bf16 weights are where bf16 is emulated."""
    return [system for system in systems if peers.in_bf16_here(work) or not system.endswith(peers.IN_BF16)]


def prepare(work: Path, *, rows: int, about_each: int = 0) -> dict[str, int]:
    """Write the model and the rows, as tokens, and return the numbers of tokens, learned ones, and weights.

    `about_each`: how many rows have the same passage in their prompts; 0: none has any.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from byheart.catalog import find_model
    from byheart.chat import bind
    from byheart.config import Config, Project
    from byheart.models.precision import choose_precision
    from byheart.models.scratch import train_tokenizer
    from byheart.pipeline import run
    from byheart.progress import silent
    from byheart.store import RunFolder
    from byheart.train.writing import read_conversations

    project = Project(folder=work, config=Config(docs=(str(ROOT / "examples" / "whiteboard" / "manual"),)))
    for stage in ("ingest", "synthesize"):
        run(project, notify=silent, only=stage)
    data = read_conversations(RunFolder(project.run_path))
    entry = find_model("distilgpt2")
    assert entry
    texts = [text for conversation in data.train for text in conversation]
    tokenizer = train_tokenizer(dataclasses.replace(entry, shape={**entry.shape, "vocab_size": 8192}), texts)
    chat, _ = bind(tokenizer, entry, encoder_decoder=False)
    torch.manual_seed(0)
    no_dropout: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = GPT2LMHeadModel(GPT2Config(n_layer=6, bos_token_id=0, eos_token_id=0, **no_dropout))
    model.save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")
    chosen, held_out = data.train[:: max(1, len(data.train) // rows)][:rows], data.unseen[:HELD_OUT]
    if about_each:
        chosen, held_out = with_passages(RunFolder(project.run_path), rows=rows, about_each=about_each)
    made = {
        name: [(example.prompt, example.answer) for example in chat.examples([(q, a, ()) for q, a in part])]
        for name, part in (("train", chosen), ("held out", held_out))
    }
    (work / "rows.json").write_text(json.dumps(made), encoding="utf-8")
    in_bf16 = choose_precision("auto")[0] == torch.bfloat16
    (work / "bf16.json").write_text(json.dumps(in_bf16), encoding="utf-8")
    return {
        "tokens": sum(len(prompt) + len(answer) for prompt, answer in made["train"]),
        "learned": sum(len(answer) for _, answer in made["train"]),
        "blocks": sum(weight.numel() for weight in model.transformer.h.parameters()),
        "head": model.lm_head.weight.numel(),
    }


def with_passages(folder: Any, *, rows: int, about_each: int) -> tuple[list[Asked], list[Asked]]:
    """Return training questions, so many about each of some sections, and held-out ones, each with its passage to read.

    The sections with the most different answers are taken, and of them the longest: a model's are longer than the
    offline teacher's.
    """
    from byheart.answer.grounds import SHOWN, grounded
    from byheart.records import Pair
    from byheart.train.lessons import read_manual

    passages = read_manual(folder).passages
    first = {passage.section_id: place for place, passage in reversed(list(enumerate(passages)))}
    asked: dict[tuple[str, str], dict[str, list[Asked]]] = {}
    for pair in folder.read("3-pairs.jsonl", Pair):
        if pair.section_id in first:
            place = first[pair.section_id]  # what follows on the page fills it up
            prompt = grounded(pair.question, passages[place : place + SHOWN], max_words=PASSAGE_WORDS)
            asked.setdefault((pair.section_id, pair.split), {}).setdefault(pair.answer, []).append(
                (prompt, pair.answer)
            )
    groups = []
    for (section, split), by_answer in asked.items():
        in_turn = [item for turn in itertools.zip_longest(*by_answer.values()) for item in turn if item]
        chosen = sorted(in_turn[: max(about_each, len(by_answer))], key=lambda item: -len(item[1]))[:about_each]
        if split == "train" and len(chosen) == about_each:
            groups.append((chosen, next(iter(asked.get((section, "unseen phrasing"), {}).values()), [])[:1]))
    groups.sort(
        key=lambda group: (-len({answer for _, answer in group[0]}), -sum(len(answer) for _, answer in group[0]))
    )
    taken = groups[: -(-rows // about_each)]
    if len(taken) * about_each < rows:
        sys.exit(f"the manual has {len(taken)} sections with {about_each} questions, too few for {rows} rows")
    rows_of_all = [item for chosen, _ in taken for item in chosen][:rows]
    return rows_of_all, [item for _, held_out in taken for item in held_out][:HELD_OUT]


def matmul_flops(threads: int, precision: str) -> float:
    """Return the operations a second of a large matrix product in the faster format here: the best of a few."""
    import torch

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = torch.randn(1536, 1536, dtype=dtype), torch.randn(1536, 1536, dtype=dtype)
    best = float("inf")
    for _ in range(12):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return float(2 * 1536**3 / best)


def child(command: list[str]) -> Measured:
    """Return what a training in its own process measured."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    measured: Measured = json.loads(done.stdout.splitlines()[-1])
    return measured


def train_one(system: str, method: str, work: Path, passes: int, threads: int) -> Measured:
    """Train, and return seconds, peak memory in MB, steps, and the loss a token on held-out rows."""
    import torch

    torch.set_num_threads(threads)
    rows = json.loads((work / "rows.json").read_text(encoding="utf-8"))
    clock = Clock()
    task = Task(system, method, work, rows["train"], passes, RATES[method], clock)
    steps, model = (byheart if system.startswith("byheart") else peers.train)(task)
    measured = {"wall": clock.wall, "cpu": clock.cpu, "peak_mb": clock.peak_mb, "steps": steps}
    lost = learned = 0.0
    model.eval()
    with torch.inference_mode():
        for prompt, answer in rows["held out"]:
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].float()
            lost += float(torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
            learned += len(answer)
    return measured | {"loss": lost / learned}


class Enough(Exception):  # noqa: N818  not an error
    """Training ends, as the watch has seen enough."""


def byheart(task: Task) -> tuple[int, Any]:
    """Train with byheart, and return the steps that it made and the model."""
    import torch

    from byheart.chat import Example
    from byheart.models import adapters
    from byheart.models.writer import load_writer
    from byheart.progress import Progress, silent
    from byheart.train import loop
    from byheart.train.answers import UnseenQuestions, WriterLearner, length_of
    from byheart.train.buckets import Buckets
    from byheart.train.prefixes import groups_of
    from byheart.train.spaced import Spaced

    writer = load_writer(str(task.work / "model"), family="causal")
    examples = [Example(tuple(prompt), tuple(answer)) for prompt, answer in task.rows]
    lora = adapters.LoraSettings("all-linear", rank=LORA["r"], alpha=LORA["lora_alpha"], dropout=0.0)  # type: ignore[arg-type]
    torch.manual_seed(0)
    adapters.prepare(writer, base_model=str(task.work / "model"), method=task.method, lora=lora)  # type: ignore[arg-type]
    order = (Spaced if "spaced" in task.system else Buckets)(
        [length_of(example) for example in examples], batch_size=task.batch, seed=0,
        facts=[(str(example.answer),) for example in examples], groups=groups_of(examples),
    )  # fmt: skip
    steps = order.steps_per_epoch * task.passes
    recipe = loop.Recipe(total_steps=steps, learning_rate=task.rate, validate_every=steps, patience=1, seed=0)
    done = 0

    def note(event: Progress) -> None:
        nonlocal done
        if event.message:
            return
        done = event.done
        if task.watch and task.watch(done, writer.model):
            raise Enough

    task.clock.start()
    learner = WriterLearner(writer, examples, order, UnseenQuestions([], [], 0), micro_batch=task.batch, notify=silent)
    with contextlib.suppress(Enough):
        loop.train(learner=learner, recipe=recipe, state=None, save=lambda state: None, notify=note)
    task.clock.stop()
    return done, writer.model


def show(method: str, runs: dict[str, list[Measured]], shape: dict[str, int], *, passes: int, peak: float) -> None:
    """Print a method's table: medians, and how often byheart is as fast."""
    # Forward, and backward to what came in and to the weights, which LoRA leaves out (its own are few).
    per_weight = 6 if method == "full" else 4
    needed = passes * per_weight * (shape["blocks"] * shape["tokens"] + shape["head"] * shape["learned"])
    middle = {
        system: {key: statistics.median(run[key] for run in all_runs) for key in all_runs[0]}
        for system, all_runs in runs.items()
    }
    ours, wide = middle.get("byheart"), max(map(len, runs))
    print(f"\n{method}: median of {len(next(iter(runs.values())))}")
    print(
        f"{'':{wide}}{'wall s':>8}{'CPU s':>8}{'tokens/s':>10}{'peak MB':>9}{'steps':>7}{'loss':>8}{'of peak':>9}"
        "   byheart"
    )
    for system, found in middle.items():
        ratio = f"{found['wall'] / ours['wall']:.1f}x wall, {found['cpu'] / ours['cpu']:.1f}x CPU" if ours else ""
        print(
            f"{system:{wide}}{found['wall']:8.1f}{found['cpu']:8.1f}{passes * shape['learned'] / found['wall']:10.0f}"
            f"{found['peak_mb']:9.0f}{found['steps']:7.0f}{found['loss']:8.3f}"
            f"{needed / found['wall'] / peak:9.0%}   {ratio}",
            flush=True,
        )


if __name__ == "__main__":
    main()
