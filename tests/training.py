"""A tiny BERT with random weights and a small manual, for the tests of training: no download, a second a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from byheart.config import Config, Project, TrainConfig
from byheart.models.hub import quiet
from byheart.records import Fact, Pair, Section, Split, stable_id
from byheart.store import RunFolder

TOPICS = ("boards", "cards", "votes", "timers", "guests", "roles", "exports", "audits", "teams", "colours")
_WORDS = "how do i use the find where is what can open menu for and a of to delete share settings . > ?".split()


def tiny_bert(folder: Path) -> str:
    """Save a BERT of 2 layers with random weights, and return its folder as a base_model."""
    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *TOPICS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(str(folder))
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    with quiet():
        BertModel(config).save_pretrained(str(folder))
    return str(folder)


def small_project(folder: Path, base_model: str, **train: Any) -> tuple[Project, RunFolder]:
    """Return a project whose ten sections have questions, ready for training."""
    settings = {"precision": "fp32", "epochs": 6, "batch_size": 20, "learning_rate": 0.003, "patience": 50} | train
    config = Config(docs=("manual",), base_model=base_model, train=TrainConfig(**settings))
    project = Project(folder=folder, config=config)
    run_folder = RunFolder(project.run_path)
    run_folder.write("1-documents.jsonl", [])
    run_folder.write("3-typical.jsonl", [])
    run_folder.write("2-sections.jsonl", [_section(topic, number) for number, topic in enumerate(TOPICS)])
    run_folder.write("2-facts.jsonl", [_fact(topic) for topic in TOPICS])
    run_folder.write("3-pairs.jsonl", default_pairs())
    return project, run_folder


def default_pairs() -> list[Pair]:
    """Return four training questions and one unseen phrasing a section, and one question outside the manual."""
    asked: list[Pair] = [pair("outside", "outside", section_id="")]
    for topic in TOPICS:
        asked += [
            pair(topic, "train", question=question)
            for question in (f"how do i use {topic} ?", f"find {topic}", f"{topic} settings", f"delete {topic}")
        ]
        asked.append(pair(topic, "unseen phrasing", question=f"where is the menu for {topic} ?"))
    return asked


def pair(topic: str, split: Split, *, question: str = "what is this ?", section_id: str | None = None) -> Pair:
    """Return a question about a topic's section."""
    return Pair(
        id=stable_id(question, topic), fact_ids=(f"fact {topic}",),
        section_id=topic if section_id is None else section_id,
        question=question, answer=_text(topic), kind="qa", perspective="newcomer", temperature=0.0, teacher="offline",
        prompt_id="", split=split,
    )  # fmt: skip


def _text(topic: str) -> str:
    return f"Open the menu and find {topic} settings."


def _section(topic: str, order: int) -> Section:
    return Section(topic, "page", (topic,), f"page#{topic}", _text(topic), order, stable_id(topic))


def _fact(topic: str) -> Fact:
    return Fact(f"fact {topic}", topic, _text(topic), 0, len(_text(topic)), "statement")


def questions_of(batches: Sequence[Any]) -> list[str]:
    """Return the questions of batches, in order."""
    return [question for batch in batches for question in batch.questions]
