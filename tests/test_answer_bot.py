from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from byheart.answer import bot
from byheart.answer.base import Turn
from byheart.answer.bot import ManualAnswerer, load_calibration, save_calibration
from byheart.answer.citing import MAX_QUESTION_CHARACTERS, cite, declined
from byheart.answer.confidence import Calibration
from byheart.answer.lexical import LexicalAnswerer
from byheart.config import AnswerConfig, Config, IngestConfig, Project, SynthesizeConfig, TrainConfig
from byheart.errors import MissingInputError, ModelError
from byheart.index.index import Match
from byheart.records import Pair, TypicalQuestion
from byheart.store import RunFolder
from toy_manual import PAGES, FakeEncoder, index_of

INDEX = index_of(PAGES)
ASKED = "How long does a deleted board stay in the bin?"
NEVER = Calibration((0.0,) * 64, 0.0, 0.0, 1.0, 2.0, 0.05)  # a threshold that no probability reaches


def answerer(calibration: Calibration | None = None, **changes: int) -> ManualAnswerer:
    settings = {"max_words": 60, "max_citations": 2} | changes
    return ManualAnswerer(index=INDEX, encoder=FakeEncoder(), calibration=calibration, **settings)


def lexical(questions: tuple[str, ...] = (), refuse: float = 0.0) -> LexicalAnswerer:
    return LexicalAnswerer(
        index=INDEX, questions=questions, refuse_answerable=refuse, max_words=60,
        decline=lambda matches: declined(matches, 0.0, max_citations=2), cite=lambda matches: cite(matches, 2),
    )  # fmt: skip


def found(question: str) -> list[Match]:
    return INDEX.search(question, FakeEncoder().encode_one(question))


def test_an_answer_is_the_manuals_text_and_cites_where_it_stands() -> None:
    answer = answerer().answer(ASKED)
    assert "A deleted board stays in the bin for 30 days." in answer.text
    first = answer.citations[0]
    assert (first.title, first.heading, first.url) == ("Boards", "Delete a board", "boards.md#delete-a-board")
    assert not answer.abstained
    assert 1 <= len(answer.citations) <= 2


def test_a_declined_answer_names_the_nearest_page_and_cites_it() -> None:
    answer = answerer(NEVER).answer(ASKED)
    assert answer.abstained
    assert answer.confidence < NEVER.threshold
    assert answer.text == (
        "The manual does not say. The nearest page is [Boards › Delete a board](boards.md#delete-a-board)."
    )
    assert answer.citations[0].url == "boards.md#delete-a-board"
    assert len(answer.citations) == 2


def test_brackets_in_a_title_do_not_break_the_link_of_a_declined_answer() -> None:
    match = found(ASKED)[0]
    odd = dataclasses.replace(match, passage=dataclasses.replace(match.passage, title="Boards [beta]"))
    assert "[Boards (beta) › Delete a board](boards.md" in declined([odd], 0.2, max_citations=1).text


def test_a_probability_at_the_threshold_is_answered() -> None:
    even = Calibration((0.0,) * 64, 0.0, 0.0, 1.0, 0.5, 0.05)
    answer = answerer(even).answer(ASKED)
    assert (answer.abstained, answer.confidence) == (False, 0.5)


@pytest.mark.parametrize("question", ["", "   \n", "\u200b", "?!"])
def test_a_question_without_words_asks_for_one(question: str) -> None:
    answer = answerer(NEVER).answer(question)
    assert answer.abstained
    assert answer.citations == ()
    assert "ask a question" in answer.text


def test_a_follow_up_is_read_with_the_question_before_it() -> None:
    history = (Turn("user", "Are seats charged by the month?"), Turn("assistant", "Yes."))
    alone, after = answerer().answer("and how do I add them?"), answerer().answer("and how do I add them?", history)
    assert after.citations[0].heading == "Seats"
    assert alone.citations[0] != after.citations[0]
    own = "How long does a deleted board stay in the bin of the dashboard?"
    assert answerer().answer(own, history) == answerer().answer(own)


