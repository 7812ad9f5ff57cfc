"""The stage's entrance: sections and facts in; pairs, and the account of what was asked, rejected and held out, out."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence

from byheart.config import Project, SynthesizeConfig
from byheart.errors import MissingInputError, TeacherError
from byheart.llm import CallCache, OpenAIChatModel, is_local
from byheart.progress import Notify, Progress, StageResult
from byheart.records import Coverage, Document, Fact, Section, TypicalQuestion, stable_id
from byheart.store import RunFolder
from byheart.synthesize import filters
from byheart.synthesize.curate import Curated, curated, level_counts
from byheart.synthesize.help_centres import typical_questions
from byheart.synthesize.offline import OfflineTeacher
from byheart.synthesize.offline_outside import inside_questions
from byheart.synthesize.openai_teacher import OpenAITeacher
from byheart.synthesize.similarity import words
from byheart.synthesize.teachers import Drafts, OutsideRequest, SectionRequest, Teacher, levels

TASK = "synthesizing"
CALLS = "3-calls.sqlite"  # not an output: it only grows, and outlives every run of the stage
OUTPUTS = ("3-pairs.jsonl", "3-rejected.jsonl", "3-coverage.jsonl", "3-leaks.json", "3-levels.json", "3-typical.jsonl")
NAMED_SECTIONS = 5  # sections without pairs that are named on the screen; all are in 3-coverage.jsonl


def run(project: Project, folder: RunFolder, notify: Notify) -> StageResult:
    """Expand the manual into pairs. Raises TeacherError where the teacher cannot be used; its answers are kept."""
    config = project.config.synthesize
    sections = folder.read("2-sections.jsonl", Section)
    languages = {document.id: document.language for document in folder.read("1-documents.jsonl", Document)}
    facts = folder.read("2-facts.jsonl", Fact)
    requests = _requests(config, sections, facts, languages)
    if not requests:
        raise MissingInputError(f"{folder / '2-sections.jsonl'} holds no text to ask about: check what was ingested")
    main_language = collections.Counter(request.language for request in requests).most_common(1)[0][0]
    outside = OutsideRequest(tuple(sections), main_language, config.temperatures, config.outside_questions, config.seed)
    with _teacher(config, folder, notify) as (teacher, reason):
        answers = [*_asked(teacher, requests, notify), teacher.outside(outside, notify)]
    notify(Progress(TASK, message="checking the answers against the manual"))
    result = curated(
        answers=answers,
        sections={section.id: section for section in sections},
        statements={fact.id: fact.statement for fact in facts},
        teacher=teacher.name,
        unseen_share=config.unseen_share,
        language=main_language,
        seed=config.seed,
    )
    coverage = _coverage(requests, answers, result)
    _write(folder, config, requests, result, coverage)
    written = [TypicalQuestion(question, answered=True) for question in inside_questions()]
    folder.write("3-typical.jsonl", [*written, *typical_questions()])
    _name_gaps(coverage, notify)
    return StageResult(OUTPUTS, _counts(requests, result, coverage), {"teacher": f"{teacher.name}: {reason}"})


def _requests(
    config: SynthesizeConfig, sections: Sequence[Section], facts: Sequence[Fact], languages: Mapping[str, str]
) -> list[SectionRequest]:
    """Return a request for every section with text: at least one question per fact."""
    by_section: dict[str, list[Fact]] = collections.defaultdict(list)
    for fact in facts:
        by_section[fact.section_id].append(fact)
    return [
        SectionRequest(
            section=section,
            facts=tuple(by_section[section.id]),
            language=languages.get(section.document_id, "en"),
            temperatures=config.temperatures,
            questions=max(config.questions_per_section, len(by_section[section.id])),
            seed=config.seed,
            multi_hop=_multi_hop(config, section, len(by_section[section.id])),
        )
        for section in sections
        if words(filters.plain(section.markdown))
    ]


def _multi_hop(config: SynthesizeConfig, section: Section, facts: int) -> int:
    """Return how many questions are to join two facts of a section: the share that was set, on the average.

    The rules of the offline teacher know no way to join two facts in good language.
    """
    if facts < 2 or config.teacher == "offline":
        return 0
    dice = random.Random(stable_id("multi-hop", section.id, str(config.seed)))
    return int(config.multi_hop * max(config.questions_per_section, facts) + dice.random())


@contextlib.contextmanager
def _teacher(config: SynthesizeConfig, folder: RunFolder, notify: Notify) -> Iterator[tuple[Teacher, str]]:
    """Yield the teacher that the config names, and why it is the one."""
    if config.teacher == "offline":
        yield OfflineTeacher(seed=config.seed), "rules over the manual, no key needed (synthesize.teacher: offline)"
        return
    key = os.environ.get(config.api_key_env, "")
    if not key and not is_local(config.base_url):
        raise TeacherError(
            f"The environment variable {config.api_key_env} is not set, and the teacher at {config.base_url} needs a "
            f"key. Set it (export {config.api_key_env}=…), name another one in synthesize.api_key_env, or set "
            "synthesize.teacher to offline."
        )
    with contextlib.closing(CallCache(folder / CALLS)) as cache:
        model = OpenAIChatModel(
            base_url=config.base_url,
            model=config.model,
            api_key=key or "none",
            key_origin=f"the environment variable {config.api_key_env}",
            cache=cache,
            notify=notify,
            concurrency=config.concurrency,
            timeout_s=config.timeout_s,
            max_retries=config.max_retries,
            max_calls=config.max_calls,
        )
        yield OpenAITeacher(model), f"{config.base_url} (synthesize.teacher: openai)"


def _asked(teacher: Teacher, requests: Sequence[SectionRequest], notify: Notify) -> list[Drafts]:
    """Return the teacher's drafts in the manual's order, whatever order they came in."""
    came: dict[str, Drafts] = {}
    questions = 0
    started = time.monotonic()
    notify(Progress(TASK, 0, len(requests)))
    for drafts in teacher.ask(requests, notify):
        came[drafts.section_id] = drafts
        questions += len(drafts.drafts)
        left_s = (time.monotonic() - started) / len(came) * (len(requests) - len(came))
        note = f"{questions} questions, {_duration(left_s)} left"
        notify(Progress(TASK, len(came), len(requests), note))
    return [came.get(request.section.id, Drafts(request.section.id, ())) for request in requests]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _coverage(requests: Sequence[SectionRequest], answers: Sequence[Drafts], result: Curated) -> list[Coverage]:
    kept = collections.Counter(pair.section_id for pair in result.pairs)
    delivered = {answer.section_id: len(answer.drafts) for answer in answers}
    reasons: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for item in result.rejected:
        reasons[item.pair.section_id][item.reason] += 1
    rows = []
    for request in requests:
        section = request.section
        most = ", ".join(f"{reason} ({count})" for reason, count in reasons[section.id].most_common(3))
        reason = "" if kept[section.id] else most or "the teacher found nothing to ask"
        heading = " › ".join(section.heading_path)
        rows.append(
            Coverage(
                section_id=section.id,
                heading=heading,
                url=section.url,
                asked=request.questions + request.multi_hop,
                delivered=delivered[section.id],
                kept=kept[section.id],
                reason=reason,
            )
        )
    return rows


def _write(
    folder: RunFolder,
    config: SynthesizeConfig,
    requests: Sequence[SectionRequest],
    result: Curated,
    coverage: Sequence[Coverage],
) -> None:
    asked: collections.Counter[float] = collections.Counter()
    for request in requests:
        for wanted in (request.questions, request.multi_hop):
            for temperature, count in zip(config.temperatures, levels(config.temperatures, wanted), strict=True):
                asked[temperature] += count
    rows = level_counts(asked=asked, pairs=result.pairs, rejected=result.rejected, seed=config.seed)
    folder.write("3-pairs.jsonl", result.pairs)
    folder.write("3-rejected.jsonl", result.rejected)
    folder.write("3-coverage.jsonl", coverage)
    folder.write_text("3-leaks.json", _json(dataclasses.asdict(result.leaks)))
    folder.write_text("3-levels.json", _json({"levels": rows}))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _name_gaps(coverage: Sequence[Coverage], notify: Notify) -> None:
    gaps = [row for row in coverage if not row.kept]
    if gaps:
        named = "; ".join(f"{row.heading} ({row.reason})" for row in gaps[:NAMED_SECTIONS])
        more = f"; and {len(gaps) - NAMED_SECTIONS} more, see 3-coverage.jsonl" if len(gaps) > NAMED_SECTIONS else ""
        notify(Progress(TASK, message=f"{len(gaps)} sections are left without any question: {named}{more}"))


def _counts(requests: Sequence[SectionRequest], result: Curated, coverage: Sequence[Coverage]) -> dict[str, int]:
    splits = collections.Counter(pair.split for pair in result.pairs)
    return {
        "asked": sum(request.questions + request.multi_hop for request in requests),
        "pairs": len(result.pairs),
        "train": splits["train"],
        "unseen phrasing": splits["unseen phrasing"],
        "outside": splits["outside"],
        "multi-hop": sum(pair.kind == "multi-hop" for pair in result.pairs),
        "rejected": len(result.rejected),
        "sections": len(coverage),
        "sections without pairs": sum(not row.kept for row in coverage),
        "leaks": result.leaks.leaking,
    }
