"""Sixty invented help centres, with what customers ask of each and what its manual does not answer.

They teach in general what no single manual can: how customers word what a help centre says in its own terms, and what a
question sounds like that a manual is silent on. scripts/train_starter.py makes the starter's adapter of them, and the
decision to decline is fitted on their questions among others. Products, texts and questions are made up.
"""

from __future__ import annotations

import dataclasses
import functools
from importlib import resources
from typing import Any

import yaml

from byheart.records import TypicalQuestion


@dataclasses.dataclass(frozen=True, slots=True)
class HelpSection:
    """One section, and six (question, fact) that it answers: the fact stands in the text word for word."""

    title: str  # of its page
    heading: str
    text: str  # Markdown
    questions: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class HelpCentre:
    """One product's help centre."""

    product: str
    kind: str
    sections: tuple[HelpSection, ...]
    not_answered: tuple[str, ...]


@functools.cache
def help_centres() -> tuple[HelpCentre, ...]:
    """Return all of them, by file name."""
    folder = resources.files(__package__).joinpath("help_centres")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return tuple(_centre(_parsed(file.read_text(encoding="utf-8"))) for file in files)


def typical_questions() -> tuple[TypicalQuestion, ...]:
    """Return one question of every section, each of the six kinds as often as the others, and all that stay open."""
    sections = [section for centre in help_centres() for section in centre.sections]
    answered = [section.questions[number % len(section.questions)][0] for number, section in enumerate(sections)]
    silent = [question for centre in help_centres() for question in centre.not_answered]
    return (
        *(TypicalQuestion(question, answered=True) for question in answered),
        *(TypicalQuestion(question, answered=False) for question in silent),
    )


def _parsed(text: str) -> Any:
    # The same safe loader in C, ten times as fast, where PyYAML was built with it.
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _centre(raw: Any) -> HelpCentre:
    return HelpCentre(
        product=raw["product"],
        kind=raw["kind"],
        sections=tuple(
            HelpSection(page["title"], section["heading"], section["text"], tuple(map(tuple, section["questions"])))
            for page in raw["pages"]
            for section in page["sections"]
        ),
        not_answered=tuple(question for questions in raw["not_answered"].values() for question in questions),
    )
