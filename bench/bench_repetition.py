"""Does spaced repetition learn a manual faster than uniform epochs? python bench/bench_repetition.py [--seeds 3]

A small Llama with random weights learns invented facts, each in a few phrasings; some facts have an eighth of the
phrasings of others, as in a manual of which some pages are long. Both orders make as many steps from the same start.
Prints the share of all facts answered word for word in a phrasing that was not trained on, beside CPU seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import time

import torch

from byheart.catalog import find_model
from byheart.models.scratch import make_scratch
from byheart.progress import silent
from byheart.train import loop
from byheart.train.answers import UnseenQuestions, WriterLearner, length_of
from byheart.train.buckets import Buckets
from byheart.train.spaced import Spaced

ASKED = ("How do I {}?", "{}: how?", "What must I do to {}?", "Please tell me how to {}.", "I want to {}.",
         "Is there a way to {}?", "Where can I {}?", "Can you explain how to {}?")  # fmt: skip
UNSEEN = "Show me how to {}."
VERBS = ("move", "lock", "share", "export", "rename", "merge", "archive", "print", "filter", "copy")
THINGS = ("a board", "a card", "a timer", "a vote", "a frame", "a guest", "a team", "a template")
PLACES = ("menu", "sidebar", "dashboard", "toolbar", "settings", "gallery", "footer", "panel")
KEYS = ("red", "green", "round", "left", "upper", "second", "last", "hidden")


def facts(rng: random.Random) -> list[tuple[str, str]]:
    """Return what can be done, and the sentence that says how: not to be guessed from the question."""
    return [
        (f"{verb} {thing}", f"Open the {rng.choice(PLACES)}, click the {rng.choice(KEYS)} button and wait "
                            f"{rng.randint(2, 90)} seconds.")
        for verb in VERBS for thing in THINGS
    ]  # fmt: skip


def train(repetition: str, *, count: int, seed: int, steps: int) -> list[tuple[float, float]]:
    """Return (CPU seconds, share of facts answered) at each of eight validations."""
    entry = find_model("scratch:llama-10m")
    assert entry
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
             "num_key_value_heads": 4, "head_dim": 32, "vocab_size": 600}  # fmt: skip
    known = random.Random(seed).sample(facts(random.Random(seed)), count)
    pairs = [
        (ask.format(what), answer, (what,))
        for number, (what, answer) in enumerate(known)
        for ask in ASKED[: 8 if number % 4 else 1]
    ]
    small = dataclasses.replace(entry, shape={**entry.shape, **shape})
    writer = make_scratch(small, [text for ask, answer, _ in pairs for text in (ask, answer)], seed=seed)
    examples = writer.chat.examples([(ask, answer, ()) for ask, answer, _ in pairs])
    unseen = [(UNSEEN.format(what), answer) for what, answer in known]
    order = (Spaced if repetition == "spaced" else Buckets)(
        [length_of(example) for example in examples], batch_size=8, seed=seed, facts=[fact for *_, fact in pairs]
    )
    held_out = writer.chat.examples([(ask, answer, ()) for ask, answer in unseen])
    learner = WriterLearner(
        writer, examples, order, UnseenQuestions(held_out, [], 40), micro_batch=8, notify=silent
    )  # fmt: skip
    recipe = loop.Recipe(
        total_steps=steps, learning_rate=2e-3, validate_every=steps // 8, patience=99, seed=seed
    )  # fmt: skip
    started = time.process_time()
    state = loop.train(learner=learner, recipe=recipe, state=None, save=lambda state: None, notify=silent)
    each_s = (time.process_time() - started) / steps
    return [
        (record.step * each_s, record.unseen_accuracy)
        for record in state.history
        if record.unseen_accuracy is not None and record.step
    ]


def main() -> None:
    """Train with each order and seed, in turns, and print the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--facts", type=int, default=20, help="of 80, with which 960 steps taught nothing")
    parser.add_argument("--steps", type=int, default=960)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    curves: dict[str, list[list[tuple[float, float]]]] = {"uniform": [], "spaced": []}
    for seed in range(arguments.seeds):
        for repetition, found in curves.items():
            found.append(train(repetition, count=arguments.facts, seed=seed, steps=arguments.steps))
            print(repetition, seed, " ".join(f"{share:.0%}" for _, share in found[-1]), flush=True)
    for repetition, found in curves.items():
        points = zip(*found, strict=True)
        said = [
            f"{statistics.mean(share for _, share in point):.0%} at {statistics.mean(s for s, _ in point):.0f} s"
            for point in points
        ]
        print(f"{repetition:8} answered: {', '.join(said)}")


if __name__ == "__main__":
    main()
