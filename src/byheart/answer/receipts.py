"""Receipts: each sentence of an answer that a model wrote, held against the passages of the manual.

A sentence is borne out where one passage has most of its words by weight, all of its numbers, and says yes or no as
the sentence does; and where it has, for each word of the manual that it lacks, one that is close to it in meaning. That
is stricter than a likeness of whole vectors, which hardly tells "3 guests" from "30 guests", or "can" from "cannot".
What it refuses wrongly costs little: the manual's own passage is shown instead (answer.unsupported).
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence

from byheart.answer.base import Receipt
from byheart.index.index import Index, Match, tokens_of
from byheart.models.encoder import Encoded
from byheart.sentences import sentence_spans

SUPPORTED = 0.6  # share of a sentence's words, by weight, that must stand in the passage
CLOSE = 0.6  # cosine of a word's vector in its sentence to one of the passage; docs/experiments.md#receipts
SOURCES = 5  # passages that may bear a sentence out

Encode = Callable[[str], Encoded]  # the vectors of a sentence

_MARKER = re.compile(r"^[ \t>]*(?:[-*+]|\d{1,4}[.)]|#{1,6}|\|)?[ \t]*")
_RULE = re.compile(r"^[ \t>]*(?:```|~~~|[-=|: \t]+$)")  # a fence, a line under a heading or a table's head
_WORD = re.compile(r"[^\W\d_]{3,}")
_SAYS_NOTHING = frozenset({"yes", "no", "ok", "okay", "sure", "certainly", "please", "ja", "nein"})
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_NOT = re.compile(
    r"\b(?:not|no|never|none|nobody|nothing|cannot|without|neither|nor|nicht|nie|niemals|ohne|kein(?:e[nmrs]?)?)\b|n['’]t\b",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """An answer's sentences with their receipts."""

    receipts: tuple[Receipt, ...]
    sources: tuple[Match, ...]  # what bears them out, in the order of the sentences

    @property
    def is_supported(self) -> bool:
        """Whether there is a sentence that says something, and the manual says every one."""
        return bool(self.receipts) and all(receipt.section_id for receipt in self.receipts)


def check(text: str, matches: Sequence[Match], index: Index, *, encode: Encode) -> Checked:
    """Return the receipts of an answer. `matches`: found for the whole of it; `encode` gives the vectors of a sentence.

    "Yes." and the like need no receipt, and are none for an answer that says no more.
    """
    encode = functools.cache(encode)  # of most sentences the words are enough, and no vectors are asked for
    receipts: list[Receipt] = []
    sources: list[Match] = []
    for sentence in sentences_of(text):
        if _SAYS_NOTHING.issuperset(tokens_of(sentence)):
            continue
        near = [*sources, *matches[:SOURCES]]  # a passage that bore out a sentence before likely bears this out, too
        source = source_of(sentence, near, index, encode) or source_of(
            sentence, index.search(sentence, encode(sentence))[:SOURCES], index, encode
        )
        passage = source.passage if source else None
        receipts.append(Receipt(sentence, passage.url if passage else "", passage.section_id if passage else ""))
        if source and all(source.position != other.position for other in sources):
            sources.append(source)
    return Checked(tuple(receipts), tuple(sources))


def sentences_of(markdown: str) -> list[str]:
    """Return the sentences of a text, each list item, table row and line of code apart, without their marks."""
    found = []
    for line in markdown.splitlines():
        if _RULE.match(line):
            continue
        content = line[_MARKER.match(line).end() :]  # type: ignore[union-attr]  # it matches nothing, too
        found += [content[start:end] for start, end in sentence_spans(content)]
    return found


def source_of(sentence: str, matches: Sequence[Match], index: Index, encode: Encode) -> Match | None:
    """Return the match whose passage says what a sentence says; None where the nearest does not.

    The nearest alone is asked: beside "Guests cannot export boards", what another passage has of the words is no proof.
    """
    weights = {word: index.word_weight(word) for word in tokens_of(sentence)}

    def shared(text: str) -> float:
        return sum(weights.get(word, 0.0) for word in set(tokens_of(text)))

    able = [m for m in matches if not m.passage.is_link_list and _numbers(sentence) <= _numbers(m.passage.text)]
    nearest = max(able, key=lambda match: shared(match.passage.text), default=None)
    if nearest is None or shared(nearest.passage.text) < SUPPORTED * sum(weights.values()):
        return None
    unit = max((unit.text for unit in nearest.passage.units), key=shared, default="")
    if len(_NOT.findall(sentence)) != len(_NOT.findall(unit)):
        return None
    return nearest if _has_all_words(sentence, nearest, index, encode) else None


def _has_all_words(sentence: str, match: Match, index: Index, encode: Encode) -> bool:
    """Whether the passage has each of the manual's words that the sentence has, or one close to it.

    A word that the manual does not know is a paraphrase more often than a wrong name.
    """
    has = set(tokens_of(match.passage.text))
    foreign = [
        word.span()
        for word in _WORD.finditer(sentence)
        if index.vocabulary.issuperset(stems := tokens_of(word[0])) and not has.issuperset(stems)
    ]
    if not foreign:
        return True
    encoded = encode(sentence)
    nearness_T = index.counterparts(match.position, encoded)
    inside = [nearness_T[(encoded.starts_T >= start) & (encoded.starts_T < end)] for start, end in foreign]
    return all(near.size and near.min() >= CLOSE for near in inside)


def _numbers(text: str) -> set[str]:
    return set(_NUMBER.findall(text))
