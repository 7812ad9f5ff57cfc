"""The teacher that is a language model: one call per part of a section and temperature level."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import pydantic

from byheart.llm import Call, ChatModel, Failed, Message
from byheart.progress import Notify
from byheart.records import Fact, Section, stable_id
from byheart.synthesize.perspectives import PERSPECTIVES, Perspective, load_prompt
from byheart.synthesize.teachers import Draft, Drafts, Failure, OutsideRequest, SectionRequest, levels

TASKS_PER_CALL = 12  # more make models repeat themselves and cut their replies short
PART_CHARACTERS = 8000  # of a section shown in one call: about 2,000 tokens, room enough in a window of 4,096
OVERLAP_CHARACTERS = 400  # shown before and after, so that a part does not begin in mid-sentence
OUTLINE_HEADINGS = 300  # shown for outside questions; a larger manual is sampled anew for each call
DRAIN_S = 60.0  # calls in flight when another one stops the run get so long to come back: they are paid

Result = TypeVar("Result")
Work = TypeVar("Work")


class _Form(pydantic.BaseModel):
    # "additionalProperties": false is what servers demand of a strict schema; what comes in excess is still read.
    model_config = pydantic.ConfigDict(json_schema_extra={"additionalProperties": False})


class Item(_Form):
    """A question and answer, for one task of a call."""

    task: int
    question: str
    answer: str


class Items(_Form):
    """The reply to a call about a section."""

    items: list[Item]


class OutsideItem(_Form):
    """A question that the manual does not answer."""

    task: int
    question: str


class OutsideItems(_Form):
    """The reply to a call for outside questions."""

    items: list[OutsideItem]


@dataclasses.dataclass(frozen=True, slots=True)
class _Task:
    temperature: float
    perspective: Perspective
    facts: tuple[Fact, ...]  # none: about the section as a whole; two: about both together


class OpenAITeacher:
    """A Teacher whose questions a language model writes. A page's text is data to it: see the prompts."""

    def __init__(self, model: ChatModel) -> None:
        self.name = model.name
        self._model = model
        self._section_prompt = load_prompt("section")
        self._outside_prompt = load_prompt("outside")

    def ask(self, requests: Sequence[SectionRequest], notify: Notify) -> Iterator[Drafts]:
        """Yield one Drafts per request, as they come."""

        def started(request: SectionRequest) -> Callable[[], Coroutine[Any, Any, Drafts]]:
            return lambda: self._section(request)

        return _as_they_come(self._model, [started(request) for request in requests])

    def outside(self, request: OutsideRequest, notify: Notify) -> Drafts:
        """Return questions that the manual's headings do not cover."""
        return next(_as_they_come(self._model, [lambda: self._outside(request)]))

    async def _section(self, request: SectionRequest) -> Drafts:
        answers = await _all(self._part(request, start, tasks) for start, tasks in _calls(request))
        drafts = tuple(draft for answer in answers for draft in answer.drafts)
        return Drafts(request.section.id, drafts, tuple(item for answer in answers for item in answer.failures))

    async def _part(self, request: SectionRequest, start: int, tasks: Sequence[_Task]) -> Drafts:
        section = request.section
        mark = _mark(section.id, section.sha256)
        instructions = self._section_prompt.fill(
            perspectives=_described(PERSPECTIVES), language=request.language, mark=mark
        )
        facts = list(dict.fromkeys(fact for task in tasks for fact in task.facts))
        numbered = [f"[{number}] {fact.statement}" for number, fact in enumerate(facts, 1)]
        text = section.markdown[max(0, start - OVERLAP_CHARACTERS) : start + PART_CHARACTERS + OVERLAP_CHARACTERS]
        material = [" › ".join(section.heading_path), text, *(["Facts of the section:"] if facts else []), *numbered]
        wanted = [
            f"{number}. {task.perspective.name}{_about([facts.index(fact) + 1 for fact in task.facts])}"
            for number, task in enumerate(tasks, 1)
        ]
        content = "\n\n".join([f"<{mark}>", *material, f"</{mark}>", "Tasks:\n" + "\n".join(wanted)])
        temperature = tasks[0].temperature
        messages = (Message("system", instructions), Message("user", content))
        reply = await self._model.ask(Call(messages, temperature, request.seed), Items)
        if isinstance(reply, Failed):
            return Drafts(section.id, (), (Failure(temperature, len(tasks), reply.reason, reply.evidence),))
        drafts = [
            Draft(
                question=item.question,
                answer=item.answer,
                fact_ids=tuple(fact.id for fact in tasks[item.task - 1].facts),
                perspective=tasks[item.task - 1].perspective.name,
                temperature=temperature,
                prompt_id=self._section_prompt.id,
                kind="multi-hop" if len(tasks[item.task - 1].facts) > 1 else "qa",
            )
            for item in reply.items
            if 1 <= item.task <= len(tasks)
        ]
        return Drafts(section.id, tuple(drafts), _strays(reply.items, len(tasks), temperature))

    async def _outside(self, request: OutsideRequest) -> Drafts:
        tasks = [
            (temperature, perspective)
            for temperature, rungs in itertools.groupby(_rungs(request.temperatures, request.questions))
            for perspective, _ in zip(itertools.cycle(PERSPECTIVES), rungs, strict=False)
        ]
        calls = [
            part for _, level in itertools.groupby(tasks, key=lambda task: task[0]) for part in _in_calls(list(level))
        ]
        answers = await _all(self._outside_part(request, number, part) for number, part in enumerate(calls))
        drafts = tuple(draft for answer in answers for draft in answer.drafts)
        return Drafts("", drafts, tuple(item for answer in answers for item in answer.failures))

    async def _outside_part(
        self, request: OutsideRequest, number: int, tasks: Sequence[tuple[float, Perspective]]
    ) -> Drafts:
        seed = request.seed + number
        outline = _outline(request.sections, seed)
        mark = _mark(*outline)
        instructions = self._outside_prompt.fill(
            perspectives=_described(PERSPECTIVES), language=request.language, mark=mark
        )
        wanted = [f"{task}. {perspective.name}" for task, (_, perspective) in enumerate(tasks, 1)]
        content = "\n\n".join([f"<{mark}>", "\n".join(outline), f"</{mark}>", "Tasks:\n" + "\n".join(wanted)])
        temperature = tasks[0][0]
        messages = (Message("system", instructions), Message("user", content))
        reply = await self._model.ask(Call(messages, temperature, seed), OutsideItems)
        if isinstance(reply, Failed):
            return Drafts("", (), (Failure(temperature, len(tasks), reply.reason, reply.evidence),))
        drafts = [
            Draft(
                question=item.question,
                answer="",
                fact_ids=(),
                perspective=tasks[item.task - 1][1].name,
                temperature=temperature,
                prompt_id=self._outside_prompt.id,
                kind="refusal",
            )
            for item in reply.items
            if 1 <= item.task <= len(tasks)
        ]
        return Drafts("", tuple(drafts), _strays(reply.items, len(tasks), temperature))


