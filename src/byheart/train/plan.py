"""How long and how fast to train: what the config leaves open is chosen here, each choice with its reason."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from byheart.train.batches import Batch, Example
from byheart.train.loop import Recipe

LORA_RATE = 1e-4
FULL_RATE = LORA_RATE / 10  # LoRA's best rate is about ten times full fine-tuning's ("LoRA Without Regret", 2025)
BATCH_SIZE = 64  # questions: 16 sections, so 15 passages to tell each question's own from
MOST_EPOCHS = 2  # over the sections, each time with other questions
ENOUGH_STEPS = 150  # on a manual of 1,100 sections, 300 steps answered no more than 150 (docs/experiments.md)
# Seven minutes of the 15 that `byheart run` may take for 212 pages, at the 1,800 tokens a second that two cores train.
TOKEN_BUDGET = 7 * 60 * 1800
# A validation of 512 questions took six steps' time, as nearly every question has a passage of its own: of 256, three.
LEAST_STEPS_BETWEEN_VALIDATIONS = 25
VALIDATION_QUESTIONS = 256
NEIGHBOURS = 12
# For models that write answers:
SMALL = 1e9  # parameters: a model of fewer is fine-tuned with a higher rate, and several answers a step
SMALL_RATE = 5 * LORA_RATE  # narrow models bear more ("LoRA Without Regret"; docs/experiments.md)
SMALL_BATCH = 4  # after as many tokens, 16 or 32 answers a step had learned far less (docs/experiments.md)
SCRATCH_RATE = 1e-3
SCRATCH_TOKENS = 200_000  # what two cores train in about four minutes: of a large manual, a part of one epoch
WRITING_EPOCHS = 5
MEASURED_ANSWERS = 128  # unseen phrasings whose loss is measured
ASKED_QUESTIONS = 24  # of them, asked outright
VALIDATION_SHARE = 0.1  # of the time, at most
_ROWS_AT_ONCE = 512  # of the similarity matrix: 40 MB for 20,000 sections


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """The recipe, and under a setting's name "value: reason" for what the config left open."""

    recipe: Recipe
    reasons: dict[str, str]


def choose_recipe(
    *,
    is_full: bool,
    learning_rate: float | None,
    epochs: float | None,
    steps_per_epoch: int,
    tokens_per_step: int,
    validations_per_epoch: int,
    patience: int,
    seed: int,
    auto: bool = False,
) -> Chosen:
    """Return how to train. The choices depend on the data alone: every machine trains as many steps."""
    reasons = {}
    if learning_rate is None:
        learning_rate = FULL_RATE if is_full else LORA_RATE
        why = "a tenth of LoRA's, for all weights" if is_full else "the usual rate for LoRA"
        reasons["train.learning_rate"] = f"{learning_rate:g}: {why}"
    if epochs is None:
        affordable = TOKEN_BUDGET // tokens_per_step
        epochs = min(MOST_EPOCHS, max(1.0, min(ENOUGH_STEPS, affordable) / steps_per_epoch))
        if epochs == MOST_EPOCHS:
            why = "by then every section was asked about in 8 ways"
        elif epochs == 1.0:
            why = "every section once; more would take over seven minutes on two cores"
        elif affordable < ENOUGH_STEPS:
            why = f"what two cores train in seven minutes, at {tokens_per_step:,} tokens a step"
        else:
            why = f"{ENOUGH_STEPS} steps; more bring no more right answers"
        reasons["train.epochs"] = f"{epochs:.3g}: {why}"
    recipe = _recipe(
        reasons, epochs=epochs, steps_per_epoch=steps_per_epoch, validations_per_epoch=validations_per_epoch,
        least_between=LEAST_STEPS_BETWEEN_VALIDATIONS, learning_rate=learning_rate,
        patience=patience, seed=seed, auto=auto,
    )  # fmt: skip
    return Chosen(recipe, reasons)


@dataclasses.dataclass(frozen=True, slots=True)
class ChosenForWriting:
    """The recipe, the batch size, and under a setting's name "value: reason" for what the config left open."""

    recipe: Recipe
    batch_size: int
    reasons: dict[str, str]


