from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from byheart.answer.compose import NEAR_ENOUGH, compose, cut_words, label_of, render
from byheart.index.index import Match
from byheart.index.passages import Passage
from toy_manual import BOARDS, PAGES, PLANS, FakeEncoder, index_of, passages_of

INDEX = index_of(PAGES)


def match(passage: Passage, score: float = 2.0, unit_scores: Sequence[float] = ()) -> Match:
    scores = tuple(unit_scores) or (0.0,) * len(passage.units)
    return Match(passage, 0, score, 0.5, 0.5, 0.5, 1.0, scores)


def words(markdown: str) -> int:
    return len(re.sub(r"…", "", markdown).split())


def numbered(count: int, *, before: str = "", after: str = "") -> Passage:
    steps = "\n".join(f"{n}. Press the button number {n} on the panel." for n in range(1, count + 1))
    [passage] = passages_of({"p.md": f"# Panel\n\n{before}{steps}\n\n{after}"})
    return passage


@pytest.mark.parametrize("max_words", [20, 21, 30, 45, 80, 150])
@pytest.mark.parametrize("question", ["delete a board", "storage of the Company plan", "seats", "boards guests cards"])
def test_an_answer_never_exceeds_its_words(question: str, max_words: int) -> None:
    matches = INDEX.search(question, FakeEncoder().encode_one(question))
    composed = compose(matches, max_words=max_words)
    assert 0 < words(composed.markdown) <= max_words
    assert composed.used[0] == matches[0]


def test_a_passage_that_fits_is_shown_whole_in_the_manuals_order() -> None:
    [_, delete, _] = passages_of({"boards.md": BOARDS})
    assert compose([match(delete)], max_words=150).markdown == (
        "To delete a board:\n\n1. Open the dashboard.\n2. Click the three dots beside the board.\n"
        "3. Choose **Delete** and confirm.\n\nA deleted board stays in the bin for 30 days."
    )


def test_a_longer_passage_is_cut_between_its_units() -> None:
    sentences = [f"Sentence {n} tells about the {n}th thing." for n in range(18)]
    [passage] = passages_of({"p.md": "# Long\n\n" + " ".join(sentences)})
    scores = [1.0 if n in (3, 11) else 0.5 - n / 100 for n in range(18)]
    text = compose([match(passage, unit_scores=scores)], max_words=40).markdown
    shown = re.findall(r"Sentence \d+ tells about the \d+th thing\.", text)
    assert " ".join(shown) == text
    assert shown == [sentence for sentence in sentences if sentence in shown]
    assert {sentences[3], sentences[11]} <= set(shown)
    assert words(text) <= 40


def test_one_step_that_answers_brings_the_whole_list_and_its_lead_in() -> None:
    passage = numbered(4, before="Do this:\n\n", after="Filler words stand here. " * 25)
    scores = [0.1] * len(passage.units)
    scores[3] = 1.0
    text = compose([match(passage, unit_scores=scores)], max_words=50).markdown
    assert text.startswith("Do this:\n\n1. Press")
    assert re.findall(r"^(\d)\.", text, re.MULTILINE) == ["1", "2", "3", "4"]


def test_steps_apart_by_empty_lines_come_whole_too() -> None:
    steps = "\n\n".join(f"{n}. Press the button number {n} on the panel." for n in range(1, 5))
    [passage] = passages_of({"p.md": f"# Panel\n\n{steps}\n\n" + "Filler words stand here. " * 25})
    scores = [0.1] * len(passage.units)
    scores[2] = 1.0
    text = compose([match(passage, unit_scores=scores)], max_words=50).markdown
    assert re.findall(r"^(\d)\.", text, re.MULTILINE) == ["1", "2", "3", "4"]


def test_a_row_that_answers_comes_with_its_header() -> None:
    passage = passages_of({"plans.md": PLANS})[0]
    scores = [1.0 if "Team" in unit.markdown else 0.0 for unit in passage.units]
    text = compose([match(passage, unit_scores=scores)], max_words=30).markdown
    assert "| Plan | Storage | Guests |\n| --- | --- | --- |\n| Team | 50 GB | 20 |" in text
    assert "Company" not in text


def test_the_header_row_is_not_shown_twice() -> None:
    passage = passages_of({"plans.md": PLANS})[0]
    text = render(passage.units)
    assert text.count("| Plan |") == 1
    assert text.index("Every plan") < text.index("| Plan |") < text.index("| Free |") < text.index("| Company |")


def test_a_single_unit_over_the_limit_is_cut_and_says_so() -> None:
    [passage] = passages_of({"p.md": "# Long\n\nIt is " + "very " * 60 + "long.\n"})
    text = compose([match(passage)], max_words=20).markdown
    assert text.endswith("…")
    assert words(text) == 20


@pytest.mark.parametrize(("below", "drawn"), [(NEAR_ENOUGH - 0.1, True), (NEAR_ENOUGH + 0.1, False)])
def test_a_second_passage_is_drawn_on_only_when_near(below: float, drawn: bool) -> None:
    first, _, export = passages_of({"boards.md": BOARDS})
    composed = compose([match(first, 2.0), match(export, 2.0 - below)], max_words=150)
    assert [used.passage for used in composed.used] == ([first, export] if drawn else [first])
    assert ("**Boards › Export a board**\n\nBoards are exported" in composed.markdown) is drawn


def test_a_list_of_links_is_shown_only_where_it_is_the_best() -> None:
    menu, text = passages_of(PAGES)[-1], passages_of(PAGES)[0]
    assert menu.is_link_list
    assert [used.passage for used in compose([match(text), match(menu)], max_words=150).used] == [text]
    assert compose([match(menu), match(text)], max_words=150).used[0].passage == menu


def test_what_two_passages_both_say_is_said_once() -> None:
    pages = {"a.md": "# A\n\nPress save. Alpha is first.\n", "b.md": "# B\n\nPress save. Beta is second.\n"}
    first, second = passages_of(pages)
    text = compose([match(first), match(second)], max_words=150).markdown
    assert text.count("Press save.") == 1
    assert "Beta is second." in text


def test_a_label_names_title_and_heading_once() -> None:
    top, delete, _ = passages_of({"boards.md": BOARDS})
    assert (label_of(top), label_of(delete)) == ("Boards", "Boards › Delete a board")


def test_cutting_keeps_lines_and_indents() -> None:
    assert cut_words("one two\n  - three four\nfive", 6) == "one two\n  - three four\nfive"
    assert cut_words("one two\nthree four", 3) == "one two\nthree …"
    assert cut_words("one two", 2) == "one two"
