"""The chat page in a real browser: what it draws, and how a conversation goes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from browser import Chat, open_browser
from byheart.records import Section
from serving import ANSWER, MOVE_SECTIONS, QUESTION, Bot, client_of, make_app, running, static_folder

# Markdown → the HTML it must become
CASES = {
    "plain": "<p>plain</p>",
    "two\nlines  \nbreak<br>here": "<p>two\nlines<br>break<br>here</p>",
    "one\n\ntwo": "<p>one</p><p>two</p>",
    "**bold** *it* __b__ _i_ ***both***": (
        "<p><strong>bold</strong> <em>it</em> <strong>b</strong> <em>i</em> <strong><em>both</em></strong></p>"
    ),
    "**bold with *nested* inside** ~~gone~~": (
        "<p><strong>bold with <em>nested</em> inside</strong> <del>gone</del></p>"
    ),
    "snake_case_name, 2 * 3 * 4, a ** b, *open": "<p>snake_case_name, 2 * 3 * 4, a ** b, *open</p>",
    "`code *x*` ``a ` b`` `open": "<p><code>code *x*</code> <code>a ` b</code> `open</p>",
    "\\*not\\* \\<b\\> &lt;i&gt; &amp; &copy; &#65;": "<p>*not* &lt;b&gt; &lt;i&gt; &amp; &amp;copy; A</p>",
    "1. one\n2. two\n   - in\n   - side\n3. three": (
        "<ol><li>one</li><li>two<ul><li>in</li><li>side</li></ul></li><li>three</li></ol>"
    ),
    "1. one\n\n   - in\n\n2. two": "<ol><li><p>one</p><ul><li>in</li></ul></li><li><p>two</p></li></ol>",
    "- a\n  - b\n    - c\n- d": "<ul><li>a<ul><li>b<ul><li>c</li></ul></li></ul></li><li>d</li></ul>",
    "- lazy\ncontinued\n\nafter": "<ul><li>lazy\ncontinued</li></ul><p>after</p>",
    "5) five\n6) six": '<ol start="5"><li>five</li><li>six</li></ol>',
    "1. step:\n\n   ```sh\n   run  *x*\n   ```\n2. next": (
        "<ol><li><p>step:</p><pre><code>run  *x*</code></pre></li><li><p>next</p></li></ol>"
    ),
    "```\n<b>&amp;\n\n  kept\n```\nafter": "<pre><code>&lt;b&gt;&amp;amp;\n\n  kept</code></pre><p>after</p>",
    "```\nnever closed": "<pre><code>never closed</code></pre>",
    "| a | b |\n|---|:-:|\n| 1<br>2 | `x\\|y` |\n| only |\n\nafter": (
        '<div class="table"><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody>'
        "<tr><td>1<br>2</td><td><code>x|y</code></td></tr><tr><td>only</td><td></td></tr></tbody></table></div>"
        "<p>after</p>"
    ),
    "no | table": "<p>no | table</p>",
    "> **Note**\n> text\n\nout": "<blockquote><p><strong>Note</strong>\ntext</p></blockquote><p>out</p>",
    # the conversation has the two highest levels, and no level is skipped
    "## Heading {#x}\n\n#### Below": "<h3>Heading</h3><h4>Below</h4>",
    "a\n\n---\n\nb": "<p>a</p><hr><p>b</p>",
    "![Alt *text*](pic.png)": '<p><span class="picture">Alt <em>text</em></span></p>',
    # a link that leaves the manual says where it goes
    "[a](https://x.org/p?q=1 'title') <https://y.org>": (
        '<p><a href="https://x.org/p?q=1" target="_blank" rel="noopener noreferrer">a<span class="host"> (x.org)</span>'
        '</a> <a href="https://y.org/" target="_blank" rel="noopener noreferrer">https://y.org</a></p>'
    ),
    "[https://bank.org](https://evil.org/)": (
        '<p><a href="https://evil.org/" target="_blank" rel="noopener noreferrer">https://bank.org'
        '<span class="host"> (evil.org)</span></a></p>'
    ),
    "[help](https://manual.test@evil.org/)": "<p><span>help</span></p>",
    "See https://z.org/a_b, or (https://z.org/c).": (
        '<p>See <a href="https://z.org/a_b" target="_blank" rel="noopener noreferrer">https://z.org/a_b</a>, or '
        '(<a href="https://z.org/c" target="_blank" rel="noopener noreferrer">https://z.org/c</a>).</p>'
    ),
    "[rel](../roles.md#a) [**b** [c](d)](x)": (
        '<p><a href="http://manual.test/roles.md#a" target="_blank" rel="noopener noreferrer">rel</a> '
        '<a href="http://manual.test/pages/x" target="_blank" rel="noopener noreferrer">'
        "<strong>b</strong> <span>c</span></a></p>"
    ),
    "[no](javascript:alert(1)) [open](": "<p><span>no</span> [open](</p>",
}

# long and nested inputs that make careless parsers slow or overflow the stack
HEAVY = ["*a " * 4000, "[" * 8000, "> " * 3000 + "x", "`a``" * 2000, "- " * 1500 + "x", "_" * 9000, "|" * 9000 + "\n|-"]

RENDER = """async (inputs) => {
  const { renderMarkdown } = await import("/static/widget/markdown.js");
  return inputs.map((text) => {
    const frame = document.createElement("div");
    frame.append(renderMarkdown(text, "http://manual.test/pages/page.md"));
    return frame.innerHTML;
  });
}"""

CITATION = {"title": "T", "heading": "T › H", "url": "javascript:alert(1)", "score": 1}
EARLIER = [
    {"role": "user", "text": "Earlier question"},
    {
        "role": "assistant",
        "text": "Earlier **answer**",
        "state": "done",
        "problem": "",
        "sources": {"citations": [CITATION, {"title": 1}], "abstained": True, "confidence": 0.1},
    },
    {"role": "user", "text": "Cut off"},
    {"role": "assistant", "text": "", "state": "waiting", "problem": "", "sources": None},
]


@pytest.fixture(scope="module")
def bot() -> Bot:
    return Bot()


@pytest.fixture(scope="module")
def address(bot: Bot) -> Iterator[str]:
    with running(make_app(bot)) as address:
        yield address
        bot.release.set()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(base_url=address, locale="en", permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    yield page
    context.close()
    assert faults == []


@pytest.fixture
def chat(page: Page) -> Chat:
    page.goto("/")
    return Chat(page)


def test_the_page_carries_its_title_escaped_and_the_security_headers(address: str) -> None:
    with client_of(address) as client:
        response = client.get("/")
        assert "<title>Help &amp; &quot;more&quot;</title>" in response.text
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-dns-prefetch-control"] == "off"
        assert "access-control-allow-origin" not in response.headers
        assert client.head("/").status_code == 200
        script = client.get("/static/widget/view.js")
        assert script.headers["content-type"].startswith("text/javascript")
        again = client.get("/static/widget/view.js", headers={"if-none-match": script.headers["etag"]})
        assert again.status_code == 304
        for hidden in ("/static/index.html", "/static/../engine.py", "/static/%2e%2e/engine.py", "/static/none.js"):
            assert client.get(hidden).status_code == 404


def test_the_pages_of_the_manual_are_served_and_others_are_explained(address: str) -> None:
    with client_of(address) as client:
        page = client.get("/pages/cards/move.md")
        assert page.status_code == 200
        assert '<h2 id="move-a-card">' in page.text
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert 'href="cards/move.md"' in client.get("/pages/").text
        missing = client.get("/pages/%3Cb%3E.md")
        assert missing.status_code == 404
        assert "Page not found" in missing.text
        assert "<b>" not in missing.text


def test_no_file_of_the_page_names_another_site_or_parses_text_as_html() -> None:
    files = [path for path in static_folder().rglob("*") if path.is_file()]
    assert len(files) > 25
    for path in files:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"""(?:src|href|url|import|from)\s*[=(]?\s*["']?(?:https?:)?//""", text), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), path.name
        assert not re.search(r"""\son\w+=["']|\sstyle=["']""", text), f"{path.name}: inline code or style"


