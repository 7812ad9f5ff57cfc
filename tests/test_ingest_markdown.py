from pathlib import Path

import pytest

from byheart.ingest.markdown import convert_markdown, split_front_matter, title_of_path

GUIDE = Path(__file__).parent / "fixtures" / "ingest" / "guide.md"


def markdown_of(text: str) -> str:
    return convert_markdown(text, location="page.md").markdown


@pytest.fixture(scope="module")
def guide() -> str:
    return convert_markdown(GUIDE.read_text(encoding="utf-8"), location="guide.md").markdown


def test_title_and_language_come_from_the_front_matter() -> None:
    converted = convert_markdown(GUIDE.read_text(encoding="utf-8"), location="guide.md")
    assert (converted.title, converted.language) == ("Voting: a guide", "en-GB")
    assert "title:" not in converted.markdown


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("---\ntitle: Sharing: with guests\n---\ntext", "Sharing: with guests"),  # broken YAML, as people write it
        ("+++\ntitle = 'Toml'\n+++\ntext", "Toml"),
        ("text\n\n## Below\n\n# The *title*\n", "The title"),
        ("---\n\nA rule, and no front matter.\n\n---\n", "First steps"),
        ("no heading", "First steps"),
    ],
)
def test_title_falls_back_step_by_step(text: str, title: str) -> None:
    assert convert_markdown(text, location="guides/first-steps.md").title == title


def test_a_rule_at_the_top_is_text() -> None:
    assert split_front_matter("---\nA sentence.\n---\n")[1].startswith("---")


def test_an_index_file_is_named_after_its_folder() -> None:
    assert title_of_path("guides/first_steps/index.md") == "First steps"


@pytest.mark.parametrize(
    ("source", "result"),
    [
        (":::tip\nUse it.\n:::\n", "> **Tip:** Use it."),
        (":::warning[Mind the gap]\n\n- one\n:::\n", "> **Warning: Mind the gap:**\n>\n> - one"),
        ("!!! note\n    Read.\n\n    More.\n\nAfter.\n", "> **Note:** Read.\n>\n> More.\n\nAfter."),
        ("> [!IMPORTANT]\n> Save.\n", "> **Important:**\n> Save."),
        ("<Callout type='warning'>\n  Hot.\n</Callout>\n", "> **Warning:** Hot."),
        ('{% hint style="danger" %}\nStop.\n{% endhint %}\n', "> **Danger:** Stop."),
        (":::note\n## Kept\ntext\n:::\n", "**Note:**\n\n## Kept\ntext"),
    ],
)
def test_notes_of_every_generator_become_labelled_quotes(source: str, result: str) -> None:
    assert markdown_of(source).strip() == result


@pytest.mark.parametrize(
    "source",
    [
        '<Tabs>\n<TabItem value="a" label="Web">\n\nClick.\n\n</TabItem>\n</Tabs>\n',
        '=== "Web"\n\n    Click.\n',
        '{% tabs %}\n{% tab title="Web" %}\nClick.\n{% endtab %}\n{% endtabs %}\n',
        "{start_tabs}\n{tab|web}\n\nClick.\n\n{end_tabs}\n",
    ],
)
def test_tabs_become_labelled_text(source: str) -> None:
    assert markdown_of(source).strip() == "**Web:**\n\nClick."


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("a <code class='x'>b &lt; c</code> d", "a `b < c` d"),
        ("Press <kbd>Esc</kbd>.", "Press **Esc**."),
        ("Ask <your-admin> or `<b>`.", "Ask \\<your-admin> or `<b>`."),
        ('<a href="/x">the <b>page</b></a>', "[the **page**](/x)"),
        ("![A board](b.png)![image](c.png)", "A board"),
        ("[a link][1] and [plain]\n\n[1]: https://example.com/1\n", "[a link](https://example.com/1) and [plain]"),
        ("## Title {: #own-id .big }", "## Title {#own-id}"),
        ('<h3 id="own">Head <i>line</i></h3>', "### Head *line* {#own}"),
        ("a <!-- b\n\nc --> d", "a  d"),
        ("`<!-- kept -->`", "`<!-- kept -->`"),
        ("{/* gone */}text{' '}more", "text more"),
        ("Term\n: Its meaning.\n", "**Term:** Its meaning."),
    ],
)
def test_inline_html_and_links_become_markdown(source: str, result: str) -> None:
    assert markdown_of(source).strip() == result


def test_a_link_around_a_heading_and_its_lines_becomes_a_link_on_each_line() -> None:
    card = "[\n[\n\n## Layers →\n\nHow to export\n- what is [inside](x)\n](/layers\\1)\n[\n\nAn open bracket"
    lines = [line for line in markdown_of(card).splitlines() if line]
    linked = ["## Layers →", "[How to export](/layers\\1)", "- what is [inside](x)"]
    assert lines == ["[", *linked, "[", "An open bracket"]


def test_code_stays_as_it_is() -> None:
    code = "```jsx\nimport x from 'y'\n<Tabs>\n:::tip\n<!-- comment -->\n![a](b)\n# no heading\n```"
    assert markdown_of(f"Text.\n\n{code}\n").strip() == f"Text.\n\n{code}"


def test_text_inside_div_does_not_turn_into_code() -> None:
    assert markdown_of("<div>\n    <p>Indented <b>text</b>.</p>\n</div>\n").strip() == "Indented **text**."


def test_an_html_table_becomes_a_markdown_table() -> None:
    table = "<table>\n<tr><th>Role</th></tr>\n\n<tr><td>Owner</td></tr>\n</table>"
    assert "| Role |\n| --- |\n| Owner |" in markdown_of(table)


def test_the_whole_guide_loses_its_scaffolding_and_no_words(guide: str) -> None:
    for gone in ("import", "Tabs", "TabItem", "<kbd", "editor's note", ":::", "!!!", "[!NOTE]", "Screenshot", "Badge"):
        assert gone not in guide
    for kept in ("**macOS:**", "**Windows:**", "> **Tip: Short on time?:**", "**Warning: Guests:** Guests cannot",
                 "`--server`", "\\<your-server>", "# no heading", "Last words.", "**Cmd**+**V**"):  # fmt: skip
        assert kept in guide
