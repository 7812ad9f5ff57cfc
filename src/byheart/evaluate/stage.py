"""Evaluate's entrance: questions in, predictions, grades, figures and the report out."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Protocol

from byheart.answer import bot as answering
from byheart.answer.base import Answerer, BatchAnswerer
from byheart.answer.bot import System
from byheart.answer.grounds import Grounding, Unsupported
from byheart.answer.intents import intents_of
from byheart.catalog import find_model
from byheart.config import Project
from byheart.errors import MissingInputError
from byheart.evaluate import grading, history, metrics, report
from byheart.evaluate.coverage import map_coverage
from byheart.evaluate.questions import (
    ANSWERABLE,
    GROUPS,
    SEEN,
    UNANSWERABLE,
    UNSEEN,
    YOURS,
    questions_from_files,
    questions_from_pairs,
)
from byheart.progress import Notify, Progress, StageResult
from byheart.records import (
    Document,
    Fact,
    Grade,
    Pair,
    Prediction,
    Question,
    Rejected,
    Section,
    stable_id,
)
from byheart.store import RunFolder

BASELINES: tuple[System, ...] = ("untrained", "bm25")
OUTPUTS = ("5-questions.jsonl", "5-predictions.jsonl", "5-grades.jsonl", "5-metrics.json", "report.html")
AT_ONCE = 32  # questions that a model which writes is asked side by side
SAMPLING_SEED = 0  # the same questions in every run, so that two reports compare


class Load(Protocol):
    """How the stage gets a system to ask; `byheart.answer.bot.load` is one."""

    def __call__(
        self, folder: RunFolder, *, system: System, max_words: int, max_citations: int,
        grounding: Grounding, unsupported: Unsupported,
    ) -> Answerer:  # fmt: skip
        """Return the system, ready to answer from the run's manual."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Manual:
    """What the stages before wrote."""

    documents: list[Document]
    sections: list[Section]
    facts: list[Fact]
    pairs: list[Pair]


def run(project: Project, folder: RunFolder, notify: Notify) -> StageResult:
    """Ask the model and its baselines, grade their answers, and write the report."""
    systems = answering.systems(folder, grounding=project.config.answer.grounding)
    return evaluate(project, folder, notify, load=answering.load, clock=time.perf_counter, systems=systems)


def evaluate(
    project: Project, folder: RunFolder, notify: Notify, *, load: Load, clock: Callable[[], float],
    systems: tuple[System, ...] = ("byheart", *BASELINES),
) -> StageResult:  # fmt: skip
    """Do what `run` does, with answerers from `load` and seconds from `clock`. The first of `systems` is the bot."""
    config = project.config
    manual = Manual(
        documents=folder.read("1-documents.jsonl", Document),
        sections=folder.read("2-sections.jsonl", Section),
        facts=folder.read("2-facts.jsonl", Fact),
        pairs=folder.read("3-pairs.jsonl", Pair),
    )
    limit = config.evaluate.max_questions_per_split
    questions = questions_from_files(
        paths=[project.folder / name for name in config.questions], max_per_group=limit, seed=SAMPLING_SEED
    ) + questions_from_pairs(
        pairs=manual.pairs, facts=manual.facts, sections=manual.sections, max_per_group=limit, seed=SAMPLING_SEED
    )
    if not questions:
        raise MissingInputError(
            f"{folder / '3-pairs.jsonl'} holds no question and the config names no questions file. "
            "Run `byheart synthesize`, or add `questions:` to the config."
        )
    systems = systems if config.evaluate.baselines else systems[:1]
    predictions: list[Prediction] = []
    for system in systems:
        answerer = load(
            folder, system=system, max_words=config.answer.max_words, max_citations=config.answer.max_citations,
            grounding=config.answer.grounding, unsupported=config.answer.unsupported,
        )  # fmt: skip
        predictions.extend(ask(answerer, system, questions, notify=notify, clock=clock))
    grades = list(grade_all(questions=questions, predictions=predictions, manual=manual))
    graded = metrics.join(questions=questions, predictions=predictions, grades=grades)
    figures = metrics.compute(graded=graded, systems=systems, groups=GROUPS, answerable=ANSWERABLE, trained_on=(SEEN,))
    folder.write("5-questions.jsonl", questions)
    folder.write("5-predictions.jsonl", predictions)
    folder.write("5-grades.jsonl", grades)
    folder.write_text("5-metrics.json", json.dumps(dataclasses.asdict(figures), indent=1, ensure_ascii=False) + "\n")
    folder.write_text("report.html", _report(project, folder, manual, figures, graded))
    for line in unknown_sources(questions, manual):
        notify(Progress("evaluating", message=line))
    notify(Progress("evaluating", message=report.verdict_sentence(figures)))
    return StageResult(outputs=OUTPUTS, counts=_counts(questions, graded), chosen=_chosen(questions, limit))


