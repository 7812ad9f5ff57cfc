"""Which questions and passages stand in which step: a pure function of the data, the seed and the step.

A passage costs the encoder about seven times as much as a question, so a batch asks several questions of each section
and encodes its passage once. Half of a batch's sections come as neighbourhoods, sections that the untrained encoder
takes for alike: the other passages of the batch are the negatives, and near ones teach more than random ones.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections.abc import Iterable, Sequence

from byheart.train.buckets import Planned

NEIGHBOURHOOD_SHARE = 0.5  # of a batch's sections; the rest is random, so that no batch is one topic alone
NEIGHBOURHOOD_SIZE = 4  # a section and three of its nearest
QUESTIONS_PER_SECTION = 4  # in one batch


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A question, its facts, and the passage that states them."""

    question: str
    fact_ids: tuple[str, ...]
    section: int  # position in the list of sections
    passage: str


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """One step's texts. Every question is contrasted with every passage that is not excluded for it."""

    questions: tuple[str, ...]
    passages: tuple[str, ...]
    positives: tuple[int, ...]  # for each question, the position of its passage
    excluded: tuple[tuple[int, int], ...]  # (question, passage): neither its own passage nor a fair negative


class Schedule(Planned):
    """The batches of a training run. An epoch visits every section once; each visit asks the next few questions."""

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        neighbours: Sequence[Sequence[int]],
        batch_size: int,
        seed: int,
    ) -> None:
        """`neighbours`: for each section, its most similar ones; `batch_size`: questions in a step."""
        self.questions_per_section = max(1, min(QUESTIONS_PER_SECTION, batch_size // 2))
        self.sections_per_batch = max(2, batch_size // self.questions_per_section)
        self._seed = seed
        self._neighbours = neighbours
        self._asked: dict[int, list[Example]] = {}
        self._homes: dict[str, set[int]] = {}
        for example in examples:
            self._asked.setdefault(example.section, []).append(example)
            self._homes.setdefault(example.question, set()).add(example.section)
        for section, questions in self._asked.items():
            self._asked[section] = facts_first(questions, random.Random(f"questions {seed} {section}"))
        self._epoch_of_sections = functools.lru_cache(maxsize=2)(self._make_epoch)

    @property
    def sections(self) -> int:
        """Return how many sections have questions."""
        return len(self._asked)

    @property
    def steps_per_epoch(self) -> int:
        """Return how many batches it takes to visit every section once, with two at least in each."""
        return max(1, min(math.ceil(self.sections / self.sections_per_batch), self.sections // 2))

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        chosen: list[Example] = []
        for section in self._epoch_of_sections(epoch)[position]:
            questions = self._asked[section]
            first = epoch * self.questions_per_section
            count = min(self.questions_per_section, len(questions))
            chosen += [questions[(first + number) % len(questions)] for number in range(count)]
        return make_batch(chosen, homes=self._homes)

    def _make_epoch(self, epoch: int) -> list[list[int]]:
        """Return the sections of each batch of an epoch, batches of like size."""
        order = sorted(self._asked)
        random.Random(f"sections {self._seed} {epoch}").shuffle(order)
        shuffle = random.Random(f"neighbourhoods {self._seed} {epoch}")
        waiting = dict.fromkeys(order)
        batches: list[list[int]] = []
        for number in range(self.steps_per_epoch):
            size = math.ceil(len(waiting) / (self.steps_per_epoch - number))
            batches.append(self._draw(waiting, size, shuffle))
        return batches

    def _draw(self, waiting: dict[int, None], size: int, shuffle: random.Random) -> list[int]:
        """Take `size` sections out of those waiting: neighbourhoods first, then single ones."""
        drawn: list[int] = []
        while len(drawn) < size:
            section = next(iter(waiting))
            group = [section]
            if len(drawn) < size * NEIGHBOURHOOD_SHARE:
                near = [other for other in self._neighbours[section] if other in waiting and other != section]
                group += shuffle.sample(near, min(NEIGHBOURHOOD_SIZE - 1, len(near)))
            for member in group[: size - len(drawn)]:
                del waiting[member]
                drawn.append(member)
        return drawn


def facts_first(examples: Iterable[Example], shuffle: random.Random) -> list[Example]:
    """Return the examples in rounds: a round asks for every fact that still has a question before any fact again."""
    left = list(examples)
    shuffle.shuffle(left)
    ordered: list[Example] = []
    while left:
        asked: set[str] = set()
        later: list[Example] = []
        for example in left:
            if asked.issuperset(example.fact_ids or ("",)):
                later.append(example)
            else:
                asked.update(example.fact_ids or ("",))
                ordered.append(example)
        left = later
    return ordered


def make_batch(examples: Sequence[Example], *, homes: dict[str, set[int]]) -> Batch:
    """Return the batch of these examples; `homes`: the sections that each question was made from.

    Excluded as negatives are passages of the question's own section, and of any other section that the very same
    question was made from. Sections with the same text share one passage.
    """
    sections: dict[str, set[int]] = {}  # passage -> the sections in this batch that it stands for
    for example in examples:
        sections.setdefault(example.passage, set()).add(example.section)
    position = {passage: number for number, passage in enumerate(sections)}
    positives = tuple(position[example.passage] for example in examples)
    excluded = tuple(
        (row, column)
        for row, example in enumerate(examples)
        for column, owners in enumerate(sections.values())
        if column != positives[row] and owners & homes.get(example.question, {example.section})
    )
    return Batch(tuple(example.question for example in examples), tuple(sections), positives, excluded)


def validation_batches(
    examples: Sequence[Example], *, neighbours: Sequence[Sequence[int]], batch_size: int, most: int
) -> list[Batch]:
    """Return fixed batches, composed like those in training, of at most `most` questions (or one batch).

    Of questions from fewer than two sections there is none: nothing would stand against the right passage.
    """
    schedule = Schedule(examples, neighbours=neighbours, batch_size=batch_size, seed=0)
    if schedule.sections < 2:
        return []
    batches: list[Batch] = []
    for step in range(schedule.steps_per_epoch):
        batch = schedule.batch(step)
        if batches and sum(len(done.questions) for done in batches) + len(batch.questions) > most:
            break
        batches.append(batch)
    return batches
