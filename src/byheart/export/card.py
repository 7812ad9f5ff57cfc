"""The model card: what a model was made from, how, how well it answers, and what it must not be taken for.

Markdown with the front matter that model hubs read. Pure functions, but for `read_story`, which reads the run folder.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from byheart.catalog import find_model
from byheart.config import Config
from byheart.models.adapters import TrainedModel, read_description
from byheart.records import Document, read_jsonl
from byheart.store import Mark, RunFolder, file_digest

Form = Literal["merged", "adapter", "gguf", "sentence-transformers"]

_LIBRARY = {
    "merged": "transformers",
    "adapter": "peft",
    "gguf": "gguf",
    "sentence-transformers": "sentence-transformers",
}
_HUB_LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit"}  # as hubs write them; any other is "other", with its name
_SYSTEMS = {
    "byheart": "this bot",
    "closed-book": "the model alone, unchecked",
    "retrieve": "the model, reading passages",
    "untrained": "not trained on the manual",
    "bm25": "word search (BM25)",
}
_GROUPS = {
    "yours": "questions in customers' words",
    "unseen phrasing": "the manual's facts, asked in words that were not trained on",
    "seen phrasing": "questions as they were trained on",
    "yours outside": "customers' questions that the manual does not answer (right: declined)",
    "outside": "made questions that the manual does not answer (right: declined)",
}
_WITHOUT_BOT = (
    "The figures are those of the whole bot, which declines where the manual is silent, holds every answer against the "
    "manual and cites it. These weights alone do none of that."
)


@dataclasses.dataclass(frozen=True, slots=True)
class Story:
    """What a card tells of a bot, whatever form its model is exported in."""

    name: str
    docs_licence: str
    sources: tuple[str, ...]
    languages: tuple[str, ...]
    trained: TrainedModel
    marks: Mapping[str, Mark]
    figures: Mapping[str, Any] | None  # 5-metrics.json, where it is of this very model


def read_story(folder: RunFolder, config: Config, *, name: str) -> Story:
    """Return the story of the bot in a run folder. Raises ModelError where its model's description is damaged."""
    marks = folder.marks()
    metrics = folder / "5-metrics.json"
    measured = marks["evaluate"].went_in.get("4-model") if "evaluate" in marks else None
    of_this_model = metrics.exists() and measured == file_digest(folder / "4-model")
    documents = folder / "1-documents.jsonl"
    languages = {item.language for item in read_jsonl(documents, Document)} if documents.exists() else set()
    return Story(
        name=name,
        docs_licence=config.docs_licence,
        sources=config.docs,
        languages=tuple(sorted(languages)),
        trained=read_description(folder / "4-model"),
        marks=marks,
        figures=json.loads(metrics.read_text(encoding="utf-8")) if of_this_model else None,
    )


def card(story: Story, form: Form, *, use: str, prompt: str = "", end_token: str = "") -> str:
    """Return the card. `use`: a code block that opens the model; `prompt`: what it is given for "QUESTION"."""
    parts = [
        f"# {story.name}",
        _summary(story, form),
        "## Use\n\n" + use.strip(),
        _prompt_format(prompt, end_token),
        _data(story),
        _training(story),
        _evaluation(story),
        _limits(story, form),
        _licence(story),
    ]
    return _front_matter(story, form) + "\n" + "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(story: Story, form: Form) -> str:
    entry = find_model(story.trained.base_model)
    licence = entry.licence if entry else ""
    known = _HUB_LICENCES.get(licence)
    lines = [f"license: {known or 'other'}"]
    if not known:
        lines.append(f"license_name: {json.dumps(licence or 'see the base model')}")
    if entry and not entry.from_scratch:
        relation = {"adapter": "adapter", "gguf": "quantized"}.get(form, "finetune")
        lines += [f"base_model: {entry.hub_id}", f"base_model_relation: {relation}"]
    if story.languages:
        lines += ["language:", *(f"- {json.dumps(language)}" for language in story.languages)]
    task = {"encoder": "sentence-similarity", "seq2seq": "text2text-generation"}.get(story.trained.family)
    lines += [f"library_name: {_LIBRARY[form]}", f"pipeline_tag: {task or 'text-generation'}", "tags:", "- byheart"]
    return "---\n" + "\n".join(lines) + "\n---\n"


def _summary(story: Story, form: Form) -> str:
    what = {
        "merged": "A model that learned a product's manual by heart",
        "adapter": "A LoRA adapter with which a model knows a product's manual by heart",
        "gguf": "A model that learned a product's manual by heart, for llama.cpp and what builds on it",
        "sentence-transformers": "An encoder that learned which passage of a product's manual answers a question",
    }[form]
    return f"{what}: {_base(story)}, fine-tuned with byheart."


