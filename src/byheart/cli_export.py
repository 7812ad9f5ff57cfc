"""Verbs that take a bot's model elsewhere: to a hub's folder, to llama.cpp, to Ollama.

They import what they need inside themselves, as cli.py does, and for its reason.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from byheart.cli_options import HERE, Bot, group

if TYPE_CHECKING:
    from byheart.export.card import Story
    from byheart.store import RunFolder

Precision = Annotated[
    Literal["f32", "f16", "bf16", "q8_0"], typer.Option("--type", help="How exactly weights are kept.")
]
Converter = Annotated[
    Path | None, typer.Option(help="llama.cpp's convert_hf_to_gguf.py; needed for other architectures.")
]

export = group("Take the model elsewhere, where it neither cites nor declines.")


@dataclasses.dataclass(frozen=True)
class _Trained:
    folder: RunFolder
    story: Story
    questions: list[str]


@export.command()
def hf(
    bot: Bot = HERE,
    out: Annotated[Path, typer.Option(help="The new folder.")] = Path("model"),
    adapter: Annotated[bool, typer.Option("--adapter", help="The LoRA adapter alone, for peft.")] = False,
) -> None:
    """Write a folder for model hubs, with a model card: for transformers, peft or sentence-transformers.

    The adapter is merged into its base, and what the model says is checked to be the same.
    """
    from byheart.export.hub import export_adapter, export_hub

    trained = _trained(bot)
    if adapter:
        export_adapter(trained.folder / "4-model", out, trained.story)
        typer.echo(f"Wrote {out}: the adapter, its tokenizer and a model card (README.md).")
        return
    checked = export_hub(trained.folder / "4-model", out, trained.story, questions=trained.questions)
    typer.echo(f"Wrote {out}: {checked} questions checked, all as before. Read its model card (README.md).")


@export.command()
def gguf(
    bot: Bot = HERE,
    out: Annotated[Path, typer.Option(help="The new file.")] = Path("model.gguf"),
    precision: Precision = "f16",
    converter: Converter = None,
) -> None:
    """Write one file for llama.cpp and what builds on it."""
    from byheart.export.gguf_file import export_gguf

    trained = _trained(bot)
    made = export_gguf(
        trained.folder / "4-model", out, precision=precision, name=trained.story.name, converter=converter,
        questions=trained.questions,
    )  # fmt: skip
    typer.echo(f"Wrote {out} ({out.stat().st_size / 1e6:,.0f} MB, {precision}, by {made}).")


@export.command()
def ollama(
    bot: Bot = HERE,
    out: Annotated[Path, typer.Option(help="The new folder.")] = Path("ollama"),
    precision: Precision = "f16",
    converter: Converter = None,
) -> None:
    """Write a folder for Ollama: the GGUF, a Modelfile with the model's own chat form, and a model card."""
    from byheart.export.ollama import export_ollama

    trained = _trained(bot)
    export_ollama(
        trained.folder / "4-model", out, trained.story, precision=precision, converter=converter,
        questions=trained.questions,
    )  # fmt: skip
    typer.echo(f"Wrote {out}. Next: ollama create {trained.story.name} -f {out / 'Modelfile'}")


def _trained(bot: Path) -> _Trained:
    from byheart.config_file import load
    from byheart.export.card import read_story
    from byheart.records import Pair
    from byheart.store import RunFolder

    project = load(bot, (), need_sources=False).project
    folder = RunFolder(project.run_path)
    story = read_story(folder, project.config, name=project.folder.resolve().name)
    pairs = folder.read("3-pairs.jsonl", Pair)
    return _Trained(folder, story, [pair.question for pair in pairs if pair.split == "unseen phrasing"])
