"""Training an encoder to find: a question next to the passage that answers it, far from the others."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import peft
import torch
import transformers

from byheart.answer import bot as answering
from byheart.config import Config, Project
from byheart.errors import TrainError
from byheart.index.passages import make_passages
from byheart.models import adapters
from byheart.models.encoder import Encoder, load_encoder
from byheart.models.precision import choose_precision
from byheart.progress import Notify, Progress
from byheart.records import Fact, Pair, Section
from byheart.store import RunFolder, fingerprint
from byheart.train import batches, loop, loss, plan
from byheart.train.checkpoint import Checkpoint, TrainState, load_checkpoint, save_checkpoint
from byheart.train.consult import what_was_done
from byheart.train.optimizers import OptimizerName, choose_optimizer, make_optimizer
from byheart.train.outcome import Outcome, how_it_ended, lora_settings, say

# Half of the adapter is added to the base: weights between the two keep what the base knows of customers' language
# (WiSE-FT, Wortsman et al. 2022). On two manuals this answered 0 to 3 points more than the whole (docs/experiments.md).
ADAPTER_SCALE = 0.5
MEASURED_BATCHES = 8  # of the first epoch: their mean length tells what a step costs


@dataclasses.dataclass(frozen=True, slots=True)
class Examples:
    """What is learned from: examples by split, and each section's first passage."""

    train: list[batches.Example]
    unseen: list[batches.Example]
    sections: list[str]