def test_markdown_becomes_the_right_nodes_and_heavy_text_does_not_hang(page: Page) -> None:
    page.goto("/")
    shown = page.evaluate(RENDER, [*CASES, *HEAVY])
    assert len(shown) == len(CASES) + len(HEAVY)
    for (markdown, expected), html in zip(CASES.items(), shown, strict=False):
        assert html == expected, markdown


def test_an_answer_is_shown_with_its_sources_and_announced_once(chat: Chat) -> None:
    assert chat.find(".chips button").all_text_contents() == ["Move a card", "<b>Boards</b>"]
    expect(chat.send).to_be_disabled()
    chat.page.evaluate("""() => {
      window.announced = [];
      const status = document.querySelector("byheart-chat").shadowRoot.querySelector("[role=status]");
      new MutationObserver(() => window.announced.push(status.textContent)).observe(status, {childList: true});
    }""")
    chat.ask(QUESTION)
    assert chat.find(".text").inner_html() == (
        "<p>Drag the card, or press <strong>M</strong>.</p>"
        "<ol><li>Select the card.</li><li>Choose <em>Move to</em>.</li></ol>"
    )
    links = chat.find("a.source")
    assert links.evaluate_all("nodes => nodes.map(node => node.href.replace(location.origin, ''))") == [
        "/pages/cards/move.md#move-a-card",
        "https://help.example.com/boards",
    ]
    assert links.first.text_content() == "Move a card – Cards (opens in a new tab)"
    (announced,) = chat.page.evaluate("window.announced")
    assert announced.startswith("Drag the card, or press M.")
    assert announced.endswith("Sources: 2")
    assert chat.question.input_value() == ""


