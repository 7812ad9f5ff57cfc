"""What `byheart plan` shows: what each way to use a model takes, against the memory that is there, and which to take"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from byheart.catalog import find_model
from byheart.config import Config, TrainConfig
from byheart.errors import ConfigError, ModelError
from byheart.memory import choose
from byheart.memory.choose import GB, Machine, Option, Work
from byheart.memory.estimate import Adapters, Batch
from byheart.memory.size import Size, size_of
from byheart.records import Pair
from byheart.store import RunFolder
from byheart.train import mix

CHARACTERS_PER_TOKEN = 3.0  # English has four to five; fewer is on the safe side, and holds for German
SPARE_TOKENS = 48  # what a chat form adds
_TOKENS, _LEARNED = 512, 128  # without pairs: a question with a long answer
_ENCODER_BATCH = Batch(rows=80, tokens=48, learned=0)  # 64 questions and 16 passages (train/plan.py), as long as usual
_LONGEST_WINDOW = 4096  # of prompt and answer at inference; a manual's need no more

FindGpus = Callable[[], Sequence[tuple[str, int]]]


@dataclasses.dataclass(frozen=True, slots=True)
class Flags:
    """What the command line said; None: not said."""

    gpus: int | None = None
    gpu_memory_gb: float | None = None
    batch_size: int | None = None
    tokens: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a model takes, and the reasons for what was assumed."""

    model: str
    size: Size
    machine: Machine
    work: Work
    options: list[Option]
    recommended: tuple[str, str]
    assumed: dict[str, str]  # what -> "value: reason"


def make_plan(
    model: str, train: TrainConfig, flags: Flags, *, pairs: Sequence[Pair], find_gpus: FindGpus, reads: bool = False
) -> Plan:
    """Return the plan; `reads`: the bot is served with passages in its prompts.

    Raises ModelError where the model's size is not known, ConfigError where a flag is wrong.
    """
    size, assumed = find_size(model)
    machine = find_machine(flags, train, find_gpus)
    batch, why = _batch(size, train, flags, pairs)
    assumed |= why
    if not size.is_encoder and not flags.tokens:
        batch, why = _with_mix(batch, model, train, reads=reads)
        assumed |= why
    window = min(_LONGEST_WINDOW, max(batch.tokens, 1024))
    if not size.is_encoder:
        assumed["inference"] = f"{window:,} tokens in sight: what a manual's question and answer need at most"
    entry = find_model(model)
    names = frozenset(entry.attention_targets) if entry and train.lora_targets == "attention" else None
    adapters = Adapters(rank=train.lora_rank, names=names, dropout=train.lora_dropout > 0)
    assumed["LoRA"] = f"rank {train.lora_rank} on {train.lora_targets} layers (train.lora_rank, train.lora_targets)"
    work = Work(batch, adapters, window, eight_bit_moments=train.optimizer != "adamw")
    options = choose.options(size, work, machine)
    return Plan(model, size, machine, work, options, choose.recommend(size, work, machine, options), assumed)


def find_size(model: str) -> tuple[Size, dict[str, str]]:
    """Return a model's size from the catalogue, or from the config.json in its folder, and where it is from."""
    entry = find_model(model)
    if entry:
        size = size_of(entry.architecture, entry.shape, parameters=entry.parameters)
    else:
        path = Path(model) / "config.json"
        try:
            shape: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            size = size_of(str(next(iter(shape.get("architectures") or ["?"]))), shape)
        except (OSError, ValueError, KeyError, AttributeError) as fault:
            raise ModelError(
                f"--model {model}: it is neither in byheart's catalogue (docs/models.md) nor a folder with a model's "
                f"config.json ({fault})."
            ) from fault
    if size is None:
        raise ModelError(
            f"{model}: its architecture is none whose memory byheart can tell beforehand. Those it can are in "
            "docs/models.md; a model of another kind trains all the same, and says when memory runs out."
        )
    return size, {} if entry else {"size": f"{size.parameters:,} weights: counted from {model}/config.json"}


def find_machine(flags: Flags, train: TrainConfig, find_gpus: FindGpus) -> Machine:
    """Return the machine that the flags describe, else this one."""
    if flags.gpu_memory_gb is not None:
        count = flags.gpus or 1
        return Machine(count, flags.gpu_memory_gb * GB, "--gpu-memory-gb", train.precision != "fp32")
    if flags.gpus is not None:
        raise ConfigError(["--gpus says how many, --gpu-memory-gb how large: give both, or neither for this machine"])
    found = find_gpus()
    if found:
        names = " and ".join(sorted({name for name, _ in found}))
        return Machine(len(found), min(size for _, size in found), names, train.precision != "fp32")
    # Whether this CPU is faster in bf16 is measured when training starts; fp32 takes more, so it is planned with.
    memory = psutil.virtual_memory().total
    return Machine(0, memory, "this machine's memory; it has no GPU that torch can use", train.precision == "bf16")


