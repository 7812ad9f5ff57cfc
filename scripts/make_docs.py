"""Write the generated pages: config, cli and models in docs/, the JSON schema, and the tree in README.md.

    python scripts/make_docs.py

tests/test_project.py fails where a page is not what this script would write.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner

from byheart.catalog import MODELS, ModelEntry
from byheart.cli import app
from byheart.config import TrainConfig
from byheart.config_settings import Setting, groups, json_schema, settings
from byheart.memory import choose
from byheart.memory.estimate import Adapters, Batch
from byheart.memory.size import size_of

ROOT = Path(__file__).resolve().parent.parent
GENERATED = "<!-- Written by scripts/make_docs.py (make docs); do not edit. -->\n\n"
TREE_START, TREE_END = "<!-- tree: written by make docs -->\n```\n", "```\n<!-- end of tree -->"


def pages() -> dict[Path, str]:
    """Return every generated file with the text that it should have."""
    readme = ROOT / "README.md"
    return {
        ROOT / "docs" / "config.md": config_page(),
        ROOT / "docs" / "cli.md": cli_page(),
        ROOT / "docs" / "models.md": models_page(),
        ROOT / "docs" / "byheart.schema.json": json.dumps(json_schema(), indent=1) + "\n",
        readme: with_tree(readme.read_text(encoding="utf-8")),
    }


def config_page() -> str:
    """Return the reference of byheart.yaml."""
    parts = {"": "The bot", **{name: (kind.__doc__ or name).rstrip(".") for name, kind in groups().items()}}
    sections = [
        f"## {f'{name}: ' if name else ''}{title}\n\n"
        "| setting | default | allowed | what it does |\n|---|---|---|---|\n"
        + "".join(_row(setting) for key, setting in settings().items() if key.rpartition(".")[0] == name)
        for name, title in parts.items()
    ]
    intro = (
        "# byheart.yaml\n\n"
        "Only `docs` is required. Any setting can be overridden for one command: `--set train.epochs=3`.\n"
        "`byheart config my-bot` shows every value and where it came from. An empty default is chosen when a stage\n"
        "runs; the choice and its reason are printed and kept.\n\n"
        "An editor with a YAML language server completes and checks the file when its first line is:\n\n"
        "    # yaml-language-server: $schema=PATH/TO/byheart.schema.json\n\n"
        "(`byheart config --schema > byheart.schema.json` writes it.)\n\n"
    )
    return GENERATED + intro + "\n".join(sections)


def cli_page() -> str:
    """Return the help of every verb."""
    verbs = [name for command in app.registered_commands if (name := command.callback and command.callback.__name__)]
    helps = [f"## byheart {verb}\n\n{_help(verb)}" for verb in verbs]
    for group in app.registered_groups:
        name, inner = str(group.name), group.typer_instance
        helps.append(f"## byheart {name}\n\n{_help(name)}")
        for command in inner.registered_commands if inner else []:
            verb = command.name or (command.callback.__name__ if command.callback else "")
            helps.append(f"### byheart {name} {verb}\n\n{_help(name, verb)}")
    return GENERATED + "# The byheart command\n\n" + _help() + "\n" + "\n".join(helps)


_FAMILIES = {
    "encoder": "Encoders answer with the manual's own sentences, found by meaning; they cannot invent",
    "causal": "Decoders write the answer themselves, from what they learned by heart",
    "seq2seq": "Encoder-decoders read the question and write the answer",
}


def models_page() -> str:
    """Return the catalogue as tables, one a family."""
    intro = (
        "# Models\n\n"
        "What `base_model` may name. Any other model that transformers runs with safetensors weights, on the hub\n"
        "or in a folder, works too: byheart looks at it and says what it found. `scratch:` models have random weights\n"
        "and a tokenizer trained on the manual: they need no download, and know nothing but the manual.\n\n"
        "LoRA adapts the layers of both columns (`train.lora_targets: all-linear`, the default), or those of\n"
        "attention alone (`attention`). A gated model is downloaded after its licence is accepted on its page and\n"
        "`hf auth login`.\n\n"
        "Memory in GB on one GPU, estimated: to answer; to train with QLoRA, LoRA (rank 32, all linear layers) and in\n"
        "full, one row of 512 tokens at a time, with gradient checkpointing where 24 GB are not enough without. Full\n"
        "training is shared out over several GPUs: `byheart plan --model NAME --gpus 8 --gpu-memory-gb 80` tells.\n\n"
    )
    tables = [
        f"## {title}\n\n"
        "| base_model | parameters | answer / QLoRA / LoRA / full, GB | architecture | chat form, end | attention "
        "| other linear layers | licence | |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
        + "".join(_model_row(entry) for entry in MODELS if entry.family == family)
        for family, title in _FAMILIES.items()
    ]
    return GENERATED + intro + "\n".join(tables)


def _model_row(entry: ModelEntry) -> str:
    cells = (
        f"`{entry.name}`",
        _rounded(entry.parameters),
        _memory(entry),
        entry.architecture.partition("For")[0].removesuffix("LMHeadModel").removesuffix("Model"),
        "" if entry.chat == "none" else f"{entry.chat}, `{entry.end_token}`",
        ", ".join(entry.attention_targets),
        ", ".join(entry.linear_targets),
        entry.licence + (", gated" if entry.gated else ""),
        entry.about,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _memory(entry: ModelEntry) -> str:
    size = size_of(entry.architecture, entry.shape, parameters=entry.parameters)
    if size is None:
        return "?"
    learned = 128 if entry.from_scratch else 512  # of 512: a long answer; a section of the manual (train.mix_documents)
    batch = Batch(rows=80, tokens=48, learned=0) if size.is_encoder else Batch(rows=1, tokens=512, learned=learned)
    work = choose.Work(batch, Adapters(rank=TrainConfig().lora_rank), window=4096)
    machine = choose.Machine(1, 24 * choose.GB, "", in_bf16=True)
    needed = {option.method: option.needed / choose.GB for option in choose.options(size, work, machine)}
    return " / ".join(f"{needed[name]:.1f}" if name in needed else "–" for name in choose.METHODS)


def _rounded(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"


def with_tree(readme: str) -> str:
    """Return the README with a fresh tree of the modules, each with the first sentence of its docstring."""
    before, start, rest = readme.partition(TREE_START)
    _, end, after = rest.partition(TREE_END)
    if not (start and end):
        sys.exit(f"README.md has lost its marks: {TREE_START!r} … {TREE_END!r}")
    return before + start + "".join(f"{line}\n" for line in tree()) + end + after


def tree() -> Iterator[str]:
    """Yield a line per module: its path below src/byheart, and what it is for."""
    package = ROOT / "src" / "byheart"
    yield "src/byheart/"
    modules = [path for path in package.rglob("*.py") if path.name != "__init__.py"]
    tops = sorted(path for path in modules if path.parent == package)
    for path in tops:
        yield _line(f"    {path.name}", path)
    for folder in sorted({path.parent for path in modules} - {package}):
        yield _line(f"    {folder.relative_to(package)}/", folder / "__init__.py")
        for path in sorted(path for path in modules if path.parent == folder):
            yield _line(f"        {path.name}", path)


def _line(name: str, path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    caption = " ".join(docstring.partition("\n\n")[0].split()).rstrip(".")
    return f"{name:<32} {caption}".rstrip()


def _row(setting: Setting) -> str:
    shown = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    default = "required" if setting.required else "" if shown is None else f"`{json.dumps(shown)}`"
    cells = (f"`{setting.key}`", default, setting.allowed, setting.description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _help(*words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--help"], prog_name="byheart", env={"COLUMNS": "100"})
    lines = (line.rstrip() for line in result.stdout.strip().splitlines())
    return "```\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    for page, text in pages().items():
        page.parent.mkdir(exist_ok=True)
        page.write_text(text, encoding="utf-8")
