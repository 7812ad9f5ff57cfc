from __future__ import annotations

import random

import pytest

from byheart.records import Fact, Section
from byheart.synthesize import offline_phrasings as phrasings
from byheart.synthesize.offline import MAX_ANSWER_WORDS, OfflineTeacher
from byheart.synthesize.offline_grammar import (
    VERBS,
    base_to_gerund,
    first_person,
    gerund_to_base,
    lower_first,
    shorten,
    task_of,
)
from byheart.synthesize.offline_needs import Need, heading_needs, salient_words, statement_needs
from byheart.synthesize.offline_voice import keywords, pick, say
from byheart.synthesize.perspectives import PERSPECTIVES
from byheart.synthesize.teachers import Draft, SectionRequest
from toy_manual import PAGES, read

LADDER = (0.0, 0.3, 0.6, 0.9, 1.2)
VOICES = {perspective.name for perspective in PERSPECTIVES}


def drafts(seed: int = 0, *, questions: int = 24, temperatures: tuple[float, ...] = LADDER) -> dict[str, list[Draft]]:
    _, sections, facts = read(PAGES)
    requests = [request(section, facts, questions, temperatures) for section in sections]
    made = OfflineTeacher(seed=seed).ask(requests, lambda event: None)
    return {answer.section_id: list(answer.drafts) for answer in made}


def request(section: Section, facts: list[Fact], questions: int, temperatures: tuple[float, ...]) -> SectionRequest:
    own = tuple(fact for fact in facts if fact.section_id == section.id)
    return SectionRequest(section, own, "en", temperatures, max(questions, len(own)), 0)


def test_the_same_seed_gives_the_same_questions_and_another_gives_others() -> None:
    assert drafts(1) == drafts(1)
    assert drafts(1) != drafts(2)


def test_a_sections_questions_do_not_depend_on_its_neighbours() -> None:
    _, sections, facts = read(PAGES)
    [alone] = OfflineTeacher(seed=0).ask([request(sections[2], facts, 24, LADDER)], lambda event: None)
    assert list(alone.drafts) == drafts()[sections[2].id]


def test_all_eight_perspectives_and_all_temperatures_occur() -> None:
    for made in drafts().values():
        assert {draft.perspective for draft in made} == VOICES
    assert {draft.temperature for made in drafts().values() for draft in made} == set(LADDER)


@pytest.mark.parametrize("temperatures", [LADDER, (0.0,)], ids=["ladder", "coldest"])
@pytest.mark.parametrize("questions", [24, 1])
@pytest.mark.parametrize("seed", range(5))
def test_every_fact_gets_a_question(seed: int, questions: int, temperatures: tuple[float, ...]) -> None:
    _, _, facts = read(PAGES)
    made = drafts(seed, questions=questions, temperatures=temperatures)
    asked = {fact_id for section in made.values() for draft in section for fact_id in draft.fact_ids}
    assert [fact.statement for fact in facts if fact.id not in asked] == []


def test_short_facts_get_a_question_too() -> None:
    section = Section("s", "d", ("Help",), "help.md", "", 0, "")
    facts = [Fact(f"f{n}", "s", text, 0, 1, "statement") for n, text in enumerate(("Yes.", "No.", "3 to 5", "→"))]
    [made] = OfflineTeacher(seed=0).ask([request(section, facts, 24, LADDER)], lambda event: None)
    assert {fact_id for draft in made.drafts for fact_id in draft.fact_ids} == {"f0", "f1", "f2", "f3"}


def test_no_question_is_asked_twice_of_a_section() -> None:
    for made in drafts(questions=60).values():
        assert len({draft.question.lower() for draft in made}) == len(made)
        assert all(draft.question for draft in made)


def test_answers_are_the_manuals_statements_and_steps_are_answered_as_a_whole_list() -> None:
    _, sections, facts = read(PAGES)
    statements = {fact.id: fact.statement for fact in facts}
    delete = next(section for section in sections if section.heading_path[-1] == "Delete a board")
    lists = [draft.answer for draft in drafts()[delete.id] if draft.answer.startswith("1. ")]
    assert lists
    for made in drafts().values():
        for draft in made:
            assert all(statements[fact_id] in draft.answer for fact_id in draft.fact_ids)
            assert len(draft.answer.split()) <= MAX_ANSWER_WORDS
    assert {answer.count("\n") for answer in lists} == {2}


def test_temperature_zero_says_the_plainest_form() -> None:
    cold = random.Random(0)
    task = Need("task", "delete a board")
    assert {say(task, perspective="newcomer", temperature=0.0, rng=cold) for _ in range(20)} == {
        "How do I delete a board?"
    }
    assert say(task, perspective="hurried", temperature=0.0, rng=cold) == "delete board"
    assert pick("abc", temperature=0.0, rng=cold) == "a"
    hot = {say(task, perspective="newcomer", temperature=1.2, rng=cold) for _ in range(50)}
    assert len(hot) > 10


