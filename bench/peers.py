"""The tools that bench_train.py measures byheart beside, each pinned, from PyPI, in an environment of its own.

All get the same model, rows (as tokens), batch, rate, passes and optimizer. "Defaults" is a tool as it comes but for
these, and in fp32 where this machine is not faster in bf16 (where bf16 is emulated, a default of bf16 would take
minutes a step). The other settings are its fastest for a CPU, without gradient checkpointing.

TRL has the versions of torch and transformers that byheart has: "packing" and "grouped" compute its chunked loss. With
"bf16 weights" it has no weights in fp32 (all weights: nor moments), so that steps below a thousandth of a weight are
lost; only where bf16 is fast.
LLaMA-Factory has its newest transformers that it allows, and byheart's torch. It is started by its own `run_exp`, and
reads the rows as text through its template that adds nothing; "packing" is its `neat_packing`, in which neighbours do
not see each other, and "grouped" puts rows of like length together. Its Liger kernel, Unsloth, FlashAttention,
`pure_bf16` and FP8 want a GPU.
"""

from __future__ import annotations

import dataclasses
import importlib.machinery
import json
import resource
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
INSTALLED = {
    "TRL": ["trl==1.16.0", "torch", "transformers", "peft", "accelerate", "datasets", "-c", str(CONSTRAINTS)],
    # What it needs beside torch is older than byheart's.
    "LLaMA-Factory": ["llamafactory==0.9.5", "transformers==5.6.0", "torch==2.13.0"],
}
# On PyPI these are built for a GPU, and do not load beside a torch that is not; text needs neither.
REMOVED = {"TRL": [], "LLaMA-Factory": ["torchvision", "torchaudio"]}
IN_BF16 = ", bf16 weights"  # the end of a setting, where bf16 is fast: weights are not in fp32 under autocast
TRL = ("TRL, defaults", "TRL, packing", f"TRL, packing{IN_BF16}", "TRL, grouped")
LLAMA_FACTORY = ("LLaMA-Factory, defaults", "LLaMA-Factory, packing", "LLaMA-Factory, grouped")
BATCH = 8
PACKED = 128  # tokens; a packed row is a multiple of it
LORA = {"r": 32, "lora_alpha": 64, "lora_dropout": 0.0, "target_modules": ["c_attn", "c_proj", "c_fc"]}

Watch = Callable[[int, Any], bool]  # what is asked after each step, with its number and the model: is it enough?


class Clock:
    """Wall and CPU seconds between starts and stops, and the process's peak memory at the last stop."""

    def __init__(self) -> None:
        self.wall = self.cpu = self.peak_mb = 0.0
        self._wall = self._cpu = 0.0  # when it was last started

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.wall += time.perf_counter() - self._wall
        self.cpu += time.process_time() - self._cpu
        self.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """What is trained on, how, and the clock that runs during the training itself."""

    system: str  # "TRL, packing"
    method: str
    work: Path
    rows: list[tuple[list[int], list[int]]]  # prompt and answer
    passes: int
    rate: float
    clock: Clock
    watch: Watch | None = None
    batch: int = BATCH

    @property
    def packed_tokens(self) -> int:
        """Return a batch's worth of tokens, so that a pass over packed rows has as many steps."""
        tokens = sum(len(prompt) + len(answer) for prompt, answer in self.rows)
        return max(1, round(self.batch * tokens / len(self.rows) / PACKED)) * PACKED

    @property
    def setting(self) -> str:
        """Return the system without the tool's name."""
        return self.system.partition(", ")[2]


def train(task: Task) -> tuple[int, Any]:
    """Train with a peer, and return the steps that it made and the model."""
    return (_trl if task.system.startswith("TRL") else _llama_factory)(task)


def python_of(tool: str, work: Path) -> Path:
    """Return the Python of an environment with the tool in it, which is made where it is missing."""
    folder = work / tool.lower()
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        work.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "--quiet"]
        subprocess.run([*pip, "install", *INSTALLED[tool]], check=True)
        if REMOVED[tool]:
            subprocess.run([*pip, "uninstall", "--yes", *REMOVED[tool]], check=True)
        (folder / "ready").touch()
    return python


