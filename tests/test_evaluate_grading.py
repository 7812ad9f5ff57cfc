"""Grading: what counts as right, and as the right page."""

from __future__ import annotations

import pytest

from byheart.evaluate.grading import ANSWER_WORDS, grade_answer, holds, page_is_first, page_key, pages_named
from byheart.records import Verdict


@pytest.mark.parametrize(
    ("answer", "abstained", "verdict"),
    [
        ("Choose **Move-to**, then the destination  TEAM.", False, "correct"),
        ("Choose Move to.", False, "incorrect"),
        ("Choose Move to, destination team", True, "not attempted"),
    ],
)
def test_an_answer_is_right_when_it_holds_every_key_fact(answer: str, abstained: bool, verdict: Verdict) -> None:
    facts = ["Move to", "destination team"]
    assert grade_answer(answer=answer, abstained=abstained, key_facts=facts, outside=False)[0] == verdict


def test_the_evidence_names_the_missing_facts_alone() -> None:
    _, evidence = grade_answer(answer="Move to", abstained=False, key_facts=["Move to", "Pin"], outside=False)
    assert evidence == "missing: Pin"


def test_only_the_first_160_words_of_an_answer_count() -> None:
    padding = "word " * (ANSWER_WORDS - 1)
    for answer, verdict in ((padding + "Viewer", "correct"), (padding + "more Viewer", "incorrect")):
        assert grade_answer(answer=answer, abstained=False, key_facts=["Viewer"], outside=False)[0] == verdict


def test_outside_the_manual_declining_is_right_and_answering_wrong() -> None:
    assert grade_answer(answer="No idea.", abstained=True, key_facts=(), outside=True)[0] == "correct"
    assert grade_answer(answer="42 euros.", abstained=False, key_facts=(), outside=True)[0] == "incorrect"


def test_without_key_facts_nothing_is_claimed() -> None:
    for abstained in (True, False):
        assert grade_answer(answer="x", abstained=abstained, key_facts=(), outside=False)[0] == "unscored"


@pytest.mark.parametrize(
    ("answer", "fact", "found"),
    [
        ("Press the C-key.", "c key", True),
        ("Use ﬁles", "FILES", True),  # a ligature
        ("STRASSE", "straße", True),
        ("Press Alt/⌥ + M", "Alt/⌥+M", True),
        ("Press minus", "+", False),
        ("Press +", "+", True),
        ("日本語のボード", "ボード", True),
        ("three", "3", False),
    ],
)
def test_facts_are_compared_without_case_spaces_and_punctuation(answer: str, fact: str, found: bool) -> None:
    assert holds(answer, fact) is found


def test_a_statement_may_miss_one_word_in_ten_but_not_two() -> None:
    statement = "one two three four five six seven eight nine ten"
    assert holds("ten nine eight seven six five four three two", statement, word_recall=0.9)
    assert not holds("nine eight seven six five four three two", statement, word_recall=0.9)
    assert not holds("ten nine eight seven six five four three two", statement)


def test_a_repeated_word_has_to_be_there_as_often() -> None:
    assert not holds("rosa est", "rosa rosa rosa est", word_recall=0.9)


def test_headings_of_the_citations_count_as_read() -> None:
    graded = {
        headings: grade_answer(
            answer="Viewer and editor.",
            abstained=False,
            key_facts=["Guest roles: Viewer and editor"],
            outside=False,
            headings=headings,
            word_recall=0.9,
        )[0]
        for headings in ((), ("Guests › Guest roles",))
    }
    assert list(graded.values()) == ["incorrect", "correct"]


def named(source: str, locations: list[str]) -> frozenset[str]:
    return pages_named(source, {location: page_key(location) for location in locations})


@pytest.mark.parametrize(
    ("source", "right"),
    [
        ("pages/teams.md#Roles", "teams.md"),
        ("teams", "teams.md"),
        ("./guides/Share%20a%20board.MD", "guides/share a board.md"),
        ("docs/index.md", "docs/README.md"),
        ("https://help.example.com/plans/?lang=de#free", "https://help.example.com/plans?lang=de"),
        ("https://help.example.com", "https://help.example.com/index.html"),
        ("plans.html", "https://other.example.com/plans.html"),
    ],
)
def test_one_page_named_in_two_ways_is_found(source: str, right: str) -> None:
    others = ["steams.md", "eams.md", "roles.md", "https://help.example.com/plan"]
    assert named(source, [*others, right]) == {right}


def test_the_page_of_the_same_whole_path_is_meant_where_there_is_one() -> None:
    locations = ["teams.md", "admin/teams.md"]
    assert named("teams.md#x", locations) == {"teams.md"}
    assert named("docs/admin/teams.md", locations) == {"admin/teams.md"}


def test_a_page_name_that_fits_several_pages_means_any_of_them() -> None:
    assert named("teams.md", ["user/teams.md", "admin/teams.md", "roles.md"]) == {"user/teams.md", "admin/teams.md"}
    assert named("boards.md", ["teams.md"]) == frozenset()


def test_a_page_key_is_never_empty() -> None:
    assert page_key("") == page_key("/") == page_key("https://help.example.com/") == page_key("index.md") == "index"


def test_the_page_cited_first_is_compared_and_explained() -> None:
    assert page_is_first(cited="a.md", right={"a.md", "b.md"}) == (True, "")
    assert page_is_first(cited="c.md", right={"b.md", "a.md"}) == (False, "cited c.md instead of a.md or b.md")
    assert page_is_first(cited="", right={"a.md"}) == (False, "cited nothing instead of a.md")
    assert page_is_first(cited="c.md", right=()) == (False, "the source names no page of the manual")