def _batch(size: Size, train: TrainConfig, flags: Flags, pairs: Sequence[Pair]) -> tuple[Batch, dict[str, str]]:
    if size.is_encoder:
        rows = (train.batch_size or 64) * 5 // 4
        return dataclasses.replace(_ENCODER_BATCH, rows=rows), {
            "batch": f"{rows} texts of {_ENCODER_BATCH.tokens} tokens: questions, and the passages that answer them"
        }
    rows = flags.batch_size or train.batch_size or 1
    why = "--batch-size" if flags.batch_size else "train.batch_size" if train.batch_size else "large models learn so"
    learned = _LEARNED
    tokens, reason = flags.tokens or _TOKENS, "--tokens" if flags.tokens else "a question with a long answer"
    if pairs and not flags.tokens:
        longest = max(pairs, key=lambda pair: len(pair.question) + len(pair.answer))
        tokens = _rounded(len(longest.question) + len(longest.answer))
        learned = _rounded(max(len(pair.answer) for pair in pairs))
        reason = "about as long as the longest question and answer in 3-pairs.jsonl"
    learned = min(learned, tokens)
    return Batch(rows=rows, tokens=tokens, learned=learned), {
        "batch": f"{rows}: {why}",
        "tokens": f"{tokens:,}, of which {learned:,} are learned: {reason}",
    }


def _with_mix(batch: Batch, model: str, train: TrainConfig, *, reads: bool) -> tuple[Batch, dict[str, str]]:
    """Return a batch whose rows hold what is learned beside the questions, too."""
    entry = find_model(model)
    shares, _ = mix.choose_shares(
        documents=train.mix_documents, conversations=train.mix_conversations, replay=train.mix_replay,
        passages=train.mix_passages, has_replay=bool(train.replay), reads=reads,
        from_scratch=bool(entry and entry.from_scratch),
    )  # fmt: skip
    if shares.questions == 1:
        return batch, {}
    learned = max(batch.tokens, mix.LONGEST) if shares.documents or shares.replay else batch.learned
    tokens = max(batch.tokens, mix.LONGEST_READ if shares.passages else mix.LONGEST)
    return dataclasses.replace(batch, tokens=tokens, learned=learned), {
        "mix": f"{tokens:,} tokens, of which {learned:,} are learned: what stands beside the questions (train.mix_…)"
    }


def _rounded(characters: int) -> int:
    return 32 * math.ceil((characters / CHARACTERS_PER_TOKEN + SPARE_TOKENS) / 32)


def pairs_of(config_folder: Path) -> list[Pair]:
    """Return the pairs of a bot's run folder; none where there are none yet."""
    if not (config_folder / "3-pairs.jsonl").exists():
        return []
    return RunFolder(config_folder).read("3-pairs.jsonl", Pair)


def train_settings(config: Config | None) -> TrainConfig:
    """Return a bot's settings for training, or the defaults where there is no bot."""
    return config.train if config else TrainConfig()


def show(console: Console, plan: Plan) -> None:
    """Show the plan."""
    size, machine = plan.size, plan.machine
    console.print(Text(f"{plan.model}: {_count(size.parameters)} weights, {size.layers} layers"))
    where = f"{machine.gpus} GPU{'s' * (machine.gpus > 1)} of" if machine.gpus else "no GPU,"
    console.print(Text(f"{where} {machine.bytes_each / GB:.1f} GB: {machine.found}"))
    for name, reason in plan.assumed.items():
        console.print(Text(f"{name}: {reason}"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("GB", "weights", "gradients", "optimizer", "activations", "other", "in all", "fits"):
        table.add_column(column, justify="left" if column in ("GB", "fits") else "right", no_wrap=True)
    for option in plan.options:
        memory = option.memory
        parts = (memory.weights, memory.gradients, memory.optimizer, memory.activations)
        other = option.needed - memory.weights - memory.optimizer - max(memory.activations, memory.gradients)
        fits = Text("yes", "green") if option.fits else Text("no", "red")
        table.add_row(_name(option), *(_gb(part) for part in parts), _gb(other), _gb(option.needed), fits)
    console.print(table)
    console.print(Text(_legend(plan)), soft_wrap=True)
    method, reason = plan.recommended
    console.print(Text(f"Recommended: {'train.method: ' * (method != 'none')}{method}: {reason}"), soft_wrap=True)


def as_json(plan: Plan) -> str:
    """Return the plan for a program: bytes."""
    values = {
        "model": plan.model,
        "parameters": plan.size.parameters,
        "gpus": plan.machine.gpus,
        "bytes_each": plan.machine.bytes_each,
        "assumed": plan.assumed,
        "options": [dataclasses.asdict(option) | {"peak": option.memory.peak} for option in plan.options],
        "recommended": {"method": plan.recommended[0], "reason": plan.recommended[1]},
    }
    return json.dumps(values, indent=1)


def _name(option: Option) -> str:
    return f"{option.method}{'*' * option.checkpointing}{f' on {option.gpus}' if option.gpus > 1 else ''}"


def _legend(plan: Plan) -> str:
    """Return what the table's marks and sums mean."""
    own = "a GPU's own context and gaps" if plan.machine.gpus else "the process, a checkpoint and the best weights"
    lines = [
        f"In all: the most at once; gradients grow while activations shrink. Other: {own}, logits, and what passes by."
    ]
    if any(option.checkpointing for option in plan.options):
        lines.append("* with gradient checkpointing: activations are computed a second time, a third more work")
    if sharing := next((option.gpus for option in plan.options if option.gpus > 1), 0):
        lines.append(f"on {sharing}: weights, gradients and optimizer in {sharing} shares (ZeRO-3, FSDP); GB a GPU")
    return "\n".join(lines)


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} billion" if parameters >= 1e9 else f"{parameters / 1e6:.1f} million"


def _gb(number: float) -> str:
    return f"{number / GB:.2f}"
