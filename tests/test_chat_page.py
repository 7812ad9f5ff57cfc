"""The chat page in a real browser: what it draws, what it refuses to draw, and how it behaves."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from serving import ANSWER, QUESTION, Bot, client_of, dump_dom, make_app, running, static_folder

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
    "## Heading {#x}": "<h4>Heading</h4>",
    "a\n\n---\n\nb": "<p>a</p><hr><p>b</p>",
    "![Alt *text*](pic.png)": '<p><span class="picture">Alt <em>text</em></span></p>',
    "[a](https://x.org/p?q=1 'title') <https://y.org>": (
        '<p><a href="https://x.org/p?q=1" target="_blank" rel="noopener">a</a> '
        '<a href="https://y.org/" target="_blank" rel="noopener">https://y.org</a></p>'
    ),
    "See https://z.org/a_b, or (https://z.org/c).": (
        '<p>See <a href="https://z.org/a_b" target="_blank" rel="noopener">https://z.org/a_b</a>, or '
        '(<a href="https://z.org/c" target="_blank" rel="noopener">https://z.org/c</a>).</p>'
    ),
    "[rel](../roles.md#a) [**b** [c]](x)": (
        '<p><a href="http://manual.test/roles.md#a" target="_blank" rel="noopener">rel</a> '
        '<a href="http://manual.test/pages/x" target="_blank" rel="noopener"><strong>b</strong> [c]</a></p>'
    ),
    "[no](javascript:alert(1)) [open](": "<p><span>no</span> [open](</p>",
}

ATTACKS = [
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "<svg/onload=window.hacked=1>",
    "[x](javascript:window.hacked=1)",
    "[x](JaVaScRiPt:window.hacked=1)",
    "[x](java\tscript:window.hacked=1)",
    "[x](&#106;avascript:window.hacked=1)",
    "[x](\x01javascript:window.hacked=1)",
    "[x](data:text/html,<script>window.hacked=1</script>)",
    "[x](vbscript:x) [y](file:///etc/passwd) [z](blob:x)",
    "<javascript:window.hacked=1>",
    '[x](https://a.org" onmouseover="window.hacked=1)',
    "![x](x onerror=window.hacked=1)",
    "`</code><script>window.hacked=1</script>`",
    "```\n</code></pre><script>window.hacked=1</script>\n```",
    "| <img src=x onerror=window.hacked=1> |\n|---|\n| <iframe src=javascript:window.hacked=1> |",
    "&#60;script&#62;window.hacked=1&#60;/script&#62;",
    "<a href=javascript:window.hacked=1>x</a>",
    "# <style>*{display:none}</style>",
    "\\<img src=x onerror=window.hacked=1>",
]

# long and nested inputs that make careless parsers slow or overflow the stack
HEAVY = ["*a " * 4000, "[" * 8000, "> " * 3000 + "x", "`a``" * 2000, "- " * 1500 + "x", "_" * 9000, "|" * 9000 + "\n|-"]

SCRIPTS = Path(__file__).parent / "chat_page"


def add_test_pages(app: FastAPI, chat_page: str) -> None:
    """Pages under the app's own security headers: the chat page with a script of the test before or after its own.

    A picture that is sent only when the script asks for /test/done keeps the page from being loaded, and so the
    browser from reporting it, until then.
    """
    inputs = html.escape(json.dumps([*CASES, *ATTACKS, *HEAVY]))
    tag = '<script type="module" src="/test/{}.js"></script>'
    hold = '<img src="/test/hold" alt="">'
    pages = {
        "/renderer": f'<meta charset="utf-8"><pre id="inputs">{inputs}</pre>{hold}{tag.format("renderer")}',
        "/drive": chat_page.replace("</body>", f"{hold}{tag.format('driver')}</body>"),
        "/linked": chat_page.replace("</body>", f"{hold}{tag.format('watcher')}</body>"),
        "/seeded": chat_page.replace('<script type="module"', f'{tag.format("seed")}<script type="module"'),
        "/damaged": chat_page.replace('<script type="module"', f'{tag.format("seed")}<script type="module"'),
    }
    is_done = asyncio.Event()

    async def page(request: Request) -> Response:
        is_done.clear()
        return HTMLResponse(pages[request.url.path])

    async def script(request: Request) -> Response:
        return FileResponse(SCRIPTS / f"{request.path_params['name']}.js", media_type="text/javascript")

    async def hold_back(_request: Request) -> Response:
        with contextlib.suppress(TimeoutError):  # the report, or its absence, shows how far the script came
            await asyncio.wait_for(is_done.wait(), timeout=40)
        return Response(b"", media_type="image/png")

    async def done(_request: Request) -> Response:
        is_done.set()
        return Response(b"")

    for path in pages:
        app.add_route(path, page)
    app.add_route("/test/{name}.js", script)
    app.add_route("/test/hold", hold_back)
    app.add_route("/test/done", done)


@pytest.fixture(scope="module")
def bot() -> Bot:
    return Bot()


@pytest.fixture(scope="module")
def address(bot: Bot) -> Iterator[str]:
    app = make_app(bot)
    with running(app) as address:
        with client_of(address) as client:
            add_test_pages(app, client.get("/").text)
        yield address
        bot.release.set()


def report_in(page: str) -> Any:
    found = re.search(r'<pre id="report">(.*?)</pre>', page, re.DOTALL)
    assert found, f"the page's script did not finish: {page[:3000]}"
    return json.loads(html.unescape(found[1]))


def test_the_page_carries_its_title_escaped_and_the_security_headers(address: str) -> None:
    with client_of(address) as client:
        response = client.get("/")
        assert "<title>Help &amp; &quot;more&quot;</title>" in response.text
        assert "<b>Boards" not in response.text
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in response.headers
        assert client.head("/").status_code == 200
        script = client.get("/static/chat.js")
        assert script.headers["content-type"].startswith("text/javascript")
        again = client.get("/static/chat.js", headers={"if-none-match": script.headers["etag"]})
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
    for path in static_folder().iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"""(?:src|href|url|import|from)\s*[=(]?\s*["']?(?:https?:)?//""", text), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), path.name
        assert not re.search(r"""\son\w+=["']|\sstyle=["']""", text), f"{path.name}: inline code or style"