def ask(
    answerer: Answerer, system: System, questions: Sequence[Question], *, notify: Notify, clock: Callable[[], float]
) -> Iterator[Prediction]:
    """Yield the system's answer to every question, with the seconds it took once it was warm.

    A system that answers many at once is asked AT_ONCE at a time; each of these gets its share of the seconds.
    """
    answerer.answer(questions[0].question)  # not measured: the first call may still load things
    size = AT_ONCE if isinstance(answerer, BatchAnswerer) else 1
    for first in range(0, len(questions), size):
        together = questions[first : first + size]
        started = clock()
        if isinstance(answerer, BatchAnswerer):
            answers = answerer.answer_many([question.question for question in together], lambda done: None)
        else:
            answers = [answerer.answer(question.question) for question in together]
        elapsed = (clock() - started) / len(together)
        for question, answer in zip(together, answers, strict=True):
            yield Prediction(
                id=stable_id(question.id, system),
                question_id=question.id,
                system=system,
                answer=answer.text,
                citations=answer.citations,
                confidence=answer.confidence,
                abstained=answer.abstained,
                seconds=round(elapsed, 4),
                intent=answer.intent,
            )
        notify(Progress(f"evaluating {system}", first + len(together), len(questions)))


def grade_all(*, questions: Sequence[Question], predictions: Sequence[Prediction], manual: Manual) -> Iterator[Grade]:
    """Yield the grade of every prediction.

    An answer that declines shows the nearest page as its first citation: that page counts as cited first.
    """
    question_by_id = {question.id: question for question in questions}
    locations = {document.id: document.location for document in manual.documents}
    page_of_section = {s.id: locations.get(s.document_id, "") for s in manual.sections}
    page_of_pair = {pair.id: page_of_section.get(pair.section_id, "") for pair in manual.pairs}
    page_keys = {location: grading.page_key(location) for location in locations.values()}
    intents = _right_intents(questions, manual, page_keys)
    right_pages: dict[str, frozenset[str] | None] = {
        question.id: _right_pages(question, page_of_pair, page_keys) for question in questions
    }
    for prediction in predictions:
        question = question_by_id[prediction.question_id]
        outside, by_user = question.group in UNANSWERABLE, question.group == YOURS
        verdict, evidence = grading.grade_answer(
            answer=prediction.answer,
            abstained=prediction.abstained,
            key_facts=question.key_facts,
            outside=outside,
            headings=() if by_user else [citation.heading for citation in prediction.citations],
            word_recall=1.0 if by_user else grading.STATEMENT_RECALL,
        )
        right = right_pages[question.id]
        page_first, page_evidence = (None, "")
        if right is not None:
            cited = _cited_page(prediction, page_of_section, page_keys)
            page_first, page_evidence = grading.page_is_first(cited=cited, right=right)
        grader = "declines" if outside else "key facts" if by_user else "fact statements"
        notes = "; ".join(note for note in (evidence, page_evidence) if note)
        intent = intents.get(prediction.question_id) if prediction.intent else None
        intent_right = None if intent is None else prediction.intent == intent
        yield Grade(prediction.id, verdict, page_first, grader, notes, intent_right)


def _right_pages(question: Question, page_of_pair: dict[str, str], page_keys: dict[str, str]) -> frozenset[str] | None:
    """Return the locations of the pages that answer the question, None where no page is named."""
    if not question.source:
        return None
    if question.group == YOURS:
        return grading.pages_named(question.source, page_keys)
    page = page_of_pair[question.id]
    return frozenset({page}) if page else None


