"""Training a model to write the manual's answers: pairs to examples, the plan, the loop, and the trained model."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
import random
from collections.abc import Collection, Sequence
from pathlib import Path

import peft
import torch
import transformers

from byheart.answer import bot as answering
from byheart.answer.grounds import words_that_fit
from byheart.catalog import ModelEntry, find_model
from byheart.chat import REFUSAL, Example
from byheart.config import Config, Project
from byheart.errors import TrainError
from byheart.models import adapters
from byheart.models.precision import choose_precision
from byheart.models.scratch import make_scratch
from byheart.models.shapes import count_parameters
from byheart.models.writer import Writer, WritingFamily, load_writer
from byheart.progress import Notify, Progress
from byheart.records import Pair
from byheart.store import RunFolder, fingerprint
from byheart.train import fit, loop, mix, plan, prefixes
from byheart.train.answers import UnseenQuestions, WriterLearner, compute_twice, length_of
from byheart.train.buckets import Buckets
from byheart.train.checkpoint import Checkpoint, Tensors, TrainState, load_checkpoint, save_checkpoint
from byheart.train.consult import what_was_done
from byheart.train.lessons import Beside, Room, beside, read_manual
from byheart.train.mix import Told
from byheart.train.optimizers import OptimizerName, choose_optimizer
from byheart.train.outcome import Outcome, how_it_ended, lora_settings, say
from byheart.train.ranks import ALONE, Ranks
from byheart.train.sharded import ShardedLearner, shard
from byheart.train.spaced import Spaced

SPARE_TOKENS = 8  # that an answer may have beyond the longest one that is learned


@dataclasses.dataclass(frozen=True, slots=True)
class Conversations:
    """Questions and the answers that are learned, by split."""

    train: list[tuple[str, str]]
    train_facts: list[tuple[str, ...]]  # ids of the facts that each of them is about
    train_sections: list[str]  # that each of them is about; "" for one that the manual does not answer
    unseen: list[tuple[str, str]]
    replay: list[Told]  # general conversations, beside the manual's


def run(project: Project, folder: RunFolder, notify: Notify, *, family: WritingFamily, ranks: Ranks = ALONE) -> Outcome:
    """Train the base model on the pairs. Raises TrainError where that cannot start or go on.

    All `ranks` call it; the first one alone writes, and gets the trained model. A run that was stopped goes on from its
    checkpoint, and ends with the weights of one that was not.
    """
    config = project.config
    tell = functools.partial(say, notify)
    data = read_conversations(folder, replay=project.folder / config.train.replay if config.train.replay else None)
    answering.calibration_questions(folder)  # a missing file stops the run here rather than after the training
    method, why = _method(config, ranks)
    chosen = tell({"train.method": f"{method}: {why}"} if why else {})
    writer, precision = _writer(config, family, method, data, ranks)
    chosen |= tell({"train.precision": f"{precision[0]}: {precision[1]}"} | writer.reasons)
    questions, facts, unseen, said = _examples(writer, data)
    chosen |= tell(said)
    if method == "none":
        chosen |= tell({"method": "none: the base model is served as it is (train.method)"})
        return _outcome(
            config=config, family=family, method=method, writer=writer, state=None, longest_answer=unseen.most_tokens,
            counts={"steps": 0}, chosen=chosen,
        )  # fmt: skip
    added, said = _beside(config, folder, writer, data, questions, unseen=unseen, method=method, ranks=ranks)
    chosen |= tell(said)
    examples, facts = questions + added.examples, facts + added.facts
    choice = _recipe(config, examples, method=method, parameters=count_parameters(writer.model))
    micro_batch = config.train.micro_batch_size or math.ceil(choice.batch_size / ranks.size)
    groups = prefixes.groups_of(examples)
    optimizer, twice, said = _fit(config, writer, examples, groups, method=method, micro_batch=micro_batch, ranks=ranks)
    torch.manual_seed(config.train.seed)
    trained = adapters.prepare(writer, base_model=config.base_model, method=method, lora=lora_settings(config))
    if twice:
        compute_twice(writer)
    chosen |= tell({"trained weights": trained} | choice.reasons | said)
    identity = _fingerprint(config, method, examples, unseen.examples)
    checkpoint, noted = load_checkpoint(folder, fingerprint=identity) if ranks.is_first else (None, "")
    if noted:
        notify(Progress(loop.TASK, message=noted))
    learner, said = _learner(
        config, writer, examples, facts, unseen, groups=groups, questions=len(questions), batch_size=choice.batch_size,
        micro_batch=micro_batch, optimizer=optimizer, notify=notify, ranks=ranks,
    )  # fmt: skip
    chosen |= tell(said)
    pieces = learner.pieces

    def save(state: TrainState) -> None:
        state = pieces.whole(state)
        if not ranks.is_first:
            return
        kept = Checkpoint(state=state, precision=precision[0], precision_reason=precision[1], neighbours=[])
        save_checkpoint(folder, kept, fingerprint=identity)

    state = loop.train(
        learner=learner,
        recipe=choice.recipe,
        state=pieces.shared_out(checkpoint.state if checkpoint else None),
        save=save,
        notify=notify,
        ranks=ranks,
    )
    chosen |= tell({"end": how_it_ended(state, choice.recipe)} | what_was_done(state.history))
    counts = {"pairs": len(questions)} | added.counts | {"steps": state.step}
    if ranks.size > 1:
        best = pieces.whole(state).best_weights
        if ranks.is_first:
            writer = _whole_writer(config, family, method, data, precision=precision[0], weights=best)
    return _outcome(
        config=config, family=family, method=method, writer=writer, state=state, longest_answer=unseen.most_tokens,
        counts=counts, chosen=chosen,
    )  # fmt: skip


def _learner(
    config: Config, writer: Writer, examples: Sequence[Example], facts: Sequence[Collection[str]],
    unseen: UnseenQuestions, *, groups: Sequence[int], questions: int, batch_size: int, micro_batch: int,
    optimizer: OptimizerName, notify: Notify, ranks: Ranks,
) -> tuple[WriterLearner | ShardedLearner, dict[str, str]]:  # fmt: skip
    """Return the model with its batches, in pieces where there are many ranks; and what there is to say about them."""
    lengths = [length_of(example) for example in examples]
    kind = Spaced if config.train.repetition == "spaced" else Buckets
    order = kind(lengths, batch_size=batch_size, seed=config.train.seed, facts=facts, groups=groups)
    if ranks.size == 1:
        alone = WriterLearner(
            writer, examples, order, unseen, micro_batch=micro_batch, notify=notify, optimizer=optimizer,
            questions=questions,
        )  # fmt: skip
        return alone, {}
    sharding, said = shard(writer, ranks, config.train.sharding, batch_size=batch_size)
    return ShardedLearner(
        writer, examples, order, unseen, micro_batch=micro_batch, ranks=ranks, sharding=sharding, questions=questions
    ), said  # fmt: skip


def read_conversations(folder: RunFolder, *, replay: Path | None = None) -> Conversations:
    """Return what is learned. Raises TrainError where there is nothing, or a line of `replay` is no conversation."""
    pairs = folder.read("3-pairs.jsonl", Pair)
    learned = [pair for pair in pairs if pair.split == "train"]
    unseen = [(pair.question, _answer(pair)) for pair in pairs if pair.split == "unseen phrasing"]
    if not any(pair.section_id for pair in learned):
        raise TrainError(
            f"{folder / '3-pairs.jsonl'} holds no training question about a section of the manual, so there is nothing "
            "to learn. Make pairs again: byheart synthesize"
        )
    return Conversations(
        train=[(pair.question, _answer(pair)) for pair in learned],
        train_facts=[pair.fact_ids for pair in learned],
        train_sections=[pair.section_id for pair in learned],
        unseen=unseen,
        replay=mix.read_replay(replay) if replay else [],
    )


def _answer(pair: Pair) -> str:
    return REFUSAL if pair.kind == "refusal" else pair.answer


def _method(config: Config, ranks: Ranks) -> tuple[adapters.Method, str]:
    """Return how to train, and why where it is not what the config says."""
    entry = find_model(config.base_model)
    if config.train.method == "qlora" and ranks.size > 1:
        raise TrainError(
            "train.method: qlora is for one GPU. On many, lora does without 4 bits: each holds a part of the base."
        )
    if not entry or not entry.from_scratch:
        return config.train.method, ""
    if config.train.method == "none":
        raise TrainError(
            f"{config.base_model} has random weights: untrained, it knows no word. Set train.method to full."
        )
    why = "" if config.train.method == "full" else "a model from scratch has nothing that an adapter could adapt"
    return "full", why


def _writer(
    config: Config, family: WritingFamily, method: adapters.Method, data: Conversations, ranks: Ranks = ALONE
) -> tuple[Writer, tuple[str, str]]:
    """Return the model to train, and the precision that it computes in with the reason."""
    entry: ModelEntry | None = find_model(config.base_model)
    if entry and entry.from_scratch:
        texts = [text for conversation in data.train for text in conversation]
        return make_scratch(entry, texts, seed=config.train.seed), ("fp32", "a small model from scratch")
    dtype, reason = choose_precision(config.train.precision)
    (is_fp32,) = ranks.agree(dtype == torch.float32)
    precision = "fp32" if is_fp32 else "bf16"
    writer = load_writer(config.base_model, family=family, precision=precision, four_bit=method == "qlora")
    return writer, (precision, reason)


def _whole_writer(
    config: Config, family: WritingFamily, method: adapters.Method, data: Conversations, *, precision: str,
    weights: Tensors,
) -> Writer:  # fmt: skip
    """Return the model with the trained weights, whole, as one process would have trained it."""
    settings = config.train.model_copy(update={"precision": precision})
    writer, _ = _writer(config.model_copy(update={"train": settings}), family, method, data)
    adapters.prepare(writer, base_model=config.base_model, method=method, lora=lora_settings(config))
    with torch.no_grad():
        for name, weight in adapters.trainable(writer).items():
            weight.copy_(weights[name])
    return writer


def _examples(
    writer: Writer, data: Conversations
) -> tuple[list[Example], list[tuple[str, ...]], UnseenQuestions, dict[str, str]]:
    """Return what is learned, its facts, and what is measured, as tokens; and what was left out, with the reason."""
    made = [
        writer.chat.examples([(question, answer, ()) for question, answer in part])
        for part in (data.train, data.unseen)
    ]
    fits = [[len(example.prompt) + len(example.answer) <= writer.window for example in part] for part in made]
    fitting = [list(itertools.compress(part, fit)) for part, fit in zip(made, fits, strict=True)]
    said = {}
    if too_long := len(made[0]) - len(fitting[0]):
        said["left out"] = f"{too_long} pairs: longer than the {writer.window:,} tokens that the model reads"
    unspelled = sum(not writer.chat.spells(answer) for answer in {answer for _, answer in data.train})
    if unspelled:
        said["spelling"] = f"{unspelled} answers have characters that the model's tokenizer cannot write"
    if not fitting[0]:
        raise TrainError(
            f"No pair fits into the {writer.window:,} tokens that the model reads. Use another base_model."
        )
    if not fitting[1]:
        said["validation"] = "none: the pairs hold no unseen phrasing; the last weights are kept"
    longest = max(len(example.answer) for example in fitting[0])
    sample = random.Random("unseen phrasing")
    measured = sample.sample(fitting[1], min(plan.MEASURED_ANSWERS, len(fitting[1])))
    asked = sample.sample(data.unseen, min(plan.ASKED_QUESTIONS, len(data.unseen)))
    facts = list(itertools.compress(data.train_facts, fits[0]))
    return fitting[0], facts, UnseenQuestions(measured, asked, longest + SPARE_TOKENS), said


def _beside(
    config: Config, folder: RunFolder, writer: Writer, data: Conversations, questions: Sequence[Example], *,
    unseen: UnseenQuestions, method: adapters.Method, ranks: Ranks,
) -> tuple[Beside, dict[str, str]]:  # fmt: skip
    """Return what is learned beside the questions, and the reasons; nothing where the mix has no shares."""
    train, entry = config.train, find_model(config.base_model)
    shares, said = mix.choose_shares(
        documents=train.mix_documents, conversations=train.mix_conversations, replay=train.mix_replay,
        passages=train.mix_passages, has_replay=bool(data.replay), reads=config.answer.grounding == "retrieve",
        from_scratch=bool(entry and entry.from_scratch),
    )  # fmt: skip
    if shares.questions == 1:
        return Beside([], [], {}), said
    longest = max(len(example.prompt) + len(example.answer) for example in questions)
    longest_that_fits = functools.partial(
        fit.longest_that_fits, least=longest,
        size=fit.size_of_writer(writer, parameters=count_parameters(writer.model)),
        base_model=config.base_model, lora=lora_settings(config),
        machine=fit.this_machine(in_bf16=writer.precision == torch.bfloat16, gpus_together=ranks.size), method=method,
    )  # fmt: skip
    most = [longest_that_fits(min(writer.window, max(longest, wished))) for wished in (mix.LONGEST, mix.LONGEST_READ)]
    # The first rank's memory tells: all must cut alike.
    tokens, tokens_read = map(int, ranks.sum(*(most if ranks.is_first else (0, 0))))
    room = Room(tokens, tokens_read, words_that_fit(writer.window, most_tokens=unseen.most_tokens))
    manual = read_manual(folder)
    pairs = [
        Told(question, answer, fact_ids=facts, place=(manual.pages.get(section, ""), section))
        for (question, answer), facts, section in zip(data.train, data.train_facts, data.train_sections, strict=True)
    ]
    added, more = beside(
        questions, pairs, manual, data.replay, chat=writer.chat, shares=shares, room=room, seed=train.seed
    )
    return added, said | more


def _recipe(
    config: Config, examples: Sequence[Example], *, method: adapters.Method, parameters: int
) -> plan.ChosenForWriting:
    entry = find_model(config.base_model)
    return plan.choose_writing_recipe(
        from_scratch=bool(entry and entry.from_scratch),
        is_full=method == "full",
        parameters=parameters,
        examples=len(examples),
        tokens_per_epoch=sum(len(example.prompt) + len(example.answer) for example in examples),
        learning_rate=config.train.learning_rate,
        batch_size=config.train.batch_size,
        epochs=config.train.epochs,
        validations_per_epoch=config.train.validations_per_epoch,
        patience=config.train.patience,
        seed=config.train.seed,
        auto=config.train.auto,
    )


def _fit(
    config: Config, writer: Writer, examples: Sequence[Example], groups: Sequence[int], *, method: adapters.Method,
    micro_batch: int, ranks: Ranks,
) -> tuple[OptimizerName, bool, dict[str, str]]:  # fmt: skip
    """Return the optimizer, whether layers are computed twice so that a step fits into memory, and the reasons."""
    machine = fit.this_machine(in_bf16=writer.precision == torch.bfloat16, gpus_together=ranks.size)
    if ranks.size == 1:
        tokens = fit.TOKENS_SHARED if max(groups) >= 0 else fit.TOKENS_AT_ONCE
        micro_batch = fit.rows_at_once(micro_batch, examples, on_cpu=machine.gpus == 0, tokens=tokens)
    work = fit.work_of(
        examples, rows=micro_batch, base_model=config.base_model, lora=lora_settings(config),
        eight_bit_moments=config.train.optimizer != "adamw",
    )  # fmt: skip
    size = fit.size_of_writer(writer, parameters=count_parameters(writer.model))
    twice, reason = fit.choose_checkpointing(
        config.train.gradient_checkpointing, size=size, work=work, machine=machine, method=method
    )
    optimizer, why = choose_optimizer(config.train.optimizer, has_gpu=machine.gpus > 0, in_pieces=ranks.size > 1)
    return optimizer, twice, {"train.gradient_checkpointing": f"{'yes' if twice else 'no'}: {reason}"} | why


def _fingerprint(
    config: Config, method: adapters.Method, examples: Sequence[Example], unseen: Sequence[Example]
) -> str:
    """Return what tells this training from any other: a checkpoint of another one must not be used."""
    ids = hashlib.sha256(repr([(example.prompt, example.answer) for example in (*examples, *unseen)]).encode())
    return fingerprint(
        {
            "train": config.train.model_dump(exclude={"sharding"}),
            "method": method,
            "base": adapters.base_identity(config.base_model),
            "examples": ids.hexdigest(),
            "versions": [torch.__version__, transformers.__version__, peft.__version__],
        }
    )


def _outcome(
    *, config: Config, family: WritingFamily, method: adapters.Method, writer: Writer, state: TrainState | None,
    longest_answer: int, counts: dict[str, int], chosen: dict[str, str],
) -> Outcome:  # fmt: skip
    trained = adapters.TrainedModel(
        base_model=config.base_model,
        base=adapters.base_identity(config.base_model),
        method=method,
        rank=config.train.lora_rank if method in ("lora", "qlora") else 0,
        best_step=state.best_step if state else 0,
        unseen_loss=state.best_loss if state else None,
        family=family,
        longest_answer=longest_answer,
    )
    return Outcome(writer, trained, state.history if state else [], counts, chosen)