def _trl(task: Task) -> tuple[int, Any]:
    import datasets
    import peft
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    fast = {"gradient_checkpointing": False, "loss_type": "chunked_nll"}
    more: dict[str, dict[str, Any]] = {
        "defaults": {},
        "packing": fast | {"packing": True, "max_length": task.packed_tokens, "per_device_train_batch_size": 1},
        "grouped": fast | {"train_sampling_strategy": "group_by_length"},
    }
    tokenizer = AutoTokenizer.from_pretrained(task.work / "model")
    tokenizer.pad_token = tokenizer.eos_token
    adapter: Any = peft.LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=True, **LORA)  # type: ignore[arg-type]
    data = datasets.Dataset.from_list(
        [{"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer} for prompt, answer in task.rows]
    )
    watching = _watching(task)
    setting = task.setting.removesuffix(IN_BF16)
    dtype = "float32" if task.setting == setting else "bfloat16"
    SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(task.work / "model", dtype=dtype),
        args=SFTConfig(**(_settings(task) | more[setting])),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=adapter if task.method == "lora" else None,
        callbacks=[watching],
    ).train()
    return watching.steps, watching.model


def _llama_factory(task: Task) -> tuple[int, Any]:
    absent = types.ModuleType("torchaudio")  # it imports it whatever it trains on
    absent.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = absent
    from llamafactory.train.tuner import run_exp
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(task.work / "model")
    texts = [{"prompt": tokenizer.decode(p), "response": tokenizer.decode(a)} for p, a in task.rows]
    data = task.work / "llama-factory-rows"
    data.mkdir(exist_ok=True)
    (data / "rows.json").write_text(json.dumps(texts), encoding="utf-8")
    found = {"rows": {"file_name": "rows.json", "columns": {"prompt": "prompt", "response": "response"}}}
    (data / "dataset_info.json").write_text(json.dumps(found), encoding="utf-8")
    fast = {"disable_gradient_checkpointing": True}
    more: dict[str, dict[str, Any]] = {
        "defaults": {},
        "packing": fast | {"neat_packing": True, "cutoff_len": task.packed_tokens, "per_device_train_batch_size": 1},
        "grouped": fast | {"train_sampling_strategy": "group_by_length"},
    }
    adapter = {
        "lora_rank": LORA["r"], "lora_alpha": LORA["lora_alpha"], "lora_dropout": LORA["lora_dropout"],
        "lora_target": ",".join(LORA["target_modules"]),
    }  # fmt: skip
    settings = _settings(task) | more[task.setting] | {
        "model_name_or_path": str(task.work / "model"), "stage": "sft", "do_train": True,
        "finetuning_type": task.method, "dataset": "rows", "dataset_dir": str(data), "template": "empty",
        "overwrite_cache": True, "overwrite_output_dir": True,
    }  # fmt: skip
    watching = _watching(task)
    run_exp(settings | (adapter if task.method == "lora" else {}), callbacks=[watching])
    return watching.steps, watching.model


def _settings(task: Task) -> dict[str, Any]:
    """Return what both take from transformers."""
    return {
        "output_dir": str(task.work / "out"), "learning_rate": task.rate, "num_train_epochs": task.passes,
        "per_device_train_batch_size": task.batch, "warmup_steps": 0.1, "weight_decay": 0.01, "max_grad_norm": 1.0,
        "seed": 0, "bf16": in_bf16_here(task.work), "save_strategy": "no", "report_to": "none", "use_cpu": True,
        "disable_tqdm": True,
    }  # fmt: skip


def in_bf16_here(work: Path) -> bool:
    """Tell whether byheart found this machine faster in bf16."""
    return bool(json.loads((work / "bf16.json").read_text(encoding="utf-8")))


def _watching(task: Task) -> Any:
    """Return a callback of the trainer: the clock, the watch, and what was trained."""
    from transformers import TrainerCallback

    class Watching(TrainerCallback):
        model: Any = None
        steps = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            labels = more["train_dataloader"].dataset["labels"]
            learned = sum(label != -100 for row in labels for label in row)
            expected = sum(len(answer) for _, answer in task.rows)
            if learned != expected:
                sys.exit(f"{task.system} would learn {learned:,} tokens instead of {expected:,}")
            self.model = more["model"]
            task.clock.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            self.steps = state.global_step
            if task.watch and task.watch(self.steps, self.model):
                control.should_training_stop = True

        def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            task.clock.stop()

    return Watching()
