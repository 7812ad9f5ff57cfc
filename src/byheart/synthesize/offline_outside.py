"""Questions that the manual does not answer, of the three kinds that customers ask.

Off topic (small talk, other products), unanswerable (near the product, but no matter for its manual: prices, dates,
people), and false premise (a feature that does not exist). The questions come from prompts/outside-bank.yaml and
prompts/outside-bank-2.yaml; one is kept only if the words that make it foreign occur nowhere in the manual.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, Literal

import yaml

from byheart.synthesize.offline_grammar import is_verb_phrase
from byheart.synthesize.offline_phrasings import ADMIN_OPENINGS, NEWCOMER_OPENINGS, RAMBLING_OPENINGS
from byheart.synthesize.offline_voice import slip

OutsideKind = Literal["off-topic", "unanswerable", "false-premise"]

_PASSES = 10  # how often the bank is gone through, in other fillings and voices, until enough questions are there
_SLOT = re.compile(r"\{(\w+)\}")
_OPENINGS = (*ADMIN_OPENINGS, *NEWCOMER_OPENINGS, *RAMBLING_OPENINGS)


@dataclasses.dataclass(frozen=True, slots=True)
class BankEntry:
    """A question of the bank, with {slots} to fill; foreign to every manual that has none of its foreign words."""

    kind: OutsideKind
    group: str  # the theme; what a cross-validation holds out as a whole
    text: str
    foreign: tuple[str, ...]  # terms of one or more words; none: foreign to every manual
    made: bool = False  # a false premise put together from a form and a name; the written ones go before it


@functools.cache
def bank_entries() -> tuple[BankEntry, ...]:
    """Return the whole bank; in false premises the foreign thing is filled in, the manual's own slots are open."""
    bank, more = _bank(), _read("outside-bank-2.yaml")
    written: tuple[tuple[OutsideKind, Mapping[str, Any]], ...] = (
        ("off-topic", bank["off-topic"]),
        ("off-topic", more["off-topic"]),
        ("unanswerable", bank["unanswerable"]),
        ("unanswerable", more["unanswerable"]),
        ("false-premise", more["false-premise"]),
    )
    entries = [
        BankEntry(kind, group, text, _terms(words))
        for kind, groups in written
        for group, questions in groups.items()
        for text, words in questions.items()
    ]
    for family, content in bank["false-premise"].items():
        for group, name, words in _names(family, content["names"]):
            slot = "{" + content["slot"] + "}"
            entries += [
                BankEntry("false-premise", group, form.replace(slot, name), _terms(words), made=True)
                for form in content["forms"]
            ]
    return tuple({_key(entry.text): entry for entry in reversed(entries)}.values())[::-1]  # of two alike, the first


