"""How long until a manual is known by heart, beside other tools? python bench/bench_train_recall.py [--facts 20]

Invented facts, which no question tells, each asked in eight ways. A small GPT-2 that knows how such answers look, from
other facts, learns them: the same weights, rows, batch, rate, schedule and optimizer for all tools, all weights and
LoRA. Every few steps it is asked about every fact in a ninth way; the time of that is not counted. Prints the wall
and CPU seconds until 95 % of the answers, written greedily, are right to the last token, and how many times byheart's
they are. "spaced" is byheart's `train.repetition: spaced`; "own recipe" trains with the batch, rate and passes that
`byheart train` chooses for such a model and data, so not with the same ones.

Each training is a process of its own; the tools take turns. The other tools and their settings are peers.py's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
from typing import Any

import bench_train
import peers
from bench_train import Measured
from peers import Clock, Task

OURS = ("byheart", "byheart, spaced", "byheart, own recipe")
ENOUGH = 0.95
ASKED_AT_ONCE = 32
LANGUAGE_PASSES = 10  # over other facts, so that a LoRA has something to adapt


def main() -> None:
    """Prepare, let the tools take turns, and print a table for each method."""
    parser = bench_train.turns_parser(__doc__, repeats=3, passes=20, work="/tmp/byheart-bench-train-recall")
    parser.add_argument("--facts", type=int, default=20)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256, help="of the model")
    parser.add_argument("--vocabulary", type=int, default=16384)
    parser.add_argument("--rate", type=float, default=1e-3, help="of all weights; three times as high for LoRA")
    parser.add_argument("--every", type=int, default=10, help="steps between measurements")
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(time_to_recall(*arguments.child, arguments)))
        return
    systems = bench_train.systems_of(arguments, ours=OURS)
    pythons = bench_train.pythons_of(systems, arguments.work)
    prepare(arguments)
    systems = bench_train.worthwhile(systems, arguments.work)
    print(f"{arguments.facts} facts in 8 ways; {arguments.threads} threads; load {os.getloadavg()[0]:.1f}", flush=True)
    for method in arguments.methods.split(","):
        runs: dict[str, list[Measured]] = {system: [] for system in systems}
        for repeat in range(arguments.repeats):
            for system in systems[repeat % len(systems) :] + systems[: repeat % len(systems)]:
                command = [pythons[system.split(",")[0]], __file__, "--child", system, method, "--work", arguments.work,
                           "--passes", arguments.passes, "--every", arguments.every,
                           "--rate", arguments.rate, "--threads", arguments.threads]  # fmt: skip
                runs[system].append(bench_train.child([str(word) for word in command]))
                print(f"  {method}, {system}: {runs[system][-1]}", file=sys.stderr, flush=True)
        show(method, runs)


def prepare(arguments: argparse.Namespace) -> None:
    """Write a model that knows the language, and as tokens what is learned and what is asked."""
    import random

    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from bench_repetition import ASKED, UNSEEN
    from bench_repetition import facts as made
    from byheart.catalog import find_model
    from byheart.chat import bind
    from byheart.models.precision import choose_precision
    from byheart.models.scratch import train_tokenizer

    work, width = arguments.work, arguments.width
    chance = random.Random(0)
    learned, others = (chance.sample(made(chance), arguments.facts) for _ in range(2))
    asked = [(UNSEEN.format(what), answer) for what, answer in learned]
    rows, language = (
        [(ask.format(what), answer) for what, answer in some for ask in ASKED] for some in (learned, others)
    )
    entry = find_model("distilgpt2")
    assert entry
    texts = [text for pair in (*rows, *language, *asked) for text in pair]
    tokenizer = train_tokenizer(dataclasses.replace(entry, shape={**entry.shape, "vocab_size": 8192}), texts)
    chat, _ = bind(tokenizer, entry, encoder_decoder=False)

    def tokens(pairs: list[tuple[str, str]]) -> list[tuple[Any, Any]]:
        return [(example.prompt, example.answer) for example in chat.examples([(q, a, ()) for q, a in pairs])]

    torch.manual_seed(0)
    without_dropout: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(
        n_layer=arguments.layers, n_embd=width, n_head=max(1, width // 64), vocab_size=arguments.vocabulary,
        bos_token_id=0, eos_token_id=0, **without_dropout,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")
    task = Task("byheart", "full", work, tokens(language), LANGUAGE_PASSES, arguments.rate, Clock())
    _, model = bench_train.byheart(task)
    model.save_pretrained(work / "model")
    (work / "rows.json").write_text(json.dumps({"train": tokens(rows), "asked": tokens(asked)}), encoding="utf-8")
    in_bf16 = choose_precision("auto")[0] == torch.bfloat16
    (work / "bf16.json").write_text(json.dumps(in_bf16), encoding="utf-8")


class Exam:
    """Asks every so many steps, its clock stopped meanwhile, until enough is known (a peers.Watch)."""

    def __init__(self, asked: list[Any], *, every: int) -> None:
        self._asked = sorted(asked, key=lambda pair: len(pair[0]) + len(pair[1]))
        self._every = every
        self.clock = Clock()
        self.found: Measured = {"wall": 0.0, "cpu": 0.0, "steps": 0, "recall": 0.0}

    def __call__(self, step: int, model: Any) -> bool:
        if step % self._every:
            return False
        self.clock.stop()
        self.found |= {"wall": self.clock.wall, "cpu": self.clock.cpu, "steps": step}
        was_training = model.training
        model.eval()
        self.found["recall"] = self._recall(model)
        model.train(was_training)
        self.clock.start()
        return self.found["recall"] >= ENOUGH

    def _recall(self, model: Any) -> float:
        """Return the share of answers that greedy decoding gives: those each of whose tokens is likeliest after the
        ones before it.
        """
        import torch

        right = 0
        for first in range(0, len(self._asked), ASKED_AT_ONCE):
            pairs = self._asked[first : first + ASKED_AT_ONCE]
            # Filled up behind the answer, where a decoder does not look.
            ids_B_T = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(prompt + answer) for prompt, answer in pairs], batch_first=True
            )
            with torch.inference_mode():
                likeliest_B_T = model(input_ids=ids_B_T).logits.argmax(-1)
            for likeliest_T, (prompt, answer) in zip(likeliest_B_T.tolist(), pairs, strict=True):
                right += likeliest_T[len(prompt) - 1 : len(prompt) + len(answer) - 1] == answer
        return right / len(self._asked)


def time_to_recall(system: str, method: str, arguments: argparse.Namespace) -> Measured:
    """Train until enough is known, and return the seconds, the steps and the share that is known."""
    import torch

    torch.set_num_threads(arguments.threads)
    rows = json.loads((arguments.work / "rows.json").read_text(encoding="utf-8"))
    exam = Exam(rows["asked"], every=arguments.every)
    rate = arguments.rate * (3 if method == "lora" else 1)
    task = Task(system, method, arguments.work, rows["train"], arguments.passes, rate, exam.clock, watch=exam)
    if "own recipe" in system:
        task = with_own_recipe(task)
    (bench_train.byheart if system.startswith("byheart") else peers.train)(task)
    return exam.found


def with_own_recipe(task: Task) -> Task:
    """Return the task with the batch, rate and passes that byheart chooses where the config leaves them open."""
    from transformers import AutoModelForCausalLM

    from byheart.train.plan import WRITING_EPOCHS, choose_writing_recipe

    chosen = choose_writing_recipe(
        from_scratch=False,
        is_full=task.method == "full",
        parameters=AutoModelForCausalLM.from_pretrained(task.work / "model").num_parameters(),
        examples=len(task.rows),
        tokens_per_epoch=sum(len(prompt) + len(answer) for prompt, answer in task.rows),
        learning_rate=None, batch_size=None, epochs=None, validations_per_epoch=1, patience=1, seed=0,
    )  # fmt: skip
    return dataclasses.replace(
        task, batch=chosen.batch_size, rate=chosen.recipe.learning_rate, passes=WRITING_EPOCHS
    )  # fmt: skip


def show(method: str, runs: dict[str, list[Measured]]) -> None:
    """Print a method's table: medians, and how many times byheart's they are."""
    middle = {
        system: {key: statistics.median(run[key] for run in all_runs) for key in all_runs[0]}
        for system, all_runs in runs.items()
    }
    ours, wide = middle.get("byheart"), max(map(len, runs))
    print(f"\n{method}: until {ENOUGH:.0%} of the answers are right, median of {len(next(iter(runs.values())))}")
    print(f"{'':{wide}}{'wall s':>8}{'CPU s':>8}{'steps':>7}{'right':>7}   byheart")
    for system, found in middle.items():
        missed = sum(run["recall"] < ENOUGH for run in runs[system])
        ratio = f"{found['wall'] / ours['wall']:.1f}x wall, {found['cpu'] / ours['cpu']:.1f}x CPU" if ours else ""
        note = f"; {missed} not there at the end, so it takes longer" if missed else ""
        print(
            f"{system:{wide}}{found['wall']:8.1f}{found['cpu']:8.1f}{found['steps']:7.0f}{found['recall']:7.0%}"
            f"   {ratio}{note}",
            flush=True,
        )


if __name__ == "__main__":
    main()
