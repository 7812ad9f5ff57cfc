"""The stage, from a run folder to predictions, grades, figures and the report, with answerers made for the purpose."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from byheart.answer.base import Answer, Answerer, Turn
from byheart.answer.bot import System
from byheart.config import Config, Project
from byheart.errors import MissingInputError
from byheart.evaluate import stage
from byheart.progress import Progress, StageResult, silent
from byheart.records import Citation, Document, Fact, Grade, Pair, Prediction, Question, Section
from byheart.store import RunFolder

GUESTS = Section("guests", "d1", ("Guests", "Roles"), "guests.md#roles", "Guests can vote.", 0, "")
PLANS = Section("plans", "d2", ("Plans", "Limits"), "plans.md#limits", "Free holds three boards.", 1, "")
CITE_GUESTS = Citation("Guests", "Guests › Roles", "guests.md#roles", 0.9, "guests")
CITE_PLANS = Citation("Plans", "Plans › Limits", "plans.md#limits", 0.9, "plans")


class Scripted:
    """An answerer that knows some questions by heart and declines the others."""

    def __init__(self, known: dict[str, tuple[str, Citation]]) -> None:
        self.known = known
        self.asked: list[str] = []

    def answer(self, question: str, history: Sequence[Turn] = ()) -> Answer:
        self.asked.append(question)
        if question not in self.known:
            return Answer("The manual does not say.", (), 0.1, True)
        text, citation = self.known[question]
        return Answer(text, (citation,), 0.9, False, intent=citation.url.partition("#")[0])


BYHEART = {
    "may guests vote?": ("Guests can vote.", CITE_GUESTS),
    "guests voting?": ("Guests can vote.", CITE_PLANS),
    "can my guests vote": ("Yes: guests can vote.", CITE_GUESTS),
    "how many boards": ("There are many boards.", CITE_PLANS),
}


def make_pair(identity: str, question: str, split: str, section: Section | None) -> Pair:
    return Pair(
        id=identity,
        fact_ids=(f"fact-{section.id}",) if section else (),
        section_id=section.id if section else "",
        question=question,
        answer=section.markdown if section else "",
        kind="qa" if section else "refusal",
        perspective="newcomer",
        temperature=0.0,
        teacher="offline",
        prompt_id="t",
        split=split,  # type: ignore[arg-type]
    )


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    titles = {"d1": "guests", "d2": "plans"}
    run.write("1-documents.jsonl", [Document(d, f"{title}.md", title, "en", "", "", "") for d, title in titles.items()])
    run.write("2-sections.jsonl", [GUESTS, PLANS])
    run.write("2-facts.jsonl", [Fact(f"fact-{s.id}", s.id, s.markdown, 0, 9, "limit") for s in (GUESTS, PLANS)])
    run.write(
        "3-pairs.jsonl",
        [
            make_pair("seen", "may guests vote?", "train", GUESTS),
            make_pair("unseen", "guests voting?", "unseen phrasing", GUESTS),
            make_pair("silent", "boards of free?", "unseen phrasing", PLANS),
            make_pair("outside", "what is the weather?", "outside", None),
        ],
    )
    return run


def evaluate(
    folder: RunFolder,
    *,
    notify: Callable[[Progress], None] = silent,
    known: dict[str, Any] | None = None,
    **config: Any,
) -> StageResult:
    def load(folder: RunFolder, *, system: System, **limits: Any) -> Answerer:
        assert limits == {
            "max_words": 150, "max_citations": 3, "grounding": "closed-book", "unsupported": "passage",
        }  # fmt: skip
        return Scripted(BYHEART) if system == "byheart" else Scripted({})

    ticks = itertools.count()
    return stage.evaluate(
        Project(folder=folder.path.parent, config=Config(docs=("docs",), **config)),
        folder,
        notify,
        load=load,
        clock=lambda: next(ticks) / 4,
    )


def verdicts(folder: RunFolder, system: str = "byheart") -> dict[str, tuple[str, bool | None]]:
    grades = {grade.prediction_id: grade for grade in folder.read("5-grades.jsonl", Grade)}
    return {
        p.question_id: (grades[p.id].verdict, grades[p.id].page_first)
        for p in folder.read("5-predictions.jsonl", Prediction)
        if p.system == system
    }


def test_every_question_of_the_pairs_is_asked_of_every_system_and_graded(folder: RunFolder) -> None:
    result = evaluate(folder)
    assert verdicts(folder) == {
        "seen": ("correct", True),
        "unseen": ("correct", False),
        "silent": ("not attempted", False),
        "outside": ("correct", None),
    }
    assert {v for v, _ in verdicts(folder, "bm25").values()} == {"not attempted", "correct"}
    assert verdicts(folder, "untrained").keys() == verdicts(folder).keys()
    assert all((folder / name).exists() for name in result.outputs)
    assert result.counts == {"questions": 4, "correct": 3, "not attempted": 1}
    assert result.chosen["questions"].startswith("2 unseen phrasing, 1 seen phrasing, 1 outside")


def test_the_users_questions_are_graded_by_their_key_facts_and_pages(folder: RunFolder) -> None:
    lines = [
        {
            "id": "mine",
            "question": "can my guests vote",
            "key_facts": ["Guests can vote"],
            "source": "pages/guests.md#X",
        },
        {"id": "wrong", "question": "how many boards", "key_facts": ["three boards"], "source": "plans.html"},
        {"id": "nowhere", "question": "may guests vote?", "key_facts": ["vote"], "source": "gone.md"},
        {"id": "no-facts", "question": "guests voting?", "answer": "Yes."},
        {"id": "price", "question": "what does it cost?", "kind": "unanswerable"},
    ]
    (folder.path.parent / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    messages: list[str] = []
    evaluate(folder, questions=("mine.jsonl",), notify=lambda event: messages.append(event.message))
    graded = verdicts(folder)
    assert graded["mine"] == ("correct", True)
    assert graded["wrong"] == ("incorrect", True)
    assert graded["nowhere"] == ("correct", False)
    assert graded["no-facts"] == ("unscored", None)
    assert graded["price"] == ("correct", None)
    assert any("gone.md" in message for message in messages)
    assert any(message.startswith("It answers 67") for message in messages)


def test_without_baselines_only_the_model_is_asked(folder: RunFolder) -> None:
    evaluate(folder, evaluate={"baselines": False})
    assert {p.system for p in folder.read("5-predictions.jsonl", Prediction)} == {"byheart"}


def test_the_seconds_of_an_answer_are_those_of_its_own_call(folder: RunFolder) -> None:
    evaluate(folder)
    assert {p.seconds for p in folder.read("5-predictions.jsonl", Prediction)} == {0.25}


def test_the_first_question_is_asked_once_unmeasured_to_warm_up() -> None:
    answerer = Scripted({})
    questions = [Question(str(n), f"question {n}", "", (), "", "qa", "outside") for n in range(2)]
    predictions = list(stage.ask(answerer, "byheart", questions, notify=silent, clock=itertools.count().__next__))
    assert answerer.asked == ["question 0", "question 0", "question 1"]
    assert len({p.id for p in predictions}) == 2


def test_progress_counts_up_to_the_number_of_questions_for_each_system(folder: RunFolder) -> None:
    events: list[Progress] = []
    evaluate(folder, notify=events.append)
    for system in ("byheart", "untrained", "bm25"):
        done = [(event.done, event.total) for event in events if event.task == f"evaluating {system}"]
        assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_figures_are_written_as_json_with_counts_and_intervals(folder: RunFolder) -> None:
    evaluate(folder)
    figures = json.loads((folder / "5-metrics.json").read_text(encoding="utf-8"))
    cell = next(c for c in figures["cells"] if (c["system"], c["group"]) == ("byheart", "unseen phrasing"))
    assert cell["correct"]["count"] == 1
    assert cell["correct"]["n"] == 2
    assert 0 < cell["correct"]["low"] < 0.5 < cell["correct"]["high"] < 1
    assert {p["baseline"] for p in figures["paired"]} == {"untrained", "bm25"}


def test_two_runs_write_the_same_grades(folder: RunFolder) -> None:
    evaluate(folder)
    first = (folder / "5-grades.jsonl").read_bytes()
    evaluate(folder)
    assert (folder / "5-grades.jsonl").read_bytes() == first


def test_nothing_to_ask_is_an_error_that_says_what_to_do(folder: RunFolder) -> None:
    folder.write("3-pairs.jsonl", [])
    with pytest.raises(MissingInputError, match="byheart synthesize"):
        evaluate(folder)


def test_a_run_folder_without_pairs_says_so(folder: RunFolder) -> None:
    (folder / "3-pairs.jsonl").unlink()
    with pytest.raises(MissingInputError, match=r"3-pairs\.jsonl"):
        evaluate(folder)


def test_the_users_file_alone_is_enough(folder: RunFolder) -> None:
    folder.write("3-pairs.jsonl", [])
    (folder.path.parent / "q.jsonl").write_text('{"question": "may guests vote?", "key_facts": ["vote"]}')
    evaluate(folder, questions=("q.jsonl",))
    assert verdicts(folder) == {"q-1": ("correct", None)}


def test_intents_are_graded_by_the_sections_and_pages_that_answer(folder: RunFolder, tmp_path: Path) -> None:
    own = [
        {"question": "can my guests vote", "key_facts": ["vote"], "source": "guests.md"},
        {"question": "how many boards", "key_facts": ["three"], "source": "plans.md#Limits"},
        {"question": "may guests vote?", "key_facts": ["vote"]},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(json.dumps(line) for line in own), encoding="utf-8")
    evaluate(folder, questions=("q.jsonl",))
    cells = {
        (cell["system"], cell["group"]): (cell["intent"]["count"], cell["intent"]["n"])
        for cell in json.loads((folder / "5-metrics.json").read_text())["cells"]
    }
    assert cells["byheart", "yours"] == (2, 2)  # the third names no page
    assert cells["byheart", "unseen phrasing"] == (0, 1)  # the other one was declined by a bot that tells nothing
    assert cells["byheart", "outside"] == (0, 0)
    assert cells["bm25", "yours"] == (0, 0)
    assert "(its intent) was told rightly for 100" in (folder / "report.html").read_text()