def choose_writing_recipe(
    *,
    from_scratch: bool,
    is_full: bool,
    parameters: int,
    examples: int,
    tokens_per_epoch: int,
    learning_rate: float | None,
    batch_size: int | None,
    epochs: float | None,
    validations_per_epoch: int,
    patience: int,
    seed: int,
    auto: bool = False,
) -> ChosenForWriting:
    """Return how to train a model that writes. The choices depend on the data and the model alone."""
    reasons = {}
    if batch_size is None:
        batch_size, why = SMALL_BATCH, "small steps learn the most from as many tokens"
        if parameters >= SMALL:
            batch_size, why = 1, "one answer a step is learned the most exactly"
        reasons["train.batch_size"] = f"{batch_size}: {why}"
    if learning_rate is None:
        learning_rate, why = SCRATCH_RATE, "random weights have far to go"
        if not from_scratch:
            whose = "" if parameters >= SMALL else " and a model of less than a billion weights"
            learning_rate, why = LORA_RATE if parameters >= SMALL else SMALL_RATE, f"the usual rate for LoRA{whose}"
            if is_full:
                learning_rate, why = learning_rate / 10, f"a tenth of LoRA's, for all weights{whose}"
        reasons["train.learning_rate"] = f"{learning_rate:g}: {why}"
    if epochs is None:
        epochs = WRITING_EPOCHS
        reasons["train.epochs"] = f"{epochs:.3g}: at most; training stops where unseen phrasing gets no better"
        if from_scratch:
            epochs = SCRATCH_TOKENS / tokens_per_epoch
            reasons["train.epochs"] = f"{epochs:.3g}: {SCRATCH_TOKENS:,} tokens, about four minutes on two cores"
    steps_per_epoch = math.ceil(examples / batch_size)
    # A validation reads MEASURED_ANSWERS without gradients, a third of the work, and writes as much again.
    least = math.ceil(MEASURED_ANSWERS / batch_size * 2 / 3 / VALIDATION_SHARE)
    recipe = _recipe(
        reasons, epochs=epochs, steps_per_epoch=steps_per_epoch, validations_per_epoch=validations_per_epoch,
        least_between=max(1, min(steps_per_epoch, least)), learning_rate=learning_rate,
        patience=patience, seed=seed, auto=auto,
    )  # fmt: skip
    return ChosenForWriting(recipe, batch_size, reasons)


def _recipe(
    reasons: dict[str, str], *, epochs: float, steps_per_epoch: int, validations_per_epoch: int, least_between: int,
    learning_rate: float, patience: int, seed: int, auto: bool,
) -> Recipe:  # fmt: skip
    wanted = steps_per_epoch // validations_per_epoch
    validate_every = max(least_between, wanted)
    if wanted < validate_every:
        reasons["validations"] = f"every {validate_every} steps: more often they would take too much of the time"
    return Recipe(
        total_steps=max(1, round(epochs * steps_per_epoch)),
        learning_rate=learning_rate,
        validate_every=validate_every,
        patience=patience,
        seed=seed,
        auto=auto,
    )


def nearest(vectors_N_D: NDArray[np.float32], *, count: int = NEIGHBOURS) -> list[list[int]]:
    """Return for each vector (of length 1) the positions of its nearest others, nearest first."""
    total = len(vectors_N_D)
    count = min(count, total - 1)
    found: list[list[int]] = []
    for start in range(0, total, _ROWS_AT_ONCE):
        cosines_R_N = vectors_N_D[start : start + _ROWS_AT_ONCE] @ vectors_N_D.T
        for row, cosines_N in enumerate(cosines_R_N):
            cosines_N[start + row] = -math.inf  # not its own neighbour
            top = np.argpartition(-cosines_N, max(0, count - 1))[:count]
            found.append([int(position) for position in sorted(top, key=lambda i: (-cosines_N[i], i))])
    return found


def examples_of(
    pairs: Sequence[tuple[str, str, tuple[str, ...]]],
    *,
    passages: dict[str, list[tuple[str, frozenset[str]]]],
    section_numbers: dict[str, int],
) -> list[Example]:
    """Return the examples of pairs (section id, question, fact ids) whose section has a passage.

    `passages`: for each section id its passages, text and ids of the facts in it. A question belongs to the passage
    that states the most of its facts, the first such one.
    """
    examples = []
    for section_id, question, fact_ids in pairs:
        if section_id in passages:
            text, _ = max(passages[section_id], key=lambda passage: len(passage[1].intersection(fact_ids)))
            examples.append(Example(question, fact_ids, section_numbers[section_id], text))
    return examples


def texts_of(batches: Sequence[Batch]) -> tuple[list[str], list[str]]:
    """Return all questions and all passages of batches."""
    questions = [question for batch in batches for question in batch.questions]
    return questions, [passage for batch in batches for passage in batch.passages]