def outside_questions(manual: str, phrases: Sequence[str], *, count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Return up to `count` (kind, question), a fifth off topic, half of the rest unanswerable, half false premises.

    `phrases` are tasks and things of the manual; questions borrow them, to sound like the product's own.
    """
    entries = foreign_entries(manual)
    fills = _fills(phrases)
    off_topic = count // 5
    made: list[tuple[str, str]] = []
    seen: set[str] = set()
    # Where a manual's words leave too few of the first two kinds, the third, of which there are most, makes up for it.
    up_to: dict[OutsideKind, int] = {
        "off-topic": off_topic,
        "unanswerable": off_topic + (count - off_topic) // 2,
        "false-premise": count,
    }
    for kind, total in up_to.items():
        mine = [entry for entry in entries if entry.kind == kind]
        spoken = (_in_a_voice(_filled(entry.text, fills, rng), rng) for entry in _preferred(mine, rng))
        made += [(kind, question) for question in itertools.islice(_unseen(spoken, seen), total - len(made))]
    rng.shuffle(made)
    return made


def foreign_entries(manual: str) -> list[BankEntry]:
    """Return the entries whose foreign words occur in the manual neither as they are nor as plural or singular."""
    words = re.findall(r"\w+", manual.lower())
    vocabulary = set(words)
    text = f" {' '.join(words)} "

    @functools.cache
    def occurs(term: str) -> bool:
        *first, last = re.findall(r"\w+", term.lower())
        variants = _numbers(last)
        if not first:
            return not vocabulary.isdisjoint(variants)
        return any(f" {' '.join((*first, variant))} " in text for variant in variants)

    return [entry for entry in bank_entries() if not any(occurs(term) for term in entry.foreign)]


@functools.cache
def inside_questions() -> tuple[str, ...]:
    """Return questions as customers ask them about products of all kinds, which a manual usually answers."""
    folder = resources.files(__package__).joinpath("prompts")
    banks = [file.name for file in folder.iterdir() if re.fullmatch(r"inside-bank.*\.yaml", file.name)]
    kept: dict[str, str] = {}
    for bank in sorted(banks, key=lambda name: name.removesuffix(".yaml")):  # inside-bank before inside-bank-2
        for questions in _read(bank).values():
            for question in questions:
                kept.setdefault(_key(question), question)
    return tuple(kept.values())


@functools.cache
def _bank() -> Mapping[str, Any]:
    return _read("outside-bank.yaml")


def _read(name: str) -> Mapping[str, Any]:
    text = resources.files(__package__).joinpath("prompts", name).read_text(encoding="utf-8")
    bank: Mapping[str, Any] = yaml.safe_load(text)
    return bank


def _names(family: str, names: Mapping[str, Mapping[str, str]] | Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield (group, name, foreign words); a plain list is one group, and each name its own foreign word."""
    if isinstance(names, Mapping):
        for group, words in names.items():
            yield from ((group, name, foreign) for name, foreign in words.items())
    else:
        yield from ((family, name, name) for name in names)


def _terms(words: str) -> tuple[str, ...]:
    return tuple(term.strip() for term in words.split(",") if term.strip())


def _numbers(word: str) -> set[str]:
    """Return the word with its possible plurals and singulars."""
    forms = {word, word + "s", word + "es"}
    if word.endswith("y"):
        forms.add(word[:-1] + "ies")
    if word.endswith("ies"):
        forms.add(word[:-3] + "y")
    if word.endswith("s") and len(word) > 3:
        forms.add(word[:-1])
    if word.endswith("es") and len(word) > 4:
        forms.add(word[:-2])
    return forms


def _preferred(entries: Sequence[BankEntry], rng: random.Random) -> Iterator[BankEntry]:
    """Yield what is written out in full once, before what is made of forms and names; then all in other orders."""
    if any(entry.made for entry in entries):
        yield from _spread((entry for entry in entries if not entry.made), rng, passes=1)
        yield from _spread((entry for entry in entries if entry.made), rng, passes=1)
    yield from _spread(entries, rng, passes=_PASSES)


def _spread(entries: Iterable[BankEntry], rng: random.Random, *, passes: int) -> Iterator[BankEntry]:
    """Yield the entries, one of each group by turns, as many times over as told, each time in another order."""
    groups: dict[str, list[BankEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.group, []).append(entry)
    for _ in range(passes):
        decks = [rng.sample(group, len(group)) for group in groups.values()]
        rng.shuffle(decks)
        for turn in itertools.zip_longest(*decks):
            yield from (entry for entry in turn if entry is not None)


def _key(question: str) -> str:
    """Return what two questions share that differ only in case, spaces and punctuation."""
    return " ".join(re.findall(r"[\w{}]+", question.casefold()))


def _unseen(questions: Iterable[str], seen: set[str]) -> Iterator[str]:
    """Yield the questions that differ in a letter or digit from all before, and note them."""
    for question in questions:
        key = " ".join(re.findall(r"\w+", question.casefold()))
        if key not in seen:
            seen.add(key)
            yield question


def _fills(phrases: Sequence[str]) -> dict[str, Sequence[str]]:
    tasks = [phrase for phrase in phrases if is_verb_phrase(phrase)]
    things = [phrase for phrase in phrases if not is_verb_phrase(phrase)]
    quoted = [f"“{thing}”" if len(thing.split()) > 3 else thing for thing in things]
    return {**_bank()["fills"], "thing": quoted or ["this"], "task": tasks or ["do this"]}


def _filled(text: str, fills: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    return _SLOT.sub(lambda slot: rng.choice(fills[slot[1]]), text)


def _in_a_voice(question: str, rng: random.Random) -> str:
    """Return the question as it is, or as the voices that ask about the manual say it.

    Questions inside and outside the manual must not differ in their manners: a model would learn those.
    """
    manner = rng.random()
    if manner < 0.15:
        return question.lower().rstrip("?.!")
    if manner < 0.3:
        return slip(question, amount=rng.uniform(0.5, 1.5), rng=rng)
    if manner < 0.45 and len(question.split()) > 3:
        return rng.choice(_OPENINGS).replace("{q}", question)
    return question
