"""The offline teacher: rules over the manual's structure and language. No key, no download, the same for a seed.

Every fact gets at least one question; the rest go to the needs that say most (headings, tasks, permissions, limits).
The answer is the manual's own text: the fact, or the whole list of steps that it belongs to.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator, Sequence

from byheart.progress import Notify
from byheart.records import Fact
from byheart.synthesize.offline_needs import Need, heading_needs, salient_words, statement_needs
from byheart.synthesize.offline_outside import outside_questions
from byheart.synthesize.offline_voice import say
from byheart.synthesize.perspectives import PERSPECTIVES
from byheart.synthesize.teachers import Draft, Drafts, OutsideRequest, SectionRequest, levels

MAX_ANSWER_WORDS = 150  # as long as the bot's own answers
_TRIES = 4  # how often a phrasing that was there before is sampled anew


@dataclasses.dataclass(frozen=True, slots=True)
class _Wanted:
    """A need with the facts that answer it."""

    need: Need
    facts: tuple[Fact, ...]


class OfflineTeacher:
    """Makes questions by rules (protocol: teachers.Teacher)."""

    name = "offline"

    def __init__(self, *, seed: int) -> None:
        self._seed = seed

    def ask(self, requests: Sequence[SectionRequest], notify: Notify) -> Iterator[Drafts]:
        """Yield the drafts of each section, in order."""
        for request in requests:
            yield Drafts(request.section.id, tuple(self._drafts(request)))

    def outside(self, request: OutsideRequest, notify: Notify) -> Drafts:
        """Return questions that the manual does not answer; their foreign words are checked against its text."""
        rng = random.Random(f"{self._seed}/{request.seed}/outside")
        text = "\n".join(part for section in request.sections for part in (*section.heading_path, section.markdown))
        things = [
            need.phrase
            for section in request.sections
            for need in heading_needs(section.heading_path)
            if need.kind in ("task", "thing") and len(need.phrase.split()) <= 5
        ]
        questions = outside_questions(text, things, count=request.questions, rng=rng)
        ladder = itertools.cycle(request.temperatures)
        voices = itertools.cycle(perspective.name for perspective in PERSPECTIVES)
        return Drafts(
            "",
            tuple(
                Draft(text, "", (), voice, level, prompt_id=f"outside/{kind}", kind="refusal")
                for (kind, text), voice, level in zip(questions, voices, ladder, strict=False)
            ),
        )

    def _drafts(self, request: SectionRequest) -> Iterator[Draft]:
        rng = random.Random(f"{self._seed}/{request.seed}/{request.section.id}")
        wanted = _wanted(request)
        plan = _plan(wanted, request, rng)
        seen: set[str] = set()
        for number, (item, temperature) in enumerate(plan):
            voice = PERSPECTIVES[number % len(PERSPECTIVES)].name
            for _ in range(_TRIES):
                question = say(item.need, perspective=voice, temperature=temperature, rng=rng)
                if question.lower() not in seen:
                    break
            else:
                continue
            seen.add(question.lower())
            yield Draft(
                question=question,
                answer=_answer(item.facts),
                fact_ids=tuple(fact.id for fact in item.facts),
                perspective=voice,
                temperature=temperature,
                prompt_id=f"rules/{item.need.kind}",
            )


def _wanted(request: SectionRequest) -> list[list[_Wanted]]:
    """Return the needs of the section, one list for the headings and one for each fact; none of the lists is empty."""
    facts = request.facts
    steps = tuple(fact for fact in facts if fact.kind == "step")
    about = _first_words(steps or facts, MAX_ANSWER_WORDS if steps else MAX_ANSWER_WORDS // 2)
    groups = [[_Wanted(need, about) for need in heading_needs(request.section.heading_path)]]
    for fact in facts:
        answering = _first_words(steps, MAX_ANSWER_WORDS) if fact.kind == "step" and len(steps) > 1 else (fact,)
        if fact not in answering:
            answering = (fact,)
        needs = statement_needs(fact.statement, request.section.heading_path[-1])
        needs.append(Need("keywords", salient_words(fact.statement), 0.7))
        groups.append([_Wanted(need, answering) for need in needs if need.phrase])
    return [group for group in groups if group]


def _plan(groups: list[list[_Wanted]], request: SectionRequest, rng: random.Random) -> list[tuple[_Wanted, float]]:
    """Return which need is asked for at which temperature: every fact once, then by weight."""
    temperatures = [
        level
        for level, count in zip(request.temperatures, levels(request.temperatures, request.questions), strict=True)
        for _ in range(count)
    ]
    rng.shuffle(temperatures)
    everything = [item for group in groups for item in group]
    if not everything:
        return []
    once = [rng.choices(group, [item.need.weight for item in group])[0] for group in groups]
    more = rng.choices(everything, [item.need.weight for item in everything], k=max(0, request.questions - len(once)))
    once = once[max(0, len(once) - len(temperatures)) :]  # where room is short, the headings give way to the facts
    return list(zip([*once, *more], temperatures, strict=False))


def _answer(facts: Sequence[Fact]) -> str:
    if len(facts) > 1 and all(fact.kind == "step" for fact in facts):
        return "\n".join(f"{number}. {fact.statement}" for number, fact in enumerate(facts, 1))
    return " ".join(fact.statement for fact in facts)


def _first_words(facts: Sequence[Fact], max_words: int) -> tuple[Fact, ...]:
    """Return the facts from the first on that fit into `max_words`, at least one."""
    kept: list[Fact] = []
    words = 0
    for fact in facts:
        words += len(fact.statement.split())
        if kept and words > max_words:
            break
        kept.append(fact)
    return tuple(kept)
