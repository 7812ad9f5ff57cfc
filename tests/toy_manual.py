"""A small manual, read as ingest reads it, and an encoder that needs no model: for the tests of index and answers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from byheart.index.index import Index, build_index
from byheart.index.passages import Passage, make_passages
from byheart.ingest.facts import facts_of_sections
from byheart.ingest.sections import split_documents
from byheart.models.encoder import Encoded, Encoder, Vectors
from byheart.records import Document, Fact, Section

BOARDS = """# Boards

A board is an endless canvas for notes. A board holds up to 500 cards.

## Delete a board

To delete a board:

1. Open the dashboard.
2. Click the three dots beside the board.
3. Choose **Delete** and confirm.

A deleted board stays in the [bin](bin.md) for 30 days.

## Export a board

Boards are exported to PDF from the file menu. Guests cannot export boards.
"""

PLANS = """# Plans

Every plan has its own storage.

| Plan | Storage | Guests |
| --- | --- | --- |
| Free | 1 GB | 3 |
| Team | 50 GB | 20 |
| Company | 900 GB | unlimited |

## Seats

An owner adds seats on the billing page. Seats are charged by the month.
"""

MENU = """# Start here

- [Delete a board](boards.md#delete-a-board)
- [Export a board](boards.md#export-a-board)
- [Seats](plans.md#seats)
"""

PAGES = {"boards.md": BOARDS, "plans.md": PLANS, "start.md": MENU}


class FakeEncoder(Encoder):
    """Hashed bags of words: a word's vector follows from its letters, a text's is the mean of its words'."""

    def __init__(self) -> None:  # no model, no tokenizer
        self.read: list[str] = []

    @property
    def dimensions(self) -> int:
        return 64

    def encode(
        self, texts: Sequence[str], *, max_tokens: int = 256, on_done: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, Encoded]]:
        for done, index in enumerate(reversed(range(len(texts))), 1):  # any order, as the real one
            self.read.append(texts[index])
            yield index, self._encoded(texts[index], max_tokens)
            if on_done:
                on_done(done)

    def _encoded(self, text: str, max_tokens: int) -> Encoded:
        found = list(re.finditer(r"\w+|[^\w\s]", text))[:max_tokens]
        tokens_T_D = np.array([word_vector(word[0], self.dimensions) for word in found], dtype=np.float32)
        tokens_T_D = tokens_T_D.reshape(-1, self.dimensions)
        mean_D = tokens_T_D.sum(axis=0) if found else word_vector("", self.dimensions)
        starts_T = np.array([word.start() for word in found], dtype=np.int32)
        return Encoded(mean_D / np.linalg.norm(mean_D), tokens_T_D, starts_T)


def word_vector(word: str, dimensions: int) -> Vectors:
    """Return a vector of length 1 that depends on the word alone, case and plural aside."""
    seed = int.from_bytes(hashlib.sha256(word.lower().removesuffix("s").encode()).digest()[:8])
    vector = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def read(pages: dict[str, str]) -> tuple[list[Document], list[Section], list[Fact]]:
    """Return the records that ingest makes of Markdown pages."""
    documents = [
        Document(name, name, text.partition("\n")[0].lstrip("# "), "en", text, name, "2026-01-01T00:00:00Z")
        for name, text in pages.items()
    ]
    sections = list(split_documents(documents))
    return documents, sections, list(facts_of_sections(sections))


def passages_of(pages: dict[str, str]) -> list[Passage]:
    """Return the passages of Markdown pages."""
    documents, sections, facts = read(pages)
    return make_passages(sections, facts, documents)


def index_of(pages: dict[str, str]) -> Index:
    """Return the index of Markdown pages under the fake encoder."""
    return build_index(passages_of(pages), FakeEncoder())
