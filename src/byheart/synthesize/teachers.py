"""What a teacher is asked and what it hands back, whichever teacher it is (rules or a language model).

The stage asks for every section with text at once; the teacher yields one `Drafts` per request, in any order, each as
soon as it is ready. Drafts are raw: the stage checks them against the manual, removes duplicates and splits them, so
a teacher need not (a rejected draft is written down with its reason, and counts against its temperature level).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

from byheart.progress import Notify
from byheart.records import Fact, PairKind, Section

# The recipe weights the ladder to 0.7–1.0: below, phrasings repeat; above, they break.
BEST_TEMPERATURES = (0.7, 1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class SectionRequest:
    """Questions wanted of one section."""

    section: Section
    facts: tuple[Fact, ...]  # the section's own, in the order of the text; may be empty
    language: str  # BCP 47, of the document
    temperatures: tuple[float, ...]  # the ladder; `levels` says how many questions each level gets
    questions: int  # wanted in all, over facts, perspectives and temperatures
    seed: int  # the same seed and section give the same request, whatever the other sections are
    multi_hop: int = 0  # wanted beside `questions`: those that need two facts; a teacher may know none


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """A question and its answer as the teacher wrote them, unchecked."""

    question: str
    answer: str  # in the manual's own words; "" for a refusal
    fact_ids: tuple[str, ...]  # the facts that the answer holds; () for a refusal
    perspective: str  # a name in perspectives.PERSPECTIVES
    temperature: float  # the level that it was sampled at
    prompt_id: str  # the template or prompt file that made it, with a hash of its text
    kind: PairKind = "qa"


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Questions that were asked for and never came: the call failed, or its reply could not be read."""

    temperature: float
    questions: int
    reason: str
    evidence: str


@dataclasses.dataclass(frozen=True, slots=True)
class Drafts:
    """All that a teacher made of one section; `section_id` is "" for questions outside the manual."""

    section_id: str
    drafts: tuple[Draft, ...]
    failures: tuple[Failure, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class OutsideRequest:
    """Questions wanted that a customer might ask and the manual does not answer."""

    sections: tuple[Section, ...]  # the whole manual, in order
    language: str  # the one that most documents have
    temperatures: tuple[float, ...]
    questions: int
    seed: int


class Teacher(Protocol):
    """Makes questions and answers from sections."""

    @property
    def name(self) -> str:
        """Return "offline" or the model's name; written into every pair."""
        ...

    def ask(self, requests: Sequence[SectionRequest], notify: Notify) -> Iterator[Drafts]:
        """Yield one Drafts per request, in any order. Raises TeacherError where the teacher cannot be used.

        Progress is the stage's business (it counts what is yielded); `notify` is for messages to the person watching.
        """
        ...

    def outside(self, request: OutsideRequest, notify: Notify) -> Drafts:
        """Return questions of kind "refusal", with section_id "", no answer and no facts.

        The teacher tries not to ask what the manual answers; the stage drops those that equal an answered question.
        """
        ...


def levels(temperatures: Sequence[float], questions: int) -> tuple[int, ...]:
    """Return how many of the questions each temperature gets: most inside BEST_TEMPERATURES, some at every level.

    A level inside the best range weighs 3; the weight falls with the distance to it, to 1 at 0.3 and beyond.
    """
    low, high = BEST_TEMPERATURES
    weights = [max(1.0, 3.0 - 2.0 * max(low - level, level - high, 0.0) / 0.3) for level in temperatures]
    shares = [questions * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in shares]
    # Largest remainders take what rounding down left over; the earlier level wins a tie.
    by_remainder = sorted(range(len(shares)), key=lambda level: (counts[level] - shares[level], level))
    for level in by_remainder[: questions - sum(counts)]:
        counts[level] += 1
    return tuple(counts)