def test_a_citation_opens_its_page_at_the_heading(chat: Chat) -> None:
    chat.ask(QUESTION)
    with chat.page.expect_popup() as opened:
        chat.find("a.source").first.click()
    expect(opened.value.locator("#move-a-card")).to_be_in_viewport()
    assert opened.value.evaluate("document.querySelector(':target').textContent") == "Move a card"


def test_enter_sends_shift_enter_and_input_methods_do_not(chat: Chat) -> None:
    chat.question.fill("a")
    chat.question.press("Shift+Enter")
    assert chat.question.input_value() == "a\n"
    chat.question.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    assert chat.find(".turn").count() == 0
    chat.question.press("Enter")
    expect(chat.find(".turn")).to_have_count(2)


def test_a_failure_can_be_tried_again_and_its_reason_stays_on_the_server(chat: Chat) -> None:
    chat.ask("fail")
    expect(chat.find(".problem")).to_have_text("Something went wrong while answering. Try again.")
    assert "secret" not in chat.page.content()
    chat.find(".failed .primary").click()
    expect(chat.find(".failed .primary")).to_be_visible()
    expect(chat.find(".turn")).to_have_count(2)


def test_an_answer_can_be_stopped_and_the_history_goes_along_with_the_next(chat: Chat, bot: Bot) -> None:
    chat.ask(QUESTION)
    chat.ask("short")
    question, history = next(item for item in bot.asked if item[0] == "short" and item[1])
    assert [turn.text for turn in history] == [QUESTION, ANSWER.text], question
    chat.question.fill("wait")
    chat.question.press("Enter")
    expect(chat.find(".dots")).to_be_visible()
    assert chat.send.get_attribute("aria-label") == "Stop"
    chat.send.click()
    expect(chat.find(".note")).to_have_text("Stopped.")
    assert chat.send.get_attribute("aria-label") == "Send"
    chat.question.fill("wait")
    chat.question.press("Enter")
    chat.question.press("Escape")
    expect(chat.find(".note")).to_have_count(2)


def test_new_chat_forgets_and_a_reload_keeps(chat: Chat, address: str) -> None:
    chat.ask("short")
    chat.page.reload()
    expect(chat.find(".text")).to_have_text("One two, three.")
    chat.page.get_by_role("button", name="New chat").click()
    expect(chat.find(".welcome")).to_be_visible()
    assert chat.find(".turn").count() == 0
    assert chat.page.evaluate(f"sessionStorage.getItem('byheart:{address}/')") == "[]"


def test_an_answer_and_its_code_can_be_copied(chat: Chat) -> None:
    chat.ask(QUESTION)
    chat.page.get_by_role("button", name="Copy").click()
    expect(chat.page.get_by_role("button", name="Copied")).to_be_visible()
    copied = chat.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(ANSWER.text)
    assert re.search(r"- Cards › Move a card: http://127\.0\.0\.1:\d+/pages/cards/move\.md#move-a-card\n", copied)
    chat.ask("code")
    chat.find(".code button").click()
    assert chat.page.evaluate("navigator.clipboard.readText()") == "make  demo"


def test_a_linked_question_is_asked_at_once_and_an_answer_that_abstains_says_so(page: Page, address: str) -> None:
    page.goto(f"/?q={quote('Is there a <b>bold</b> plan?')}")
    chat = Chat(page)
    expect(chat.find(".bubble").first).to_contain_text("Is there a <b>bold</b> plan?")
    expect(chat.find(".unsure .badge")).to_have_text("Not sure")
    expect(chat.find(".sources h3")).to_have_text("Nearest pages")
    # the answer's own link is relative to the page that is cited
    assert chat.find(".text a").get_attribute("href") == f"{address}/pages/example.md#first-steps"
    assert page.url == f"{address}/"


