from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from byheart.index.index import HEADING_SHARE, Index, Match, build_index, load_index, tokens_of
from toy_manual import PAGES, FakeEncoder, index_of, passages_of, word_vector


@pytest.fixture(scope="module")
def index() -> Index:
    return index_of(PAGES)


def search(index: Index, question: str) -> list[Match]:
    return index.search(question, FakeEncoder().encode_one(question))


@pytest.mark.parametrize(
    ("question", "heading"),
    [
        ("delete the board beside the dashboard", "Delete a board"),
        ("can guests export boards to PDF", "Export a board"),
        ("How many GB of storage does the Company plan have?", "Plans"),
        ("add seats on the billing page", "Seats"),
    ],
)
def test_the_passage_that_answers_comes_first(index: Index, question: str, heading: str) -> None:
    assert search(index, question)[0].passage.heading_path[-1] == heading


def test_every_passage_of_a_small_manual_is_ranked_once_by_falling_score(index: Index) -> None:
    matches = search(index, "How do I delete a board?")
    assert sorted(match.position for match in matches) == list(range(len(index.passages)))
    assert [match.score for match in matches] == sorted((match.score for match in matches), reverse=True)


def test_a_list_of_links_ranks_below_the_same_words_as_text() -> None:
    pages = {
        "menu.md": "# Help\n\n- [Delete a board](x.md)\n- [Export a board](y.md)\n",
        "text.md": "# Help\n\n- Delete a board\n- Export a board\n",
    }
    first, second = search(index_of(pages), "delete a board")
    assert (first.passage.is_link_list, second.passage.is_link_list) == (False, True)
    assert first.score == pytest.approx(second.score + 0.3, abs=1e-3)


def test_the_unit_that_answers_scores_highest_in_its_passage(index: Index) -> None:
    best = search(index, "How long does a deleted board stay in the bin?")[0]
    assert len(best.unit_scores) == len(best.passage.units)
    winner = best.passage.units[int(np.argmax(best.unit_scores))]
    assert winner.text == "A deleted board stays in the bin for 30 days."


def test_each_token_belongs_to_the_unit_it_stands_in(index: Index) -> None:
    encoder = FakeEncoder()
    for position, passage in enumerate(index.passages):
        encoded = encoder.encode_one(passage.text, max_tokens=256)
        owners = index.token_units_T[index.first_token_P[position] : index.first_token_P[position + 1]]
        assert len(owners) == len(encoded.starts_T)
        for owner, start in zip(owners.tolist(), encoded.starts_T.tolist(), strict=True):
            if owner < 0:
                assert start < len(passage.prefix)
            else:
                unit = passage.units[owner - index.first_unit_P[position]]
                assert passage.text[start:].split()[0].rstrip(".") in unit.text


def test_words_that_the_manual_does_not_know_find_something_and_weigh_most(index: Index) -> None:
    matches = search(index, "quantum zeppelin")
    assert len(matches) == len(index.passages)
    assert {match.lexical for match in matches} == {0.0}
    assert all(np.isfinite(match.score) for match in matches)
    assert "zeppelin" not in index.vocabulary
    assert index.word_weight("zeppelin") > index.word_weight("seat") > index.word_weight("board")


def test_a_name_that_only_one_page_has_is_found_by_its_letters(index: Index) -> None:
    scores = index.lexical_scores("PDF")
    assert int(scores.argmax()) == search(index, "PDF")[0].position
    assert (scores > 0).sum() == 1


def test_a_question_in_other_words_than_the_manuals_leaves_bm25_little_say(index: Index) -> None:
    alone, among_others = index.lexical_scores("PDF"), index.lexical_scores("a zeppelin for quantum PDF")
    assert int(alone.argmax()) == int(among_others.argmax())
    assert 0 < among_others.max() < alone.max() / 2


def test_units_are_scored_for_the_best_passages_only() -> None:
    pages = {f"p{number}.md": f"# Page {number}\n\nSetting s{number} is on. It can be off.\n" for number in range(90)}
    matches = search(index_of(pages), "setting s7")
    assert matches[0].passage.title == "Page 7"
    assert [bool(match.unit_scores) for match in matches] == [True] * 12 + [False] * (len(matches) - 12)
    assert len(matches) < 90


def test_an_index_that_was_saved_gives_the_same_matches(index: Index, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    loaded = load_index(tmp_path / "index")
    assert loaded.passages == index.passages
    assert isinstance(loaded.tokens_T_D, np.memmap)
    for question in ("How do I delete a board?", "storage of the Team plan", "quantum zeppelin", "the"):
        assert search(loaded, question) == search(index, question)


def test_a_manual_without_text_has_an_empty_index_that_finds_nothing() -> None:
    assert search(build_index([], FakeEncoder()), "anything") == []


def test_building_tells_how_far_it_is() -> None:
    passages = passages_of(PAGES)
    told: list[int] = []
    build_index(passages, FakeEncoder(), on_done=told.append)
    assert told == list(range(1, len(passages) + 1))


def test_a_units_vector_is_the_mean_of_its_own_tokens_and_some_of_the_headings() -> None:
    (passage,) = passages_of({"plans.md": "# Plans\n\nA seat costs money. Guests pay nothing."})
    index = build_index([passage], FakeEncoder())
    heading_D = word_vector("plans", 64) + word_vector(".", 64)
    for number, words in enumerate((["A", "seat", "costs", "money", "."], ["Guests", "pay", "nothing", "."])):
        own_D = sum(word_vector(word, 64) for word in words)
        expected_D = own_D / np.linalg.norm(own_D) + HEADING_SHARE * heading_D / np.linalg.norm(heading_D)
        np.testing.assert_allclose(index.units_U_D[number], expected_D / np.linalg.norm(expected_D), atol=1e-5)


def test_words_are_compared_without_endings_and_function_words() -> None:
    assert tokens_of("How do I export the Boards?") == tokens_of("exporting board") == ["export", "board"]
    assert tokens_of("is it on?") == []
    assert tokens_of("bus gas ids") == ["bus", "gas", "ids"]
