"""How fast does training go? python bench/bench_train_encoder.py [RUN_FOLDER] [--steps 6]

Measures forward, backward and the optimizer's step of byheart's batches (starter, LoRA, precision as chosen for this
machine) against the plain way: sentence-transformers with MultipleNegativesRankingLoss in fp32, all weights trained,
one passage encoded for every question. Both learn from the same questions, taking turns step by step in one process,
so that a busy machine slows both alike. Prints questions and tokens a second of each, and their ratio; 1 to 2 minutes.
Without a run folder (one that `byheart synthesize` has filled) it makes up a manual of 200 sections.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.util import batch_to_device

from byheart.catalog import STARTER
from byheart.models import adapters
from byheart.models.encoder import MAX_TOKENS, load_encoder
from byheart.models.hub import model_source
from byheart.models.precision import choose_precision
from byheart.store import RunFolder
from byheart.train import plan, retrieval
from byheart.train.batches import Batch, Example, Schedule
from byheart.train.loss import batch_loss

WARM_UP_STEPS = 2  # the first ones compile and allocate


def main() -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_folder", nargs="?", type=Path)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    examples = retrieval.read_examples(RunFolder(arguments.run_folder)).train if arguments.run_folder else invented()
    sections = max(example.section for example in examples) + 1
    schedule = Schedule(examples, neighbours=[[]] * sections, batch_size=plan.BATCH_SIZE, seed=0)
    batches = [schedule.batch(step) for step in range(WARM_UP_STEPS + arguments.steps)]
    ours, tokens = byheart_step()
    ways = {"byheart": ours, "sentence-transformers": plain_step()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for batch in batches:
        for name, step in ways.items():
            started = time.perf_counter()
            step(batch)
            seconds[name].append(time.perf_counter() - started)
    measured = batches[WARM_UP_STEPS:]
    per_second = {}
    for name, all_seconds in seconds.items():
        median_s = statistics.median(all_seconds[WARM_UP_STEPS:])
        per_second[name] = statistics.mean(len(batch.questions) for batch in measured) / median_s
        passages = (lambda b: b.passages) if name == "byheart" else (lambda b: [b.passages[k] for k in b.positives])
        length = statistics.mean(tokens([*batch.questions, *passages(batch)]) for batch in measured)
        print(
            f"{name:22} {per_second[name]:8.1f} questions/s {length / median_s:8.0f} tokens/s {median_s:6.2f} s a step"
        )
    ratio = per_second["byheart"] / per_second["sentence-transformers"]
    print(f"byheart trains {ratio:.1f} times as many questions a second ({choose_precision()[1]})")


def invented() -> list[Example]:
    """Return questions about 200 sections of 20 to 140 words."""
    pick = random.Random(0)
    words = "board card vote timer guest role export team colour page menu button opens shows sets the a of to".split()
    passages = [" ".join(pick.choices(words, k=pick.randint(20, 140))) for _ in range(200)]
    return [
        Example("How do I " + " ".join(pick.choices(words, k=8)) + "?", (f"{section} {number}",), section, passage)
        for section, passage in enumerate(passages)
        for number in range(8)
    ]


def byheart_step() -> tuple[Callable[[Batch], None], Callable[[list[str]], int]]:
    encoder = load_encoder(STARTER)
    torch.manual_seed(0)
    lora = adapters.LoraSettings(targets="all-linear", rank=32, alpha=64, dropout=0.0)
    adapters.prepare(encoder, base_model=STARTER, method="lora", lora=lora)
    encoder.model.train()
    optimizer = torch.optim.AdamW(adapters.trainable(encoder).values(), lr=1e-4)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        batch_loss(encoder, batch, passage_tokens=MAX_TOKENS).loss.backward()
        optimizer.step()

    def tokens(texts: list[str]) -> int:
        return sum(map(len, encoder.tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]))

    return step, tokens


def plain_step() -> Callable[[Batch], None]:
    model: Any = SentenceTransformer(model_source(STARTER))
    model.train()
    loss = losses.MultipleNegativesRankingLoss(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        passages = [batch.passages[position] for position in batch.positives]
        features = [model.preprocess(list(batch.questions)), model.preprocess(passages)]
        loss([batch_to_device(feature, model.device) for feature in features], None).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
