"""Which sentences get a receipt? Statements of a manual, as they are and made wrong in one place.

    python bench/bench_receipts.py my-bot/run [--statements 120] [--close 0.5 0.6 0.7]

Each statement is held against the manual's passages as a sentence of a written answer is. True ones (as they are, with
every fifth word left out, with a word or two in a synonym) should have a receipt, the others should not: with a word
exchanged for any other of the manual, a capitalised one (a label, a role) for another, a word for the nearest in
meaning, a unit of time for another, other numbers, "cannot" for "can". Prints the shares that have one, for each limit
of closeness (byheart.answer.receipts.CLOSE is the shipped one). Some of the "synonyms" are none ("export" and
"download"), and some exchanges happen to be true.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from byheart.answer import receipts
from byheart.answer.bot import MODEL, trained_encoder
from byheart.index.index import Index, load_index, tokens_of
from byheart.models.encoder import DualEncoder, Encoded, Encoder
from byheart.records import Fact
from byheart.store import RunFolder
from byheart.synthesize.offline_phrasings import SYNONYMS

UNITS = ("seconds", "minutes", "hours", "days", "weeks", "months", "years")
WORD = re.compile(r"[A-Za-z]{3,}")
Change = Callable[[str], str | None]  # None: there is nothing to change in this sentence


class Changes:
    """Ways to change a sentence, with the words of all of them."""

    def __init__(self, statements: Sequence[str], encoder: Encoder | DualEncoder, chance: random.Random) -> None:
        self._chance = chance
        self._words = [word[0] for statement in statements for word in content(statement)]
        self._names = [word[0] for statement in statements for word in names(statement)]
        self._vocabulary = sorted({word.lower() for word in self._words})
        self._vectors_N_D = encoder.vectors(self._vocabulary, max_tokens=16)
        self._synonyms = {group[0]: [word for word in group[1:] if " " not in word] for group in SYNONYMS}

    def all(self) -> dict[str, Change]:
        return {
            "as it is": lambda sentence: sentence,
            "every fifth word left out": lambda sentence: " ".join(
                word for number, word in enumerate(sentence.split()) if number % 5 != 4
            ),
            "synonyms": self.synonyms,
            "any word": lambda sentence: self._put(sentence, content(sentence), self._words),
            "a capitalised word": lambda sentence: self._put(sentence, names(sentence), self._names),
            "the nearest word": self.nearest,
            "a unit of time": lambda sentence: self._put(
                sentence, [word for word in content(sentence) if word[0] in UNITS], UNITS
            ),
            "numbers": lambda sentence: changed(sentence, r"\d+", lambda number: str(int(number[0]) * 3 + 1)),
            "cannot": lambda sentence: changed(sentence, r"\bcan\b", lambda _can: "cannot"),
        }

    def synonyms(self, sentence: str) -> str | None:
        known = [word for word in reversed(content(sentence)) if self._synonyms.get(word[0].lower())][:2]
        for word in known:  # from the end, so that the places before keep their numbers
            sentence = put(sentence, word, self._chance.choice(self._synonyms[word[0].lower()]))
        return sentence if known else None

    def nearest(self, sentence: str) -> str | None:
        words = content(sentence)
        if not words:
            return None
        word = self._chance.choice(words)
        own = self._vectors_N_D[self._vocabulary.index(word[0].lower())]
        order = (self._vocabulary[number] for number in np.argsort(-(self._vectors_N_D @ own)))
        return put(sentence, word, next(other for other in order if tokens_of(other) != tokens_of(word[0])))

    def _put(self, sentence: str, places: Sequence[re.Match[str]], words: Sequence[str]) -> str | None:
        if not places:
            return None
        place = self._chance.choice(places)
        others = [word for word in words if tokens_of(word) != tokens_of(place[0])]
        return put(sentence, place, self._chance.choice(others)) if others else None


def content(sentence: str) -> list[re.Match[str]]:
    """Return the words that say something."""
    return [word for word in WORD.finditer(sentence) if tokens_of(word[0]) and word[0].lower() != "cannot"]


def names(sentence: str) -> list[re.Match[str]]:
    """Return the capitalised words after the first."""
    return [word for word in content(sentence) if word.start() > 0 and word[0][0].isupper()]


def put(sentence: str, place: re.Match[str], word: str) -> str:
    word = word.capitalize() if place.start() == 0 else word
    return sentence[: place.start()] + word + sentence[place.end() :]


def changed(sentence: str, pattern: str, other: Callable[[re.Match[str]], str]) -> str | None:
    found = re.sub(pattern, other, sentence)
    return found if found != sentence else None


def share(sentences: Sequence[str], index: Index, encode: Callable[[str], Encoded]) -> float:
    """Return the share that has a receipt, each sentence being an answer of its own."""
    supported = [
        receipts.check(sentence, index.search(sentence, encode(sentence)), index, encode=encode).is_supported
        for sentence in sentences
    ]
    return sum(supported) / max(1, len(supported))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--statements", type=int, default=120)
    parser.add_argument("--close", type=float, nargs="+", default=[0.5, receipts.CLOSE, 0.7])
    arguments = parser.parse_args()
    folder = RunFolder(arguments.run)
    index, encoder = load_index(folder / MODEL / "index"), trained_encoder(folder / MODEL)
    chance = random.Random(0)
    found = sorted({fact.statement for fact in folder.read("2-facts.jsonl", Fact)})
    found = [statement for statement in found if 7 <= len(statement.split()) <= 30 and "|" not in statement]
    statements = chance.sample(found, min(arguments.statements, len(found)))
    kinds = {
        name: [sentence for statement in statements if (sentence := change(statement))]
        for name, change in Changes(statements, encoder, chance).all().items()
    }
    print(f"{'share with a receipt at':28}" + "".join(f"{close:8.2f}" for close in arguments.close), flush=True)
    rows: dict[str, list[float]] = {name: [] for name in kinds}
    for close in arguments.close:
        receipts.CLOSE = close
        for name, sentences in kinds.items():
            rows[name].append(share(sentences, index, lambda text: encoder.encode_one(text, max_tokens=256)))
    for name, shares in rows.items():
        print(f"{name:22} {len(kinds[name]):4} " + "".join(f"{value:8.0%}" for value in shares))


if __name__ == "__main__":
    main()
