"""What stands beside the questions of a model that writes: documents, conversations, replay and reading, as tokens."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

from byheart.answer.base import Turn
from byheart.answer.citing import question_of
from byheart.chat import DOCUMENT_REQUESTS, Chat, Example
from byheart.index.passages import Passage, make_passages
from byheart.records import Fact, Section
from byheart.store import RunFolder
from byheart.train import mix, reading
from byheart.train.mix import Shares, Told

_PLURAL = {"replay": "replayed conversations", "passages": "questions with passages to read"}
_AT_ONCE = 64  # cut into tokens together; more would be made than is taken

Lesson = tuple[Example, tuple[str, ...]]  # with the ids of its facts


@dataclasses.dataclass(frozen=True, slots=True)
class Manual:
    """What documents, conversations and prompts with passages are made of, in words."""

    sections: list[tuple[tuple[str, ...], str, tuple[str, ...]]]  # heading path, Markdown, ids of facts
    pages: dict[str, str]  # of each section
    passages: list[Passage] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """How long what is made here may be."""

    tokens: int  # of an example
    tokens_read: int  # of one with passages in its prompt
    words_read: int  # of the passages in a prompt


def read_manual(folder: RunFolder) -> Manual:
    """Return the sections as ingested, with their facts and pages."""
    all_facts = folder.read("2-facts.jsonl", Fact)
    facts = collections.defaultdict(list)
    for fact in all_facts:
        facts[fact.section_id].append(fact.id)
    sections = folder.read("2-sections.jsonl", Section)
    return Manual(
        [(section.heading_path, section.markdown, tuple(facts[section.id])) for section in sections],
        {section.id: section.document_id for section in sections},
        make_passages(sections, all_facts, ()),  # pages' titles are not shown in a prompt
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Beside:
    """What is learned beside the questions."""

    examples: list[Example]
    facts: list[tuple[str, ...]]  # ids of the facts that each of them is about
    counts: dict[str, int]  # of each kind, where there are any


def beside(
    questions: Sequence[Example], pairs: Sequence[Told], manual: Manual, replay: Sequence[Told], *, chat: Chat,
    shares: Shares, room: Room, seed: int,
) -> tuple[Beside, dict[str, str]]:  # fmt: skip
    """Return the documents, conversations, replay and reading that make their shares of the tokens beside `questions`.

    Also returns what there is to say: what was cut or left out, and the shares as they came out. A share that cannot
    be filled goes to the questions.
    """
    streams, sizes, said = _streams(pairs, manual, replay, chat=chat, shares=shares, room=room, seed=seed)
    wished = {name: share for name in mix.NAMES if (share := getattr(shares, name)) and name in streams}
    whole = sum(map(_tokens, questions)) / (1 - sum(wished.values()))
    made = {
        name: mix.fill(streams[name], tokens=share * whole, length=lambda lesson: _tokens(lesson[0]))
        for name, share in wished.items()
    }
    lessons = [lesson for name in made for lesson in made[name]]
    found = Beside(
        [example for example, _ in lessons],
        [fact_ids for _, fact_ids in lessons],
        {name: len(made[name]) for name in made},
    )
    return found, said | ({"the mix": _came_out(questions, made, sizes)} if made else {})


def as_served(told: Told) -> Told:
    """Return a conversation as a bot puts it to the model: a question that leans on earlier ones takes them along."""
    turns = [turn for asked, answer in told.history for turn in (Turn("user", asked), Turn("assistant", answer))]
    return dataclasses.replace(told, question=question_of(told.question, turns))


def _streams(
    pairs: Sequence[Told], manual: Manual, replay: Sequence[Told], *, chat: Chat, shares: Shares, room: Room, seed: int
) -> tuple[dict[str, Iterator[Lesson]], dict[str, int], dict[str, str]]:
    """Return the endless streams that shares are filled from, those alone that hold something.

    Also returns how many different documents and conversations to replay there are, and what to say.
    """
    most = room.tokens
    shuffles = {name: random.Random(f"{name} {seed}") for name in mix.NAMES}
    streams: dict[str, Iterator[Lesson]] = {}
    sizes: dict[str, int] = {}
    said: dict[str, str] = {}

    def asked(told: Sequence[Told], _round: int) -> list[Example]:
        return chat.examples([(item.question, item.answer, item.history) for item in told])

    def documents(told: Sequence[Told], number: int) -> list[Example]:
        return chat.documents([(item.question, item.answer) for item in told], wording=number)

    if shares.documents:
        blank = [_tokens(chat.documents([("a", "a")], wording=n)[0]) for n in range(len(DOCUMENT_REQUESTS))]
        free = most - max(blank) + blank[0]  # so that a text fits in whatever words it is asked for
        pool, too_long = mix.documents(
            manual.sections, fits=lambda to, text: _tokens(chat.documents([(to, text)])[0]) <= free
        )
        sizes["documents"] = len(pool)
        streams["documents"] = _lessons(mix.rounds(pool, shuffle=shuffles["documents"]), documents, most)
        sections = sum(bool(markdown.strip()) for _, markdown, _ in manual.sections)
        said["documents"] = f"{sections:,} sections in {len(pool):,} parts of at most {most:,} tokens"
        if too_long:
            said["documents"] += f"; {too_long:,} more are left out, as no part of them is short enough"
    if shares.conversations:
        endless = (
            map(as_served, mix.conversations(pairs, shuffle=shuffles["conversations"])) for _ in itertools.count()
        )
        streams["conversations"] = _lessons(endless, asked, most)
    if shares.replay:
        sizes["replay"] = len(replay)
        streams["replay"] = _lessons(mix.rounds(replay, shuffle=shuffles["replay"]), asked, most)
    if shares.passages:
        asked_again = reading.rounds(
            manual.passages, pairs, max_words=room.words_read, shuffle=shuffles["passages"]
        )  # fmt: skip
        streams["passages"] = _lessons(asked_again, asked, room.tokens_read)
    filled: dict[str, Iterator[Lesson]] = {}
    for name, stream in streams.items():
        first = next(stream, None)
        if first is None:
            tokens = room.tokens_read if name == "passages" else most
            said[name] = f"none: nothing there that {tokens:,} tokens hold; the share goes to the questions"
        else:
            filled[name] = itertools.chain([first], stream)
    return filled, sizes, said


def _lessons(
    rounds: Iterable[Iterable[Told]], make: Callable[[Sequence[Told], int], list[Example]], most: int
) -> Iterator[Lesson]:
    """Yield round after round as tokens, what is too long left out; end with a round that yields nothing."""
    for number, told in enumerate(rounds):
        items, found = iter(told), False
        while some := list(itertools.islice(items, _AT_ONCE)):
            for item, example in zip(some, make(some, number), strict=True):
                if _tokens(example) <= most:
                    found = True
                    yield example, item.fact_ids
        if not found:
            return


def _came_out(questions: Sequence[Example], made: dict[str, list[Lesson]], sizes: dict[str, int]) -> str:
    """Return how many there are of each kind, its share of the tokens, and how often each stands there."""
    asked = sum(map(_tokens, questions))
    tokens = {name: sum(_tokens(example) for example, _ in lessons) for name, lessons in made.items()}
    whole = asked + sum(tokens.values())
    said = [f"{len(questions):,} questions ({asked / whole:.0%} of the tokens)"]
    for name, lessons in made.items():
        count, size = len(lessons), sizes.get(name, 0)
        often = f", {count:,} of {size:,}" if count < size else f", each {count / size:.1f} times" if size else ""
        said.append(f"{count:,} {_PLURAL.get(name, name)} ({tokens[name] / whole:.0%}{often})")
    return ", ".join(said)


def _tokens(example: Example) -> int:
    return len(example.prompt) + len(example.answer)
