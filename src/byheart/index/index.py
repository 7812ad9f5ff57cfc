"""Search over the passages: candidates by dense vectors and BM25, re-ranked by late interaction.

Three views of relevance are added up: the passage's vector (what it is about), its best unit's vector (whether one
sentence says it), and MaxSim over token vectors (whether each word of the question has its counterpart; ColBERT,
Khattab & Zaharia 2020). BM25 (Robertson & Zaragoza 2009) brings in names and codes that vectors blur, in proportion to
how much of the question the passage has: where customers use other words than the manual, it keeps still.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import bm25s
import numpy as np
from numpy.typing import NDArray

from byheart import records
from byheart.index.passages import Passage
from byheart.models.encoder import Encoded, Encoder

Array = NDArray[np.float32]
Ints = NDArray[np.int32]

CANDIDATES = 64  # passages that late interaction looks at
UNITS_SCORED = 12  # of the best of them, each unit is scored too: an answer draws on no more

# Weights of the views, each a cosine-like number (BM25: relative to what all the question's words weigh). Round numbers
# that did well on three manuals; docs/experiments.md has the figures, `bench/bench_answers.py --vary` tries others.
WEIGHT_DENSE = 1.0
WEIGHT_UNIT = 0.8
WEIGHT_LATE = 2.0
WEIGHT_BM25 = 1.5
LINK_LIST_PENALTY = 0.3
# Of the headings' tokens in a unit's vector, against 1 for its own: a sentence alone often leaves out what it is about.
HEADING_SHARE = 0.3


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """A passage that was found, with what speaks for it."""

    passage: Passage
    position: int  # in the index
    score: float  # the views added up
    dense: float
    unit: float
    late: float
    lexical: float
    unit_scores: tuple[float, ...]  # one for each of the passage's units


@dataclasses.dataclass(frozen=True)
class Index:
    """The manual's passages and their vectors. P passages, U units, T tokens, D dimensions."""

    passages: tuple[Passage, ...]
    vectors_P_D: Array
    units_U_D: Array
    tokens_T_D: NDArray[np.float16]  # memory-mapped when loaded from disk
    token_units_T: Ints  # the unit of each token; -1 for the headings
    first_token_P: Ints  # P + 1 entries
    first_unit_P: Ints  # P + 1 entries

    @functools.cached_property
    def bm25(self) -> bm25s.BM25:
        """Return the lexical index of the passages."""
        return lexical_index(self.passages)

    @functools.cached_property
    def vocabulary(self) -> frozenset[str]:
        """Return the stems of all words of the manual."""
        return frozenset(self._document_frequency)

    @functools.cached_property
    def _document_frequency(self) -> collections.Counter[str]:
        return collections.Counter(word for passage in self.passages for word in set(tokens_of(passage.text)))

    def word_weight(self, word: str) -> float:
        """Return the inverse document frequency of a stem."""
        return math.log(1 + len(self.passages) / (self._document_frequency[word] + 0.5))

    def search(self, question: str, encoded: Encoded) -> list[Match]:
        """Return the best passages first."""
        if not self.passages:
            return []
        dense_P = self.vectors_P_D @ encoded.vector_D
        unit_scores_U = self.units_U_D @ encoded.vector_D
        unit_P = np.maximum.reduceat(unit_scores_U, self.first_unit_P[:-1])
        lexical_P = self.lexical_scores(question)
        early_P = WEIGHT_DENSE * dense_P + WEIGHT_UNIT * unit_P + WEIGHT_BM25 * lexical_P
        best = np.argsort(-early_P, kind="stable")[: CANDIDATES + 8]
        lexical_best = np.argsort(-lexical_P, kind="stable")[: CANDIDATES // 8]
        positions = np.array(list(dict.fromkeys([*best.tolist(), *lexical_best.tolist()])), dtype=np.int64)
        support_Q_C = self._token_support(positions, encoded)
        late_C = support_Q_C.mean(axis=0)
        links_C = np.array([self.passages[position].is_link_list for position in positions], dtype=np.float32)
        score_C = early_P[positions] + WEIGHT_LATE * late_C - LINK_LIST_PENALTY * links_C
        matches = []
        for rank, candidate in enumerate(np.argsort(-score_C, kind="stable").tolist()):
            position = int(positions[candidate])
            matches.append(
                Match(
                    passage=self.passages[position],
                    position=position,
                    score=float(score_C[candidate]),
                    dense=float(dense_P[position]),
                    unit=float(unit_P[position]),
                    late=float(late_C[candidate]),
                    lexical=float(lexical_P[position]),
                    unit_scores=self._unit_scores(position, encoded, unit_scores_U) if rank < UNITS_SCORED else (),
                )
            )
        return matches

    def counterparts(self, position: int, encoded: Encoded) -> Array:
        """Return for each token of a text how near the nearest token of a passage is (T numbers, at most 1)."""
        return np.asarray(self._token_support(np.array([position]), encoded)[:, 0])

    def _token_support(self, positions: NDArray[np.int64], encoded: Encoded) -> Array:
        """Return for each token of the question its best counterpart in each of the passages (Q x C)."""
        slices = [slice(self.first_token_P[p], self.first_token_P[p + 1]) for p in positions]
        tokens_t_D = np.concatenate([self.tokens_T_D[part] for part in slices]).astype(np.float32)
        starts = np.cumsum([0, *(part.stop - part.start for part in slices)])[:-1]
        return np.asarray(np.maximum.reduceat(encoded.tokens_T_D @ tokens_t_D.T, starts, axis=1), dtype=np.float32)

    def _unit_scores(self, position: int, encoded: Encoded, unit_scores_U: Array) -> tuple[float, ...]:
        """Return how well each unit of a passage answers: its own vector and its tokens' late interaction."""
        tokens = slice(self.first_token_P[position], self.first_token_P[position + 1])
        units = slice(self.first_unit_P[position], self.first_unit_P[position + 1])
        owners_t = self.token_units_T[tokens]
        starts = np.flatnonzero(np.diff(owners_t, prepend=-2))  # tokens stand in the order of their units
        best_Q_u = np.maximum.reduceat(
            encoded.tokens_T_D @ self.tokens_T_D[tokens].astype(np.float32).T, starts, axis=1
        )
        late = dict(zip(owners_t[starts].tolist(), best_Q_u.mean(axis=0).tolist(), strict=True))
        return tuple(
            WEIGHT_UNIT * own + WEIGHT_LATE * late.get(number, 0.0)
            for number, own in enumerate(unit_scores_U[units].tolist(), int(units.start))
        )

    def lexical_scores(self, question: str) -> Array:
        """Return the BM25 score of each passage, over what all the question's words weigh together.

        So a passage with the one known word of many scores little, though no other passage has more.
        """
        words = tokens_of(question)
        known = [word for word in words if word in self.vocabulary]
        if not known:
            return np.zeros(len(self.passages), dtype=np.float32)
        weight = sum(self.word_weight(word) for word in set(words))
        return np.asarray(self.bm25.get_scores(known), dtype=np.float32) / weight

    def save(self, folder: Path) -> None:
        """Write the index into an empty folder."""
        folder.mkdir(parents=True)
        records.write_jsonl(folder / "passages.jsonl", self.passages)
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)


