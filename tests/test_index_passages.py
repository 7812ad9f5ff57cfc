from __future__ import annotations

import collections

import pytest

from byheart.index.passages import MAX_PASSAGE_WORDS, Unit, make_passages, make_units
from toy_manual import BOARDS, MENU, PAGES, PLANS, passages_of, read

NESTED = """# Import

Pick a file:

- CSV files
  with a header line
- JSON files

  Each file is read once.

> Note: a file of more than 10 MB is refused.

```
name,colour
plan,red
```

The import ends with a report. It lists what was left out.

1. Open the report.
2. Save it.
"""


def units_of(text: str) -> list[Unit]:
    return [unit for passage in passages_of({"page.md": text}) for unit in passage.units]


@pytest.mark.parametrize("text", [BOARDS, PLANS, MENU, NESTED], ids=["boards", "plans", "menu", "nested"])
def test_every_fact_is_in_exactly_one_unit(text: str) -> None:
    _, _, facts = read({"page.md": text})
    held = collections.Counter(fact_id for unit in units_of(text) for fact_id in unit.fact_ids)
    assert facts
    assert held == {fact.id: 1 for fact in facts}


def test_units_keep_the_manuals_order_and_markdown() -> None:
    [_, delete, _] = passages_of({"boards.md": BOARDS})
    assert [unit.markdown for unit in delete.units] == [
        "To delete a board:",
        "1. Open the dashboard.",
        "2. Click the three dots beside the board.",
        "3. Choose **Delete** and confirm.",
        "A deleted board stays in the bin for 30 days.",
    ]
    assert [unit.kind for unit in delete.units] == ["sentence", "item", "item", "item", "sentence"]
    assert len({unit.block for unit in delete.units[1:4]}) == 1
    assert len({unit.block for unit in delete.units}) == 3


def test_a_relative_link_loses_its_target_and_an_absolute_one_keeps_it() -> None:
    [unit] = units_of('# Help\n\nRead [this](other.md#a "title") or [that](https://example.com/that).\n')
    assert unit.markdown == "Read this or [that](https://example.com/that)."


def test_each_table_row_is_a_unit_that_knows_its_header() -> None:
    rows = [unit for unit in units_of(PLANS) if unit.kind == "row"]
    assert [unit.markdown for unit in rows] == [
        "| Plan | Storage | Guests |",
        "| Free | 1 GB | 3 |",
        "| Team | 50 GB | 20 |",
        "| Company | 900 GB | unlimited |",
    ]
    assert {unit.header for unit in rows} == {"| Plan | Storage | Guests |\n| --- | --- | --- |"}


def test_two_tables_in_a_section_have_headers_of_their_own() -> None:
    tables = "# T\n\n| A | B |\n| - | - |\n| 1 | 2 |\n\n| C | D |\n| - | - |\n| 3 | 4 |\n"
    headers = {unit.markdown: unit.header for unit in units_of(tables) if unit.kind == "row"}
    assert headers["| 1 | 2 |"] == "| A | B |\n| - | - |"
    assert headers["| 3 | 4 |"] == "| C | D |\n| - | - |"


def test_an_item_brings_its_further_lines_and_code_stays_whole() -> None:
    units = units_of(NESTED)
    shown = [unit.markdown for unit in units]
    assert "- CSV files\n  with a header line" in shown
    assert "- JSON files\n\n  Each file is read once." in shown
    [code] = [unit for unit in units if unit.kind == "code"]
    assert code.markdown == "```\nname,colour\nplan,red\n```"
    assert "The import ends with a report." in shown
    numbered = [unit for unit in units if unit.markdown[:1].isdigit()]
    bullets = [unit for unit in units if unit.markdown.startswith("-")]
    assert {unit.block for unit in numbered}.isdisjoint({unit.block for unit in bullets})


def test_steps_with_empty_lines_between_them_are_one_list() -> None:
    units = units_of("# Help\n\nDo this:\n\n1. Open it.\n\n   It takes a while.\n\n2. Close it.\n\nThen rest.\n")
    assert [unit.markdown for unit in units] == [
        "Do this:",
        "1. Open it.\n\n   It takes a while.",
        "2. Close it.",
        "Then rest.",
    ]
    assert [unit.kind for unit in units] == ["sentence", "item", "item", "sentence"]
    assert units[1].block == units[2].block
    assert len({unit.block for unit in units}) == 3


def test_sentences_of_one_paragraph_share_a_block() -> None:
    first, second = units_of("# Help\n\nA board holds cards.\nA card has a colour.\n")
    assert (first.block, first.kind) == (second.block, "sentence")


def test_a_sentence_over_two_lines_is_shown_on_one() -> None:
    [unit] = units_of("# Help\n\nA board holds\ncards of all colours.\n")
    assert unit.markdown == "A board holds cards of all colours."


def test_a_long_section_is_cut_into_passages_between_its_units() -> None:
    sentences = [f"Sentence {number} tells what the setting called s{number} does." for number in range(60)]
    passages = passages_of({"long.md": "# Long\n\n" + " ".join(sentences) + "\n"})
    assert len(passages) > 1
    assert [unit.markdown for passage in passages for unit in passage.units] == sentences
    assert len({passage.section_id for passage in passages}) == 1
    for passage in passages:
        assert sum(len(unit.text.split()) for unit in passage.units) <= MAX_PASSAGE_WORDS


def test_a_single_sentence_over_the_limit_stays_whole() -> None:
    sentence = "A board " + "very " * 200 + "long."
    passages = passages_of({"long.md": f"# Long\n\nIt is short. {sentence} It ends.\n"})
    assert [len(passage.units) for passage in passages] == [1, 1, 1]


def test_a_passage_reads_its_headings_first() -> None:
    [passage] = passages_of({"boards.md": "# Boards\n\n## Export\n\nUse the menu.\n"})
    assert passage.text == "Boards > Export. Use the menu."
    assert (passage.title, passage.heading_path, passage.url) == ("Boards", ("Boards", "Export"), "boards.md#export")


def test_a_menu_of_links_is_told_from_text_with_links() -> None:
    flags = {passage.title: passage.is_link_list for passage in passages_of(PAGES)}
    assert flags == {"Boards": False, "Plans": False, "Start here": True}


def test_sections_without_text_give_no_passage() -> None:
    assert [
        passage.heading_path for passage in passages_of({"p.md": "# Top\n\n## Empty\n\n## Full\n\nText here.\n"})
    ] == [("Top", "Full")]
    assert make_units("", []) == []


def test_training_reads_the_same_texts_as_the_index_holds() -> None:
    _, sections, facts = read({"boards.md": BOARDS})
    views = [passage.text for section in sections for passage in make_passages([section], facts, [])]
    assert views == [passage.text for passage in passages_of({"boards.md": BOARDS})]
