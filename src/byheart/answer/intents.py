"""What a question is about: a part of the manual, told by a linear head on the fine-tuned encoder's vector of it.

An intent is the folder that a page lies in: that is how a manual's authors group it, so a help desk can send a question
to its team by it, and count what customers ask about. Which page it is, citations say better: on the example manual
the search finds the right page for four of five questions, the head for one of two (docs/experiments.md).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

from byheart.answer.confidence import Vectors
from byheart.index.index import Index
from byheart.models.encoder import DualEncoder, Encoder
from byheart.records import Document, Section

MOST_QUESTIONS = 2000  # each is encoded: a quarter of a minute on two idle cores
MOST_INTENTS = 500  # a manual in no folders, with more pages, takes minutes to fit
_WEAK_PENALTY = 10.0  # scikit-learn's C: the best of 1, 10, 30 and 100 on unseen phrasings (docs/experiments.md)
_QUESTION_TOKENS = 64


@dataclasses.dataclass(frozen=True, slots=True)
class IntentHead:
    """A linear classifier of question vectors."""

    intents: tuple[str, ...]
    weights_I_D: Vectors
    bias_I: Vectors

    def intent_of(self, question_D: Vectors) -> str:
        """Return the likeliest intent of a question's vector."""
        return self.intents[int(np.argmax(self.weights_I_D @ question_D + self.bias_I))]

    def save(self, path: Path) -> None:
        """Write the head to a safetensors file."""
        tensors = {"weights": self.weights_I_D, "bias": self.bias_I}
        save_file(tensors, path, metadata={"intents": json.dumps(self.intents)})


def load_intents(path: Path) -> IntentHead:
    """Read what IntentHead.save wrote."""
    with safe_open(path, framework="numpy") as file:
        return IntentHead(
            tuple(json.loads(file.metadata()["intents"])), file.get_tensor("weights"), file.get_tensor("bias")
        )


def intents_of(sections: Iterable[Section], documents: Iterable[Document]) -> tuple[dict[str, str], str]:
    """Return the intent of each section, and what an intent is: folder, page, or chapter of a single page.

    The first of these that tells the sections apart; no intents where none does, or in more than MOST_INTENTS.
    """
    sections = list(sections)
    paths = {document.id: (urlsplit(document.location).path.strip("/") or "index").split("/") for document in documents}
    folders = zip(*(path[:-1] for path in paths.values()), strict=False)  # as deep as all of them go
    shared = len(list(itertools.takewhile(lambda names: len(set(names)) == 1, folders)))
    inner = {key: path[shared:] for key, path in paths.items()}
    levels: dict[str, Callable[[Section], str]] = {
        "folder": lambda section: inner[section.document_id][0],
        "page": lambda section: "/".join(inner[section.document_id]),
        "chapter": lambda section: " › ".join(section.heading_path[:2]),
    }
    has_folders = any(len(path) > 1 for path in inner.values())
    for name in ("folder", "page", "chapter")[not has_folders :]:
        found = {section.id: levels[name](section) for section in sections if section.document_id in inner}
        if 2 <= len(set(found.values())) <= MOST_INTENTS:
            return found, name
    return {}, ""


def fit_intents(
    asked: Sequence[tuple[str, str]], *, index: Index, encoder: Encoder | DualEncoder, intents: Mapping[str, str]
) -> IntentHead | None:
    """Return the head that tells the intents apart; None where there are fewer than two.

    `asked`: questions with the sections that answer them; `intents`: of each section. The passages of the index are
    learned, too: an intent that was asked little about still has its text.
    """
    known = [(question, intents[section_id]) for question, section_id in asked if section_id in intents]
    sample = random.Random("intents").sample(known, min(MOST_QUESTIONS, len(known)))
    told = [position for position, passage in enumerate(index.passages) if passage.section_id in intents]
    labels = [intent for _, intent in sample] + [intents[index.passages[position].section_id] for position in told]
    if len(set(labels)) < 2 or not sample:
        return None
    vectors_N_D = encoder.vectors([question for question, _ in sample], max_tokens=_QUESTION_TOKENS)
    model = LogisticRegression(C=_WEAK_PENALTY, max_iter=500)
    model.fit(np.concatenate([vectors_N_D, np.asarray(index.vectors_P_D)[told]]), labels)
    # safetensors writes an array as it lies in memory, and scikit-learn's lies by columns.
    weights, bias = np.ascontiguousarray(model.coef_, np.float32), model.intercept_.astype(np.float32)
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes: the second against the first
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    return IntentHead(tuple(str(name) for name in model.classes_), weights, bias)
