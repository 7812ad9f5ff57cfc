from pathlib import Path

from byheart.ingest.markdown import convert_markdown
from byheart.ingest.sections import find_headings, github_slug, split_document, split_documents
from byheart.records import Document, Section

FIXTURES = Path(__file__).parent / "fixtures" / "ingest"


def document(markdown: str, *, location: str = "page.md", title: str = "Page") -> Document:
    return Document(f"id of {location}", location, title, "en", markdown, "", "")


def sections_of(markdown: str, *, title: str = "Page") -> list[Section]:
    return split_document(document(markdown, title=title))


def test_every_heading_of_the_guide_is_in_the_sections() -> None:
    text = (FIXTURES / "guide.md").read_text(encoding="utf-8")
    sections = sections_of(convert_markdown(text, location="guide.md").markdown, title="Voting: a guide")
    assert [section.heading_path for section in sections] == [
        ("Voting: a guide",),
        ("Voting: a guide", "Start a vote"),
        ("Voting: a guide", "Limits of vote --fast :rocket:"),
        ("Voting: a guide", "Limits of vote --fast :rocket:", "Heading in a quote"),
        ("Voting: a guide", "Empty"),
        ("Voting: a guide", "Empty", "Limits of vote --fast :rocket:"),
    ]
    assert [section.url for section in sections] == [
        "page.md#voting-a-guide",
        "page.md#start",
        "page.md#limits-of-vote---fast-rocket",
        "page.md#heading-in-a-quote",
        "page.md#empty",
        "page.md#limits-of-vote---fast-rocket-1",
    ]
    assert sections[4].markdown == ""
    assert sections[3].markdown == "> Quoted text."


def test_text_before_the_first_heading_belongs_to_the_title() -> None:
    before, below = sections_of("Hello.\n\n## Below\n\nWorld.\n")
    assert (before.heading_path, before.url, before.markdown) == (("Page",), "page.md", "Hello.")
    assert (below.heading_path, below.markdown) == (("Page", "Below"), "World.")


def test_a_document_without_headings_is_one_section() -> None:
    assert [section.markdown for section in sections_of("Only text.\n")] == ["Only text."]


def test_a_first_heading_that_is_the_title_is_not_repeated() -> None:
    paths = [section.heading_path for section in sections_of("### page\n\nText.\n\n#### Sub\n")]
    assert paths == [("Page",), ("Page", "Sub")]
    assert sections_of("# Other\n")[0].heading_path == ("Page", "Other")


def test_levels_may_be_skipped_and_come_back() -> None:
    paths = [section.heading_path[1:] for section in sections_of("## A\n#### B\n### C\n## D\n# E\n### F\n")]
    assert paths == [("A",), ("A", "B"), ("A", "C"), ("D",), ("E",), ("E", "F")]


def test_lines_in_code_are_no_headings() -> None:
    text = "# A\n\n```\n# b\nc\n===\n```\n\n    # d\n\n~~~~\n```\n# e\n~~~~\n"
    assert [heading.text for heading in find_headings(text)] == ["A"]


def test_headings_keep_emoji_links_and_code_as_words() -> None:
    text = "## 🎉 [New](https://x.y) `a_b` *it* & <your-id> {#new}\n"
    heading = find_headings(text)[0]
    assert (heading.text, heading.anchor) == ("🎉 New a_b it & <your-id>", "new")


def test_a_heading_in_a_list_item_leaves_text_and_not_code() -> None:
    section = sections_of("1. one\n\n   ## In a list\n\n   Text of it.\n")[-1]
    assert (section.heading_path[-1], section.markdown) == ("In a list", "Text of it.")


def test_ids_stay_when_other_pages_and_sections_change() -> None:
    before = sections_of("## A\n\nold\n\n## A\n\ntwin\n")
    other = document("## New\n", location="new.md")
    after = list(split_documents([other, document("## A\n\nnew text\n\n## B\n\n## A\n\ntwin\n")]))
    assert [after[1].id, after[3].id] == [section.id for section in before]
    assert len({section.id for section in after}) == len(after)
    assert [section.order for section in after] == [0, 1, 2, 3]


def test_equal_anchors_are_numbered_and_empty_headings_stay() -> None:
    sections = sections_of('## A\n## A {#a-1}\n## A\n##\n## "!"\n')
    assert [section.url for section in sections] == [
        "page.md#a", "page.md#a-1", "page.md#a-2", "page.md", "page.md",
    ]  # fmt: skip


def test_slugs_are_those_of_github() -> None:
    assert github_slug("What's new, in 2.0? – a_b C") == "whats-new-in-20--a_b-c"