def test_every_kind_of_need_has_words_in_every_voice() -> None:
    rng = random.Random(0)
    for kind in phrasings.FORMS:
        for voice in VOICES:
            for temperature in LADDER:
                question = say(Need(kind, "delete my board"), perspective=voice, temperature=temperature, rng=rng)
                assert question
                assert "{" not in question


def test_keywords_are_two_to_six_content_words() -> None:
    rng = random.Random(0)
    long = "the owner of a team can delete the boards that guests made in the last month"
    for temperature in LADDER:
        assert 2 <= len(keywords(long, temperature=min(temperature, 0.0), rng=rng).split()) <= 6
    assert keywords("of the", temperature=0.0, rng=rng) == "of the"


@pytest.mark.parametrize(
    ("gerund", "base"),
    [("deleting", "delete"), ("setting", "set"), ("running", "run"), ("seeing", "see"), ("copying", "copy"),
     ("dragging", "drag"), ("creating", "create"), ("submitting", "submit"), ("upgrading", "upgrade")],
)  # fmt: skip
def test_gerund_and_base_lead_to_each_other(gerund: str, base: str) -> None:
    assert gerund_to_base(gerund) == base
    assert base_to_gerund(base) == gerund


def test_every_verb_is_found_again_from_its_gerund() -> None:
    assert {verb: gerund_to_base(base_to_gerund(verb)) for verb in VERBS} == {verb: verb for verb in VERBS}


@pytest.mark.parametrize("word", ["billing", "pricing", "ring", "thing", "zorbing", "board"])
def test_nouns_and_unknown_words_are_no_gerunds(word: str) -> None:
    assert gerund_to_base(word) is None


@pytest.mark.parametrize(
    ("manual", "customer"),
    [
        ("you can share your board", "I can share my board"),
        ("this lets you invite yourself", "this lets me invite myself"),
        ("if you're an owner, the board is yours", "if I'm an owner, the board is mine"),
        ("we send you a mail when you are invited", "we send me a mail when I am invited"),
        ("Your youth", "my youth"),
    ],
)
def test_you_becomes_the_customer(manual: str, customer: str) -> None:
    assert first_person(manual) == customer


@pytest.mark.parametrize(
    ("heading", "task"),
    [
        ("Deleting a team", "delete a team"),
        ("How to delete a team", "delete a team"),
        ("Delete a team", "delete a team"),
        ("Creating and editing boards", "create and edit boards"),
        ("Display settings", None),
        ("Billing", None),
        ("", None),
    ],
)
def test_a_heading_names_a_task_or_none(heading: str, task: str | None) -> None:
    assert task_of(heading) == task


@pytest.mark.parametrize(
    ("path", "need"),
    [
        (("Boards", "2. Delete a board"), Need("task", "delete a board", 3.0)),
        (("Boards", "What is a board?"), Need("question", "What is a board", 3.0)),
        (("Deleting boards", "Overview"), Need("task", "delete boards", 3.0)),
        (("Plans", "API keys"), Need("thing", "API keys", 2.0)),
    ],
)
def test_a_heading_gives_the_need_that_it_names(path: tuple[str, ...], need: Need) -> None:
    assert need in heading_needs(path)


@pytest.mark.parametrize(
    ("statement", "kind", "phrase"),
    [
        ("Only owners can delete your boards.", "who", "delete my boards"),
        ("Guests cannot export boards.", "blocked", "export boards"),
        ("This allows you to pin your cards.", "task", "pin my cards"),
        ("A workspace is a place for boards.", "thing", "workspace"),
        ("A board holds up to 500 cards.", "limit", "limits of boards"),
        ("To copy a card, press Ctrl and C.", "shortcut", "copy a card"),
        ("If you leave the team, your boards stay.", "event", "I leave the team"),
        ("New cards are yellow by default.", "default", "new cards"),
    ],
)
def test_a_statement_gives_the_need_that_it_serves(statement: str, kind: str, phrase: str) -> None:
    assert (kind, phrase) in {(need.kind, need.phrase) for need in statement_needs(statement, "Limits of boards")}


def test_phrases_are_cut_where_they_can_end() -> None:
    assert shorten("share the board with guests so that they see it", max_words=9) == "share the board with guests"
    assert shorten("open the list of the teams of the company", max_words=4) == "open the list"
    assert (lower_first("Boards"), lower_first("API keys"), lower_first("I am")) == ("boards", "API keys", "I am")
    assert salient_words("The board is exported to PDF") == "board exported PDF"
