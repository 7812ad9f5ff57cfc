"""Questions asked again with passages of the manual to read, in the very prompts that a bot is served with.

After RAFT (Zhang et al. 2024): beside the passage that answers stand others like it, in any order; and in a fifth of
the cases only others, where the answer is that the manual does not say. All that is asked about one passage in a round
is asked with the same passages, so that they are read once (see prefixes).
"""

from __future__ import annotations

import collections
import dataclasses
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
TOGETHER = 8  # of the questions about one passage, in a round, those of them with different facts
NEAR = 8  # passages, the most like the one that answers, of which others are drawn

Score = Callable[[str], NDArray[np.float32]]  # of each passage, how like a text it is


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """What questions are about, and the questions, those first whose turn it is."""

    right: tuple[int, ...]  # the passages, by position, that answer
    near: tuple[int, ...]  # others like them
    asked: list[Told]
    refused: list[Told]  # not answered by the manual: no passage is more like them


def rounds(
    passages: Sequence[Passage], pairs: Sequence[Told], *, max_words: int, shuffle: random.Random
) -> Iterator[Iterator[Told]]:
    """Yield rounds in which some questions about every passage are asked, each time others.

    `max_words`: of passages in a prompt. What is about passages that are longer is left out.
    """
    if not passages:
        return
    index = lexical_index(passages)

    def score(text: str) -> NDArray[np.float32]:
        known = [word for word in tokens_of(text) if word in index.vocab_dict]
        return np.asarray(index.get_scores(known)) if known else np.zeros(len(passages), dtype=np.float32)

    subjects = _subjects(passages, pairs, score=score, shuffle=shuffle)
    for number in itertools.count() if subjects else ():
        yield _round(subjects, passages, number=number, max_words=max_words, shuffle=shuffle)


def _round(
    subjects: Sequence[Subject], passages: Sequence[Passage], *, number: int, max_words: int, shuffle: random.Random
) -> Iterator[Told]:
    """Yield some questions about each subject, as many that the manual does not answer as there are of all."""
    share = sum(len(subject.refused) for subject in subjects) / sum(len(subject.asked) for subject in subjects)
    due = shuffle.random()  # of a question; so that a small share has its turn in some rounds
    for place in shuffle.sample(range(len(subjects)), len(subjects)):
        subject = subjects[place]
        is_missing = (place + number) % MISSING == 0
        shown = _shown(subject, passages, is_missing=is_missing, max_words=max_words, shuffle=shuffle)
        if not shown:
            continue
        asked = _next(subject.asked)
        due += share * len(asked)
        refused = subject.refused[: min(int(due), TOGETHER)]
        due -= len(refused)
        subject.refused[:] = [*subject.refused[len(refused) :], *refused]
        for told in (*asked, *refused):
            question = grounded(told.question, shown, max_words=max_words)
            yield dataclasses.replace(told, question=question, answer=REFUSAL if is_missing else told.answer)


def _shown(
    subject: Subject, passages: Sequence[Passage], *, is_missing: bool, max_words: int, shuffle: random.Random
) -> list[Passage]:
    """Return the passages for a prompt, in any order; none where what answers is longer than a prompt allows."""
    sections = {passages[position].section_id for position in subject.right if is_missing}
    right = [] if is_missing else [passages[position] for position in subject.right]
    others = [passages[position] for position in subject.near if passages[position].section_id not in sections]
    others = shuffle.sample(others, max(0, min(SHOWN - len(right), len(others))))
    for shown in (shuffle.sample([*right, *others], len(right) + len(others)), [*right, *others]):
        prompt = grounded("", shown, max_words=max_words)
        if all(as_shown(passage) in prompt for passage in right):  # and not cut off
            return shown
    return []


def _subjects(
    passages: Sequence[Passage], pairs: Sequence[Told], *, score: Score, shuffle: random.Random
) -> list[Subject]:
    """Return what is asked about the same passages; what the manual does not answer goes to those most like it."""
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
    refused = collections.defaultdict(list)
    for pair in pairs if owners else ():
        if not pair.place[1]:
            places = list(owners)
            scores = score(pair.question)[places]
            refused[owners[places[int(scores.argmax())] if scores.any() else shuffle.choice(places)]].append(pair)
    return [
        Subject(right, _near(right, passages, score=score), _spread(told, shuffle), refused[right])
        for right, told in asked.items()
    ]


def _near(right: tuple[int, ...], passages: Sequence[Passage], *, score: Score) -> tuple[int, ...]:
    """Return the neighbours of what answers, and what is most like it; nothing that says the same."""
    beside = [place for place in (right[0] - 1, right[-1] + 1) if 0 <= place < len(passages)]
    scores = score(" ".join(passages[position].text for position in right))
    alike = [place for place in np.argsort(-scores, kind="stable").tolist() if scores[place] > 0]
    said = {unit.text for position in right for unit in passages[position].units}
    return tuple(
        place for place in dict.fromkeys([*beside, *alike[: NEAR + len(right)]])
        if place not in right and said.isdisjoint(unit.text for unit in passages[place].units)
    )  # fmt: skip


def _spread(told: list[Told], shuffle: random.Random) -> list[Told]:
    """Return questions in an order in which those about the same facts stand evenly apart."""
    counts = collections.Counter(item.fact_ids for item in told)
    passed: collections.Counter[tuple[str, ...]] = collections.Counter()
    placed = []
    for item in shuffle.sample(told, len(told)):
        placed.append(((passed[item.fact_ids] + shuffle.random()) / counts[item.fact_ids], item))
        passed[item.fact_ids] += 1
    return [item for _, item in sorted(placed, key=lambda both: both[0])]


def _next(asked: list[Told]) -> list[Told]:
    """Return the next few questions, those alone that may stand in one batch, and put them last."""
    taken: list[int] = []
    facts: set[str] = set()
    for place, told in enumerate(asked[:TOGETHER]):
        if facts.isdisjoint(told.fact_ids):
            taken.append(place)
            facts.update(told.fact_ids)
    found = [asked[place] for place in taken]
    asked[:] = [*(told for place, told in enumerate(asked) if place not in taken), *found]
    return found


def _facts(passage: Passage) -> frozenset[str]:
    return frozenset(fact for unit in passage.units for fact in unit.fact_ids)