def _calls(request: SectionRequest) -> Iterator[tuple[int, Sequence[_Task]]]:
    """Yield (where the shown part starts, its tasks): every fact and every perspective gets its turn.

    Two facts of a multi-hop question follow each other in the section: what belongs together stands together.
    """
    section = request.section
    dice = random.Random(stable_id(section.id, str(request.seed)))
    single = _dealt([(fact,) for fact in request.facts] or [()], request.questions, dice)
    people = itertools.cycle(dice.sample(PERSPECTIVES, len(PERSPECTIVES)))
    neighbours = [both for both in itertools.pairwise(request.facts) if _part_of(both[:1]) == _part_of(both[1:])]
    joined = _dealt(neighbours, request.multi_hop, dice)
    parts: dict[tuple[float, int], list[_Task]] = collections.defaultdict(list)
    for deck in (single, joined):
        for temperature, facts in zip(_rungs(request.temperatures, len(deck)), deck, strict=True):
            parts[temperature, _part_of(facts)].append(_Task(temperature, next(people), facts))
    for (_, start), tasks in parts.items():
        for part in _in_calls(tasks):
            yield start, part


def _dealt(facts: Sequence[tuple[Fact, ...]], count: int, dice: random.Random) -> list[tuple[Fact, ...]]:
    """Return so many, each as often as the others but for one; none where there are none."""
    deck: list[tuple[Fact, ...]] = []
    while facts and len(deck) < count:
        deck.extend(dice.sample(facts, len(facts)))
    return deck[:count]