def test_a_pasted_novel_is_read_at_its_beginning() -> None:
    encoder = FakeEncoder()
    reader = ManualAnswerer(index=INDEX, encoder=encoder, calibration=None, max_words=60, max_citations=1)
    reader.answer("board " * 5000)
    assert [len(text) <= MAX_QUESTION_CHARACTERS for text in encoder.read] == [True]


def test_each_section_is_cited_once_and_no_more_than_wanted() -> None:
    matches = found("boards guests seats")
    assert len({item.section_id for item in cite([*matches, *matches], 10)}) == len(cite([*matches, *matches], 10))
    assert [item.section_id for item in cite(matches, 2)] == [match.passage.section_id for match in matches[:2]]
    assert all(0 <= item.score <= 1 for item in cite(matches, 10))


@pytest.mark.parametrize("calibration", [None, NEVER], ids=["none", "fitted"])
def test_a_calibration_survives_its_file(tmp_path: Path, calibration: Calibration | None) -> None:
    save_calibration(tmp_path / "c.json", calibration)
    assert load_calibration(tmp_path / "c.json") == calibration


def test_the_baseline_answers_by_words_and_declines_what_shares_none() -> None:
    answer = lexical().answer("deleted board bin")
    assert answer.citations[0].heading == "Delete a board"
    assert "30 days" in answer.text
    for question in ("quantum zeppelin", ""):
        assert lexical().answer(question).abstained
    assert lexical().answer("quantum zeppelin").citations


def test_the_baseline_refuses_the_share_of_its_weakest_questions() -> None:
    questions = ("deleted board bin", "seats billing page", "board weather rome oslo lima")
    kept = [not lexical(questions, 0.5).answer(question).abstained for question in questions]
    assert kept.count(True) == 2
    assert kept[2] is False


def test_a_bot_that_was_not_trained_says_what_to_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(MissingInputError, match=r"4-model is not there yet.*byheart run"):
        bot.load(folder, system="byheart", max_words=60, max_citations=2)
    (tmp_path / "4-model").mkdir()
    (tmp_path / "4-model" / "byheart.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"4-model is damaged.*byheart train"):
        bot.load(folder, system="byheart", max_words=60, max_citations=2)


def test_the_decision_is_fitted_on_held_out_phrasings_and_never_on_the_test_questions(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    pair = Pair("p", (), "s", "seen", "a", "qa", "newcomer", 0.3, "offline", "r", "train")
    folder.write("3-pairs.jsonl", [
        pair,
        dataclasses.replace(pair, question="unseen", split="unseen phrasing"),
        dataclasses.replace(pair, question="out", kind="refusal", section_id=""),
        dataclasses.replace(pair, question="test", kind="refusal", section_id="", split="outside"),
    ])  # fmt: skip
    folder.write("3-typical.jsonl", [TypicalQuestion("usual", answered=True), TypicalQuestion("open", answered=False)])
    found = bot.calibration_questions(folder)
    assert (found.answered, found.outside, found.typical) == (("unseen",), ("out", "open"), ("usual",))


@pytest.mark.slow
def test_from_pages_to_answers_with_the_starter_and_both_baselines(tmp_path: Path) -> None:
    from byheart import pipeline

    (tmp_path / "pages").mkdir()
    for name, text in PAGES.items():
        (tmp_path / "pages" / name).write_text(text, encoding="utf-8")
    config = Config(
        docs=("pages",), ingest=IngestConfig(), synthesize=SynthesizeConfig(outside_questions=200),
        train=TrainConfig(method="none"), answer=AnswerConfig(),
    )  # fmt: skip
    project = Project(folder=tmp_path, config=config)
    for stage in ("ingest", "synthesize", "train"):
        pipeline.run(project, lambda event: None, only=stage)
    systems: tuple[bot.System, ...] = ("byheart", "untrained", "bm25")
    for system in systems:
        loaded = bot.load(RunFolder(project.run_path), system=system, max_words=80, max_citations=3)
        answer = loaded.answer("How long does a deleted board stay in the bin?")
        assert "30 days" in answer.text
        assert answer.citations[0].url.endswith("boards.md#delete-a-board")
        if system == "byheart":
            assert loaded.answer("What is the weather like in Rome today?").abstained