_ARRAYS = ("vectors_P_D", "units_U_D", "tokens_T_D", "token_units_T", "first_token_P", "first_unit_P")


def load_index(folder: Path) -> Index:
    """Load an index; the token vectors, by far the largest part, stay on disk until they are needed."""
    arrays = {
        name: np.load(folder / f"{name}.npy", allow_pickle=False, mmap_mode="r" if name == "tokens_T_D" else None)
        for name in _ARRAYS
    }
    return Index(passages=tuple(records.read_jsonl(folder / "passages.jsonl", Passage)), **arrays)


def build_index(
    passages: Sequence[Passage],
    encoder: Encoder,
    *,
    on_done: Callable[[int], None] = lambda done: None,
) -> Index:
    """Encode the passages, each once: its vector, its tokens' and its units' come out of the same forward pass.

    `on_done(done)` counts passages.
    """
    encoded = dict(encoder.encode([passage.text for passage in passages], on_done=on_done))
    first_unit_P = np.cumsum([0, *(len(passage.units) for passage in passages)]).astype(np.int32)
    dimensions = encoder.dimensions
    tokens, owners = [np.zeros((0, dimensions), dtype=np.float16)], [np.zeros(0, dtype=np.int32)]
    units = [np.zeros((0, dimensions), dtype=np.float32)]
    for position, passage in enumerate(passages):
        found = encoded[position]
        owner_T = _unit_of_tokens(passage, found.starts_T)
        owners.append(np.where(owner_T >= 0, owner_T + first_unit_P[position], -1).astype(np.int32))
        tokens.append(found.tokens_T_D.astype(np.float16))
        units.append(_unit_vectors(found.tokens_T_D, owner_T, len(passage.units)))
    vectors = [encoded[position].vector_D for position in range(len(passages))]
    return Index(
        passages=tuple(passages),
        vectors_P_D=np.array(vectors, dtype=np.float32).reshape(-1, dimensions),
        units_U_D=np.concatenate(units),
        tokens_T_D=np.concatenate(tokens),
        token_units_T=np.concatenate(owners),
        first_token_P=np.cumsum([0, *(len(part) for part in tokens[1:])]).astype(np.int32),
        first_unit_P=first_unit_P,
    )