def _part_of(facts: Sequence[Fact]) -> int:
    """Return where the part begins in which facts are shown."""
    return (facts[0].start if facts else 0) // PART_CHARACTERS * PART_CHARACTERS


def _in_calls(tasks: Sequence[Work]) -> Iterator[Sequence[Work]]:
    for first in range(0, len(tasks), TASKS_PER_CALL):
        yield tasks[first : first + TASKS_PER_CALL]


def _rungs(temperatures: Sequence[float], questions: int) -> Iterator[float]:
    """Yield each question's temperature."""
    for temperature, count in zip(temperatures, levels(temperatures, questions), strict=True):
        yield from itertools.repeat(temperature, count)


def _about(numbers: Sequence[int]) -> str:
    listed = " and ".join(f"[{number}]" for number in numbers)
    return f", about fact{'s' if len(numbers) > 1 else ''} {listed}" if numbers else ""


def _strays(items: Sequence[Item] | Sequence[OutsideItem], tasks: int, temperature: float) -> tuple[Failure, ...]:
    strays = [item for item in items if not 1 <= item.task <= tasks]
    return tuple(Failure(temperature, 0, "the teacher answered a task that was not set", str(item)) for item in strays)


def _outline(sections: Sequence[Section], seed: int) -> list[str]:
    headings = list(dict.fromkeys(" › ".join(section.heading_path) for section in sections))
    if len(headings) <= OUTLINE_HEADINGS:
        return headings
    chosen = set(random.Random(seed).sample(headings, OUTLINE_HEADINGS))
    return [heading for heading in headings if heading in chosen]


def _mark(*parts: str) -> str:
    """Return a delimiter that depends on the whole text, so that no page can close it."""
    return f"manual-{stable_id(*parts)}"


def _described(perspectives: Sequence[Perspective]) -> str:
    return "\n".join(f"- {perspective.name}: {perspective.description}" for perspective in perspectives)


async def _all(work: Iterator[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Return all results; where one failed, raise it once all have ended, so that calls in flight are not lost."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for item in done:
        if isinstance(item, BaseException):
            raise item
    return [item for item in done if not isinstance(item, BaseException)]


def _as_they_come(model: ChatModel, work: Sequence[Callable[[], Coroutine[Any, Any, Result]]]) -> Iterator[Result]:
    """Run the work on an event loop of its own, and yield each result as it comes."""
    with asyncio.Runner() as runner:
        runner.run(model.__aenter__())
        loop = runner.get_loop()
        finished: asyncio.Queue[asyncio.Task[Result]] = asyncio.Queue()
        tasks = [loop.create_task(start()) for start in work]
        for task in tasks:
            task.add_done_callback(finished.put_nowait)
        try:
            for _ in tasks:
                yield runner.run(finished.get()).result()
        except Exception:
            runner.run(asyncio.wait(tasks, timeout=DRAIN_S))
            raise
        finally:
            # On Ctrl-C what is in flight is given up at once; what came back is in the cache.
            runner.run(_close(model, tasks))


async def _close(model: ChatModel, tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await model.__aexit__(None, None, None)