def test_a_conversation_survives_a_reload_and_damaged_memory_does_no_harm(page: Page, address: str) -> None:
    store = f"byheart:{address}/"
    page.goto("/docs")
    page.evaluate("([store, turns]) => sessionStorage.setItem(store, turns)", [store, json.dumps(EARLIER)])
    page.goto("/")
    chat = Chat(page)
    expect(chat.find(".text")).to_have_text("Earlier answer")
    assert chat.find(".note").all_text_contents() == ["Stopped."]
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    hrefs = chat.find("a").evaluate_all("nodes => nodes.map(node => node.href)")
    assert hrefs == [f"{address}/pages/javascript%3Aalert(1)"]
    for damaged in ("[{", '{"a": 1}', '[{"role": "user"}]', '[{"role": "system", "text": "x"}]'):
        page.evaluate("([store, text]) => sessionStorage.setItem(store, text)", [store, damaged])
        page.reload()
        expect(chat.find(".chips button").first).to_have_text("Move a card")
        assert chat.find(".turn").count() == 0, damaged


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (503, '{"error": {"message": "busy"}}', "Many people are asking right now. Try again in a moment."),
        (429, "slow down", "Many people are asking right now. Try again in a moment."),
        (502, "<h1>Bad gateway</h1>", "Something went wrong while answering. Try again."),
        (200, "data: {}\n\ndata: {broken\n\n", "The connection was lost before the answer was complete."),
        (200, 'data: {"choices": []}\n\n', "The connection was lost before the answer was complete."),
        (200, 'data: {"error": {"message": "x"}}\n\n', "Something went wrong while answering. Try again."),
        (0, "", "The assistant cannot be reached. Check your connection."),
    ],
)
def test_every_way_to_fail_is_told_in_a_sentence(chat: Chat, status: int, body: str, told: str) -> None:
    def answer(route: Route) -> None:
        if status:
            route.fulfill(status=status, body=body)
        else:
            route.abort("connectionrefused")

    chat.page.route("**/v1/chat/completions", answer)
    chat.ask("anything")
    expect(chat.find(".problem")).to_have_text(told)


def test_thumbs_are_sent_with_their_reason_and_vanish_where_nobody_takes_them(chat: Chat) -> None:
    sent: list[dict[str, Any]] = []
    status = 200

    def take(route: Route) -> None:
        sent.append(route.request.post_data_json)
        route.fulfill(status=status, json={})

    chat.page.route("**/v1/feedback", take)
    chat.ask(QUESTION)
    chat.page.get_by_role("button", name="Not helpful").click()
    form = chat.find(".reasons")
    expect(form).to_be_in_viewport()
    form.get_by_label("Something is missing").check(force=True)
    form.get_by_role("textbox").fill("the shortcut")
    form.get_by_role("button", name="Send feedback").click()
    expect(chat.find(".actions .note")).to_have_text("Thank you for your feedback.")
    chat.page.get_by_role("button", name="Helpful", exact=True).click()
    expect(chat.page.get_by_role("button", name="Helpful", exact=True)).to_have_attribute("aria-pressed", "true")
    assert [{**item, "completion_id": item["completion_id"][:9]} for item in sent] == [
        {"completion_id": "chatcmpl-", "verdict": "down", "reason": "", "comment": ""},
        {"completion_id": "chatcmpl-", "verdict": "down", "reason": "incomplete", "comment": "the shortcut"},
        {"completion_id": "chatcmpl-", "verdict": "up", "reason": "", "comment": ""},
    ]
    status = 404
    chat.page.get_by_role("button", name="Not helpful").click()
    expect(chat.find(".thumb")).to_have_count(0)


def test_a_long_answer_is_read_from_its_beginning_and_the_end_is_one_click_away(chat: Chat) -> None:
    chat.page.set_viewport_size({"width": 700, "height": 500})
    chat.ask(QUESTION)
    chat.ask("long")
    expect(chat.find(".user .bubble").last).to_be_in_viewport()
    latest = chat.page.get_by_role("button", name="Go to the latest message")
    latest.click()
    expect(chat.find(".actions").last).to_be_in_viewport()
    expect(latest).to_be_hidden()


def test_what_to_ask_next_is_below_the_last_answer_alone(browser: Browser) -> None:
    text = "Open the card and choose its colour in the bar above it."
    sections = [*MOVE_SECTIONS, Section("s9", "d1", ("Cards", "Colour a <b>card"), "cards/move.md", text, 9, "")]
    with running(make_app(Bot(), sections=sections)) as address:
        context = browser.new_context(base_url=address, locale="en")
        page = context.new_page()
        page.goto("/")
        chat = Chat(page)
        chat.ask(QUESTION)
        page.get_by_role("button", name="Colour a <b>card").click()
        expect(chat.find(".user .bubble").last).to_have_text("You: Colour a <b>card")
        expect(chat.find(".unsure")).to_be_visible()
        expect(chat.find(".related")).to_have_count(0)
        context.close()


def test_without_a_script_the_page_leads_to_the_manual(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.get_by_role("link", name="pages of the manual").get_attribute("href") == "pages/"
    context.close()