def _unit_vectors(tokens_T_D: Array, owner_T: Ints, units: int) -> Array:
    """Return a vector for each unit of a passage: the mean of its tokens, read in the passage, and of the headings'.

    Late chunking (Günther et al. 2024): as good as encoding each unit anew, in none of the time (docs/experiments.md).
    """
    sums_U_D = np.zeros((units + 1, tokens_T_D.shape[1]), dtype=np.float32)  # row 0: the headings
    np.add.at(sums_U_D, owner_T + 1, tokens_T_D)
    means_U_D = _unit_length(sums_U_D)
    return _unit_length(means_U_D[1:] + HEADING_SHARE * means_U_D[0])


def _unit_length(vectors_N_D: Array) -> Array:
    lengths_N = np.linalg.norm(vectors_N_D, axis=1, keepdims=True)
    return np.asarray(vectors_N_D / np.maximum(lengths_N, 1e-6), dtype=np.float32)


def lexical_index(passages: Sequence[Passage]) -> bm25s.BM25:
    """Return the BM25 index of passages; building it takes milliseconds a hundred."""
    index = bm25s.BM25()
    index.index([tokens_of(passage.text) for passage in passages], show_progress=False)
    return index


def tokens_of(text: str) -> list[str]:
    """Return a text's words for BM25: lower case, function words out, plural and verb endings cut."""
    return [_stem(word) for word in re.findall(r"\w+", text.lower()) if word not in FUNCTION_WORDS]


def _unit_of_tokens(passage: Passage, starts_T: Ints) -> Ints:
    """Return for each token of the passage's text the number of the unit that it stands in; -1 for the headings."""
    bounds = [len(passage.prefix)]
    for unit in passage.units:
        bounds.append(bounds[-1] + len(unit.text) + 1)
    return (np.searchsorted(np.array(bounds), starts_T, side="right") - 1).astype(np.int32)


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


FUNCTION_WORDS = frozenset(
    """
    a about am an and any are as at be because been but by can could did do does doing for from get had has have how i
    if in into is it its just me my no not of on or our out over so some such than that the their them then there these
    they this those to too up very was we were what when where which while who why will with would you your
    """.split()
)
