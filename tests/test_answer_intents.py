"""Which part of the manual a question is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from byheart.answer.bot import ManualAnswerer
from byheart.answer.intents import MOST_INTENTS, IntentHead, fit_intents, intents_of, load_intents
from byheart.records import Document, Section
from toy_manual import PAGES, FakeEncoder, index_of

INDEX = index_of(PAGES)
PAGE_OF = {passage.section_id: passage.url.partition("#")[0] for passage in INDEX.passages}
ASKED = [
    (f"{verb} {thing}", section_id)
    for section_id, things in (
        (next(key for key, page in PAGE_OF.items() if page == "boards.md"), ("a board", "boards of a team", "cards")),
        (next(key for key, page in PAGE_OF.items() if page == "plans.md"), ("the storage", "seats", "a plan's guests")),
    )
    for thing in things
    for verb in ("show", "change", "find", "where is")
]


def manual(locations: Sequence[str], *, chapters: Sequence[str] = ("Start",)) -> tuple[list[Section], list[Document]]:
    documents = [Document(str(i), location, "", "en", "", "", "") for i, location in enumerate(locations)]
    sections = [
        Section(f"{document.id} {chapter}", document.id, ("Manual", chapter, "More"), "", "", 0, "")
        for document in documents
        for chapter in chapters
    ]
    return sections, documents


def fitted() -> IntentHead:
    head = fit_intents(ASKED, index=INDEX, encoder=FakeEncoder(), intents=PAGE_OF)
    assert head
    return head


@pytest.mark.parametrize(
    ("locations", "chapters", "level", "intents"),
    [
        (["teams/a.md", "teams/b.md", "index.md"], ["Start"], "folder", {"teams", "index.md"}),
        (["https://h.example/en/boards/a", "https://h.example/en/plans/b?x"], ["Start"], "folder", {"boards", "plans"}),
        (["docs/a.md", "docs/b.md"], ["Start"], "page", {"a.md", "b.md"}),
        (["https://h.example/"], ["Start", "Limits"], "chapter", {"Manual › Start", "Manual › Limits"}),
        (["https://h.example/", "https://h.example/b"], ["Start"], "page", {"index", "b"}),
        (["book.pdf"], ["Start"], "", set()),
        ([f"{i}.md" for i in range(MOST_INTENTS + 1)], ["Start"], "", set()),
    ],
)  # fmt: skip
def test_an_intent_is_the_first_level_of_the_manual_that_tells_its_sections_apart(
    locations: list[str], chapters: list[str], level: str, intents: set[str]
) -> None:
    found, name = intents_of(*manual(locations, chapters=chapters))
    assert (set(found.values()), name) == (intents, level)


def test_questions_in_new_words_are_told_apart_and_the_bot_says_so_beside_its_answer() -> None:
    bot = ManualAnswerer(
        index=INDEX, encoder=FakeEncoder(), calibration=None, max_words=60, max_citations=2, intents=fitted()
    )
    assert bot.answer("rename my boards and cards").intent == "boards.md"
    assert bot.answer("how many seats has my plan").intent == "plans.md"


def test_an_intent_without_a_question_is_learned_from_its_text() -> None:
    head = fitted()
    assert set(head.intents) == set(PAGES)  # nobody asked about start.md


def test_two_intents_have_a_row_each() -> None:
    two = {key: page for key, page in PAGE_OF.items() if page != "start.md"}
    head = fit_intents(ASKED, index=INDEX, encoder=FakeEncoder(), intents=two)
    assert head
    assert head.weights_I_D.shape == (2, 64)
    for question, section_id in ASKED:
        assert head.intent_of(FakeEncoder().encode_one(question).vector_D) == two[section_id]


def test_a_head_comes_back_from_the_disk_as_it_was(tmp_path: Path) -> None:
    head = fitted()
    head.save(tmp_path / "intents.safetensors")
    loaded = load_intents(tmp_path / "intents.safetensors")
    assert loaded.intents == head.intents
    assert np.array_equal(loaded.weights_I_D, head.weights_I_D)
    assert np.array_equal(loaded.bias_I, head.bias_I)


def test_one_intent_alone_is_nothing_to_tell() -> None:
    one = dict.fromkeys(PAGE_OF, "boards.md")
    assert fit_intents(ASKED, index=INDEX, encoder=FakeEncoder(), intents=one) is None