def test_markdown_becomes_the_right_nodes_and_attacks_become_text(address: str) -> None:
    page = dump_dom(f"{address}/renderer")
    report = report_in(page)
    outputs = report["outputs"]
    assert report["hacked"] is None
    assert len(outputs) == len(CASES) + len(ATTACKS) + len(HEAVY)
    for (markdown, expected), shown in zip(CASES.items(), outputs, strict=False):
        assert shown["html"] == expected, markdown
    allowed_tags = set("P A SPAN CODE PRE DIV TABLE THEAD TBODY TR TH TD H3".split())
    for attack, shown in zip(ATTACKS, outputs[len(CASES) :], strict=False):
        assert set(shown["tags"]) <= allowed_tags, attack
        assert set(shown["attributes"]) <= {"href", "target", "rel", "class"}, attack
        assert set(shown["protocols"]) <= {"http:", "https:"}, attack


def test_a_conversation_with_every_button(address: str, bot: Bot) -> None:
    seen = report_in(dump_dom(f"{address}/drive"))
    assert seen.get("finished"), f"stopped after {list(seen)[-1]!r}"
    assert seen["chips"] == ["Move a card", "<b>Boards</b>"]
    assert seen["sendDisabled"] is True
    assert seen["asksOnShiftEnter"] is False
    assert seen["answer"] == (
        "<p>Drag the card, or press <strong>M</strong>.</p>"
        "<ol><li>Select the card.</li><li>Choose <em>Move to</em>.</li></ol>"
    )
    assert seen["links"] == [
        ["/pages/cards/move.md#move-a-card", "Move a card in Cards"],
        ["https://help.example.com/boards", "Boards"],
    ]
    assert seen["announced"].startswith("Drag the card, or press M.")
    assert seen["announced"].endswith("2 sources below.")
    assert seen["cleared"] is True
    assert seen["problem"] == "Something went wrong while answering. Please try again."
    assert seen["turnsAfterRetry"] == 6
    assert seen["stopShown"] is True
    assert seen["stored"] == ["user", "done", "user", "done", "user", "failed", "user", "stopped"]
    assert seen["afterNew"] == [0, False, "[]"]
    question, history = next(item for item in bot.asked if item[0] == "short")
    assert [turn.text for turn in history] == [QUESTION, ANSWER.text], question


def test_a_linked_question_is_asked_at_once_and_an_answer_that_abstains_says_so(address: str) -> None:
    page = dump_dom(f"{address}/linked?q={quote('Is there a <b>bold</b> plan?')}")
    assert "Is there a &lt;b&gt;bold&lt;/b&gt; plan?" in page
    assert 'class="turn bot unsure"' in page
    assert "Not sure" in page
    assert "Nearest pages" in page
    # the answer's own link is relative to the page that is cited
    assert f'<a href="{address}/pages/example.md#first-steps"' in page


def test_a_conversation_survives_a_reload_and_damaged_memory_does_no_harm(address: str) -> None:
    page = dump_dom(f"{address}/seeded")
    assert "Earlier question" in page
    assert "Earlier <strong>answer</strong>" in page
    assert "Stopped." in page
    assert "Try again" in page
    assert 'href="javascript' not in page
    damaged = dump_dom(f"{address}/damaged")
    assert "Move a card</button>" in damaged
    assert 'class="turn' not in damaged
