import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byheart.ingest.facts import extract_facts
from byheart.records import Fact, Section
from byheart.sentences import sentence_spans


def section(markdown: str, heading: str = "Votes") -> Section:
    return Section("s1", "d1", ("Page", heading), "page.md#votes", markdown, 0, "")


def facts_of(markdown: str) -> list[Fact]:
    return extract_facts(section(markdown))


def stated(markdown: str) -> list[tuple[str, str]]:
    return [(fact.kind, fact.statement) for fact in facts_of(markdown)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Use e.g. Chrome or Mr. Smith's v. 2.1. It works.", ["Use e.g. Chrome or Mr. Smith's v. 2.1.", "It works."]),
        ("Open config.yaml. See https://a.b/c.html. Done.", ["Open config.yaml.", "See https://a.b/c.html.", "Done."]),
        ('Run `a. B`. Then [x](http://e.f/g "T. U"). End.', ["Run `a. B`.", 'Then [x](http://e.f/g "T. U").', "End."]),
        ("**Save.** Then go. (Really.) Yes.", ["**Save.**", "Then go.", "(Really.)", "Yes."]),
        ("Wait... then go. At 5 p.m. Monday.", ["Wait... then go.", "At 5 p.m.", "Monday."]),
        ("Photos, files, etc. are kept. Say no. Stop.", ["Photos, files, etc. are kept.", "Say no.", "Stop."]),
        ("Line one  \nLine two", ["Line one", "Line two"]),
        ("保存します。次へ。", ["保存します。", "次へ。"]),
    ],
)  # fmt: skip
def test_sentences_end_where_a_reader_sees_them_end(text: str, sentences: list[str]) -> None:
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences


def test_paragraphs_give_statements_definitions_and_limits() -> None:
    text = "A vote is a short survey. You can end it. At most 200 people can vote. Files may have 50 MB."
    assert stated(text) == [
        ("definition", "A vote is a short survey."),
        ("statement", "You can end it."),
        ("limit", "At most 200 people can vote."),
        ("limit", "Files may have 50 MB."),
    ]


def test_steps_stay_whole_and_bare_labels_get_their_context() -> None:
    text = "To end a vote:\n\n1. Open **Vote**. It is left.\n2. Delete\n   - all of it\n3. Choose:\n   - the first\n"
    assert stated(text) == [
        ("statement", "To end a vote:"),
        ("step", "Open Vote. It is left."),
        ("step", "To end a vote: Delete"),
        ("statement", "To end a vote: all of it"),
        ("step", "To end a vote: Choose:"),
        ("statement", "To end a vote: Choose: the first"),
    ]


def test_labelled_terms_are_definitions() -> None:
    text = "**Owner:** runs the board. May delete it.\n\n- **Guest** – sees it\n- `--fast`: saves time\n- **Save**\n"
    assert stated(text) == [
        ("definition", "Owner: runs the board. May delete it."),
        ("definition", "Guest – sees it"),
        ("definition", "--fast: saves time"),
        ("UI label", "Votes: Save"),
    ]


def test_a_long_definition_is_cut_and_keeps_its_term() -> None:
    sentence = "It has a long story that nobody wants to hear in full. "
    facts = facts_of(f"**Owner:** {sentence * 9}")
    assert [fact.kind for fact in facts] == ["definition"] + ["statement"] * 8
    assert facts[1].statement == f"Owner: {sentence.strip()}"


def test_notes_are_no_definitions() -> None:
    assert stated("> **Note:** Save first. Only owners can.\n") == [
        ("statement", "Note: Save first."), ("limit", "Only owners can."),
    ]  # fmt: skip


def test_table_cells_name_their_row_and_column() -> None:
    markdown = "| Plan | Votes | People |\n|---|---|---|\n| Free | 3 | `a \\| b` |\n| Team |  | 200 |\n"
    facts = facts_of(markdown)
    assert [fact.statement for fact in facts] == [
        "Votes: Plan, Votes, People",
        "Free – Votes: 3",
        "Free – People: a | b",
        "Team – People: 200",
    ]
    assert {fact.kind for fact in facts} == {"table cell"}
    assert [markdown[fact.start : fact.end] for fact in facts][1:] == ["Free | 3", "`a \\| b`", "Team |  | 200"]


def test_a_code_block_is_one_statement_below_what_leads_to_it() -> None:
    markdown = "Run this:\n\n```bash\n# no heading\nls\n```\n"
    code = facts_of(markdown)[1]
    assert code.statement == "Run this: # no heading\nls"
    assert markdown[code.start : code.end] == "# no heading\nls"


def test_placeholders_stay_and_marks_go() -> None:
    assert stated("Use ~~old~~ *new* [link](http://x.y) \\<your-id> &amp; <b>bold</b> <my-id>.") == [
        ("statement", "Use old new link <your-id> & bold <my-id>.")
    ]


def test_equal_statements_have_different_ids_that_stay() -> None:
    first, second = facts_of("Save it.\n\nSave it.\n")
    assert first.id != second.id
    assert [fact.id for fact in facts_of("New.\n\nSave it.\n\nSave it.\n")][1:] == [first.id, second.id]


WORD = st.from_regex(r"[a-z]{2,8}", fullmatch=True)
INLINE = st.one_of(
    WORD,
    WORD.map(lambda w: f"**{w}**"),
    WORD.map(lambda w: f"`{w}`"),
    WORD.map(lambda w: f"[{w}](#)"),
    WORD.map(lambda w: f"{w}. {w.title()}"),
)
LINE = st.lists(INLINE, min_size=1, max_size=8).map(" ".join)
LINES = st.lists(LINE, min_size=1, max_size=3)
BLOCK = st.one_of(
    LINE,
    LINES.map("\n".join),
    LINES.map(lambda lines: "\n".join(f"{n}. {line}" for n, line in enumerate(lines, 1))),
    LINES.map(lambda lines: "\n".join(f"- {x}\n\n  {x}\n  - {x}" for x in lines)),
    LINES.map(lambda lines: "\n".join(f"> {line}" for line in lines)),
    LINES.map(lambda lines: "```\n" + "\n".join(lines) + "\n```"),
    st.tuples(LINE, LINE, LINE).map(lambda c: f"| {c[0]} | {c[1]} |\n|---|---|\n| {c[2]} | {c[0]} |\n| | {c[0]} |"),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(BLOCK, min_size=1, max_size=4).map("\n\n".join))
def test_every_word_of_a_section_is_in_a_fact(markdown: str) -> None:
    covered = bytearray(len(markdown))
    for fact in facts_of(markdown):
        covered[fact.start : fact.end] = b"\1" * (fact.end - fact.start)
    missed = [word[0] for word in re.finditer(r"[A-Za-z]+", markdown) if not all(covered[word.start() : word.end()])]
    assert missed == []


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("ab1. \n\t>-*_`~|#[]()<!&\\:é。")), max_size=80))
def test_facts_of_any_text_have_spans_in_it_and_are_the_same_each_time(markdown: str) -> None:
    facts = facts_of(markdown)
    assert facts == facts_of(markdown)
    assert len({fact.id for fact in facts}) == len(facts)
    for fact in facts:
        assert 0 <= fact.start < fact.end <= len(markdown)
        assert fact.statement.strip() == fact.statement != ""
        assert markdown[fact.start : fact.end].strip()


def test_a_fact_after_a_tab_that_the_parser_widens_has_its_own_text_as_span() -> None:
    markdown = ">\t\t1"
    assert [markdown[fact.start : fact.end] for fact in facts_of(markdown)] == ["1"]