class EncoderLearner:
    """An encoder with its batches of questions and passages (protocol: loop.Learner)."""

    def __init__(
        self, encoder: Encoder, schedule: batches.Schedule, validation: Sequence[batches.Batch],
        optimizer: OptimizerName = "adamw",
    ) -> None:  # fmt: skip
        self._encoder = encoder
        self._optimizer: OptimizerName = optimizer
        self.order = schedule
        self._validation = validation
        self.weights = adapters.trainable(encoder)

    def optimizer(self, *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """Return the optimizer that was chosen."""
        return make_optimizer(
            self._optimizer, self.weights.values(), learning_rate=learning_rate, weight_decay=weight_decay
        )

    def learn(self, step: int) -> float:
        """Give the weights the gradients of a step's batch, and return its loss; one that is no number gives none."""
        adapters.train_mode(self._encoder)
        batch_loss = loss.batch_loss(self._encoder, self.order.batch(step), passage_tokens=loss.PASSAGE_TOKENS).loss
        value = batch_loss.item()
        if math.isfinite(value):
            batch_loss.backward()  # type: ignore[no-untyped-call]
        return value

    def publish(self) -> None:
        """Do nothing: the model computes with the very weights that are trained."""

    def validate(self) -> loop.Unseen | None:
        """Return loss and accuracy on unseen phrasing, means over its questions; None where there are none."""
        if not self._validation:
            return None
        self._encoder.model.eval()
        total = right = 0.0
        with torch.inference_mode():
            for batch in self._validation:
                scored = loss.batch_loss(self._encoder, batch, passage_tokens=loss.PASSAGE_TOKENS)
                total += scored.loss.item() * len(batch.questions)
                right += scored.accuracy * len(batch.questions)
        questions = sum(len(batch.questions) for batch in self._validation)
        return loop.Unseen(total / questions, right / questions)


def run(project: Project, folder: RunFolder, notify: Notify) -> Outcome:
    """Train the base model on the pairs. Raises TrainError where that cannot start or go on.

    A run that was stopped goes on from its checkpoint, and ends with the weights of one that was not.
    """
    config = project.config
    tell = functools.partial(say, notify)
    if config.train.method == "none":
        chosen = tell({"method": "none: the base model is served as it is (train.method)"})
        encoder = load_encoder(config.base_model, precision=config.train.precision)
        return _outcome(config, encoder, None, {"steps": 0}, chosen)
    if config.train.method == "qlora":
        raise TrainError(
            f"train.method: qlora is for models that write answers; {config.base_model} is an encoder, small enough "
            "for lora or full."
        )
    data = read_examples(folder)
    answering.calibration_questions(folder)  # a missing file stops the run here rather than after the training
    identity = _fingerprint(config, data)
    checkpoint, said = load_checkpoint(folder, fingerprint=identity)
    if said:
        notify(Progress(loop.TASK, message=said))
    precision, why = (checkpoint.precision, checkpoint.precision_reason) if checkpoint else _precision(config)
    chosen = tell({"train.precision": f"{precision}: {why}"})
    encoder = load_encoder(config.base_model, precision=precision)
    neighbours = checkpoint.neighbours if checkpoint else _neighbours(encoder, data.sections, notify)
    batch_size = config.train.batch_size or plan.BATCH_SIZE
    schedule = batches.Schedule(data.train, neighbours=neighbours, batch_size=batch_size, seed=config.train.seed)
    validation = batches.validation_batches(
        data.unseen, neighbours=neighbours, batch_size=batch_size, most=plan.VALIDATION_QUESTIONS
    )
    choice = _recipe(config, schedule, encoder)
    chosen |= tell(choice.reasons | _batch_reason(config, schedule, validation))
    torch.manual_seed(config.train.seed)
    trained = adapters.prepare(
        encoder, base_model=config.base_model, method=config.train.method, lora=lora_settings(config)
    )
    optimizer, said_too = choose_optimizer(config.train.optimizer, has_gpu=encoder.device.type == "cuda")
    chosen |= tell({"trained weights": trained} | said_too)

    def save(state: TrainState) -> None:
        kept = Checkpoint(state=state, precision=precision, precision_reason=why, neighbours=neighbours)
        save_checkpoint(folder, kept, fingerprint=identity)

    state = loop.train(
        learner=EncoderLearner(encoder, schedule, validation, optimizer),
        recipe=choice.recipe,
        state=checkpoint.state if checkpoint else None,
        save=save,
        notify=notify,
    )
    chosen |= tell({"end": how_it_ended(state, choice.recipe)} | what_was_done(state.history))
    counts = {"pairs": len(data.train), "sections": schedule.sections, "steps": state.step}
    return _outcome(config, encoder, state, counts, chosen)


def _outcome(
    config: Config, encoder: Encoder, state: TrainState | None, counts: dict[str, int], chosen: dict[str, str]
) -> Outcome:
    method = config.train.method
    trained = adapters.TrainedModel(
        base_model=config.base_model,
        base=adapters.base_identity(config.base_model),
        method=method,
        rank=config.train.lora_rank if method == "lora" else 0,
        best_step=state.best_step if state else 0,
        unseen_loss=state.best_loss if state else None,
        adapter_scale=ADAPTER_SCALE if method == "lora" else 1.0,
    )
    return Outcome(encoder, trained, state.history if state else [], counts, chosen)


def read_examples(folder: RunFolder) -> Examples:
    """Return the examples. Raises TrainError where there is nothing to tell apart."""
    pairs = folder.read("3-pairs.jsonl", Pair)
    passages: dict[str, list[tuple[str, frozenset[str]]]] = {}
    for passage in make_passages(folder.read("2-sections.jsonl", Section), folder.read("2-facts.jsonl", Fact), []):
        facts = frozenset(fact_id for unit in passage.units for fact_id in unit.fact_ids)
        passages.setdefault(passage.section_id, []).append((passage.text, facts))
    numbers = {section_id: number for number, section_id in enumerate(passages)}
    train, unseen = (
        plan.examples_of(
            [
                (pair.section_id, pair.question, pair.fact_ids)
                for pair in pairs
                if pair.split == split and pair.section_id
            ],
            passages=passages,
            section_numbers=numbers,
        )
        for split in ("train", "unseen phrasing")
    )
    place = folder / "3-pairs.jsonl"
    if not train:
        raise TrainError(
            f"{place} holds no training question about a section of the manual, so there is nothing to learn. "
            "Make pairs again: byheart synthesize"
        )
    if len({example.passage for example in train}) < 2:
        raise TrainError(
            f"{place} asks about a single passage, and training needs a second one to tell it from. Give the manual "
            "more pages, or set train.method to none."
        )
    return Examples(train, unseen, [texts[0][0] for texts in passages.values()])


def _fingerprint(config: Config, data: Examples) -> str:
    """Return what tells this training from any other: a checkpoint of another one must not be used."""
    return fingerprint(
        {
            "train": config.train.model_dump(),
            "base": adapters.base_identity(config.base_model),
            "examples": [[dataclasses.astuple(example) for example in split] for split in (data.train, data.unseen)],
            "loss": [loss.TEMPERATURE, loss.LATE_INTERACTION_WEIGHT],
            "versions": [torch.__version__, transformers.__version__, peft.__version__],
        }
    )


def _precision(config: Config) -> tuple[str, str]:
    dtype, reason = choose_precision(config.train.precision)
    return ("bf16" if dtype == torch.bfloat16 else "fp32"), reason


def _neighbours(encoder: Encoder, texts: Sequence[str], notify: Notify) -> list[list[int]]:
    """Return for each section the most similar ones in the eyes of the untrained encoder: the hard negatives."""

    def tell(done: int) -> None:
        notify(Progress("finding similar sections", done, len(texts)))

    return plan.nearest(encoder.vectors(texts, on_done=tell))


def _recipe(config: Config, schedule: batches.Schedule, encoder: Encoder) -> plan.Chosen:
    """Return how to train, from the config and the length of the first batches."""
    first = [schedule.batch(step) for step in range(min(MEASURED_BATCHES, schedule.steps_per_epoch))]
    questions, passages = plan.texts_of(first)
    lengths = [
        len(ids)
        for texts, most in ((questions, loss.QUESTION_TOKENS), (passages, loss.PASSAGE_TOKENS))
        for ids in encoder.tokenizer(texts, truncation=True, max_length=most)["input_ids"]
    ]
    return plan.choose_recipe(
        is_full=config.train.method == "full",
        learning_rate=config.train.learning_rate,
        epochs=config.train.epochs,
        steps_per_epoch=schedule.steps_per_epoch,
        tokens_per_step=max(1, sum(lengths) // len(first)),
        validations_per_epoch=config.train.validations_per_epoch,
        patience=config.train.patience,
        seed=config.train.seed,
        auto=config.train.auto,
    )


def _batch_reason(config: Config, schedule: batches.Schedule, validation: Sequence[batches.Batch]) -> dict[str, str]:
    """Return how batches are made, what is validated, and what setting has no effect, in words."""
    each, of = schedule.questions_per_section, schedule.sections_per_batch
    reasons = {}
    if config.train.gradient_checkpointing != "auto":
        reasons["train.gradient_checkpointing"] = "not used: an encoder is small enough without"
    if config.train.batch_size is None:
        reasons["train.batch_size"] = f"{plan.BATCH_SIZE}: {each} questions to each of {of} sections"
    elif config.train.batch_size != each * of:
        reasons["batches"] = (
            f"{each * of} questions, {each} to each of {of} sections: as near as can be to train.batch_size"
        )
    if not validation:
        reasons["validation"] = "none: the pairs hold no unseen phrasing of two sections; the last weights are kept"
    if config.train.repetition != "uniform":
        reasons["train.repetition"] = "uniform: only models that write answers repeat what they do not know"
    return reasons
