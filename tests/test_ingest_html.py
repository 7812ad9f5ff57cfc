from pathlib import Path

import pytest

from byheart.ingest.html import convert_html, fragment_markdown
from byheart.ingest.sections import find_headings

FIXTURES = Path(__file__).parent / "fixtures" / "ingest"


def body(html: str) -> str:
    return convert_html(f"<html><body><main>{html}</main></body></html>").markdown.strip()


@pytest.fixture(scope="module")
def site() -> str:
    return convert_html((FIXTURES / "site.html").read_text(encoding="utf-8")).markdown


def test_every_heading_of_the_page_and_its_anchor_is_kept(site: str) -> None:
    assert [(heading.level, heading.text, heading.anchor) for heading in find_headings(site)] == [
        (1, "Timer", "timer"),
        (2, "Start the timer", "start"),
        (3, "Sounds", ""),
        (4, "Nested in a list", "x"),
    ]


def test_what_belongs_to_the_site_is_gone(site: str) -> None:
    for gone in ("Acme", "cookies", "Docs", "¶", "Next page", "Company", "var x", "color: red", "b.png"):
        assert gone not in site


def test_title_and_language_come_from_the_page() -> None:
    converted = convert_html((FIXTURES / "site.html").read_text(encoding="utf-8"))
    assert (converted.title, converted.language) == ("Timer", "en-US")
    untitled = convert_html("<title>Voting | Acme Help</title><body><p>Text.</p></body>")
    assert untitled.title == "Voting"


@pytest.mark.parametrize(
    "kept",
    [
        "The timer counts *down*. # it is not a heading. Use **Facilitate**.",
        "1. Select **Timer**.\n\n   ```bash\n   # keep\n   a  |  b\n   ```\n2. Press **Enter**.",
        "> **Note:** Guests see it, too.",
        "> **Caution:** It rings.",
        "Lengths\n\n| Plan | Minutes / least | Minutes / most |\n| --- | --- | --- |",
        "| Free | 1 | a \\| b |\n| Free | 2 |  |",
        "**Round:** One run of the timer.",
        "**Break:** A pause.",
        "Choose \\<sound> or snake_case_name.",
        "**Why does it stop?**\n\nThe board was closed.",
        "The timer's window",
    ],
)
def test_the_page_keeps_its_steps_notes_tables_terms_and_labels(site: str, kept: str) -> None:
    assert kept in site


def test_docbook_pages_keep_headings_anchors_notes_and_terms() -> None:
    converted = convert_html((FIXTURES / "docbook.html").read_text(encoding="utf-8"))
    assert converted.title == "2.1. Brushes"
    assert converted.markdown == (
        "## 2.1. Brushes {#brushes}\n\nA brush paints.\n\n> **Note:** Sizes go up to 100 pixels.\n\n"
        "### 2.1.1. Adding {#add}\n\n**Hardness:** How sharp it is.\n\nUse **File** → **New**.\n"
    )


def test_a_colspan_of_100000_makes_no_100000_cells() -> None:
    rows = "<tr><td colspan=100000 rowspan=100000>x</td><td colspan='99999999999999999999'>y</td></tr>" * 20
    assert len(fragment_markdown(f"<table>{rows}</table>")) < 2000


def test_a_layout_table_becomes_its_contents() -> None:
    assert body("<table><tr><td><p>Left.</p></td></tr><tr><td><pre>code</pre></td></tr></table>") == (
        "Left.\n\n```\ncode\n```"
    )


def test_headings_in_table_cells_are_lifted_out() -> None:
    markdown = body("<table><tr><td><h2>One</h2><p>a</p></td><td><h2>Two</h2><p>b</p></td></tr></table>")
    assert [heading.text for heading in find_headings(markdown)] == ["One", "Two"]


def test_a_card_that_leads_to_a_page_is_a_heading_with_a_link() -> None:
    card = '<a href="/layers"><div><img src="x.png"><div><h2>Layers</h2><p>How to <b>export</b></p></div></div></a>'
    page = convert_html(f"<main><h1>Guide</h1>{card}<p>More.</p></main>").markdown
    assert "## Layers\n\n[How to **export**](/layers)\n\nMore." in page


def test_tab_panels_carry_their_names_even_when_hidden() -> None:
    tabs = '<div role="tablist"><button role="tab" id="t1">Mac</button><button role="tab">Windows</button></div>'
    panels = '<div role="tabpanel" aria-labelledby="t1"><p>Cmd.</p></div><div role="tabpanel" hidden><p>Ctrl.</p></div>'
    page = f"<html><body><main><h1>Keys</h1>{tabs}{panels}</main></body></html>"
    assert convert_html(page).markdown == "# Keys\n\n**Mac:**\n\nCmd.\n\n**Windows:**\n\nCtrl.\n"


def test_text_that_looks_like_markdown_stays_text() -> None:
    markdown = body("<p># of users</p><p>1. not a list</p><p>a * b [c] `d`</p><p>- dash</p>")
    assert markdown == "\\# of users\n\n1\\. not a list\n\na \\* b \\[c\\] \\`d\\`\n\n\\- dash"


def test_links_of_a_crawled_page_are_absolute() -> None:
    page = '<html><body><main><p><a href="b.html" title="x">B</a></p></main></body></html>'
    assert convert_html(page, base_url="https://a.org/docs/a").markdown == "[B](https://a.org/docs/b.html)\n"


def test_a_page_without_main_loses_header_and_footer() -> None:
    page = "<body><header>Menu</header><h1>Page</h1><p>Text of the page.</p><footer>Imprint</footer></body>"
    assert convert_html(page).markdown == "# Page\n\nText of the page.\n"


def test_a_page_without_any_structure_is_left_to_the_article_extractor() -> None:
    sentences = "".join(
        f"<p>Sentence number {n} of the manual explains one more thing about boards.</p>" for n in range(9)
    )
    page = f"<html><head><title>Boards</title></head><body><div>{sentences}</div><a href='/'>Home</a></body></html>"
    converted = convert_html(page)
    assert "Sentence number 8 of the manual" in converted.markdown
    assert converted.title == "Boards"


@pytest.mark.parametrize("html", ["", "   ", "<!-- nothing -->"])
def test_an_empty_page_says_so(html: str) -> None:
    with pytest.raises(ValueError, match="no text"):
        convert_html(html)