def _right_intents(questions: Sequence[Question], manual: Manual, page_keys: dict[str, str]) -> dict[str, str]:
    """Return the intent of each question that has one: its section's, or that of the page which the user names."""
    by_section, _ = intents_of(manual.sections, manual.documents)
    section_of_pair = {pair.id: pair.section_id for pair in manual.pairs}
    locations = {document.id: document.location for document in manual.documents}
    of_page: dict[str, set[str]] = {}
    for section in manual.sections:
        of_page.setdefault(locations.get(section.document_id, ""), set()).add(by_section.get(section.id, ""))
    found: dict[str, str] = {}
    for question in questions:
        if question.group == YOURS:
            told = {
                intent for page in grading.pages_named(question.source, page_keys) for intent in of_page.get(page, ())
            }
            named = next(iter(told)) if len(told) == 1 else ""  # chapters of one page: the source does not say which
        else:
            named = by_section.get(section_of_pair.get(question.id, ""), "")
        if named and question.source:
            found[question.id] = named
    return found


def _cited_page(prediction: Prediction, page_of_section: dict[str, str], page_keys: dict[str, str]) -> str:
    if not prediction.citations:
        return ""
    first = prediction.citations[0]
    named = page_of_section.get(first.section_id) or min(grading.pages_named(first.url, page_keys), default="")
    return named or first.url


def unknown_sources(questions: Sequence[Question], manual: Manual) -> Iterator[str]:
    """Yield a warning for each of the user's questions that names a page which was not ingested."""
    page_keys = {document.location: grading.page_key(document.location) for document in manual.documents}
    for question in questions:
        if question.group == YOURS and question.source and not grading.pages_named(question.source, page_keys):
            yield (
                f"question {question.id}: its source {question.source!r} names no page of 1-documents.jsonl, so it "
                "counts as not citing the right page. Correct the source, or see why the page was not read."
            )


def _report(
    project: Project, folder: RunFolder, manual: Manual, figures: metrics.Metrics, graded: list[metrics.Graded]
) -> str:
    config = project.config
    entry = find_model(config.base_model)
    section_of_pair = {pair.id: pair.section_id for pair in manual.pairs if pair.section_id}
    ours = [item for item in graded if item.prediction.system == "byheart" and item.question.group in (SEEN, UNSEEN)]
    found = metrics.by_section(ours, section_of_question=section_of_pair)
    rejected = folder.read("3-rejected.jsonl", Rejected) if (folder / "3-rejected.jsonl").exists() else []
    return report.render(
        about=report.Facts(
            title=config.serve.title or project.folder.resolve().name,
            base_model=config.base_model,
            method="full" if entry and entry.from_scratch else config.train.method,
            pages=len(manual.documents),
            sections=len(manual.sections),
            facts=len(manual.facts),
            pairs=len(manual.pairs),
            finished_at=datetime.now(UTC),
        ),
        metrics=figures,
        graded=graded,
        coverage=map_coverage(
            documents=manual.documents,
            sections=manual.sections,
            verdicts={key: [item.grade.verdict for item in items] for key, items in found.items()},
        ),
        taught_sections=frozenset(section_of_pair.values()),
        steps=history.parse_steps(_text(folder, "4-steps.jsonl")) if config.train.method != "none" else [],
        levels=history.parse_levels(_text(folder, "3-levels.json") or "[]"),
        rejections=history.count_rejections(rejected),
    )


def _text(folder: RunFolder, name: str) -> str:
    path = folder / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _counts(questions: Sequence[Question], graded: Sequence[metrics.Graded]) -> dict[str, int]:
    verdicts = Counter(item.grade.verdict for item in graded if item.prediction.system == "byheart")
    return {"questions": len(questions), **{str(verdict): count for verdict, count in sorted(verdicts.items())}}


def _chosen(questions: Sequence[Question], limit: int) -> dict[str, str]:
    sizes = Counter(question.group for question in questions)
    full = [group for group in GROUPS if sizes[group] >= limit]
    reason = (
        f"{' and '.join(full)} sampled to {limit}, spread over the sections (evaluate.max_questions_per_split)"
        if full
        else "all there are"
    )
    told = ", ".join(f"{sizes[group]} {group}" for group in GROUPS if sizes[group])
    return {"questions": f"{told}: {reason}"}