def _base(story: Story) -> str:
    entry = find_model(story.trained.base_model)
    if entry and entry.from_scratch:
        return f"{entry.architecture} from random weights, with a tokenizer trained on the manual"
    base = Path(story.trained.base_model)  # a hub's name, or a folder: only its last part is anybody else's business
    return f"`{entry.hub_id if entry else base.name if base.is_dir() else base}`"


def _prompt_format(prompt: str, end_token: str) -> str:
    if not prompt:
        return ""
    return (
        "## Prompt format\n\nIt was trained with these words around the question, and with no others. "
        f"A system message was never part of it.\n\n```text\n{prompt}\n```\n\n"
        f"An answer ends with `{end_token}`. The likeliest answer (greedy: temperature 0, no repetition penalty) is "
        "the one that was learned."
    )


def _data(story: Story) -> str:
    ingest, made = story.marks.get("ingest"), story.marks.get("synthesize")
    sources = ", ".join(f"`{source}`" if "://" in source else "local files" for source in story.sources)
    lines = [f"- manual: {', '.join(dict.fromkeys(sources.split(', ')))}"]
    if ingest:
        counts = ingest.counts
        lines.append(
            f"- {counts.get('documents', 0):,} pages, {counts.get('sections', 0):,} sections, "
            f"{counts.get('facts', 0):,} facts, read {ingest.finished_at[:10]}"
        )
    if made:
        counts = made.counts
        lines.append(
            f"- {counts.get('pairs', 0):,} questions with answers made from them: {counts.get('train', 0):,} to learn, "
            f"{counts.get('unseen phrasing', 0):,} phrasings held out, {counts.get('outside', 0):,} outside the manual"
        )
        lines += [f"- teacher: {made.chosen['teacher']}"] if "teacher" in made.chosen else []
    return "## Data\n\n" + "\n".join(lines)


def _training(story: Story) -> str:
    trained = story.trained
    method = {"none": "not trained", "full": "all weights"}.get(
        trained.method, f"{trained.method}, rank {trained.rank}"
    )
    loss = "" if trained.unseen_loss is None else f", loss on held-out phrasings {trained.unseen_loss:.3f}"
    lines = [f"- method: {method}; weights of step {trained.best_step}{loss}"]
    mark = story.marks.get("train")
    lines += [f"- {key}: {why}" for key, why in sorted(mark.chosen.items())] if mark else []
    return "## Training\n\n" + "\n".join(lines)


def _evaluation(story: Story) -> str:
    figures = story.figures
    if not figures:
        return "## Evaluation\n\nThis model was not evaluated. Take nothing for granted that it says."
    systems: Sequence[str] = figures["systems"]
    rows = []
    for group, meaning in _GROUPS.items():
        cells = {cell["system"]: cell for cell in figures["cells"] if cell["group"] == group}
        if cells:
            n = next(iter(cells.values()))["n"]
            rows.append(f"| {meaning} | {n} | " + " | ".join(_share(cells.get(system)) for system in systems) + " |")
    head = "| right answers | questions | " + " | ".join(_SYSTEMS.get(system, system) for system in systems) + " |"
    mark = story.marks["evaluate"]
    return "\n".join(
        [
            "## Evaluation",
            "",
            f"Measured {mark.finished_at[:10]}; 95 % intervals (Wilson) in brackets.",
            "",
            head,
            "|---|---|" + "---|" * len(systems),
            *rows,
            "",
            _WITHOUT_BOT,
        ]
    )


def _share(cell: Mapping[str, Any] | None) -> str:
    found = cell["correct"] if cell else None
    if not found or found["share"] is None:
        return "–"
    return f"{found['share']:.0%} ({found['low']:.0%}–{found['high']:.0%})"


def _limits(story: Story, form: Form) -> str:
    common = [
        "- It knows the manual as it was when it was read, and nothing that changed since.",
        "- It was made to answer questions about that one product. Other uses were not tried.",
    ]
    if form == "sentence-transformers":
        own = ["- It writes nothing. What it finds is as good as the passages that are put before it."]
    else:
        own = [
            "- It can state what is not in the manual, in the same sure tone. `byheart serve` shows an answer only "
            "where the manual bears it out, and cites it; other software that runs these weights does not.",
            "- Numbers, limits and prices are where a wrong answer is likeliest to look right: check them.",
        ]
    entry = find_model(story.trained.base_model)
    if entry and entry.from_scratch:
        own.append("- It has read nothing but this manual: it knows no language beyond it.")
    return "## Limits\n\n" + "\n".join(own + common)


def _licence(story: Story) -> str:
    entry = find_model(story.trained.base_model)
    base = entry.licence if entry else "see the base model"
    gated = (
        " Its terms must be accepted at its source, and bind whoever gets these weights."
        if entry and entry.gated
        else ""
    )
    manual = story.docs_licence or "ask the manual's owner before passing these weights on: they can recite it."
    return f"## Licence\n\n- base model: {base}.{gated}\n- manual: {manual}"
