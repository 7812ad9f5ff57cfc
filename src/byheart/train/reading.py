"""Questions asked again with passages of the manual to read, in the very prompts that a bot is served with.

After RAFT (Zhang et al. 2024): beside the passage that answers stand others like it, in any order; and in a fifth of
the cases only others, where the answer is that the manual does not say. All that is asked about one passage in a round
is asked with the same passages, so that they are read once (see prefixes).
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from byheart.answer.grounds import SHOWN, as_shown, grounded
from byheart.chat import REFUSAL
from byheart.index.index import lexical_index, tokens_of
from byheart.index.passages import Passage
from byheart.train.mix import Told

MISSING = 5  # in one of so many rounds, what answers is not there
TOGETHER = 8  # questions about one passage in a round
NEAR = 8  # passages, the most like the one that answers, of which others are drawn

Score = Callable[[str], NDArray[np.float32]]  # of each passage, how like a text it is


@dataclasses.dataclass
class Subject:
    """What questions are about: the passages, by position, that answer them; and the questions."""

    right: tuple[int, ...]
    asked: list[Told]


def rounds(
    passages: Sequence[Passage], pairs: Sequence[Told], *, max_words: int, shuffle: random.Random
) -> Iterator[Iterator[Told]]:
    """Yield rounds in which some questions about every passage are asked, each time others, of any passages others.

    `max_words`: of passages in a prompt. What is about passages that are longer is left out.
    """
    if not passages:
        return
    index = lexical_index(passages)

    def score(text: str) -> NDArray[np.float32]:
        known = [word for word in tokens_of(text) if word in index.vocab_dict]
        return np.asarray(index.get_scores(known)) if known else np.zeros(len(passages), dtype=np.float32)

    subjects = _subjects(passages, pairs, score=score, shuffle=shuffle)
    near = [_near(subject, passages, score=score) for subject in subjects]
    for number in itertools.count() if subjects else ():
        order = shuffle.sample(range(len(subjects)), len(subjects))
        yield itertools.chain.from_iterable(
            _asked(
                subjects[place], near[place], passages, number=number, is_missing=(place + number) % MISSING == 0,
                max_words=max_words, shuffle=shuffle,
            )
            for place in order
        )  # fmt: skip


def _subjects(
    passages: Sequence[Passage], pairs: Sequence[Told], *, score: Score, shuffle: random.Random
) -> list[Subject]:
    """Return what is asked about the same passages.

    What the manual does not answer goes to the passage that is most like it.
    """
    sections = collections.defaultdict(list)
    for position, passage in enumerate(passages):
        sections[passage.section_id].append(position)
    asked: dict[tuple[int, ...], list[Told]] = {}
    for pair in pairs:
        whole = sections.get(pair.place[1], [])
        right = tuple(position for position in whole if not _facts(passages[position]).isdisjoint(pair.fact_ids))
        if whole:
            asked.setdefault(right or tuple(whole), []).append(pair)
    owners = {position: right for right in reversed(asked) for position in right}
    for pair in pairs if owners else ():
        if not pair.place[1]:
            places = list(owners)
            scores = score(pair.question)[places]
            asked[owners[places[int(scores.argmax())] if scores.any() else shuffle.choice(places)]].append(pair)
    return [Subject(right, _spread(told, shuffle)) for right, told in asked.items()]


def _asked(
    subject: Subject, near: Sequence[int], passages: Sequence[Passage], *, number: int, is_missing: bool,
    max_words: int, shuffle: random.Random,
) -> Iterator[Told]:  # fmt: skip
    """Yield a subject's questions of a round; none where what answers them is longer than a prompt allows."""
    sections = {passages[position].section_id for position in subject.right}
    right = [] if is_missing else [passages[position] for position in subject.right]
    others = [passages[position] for position in near]
    if is_missing:
        others = [passage for passage in others if passage.section_id not in sections]
    others = shuffle.sample(others, max(0, min(SHOWN - len(right), len(others))))
    shown = shuffle.sample([*right, *others], len(right) + len(others))
    is_whole = functools.partial(_is_whole, right=right, max_words=max_words)
    if not is_whole(shown):
        shown = [*right, *others]
    if not shown or not is_whole(shown):
        return
    for told in _turn(subject.asked, number):
        question = grounded(told.question, shown, max_words=max_words)
        yield dataclasses.replace(told, question=question, answer=REFUSAL if is_missing else told.answer)


def _is_whole(shown: Sequence[Passage], *, right: Sequence[Passage], max_words: int) -> bool:
    """Tell whether what answers is not cut off."""
    prompt = grounded("", shown, max_words=max_words)
    return all(as_shown(passage) in prompt for passage in right)


def _near(subject: Subject, passages: Sequence[Passage], *, score: Score) -> list[int]:
    """Return the neighbours of what answers, and what is most like it; nothing that says the same."""
    first, last = subject.right[0], subject.right[-1]
    beside = [place for place in (first - 1, last + 1) if 0 <= place < len(passages)]
    scores = score(" ".join(passages[position].text for position in subject.right))
    alike = [place for place in np.argsort(-scores, kind="stable").tolist() if scores[place] > 0]
    said = {unit.text for position in subject.right for unit in passages[position].units}
    return [
        place for place in dict.fromkeys([*beside, *alike[: NEAR + len(subject.right)]])
        if place not in subject.right and said.isdisjoint(unit.text for unit in passages[place].units)
    ]  # fmt: skip


def _spread(told: list[Told], shuffle: random.Random) -> list[Told]:
    """Return questions in an order in which those about one fact stand evenly apart, as do those about none."""
    counts = collections.Counter(item.fact_ids for item in told)
    passed: collections.Counter[tuple[str, ...]] = collections.Counter()
    placed = []
    for item in shuffle.sample(told, len(told)):
        placed.append(((passed[item.fact_ids] + shuffle.random()) / counts[item.fact_ids], item))
        passed[item.fact_ids] += 1
    return [item for _, item in sorted(placed, key=lambda both: both[0])]


def _turn(told: Sequence[Told], number: int) -> Iterator[Told]:
    """Yield the next few questions, round by round, and then the first ones again."""
    few = min(TOGETHER, len(told))
    return itertools.islice(itertools.cycle(told), number * few % len(told), number * few % len(told) + few)


def _facts(passage: Passage) -> frozenset[str]:
    return frozenset(fact for unit in passage.units for fact in unit.fact_ids)
