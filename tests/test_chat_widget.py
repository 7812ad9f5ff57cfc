"""The widget in another site's page: strict policies, keyboard and screen reader, colours, languages, weight."""

from __future__ import annotations

import gzip
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from browser import Chat, open_browser
from byheart.errors import ByheartError
from byheart.serve.colours import palette
from byheart.serve.widget import MODULES, Look, languages, read_logo
from serving import QUESTION, Bot, client_of, make_app, running, static_folder

LOOK = Look(accent="#0f766e", contact="help@example.com")
LOGO = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><path d="M0 0h8v8H0z" fill="#c00"/></svg>'
LANGUAGES = sorted((static_folder() / "languages").iterdir())
COLOURS = ("#4f46e5", "#0f766e", "#facc15", "#ffffff", "#000000", "#f97316", "#ff0", "#777777", "#22d3ee")

# No script but the widget may run, nothing but the bot may be asked, no string may become code, no style may be inline.
STRICT = (
    "default-src 'none'; script-src 'nonce-abc'; connect-src {bot}; img-src {bot}; require-trusted-types-for 'script'; "
    "trusted-types 'none'; report-uri /never"
)


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    logo = tmp_path_factory.mktemp("look") / "logo.svg"
    logo.write_bytes(LOGO)
    app = make_app(Bot(), title="Ask Inkwell", look=Look(accent="#0f766e", contact="help@example.com", logo=logo))
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    with running(app) as address:
        yield address


@pytest.fixture(scope="module")
def host(bot: str) -> Iterator[str]:
    """Another site: its pages load the widget from the bot. `?a=` holds the script's attributes, `?l=` the language."""
    app = FastAPI(openapi_url=None)

    async def show(request: Request) -> Response:
        query = request.query_params
        script = f'<script nonce="abc" src="{bot}/widget.js" {query.get("a", "")}></script>'
        body = (
            f'<!doctype html><html lang="{query.get("l", "en")}"><title>Help</title>'
            '<meta name="viewport" content="width=device-width"><main><h1>Help</h1>'
            f'<p><a href="#x">First link</a></p></main>{query.get("b", "")}{script if query.get("s") != "no" else ""}'
        )
        policy = STRICT.format(bot=bot) + ("; style-src 'nonce-abc'" if "<style" in body else "")
        return HTMLResponse(body, headers={"content-security-policy": policy})

    app.add_route("/{path:path}", show)
    with running(app) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, host: str, bot: str) -> Iterator[Page]:
    context = browser.new_context(base_url=host, locale="en-GB", reduced_motion="reduce")
    page = context.new_page()
    faults: list[str] = []
    asked: set[str] = set()
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.on("console", lambda message: faults.append(message.text) if "Security Policy" in message.text else None)
    page.on("request", lambda request: asked.add("/".join(request.url.split("/")[:3])))
    yield page
    context.close()
    assert faults == []
    assert asked <= {host, bot}, "a third party was asked"


def opened(page: Page, address: str = "/") -> Chat:
    page.goto(address)
    page.locator("byheart-chat .launcher").click()
    return Chat(page)


def test_it_works_from_another_site_under_the_strictest_policy(page: Page, bot: str) -> None:
    chat = opened(page)
    chat.ask(QUESTION)
    expect(chat.find(".text")).to_contain_text("Drag the card")
    assert chat.find("a.source").first.get_attribute("href") == f"{bot}/pages/cards/move.md#move-a-card"
    assert chat.find(".top img").evaluate("image => image.complete && image.naturalWidth > 0")
    expect(chat.find(".frame")).to_have_css("border-top-left-radius", "20px")


def test_it_neither_takes_from_the_page_nor_gives_to_it(page: Page) -> None:
    style = "<style nonce='abc'>*{color:red!important;font-size:40px!important;display:block!important}</style>"
    page.goto(f"/?b={style}&s=no")
    globals_before = set(page.evaluate("Object.keys(window)"))
    chat = opened(page, f"/?b={style}")
    expect(chat.find(".welcome h2")).to_have_css("font-size", "26px")
    assert set(page.evaluate("Object.keys(window)")) == globals_before
    assert page.evaluate("document.querySelectorAll('body > :not(main, script, style)').length") == 1
    assert page.evaluate("document.styleSheets.length + document.adoptedStyleSheets.length") == 1


def test_an_open_panel_and_its_conversation_are_there_on_the_next_page(page: Page) -> None:
    chat = opened(page)
    chat.ask("short")
    page.goto("/another")
    expect(chat.find(".text")).to_have_text("One two, three.")
    expect(chat.find(".text")).to_be_visible()
    chat.find(".top .close").click()
    page.goto("/third")
    expect(chat.find(".text")).to_be_hidden()


def test_attributes_of_the_script_take_the_place_of_the_configuration(page: Page) -> None:
    said = (
        "data-title='My <i>bot' data-accent='%23ff0' data-greeting='Hi!' "
        "data-language=de data-theme=dark data-side=left"
    )
    chat = opened(page, f"/?a={said}")
    expect(chat.find(".top h2")).to_have_text("My <i>bot")
    expect(chat.find(".welcome h2")).to_have_text("Hi!")
    expect(chat.question).to_have_attribute("placeholder", "Frage stellen …")
    expect(chat.find(".launcher")).to_have_css("background-color", "rgb(255, 255, 0)")
    expect(chat.find(".frame")).to_have_css("background-color", "rgb(27, 30, 41)")
    assert (chat.find(".launcher").bounding_box() or {})["x"] < 100


def test_a_page_may_say_where_the_chat_stands_and_load_the_script_twice(page: Page, bot: str) -> None:
    twice = f"<script nonce=abc src={bot}/widget.js></script>"
    page.goto(f"/?b=<byheart-chat></byheart-chat>{twice}")
    expect(page.locator("byheart-chat")).to_have_count(1)
    expect(page.locator("byheart-chat .welcome")).to_be_visible()
    assert page.locator("byheart-chat .launcher").count() == 0


def test_a_page_can_open_it_with_a_question(page: Page) -> None:
    page.goto("/")
    page.locator("byheart-chat .launcher").wait_for()
    page.evaluate("document.querySelector('byheart-chat').open('short')")
    expect(Chat(page).find(".text")).to_have_text("One two, three.")
    page.evaluate("document.querySelector('byheart-chat').close()")
    expect(Chat(page).find(".frame")).to_be_hidden()


def test_a_key_in_the_script_is_sent_along(page: Page) -> None:
    chat = opened(page, "/?a=data-key=public-1")
    with page.expect_request("**/v1/chat/completions") as asked:
        chat.ask("short")
    assert asked.value.headers["authorization"] == "Bearer public-1"


def test_a_person_is_one_click_away_with_the_conversation(page: Page) -> None:
    chat = opened(page)
    chat.ask("short")
    assert chat.find(".contact").count() == 0
    chat.ask("Who are you? " + "🎈" * 300)
    link = chat.find(".contact a").get_attribute("href") or ""
    assert re.match(r"mailto:help@example\.com\?subject=Ask%20Inkwell%3A%20Who%20are%20you", link)
    assert "The%20manual%20does%20not%20say" in link
    assert len(link) <= 2000
    page.route("mailto:**", lambda route: route.abort())
    chat.find(".contact a").evaluate("node => node.addEventListener('click', (event) => event.preventDefault())")
    chat.find(".contact a").click()
    expect(chat.find(".contact .note")).to_have_text("The conversation is copied: paste it into your message.")


def test_a_link_to_a_person_can_hold_the_conversation(page: Page) -> None:
    chat = opened(page, "/?a=data-contact='https://desk.example.com/new?text={transcript}'")
    chat.ask("Unknown & odd")
    link = chat.find(".contact a").get_attribute("href") or ""
    assert link.startswith("https://desk.example.com/new?text=You%3A%20Unknown%20%26%20odd%0A%0AAssistant%3A%20The")


def test_the_keyboard_reaches_everything_and_focus_is_never_lost(page: Page) -> None:
    page.goto("/")
    page.locator("byheart-chat .launcher").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    focus = (
        "document.activeElement.shadowRoot?.activeElement?.getAttribute('aria-label') ?? document.activeElement.tagName"
    )
    assert page.evaluate(focus) == "Your question"
    page.keyboard.type("unknown")
    page.keyboard.press("Enter")
    chat = Chat(page)
    expect(chat.find(".unsure")).to_be_visible()
    assert page.evaluate(focus) == "Your question"
    names = []
    for _ in range(14):
        page.keyboard.press("Shift+Tab")
        names.append(
            page.evaluate("""() => {
          const node = document.activeElement.shadowRoot?.activeElement;
          return node ? node.getAttribute("aria-label") ?? node.textContent : "outside";
        }""")
        )
    for name in ("Not helpful", "Helpful", "Copy", "Contact us", "Conversation", "Close chat", "New chat"):
        assert name in names, names
    assert "outside" in names  # no trap on a large screen
    chat.question.focus()
    page.keyboard.press("Escape")
    expect(chat.find(".frame")).to_be_hidden()
    assert page.evaluate(focus) == "Open chat"


def test_on_a_phone_the_panel_covers_the_page_and_tab_goes_round_in_it(browser: Browser, host: str) -> None:
    context = browser.new_context(
        base_url=host, viewport={"width": 320, "height": 568}, has_touch=True, is_mobile=True, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto("/")
    page.locator("byheart-chat .launcher").tap()
    chat = Chat(page)
    expect(chat.find(".launcher")).to_be_hidden()
    box = chat.find(".frame").bounding_box() or {}
    assert (box["x"], box["y"], box["width"]) == (0, 0, 320)
    chat.ask(QUESTION)
    assert chat.find(".scroll").evaluate("node => node.scrollWidth - node.clientWidth") == 0
    for _ in range(20):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.tagName") == "BYHEART-CHAT"
    small = chat.find("button:visible").evaluate_all(
        "nodes => nodes.filter(node => Math.min(node.offsetWidth, node.offsetHeight) < 32).map(node => node.className)"
    )
    assert small == []
    context.close()


def axe(page: Page) -> list[str]:
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{item['id']}: {node['html'][:150]} {node.get('failureSummary', '')[:300]}"
        for item in found
        for node in item["nodes"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_any_state(browser: Browser, host: str, theme: Any) -> None:
    context = browser.new_context(base_url=host, reduced_motion="reduce", color_scheme=theme, bypass_csp=True)
    page = context.new_page()
    page.route("**/v1/feedback", lambda route: route.fulfill(json={}, headers={"access-control-allow-origin": "*"}))
    page.goto(f"/?a=data-theme={theme}")
    page.locator("byheart-chat .launcher").wait_for()
    assert axe(page) == []
    chat = Chat(page)
    chat.find(".launcher").click()
    assert axe(page) == []
    for question in (QUESTION, "cited", "code", "unknown", "fail"):
        chat.ask(question)
        assert axe(page) == [], question
    page.get_by_role("button", name="Not helpful").first.click()
    chat.find(".reasons").wait_for()
    assert axe(page) == []
    context.close()


def test_axe_finds_nothing_on_the_chat_page_and_the_manuals_pages(browser: Browser, bot: str) -> None:
    context = browser.new_context(base_url=bot, reduced_motion="reduce")
    page = context.new_page()
    for path in ("/", "/pages/", "/pages/cards/move.md", "/docs"):
        page.goto(path)
        assert axe(page) == [], path
    page.goto("/")
    Chat(page).ask(QUESTION)
    assert axe(page) == []
    context.close()


@pytest.mark.parametrize("is_dark", [False, True])
def test_any_brand_colour_gives_readable_text(page: Page, bot: str, is_dark: bool) -> None:
    page.goto(bot)
    told = page.evaluate(
        """async ([colours, isDark]) => {
          const { palette, contrast, parse } = await import("/static/widget/colours.js");
          const ground = isDark ? "#1b1e29" : "#ffffff";
          return colours.flatMap((colour) => {
            const made = palette(colour, isDark);
            return [["--accent-text", "--accent"], ["--link", "--accent-soft"], ["--link", ground]].map(
              ([text, back]) => [colour, text, back, contrast(parse(made[text]), parse(made[back] ?? back))]);
          });
        }""",
        [[*COLOURS, "red;}", ""], is_dark],
    )
    assert [row for row in told if row[3] < 4.5] == []


def test_the_manuals_pages_wear_the_same_colours_as_the_chat(page: Page, bot: str) -> None:
    page.goto(f"{bot}/pages/cards/move.md")
    made = page.evaluate(
        """async (colours) => {
          const { palette } = await import("/static/widget/colours.js");
          return colours.flatMap((colour) => [palette(colour, false), palette(colour, true)]);
        }""",
        COLOURS,
    )
    assert made == [palette(colour, is_dark) for colour in COLOURS for is_dark in (False, True)]
    expect(page.locator("a[href='../../pages/']")).to_have_css("color", "rgb(15, 118, 110)")


@pytest.mark.parametrize("path", LANGUAGES, ids=lambda path: path.stem)
def test_a_languages_file_says_everything_that_english_says(path: Path) -> None:
    english = (static_folder() / "widget" / "words.js").read_text(encoding="utf-8")
    keys = re.findall(r"^  (\w+): \"", english, re.MULTILINE)
    words = json.loads(path.read_text(encoding="utf-8"))
    assert list(words) == keys
    assert all(isinstance(text, str) and text.strip() == text and text for text in words.values())
    short = {key: words[key] for key in ("send", "stop", "newChat", "copy", "retry", "good", "bad")}
    assert {key: text for key, text in short.items() if len(text) > 22} == {}


def test_the_interface_speaks_the_pages_language_and_writes_it_from_the_right_side(page: Page) -> None:
    assert len(languages()) >= 11
    chat = opened(page, "/?l=de-AT")
    expect(chat.find(".launcher")).to_have_attribute("aria-label", "Chat schließen")
    page.goto("/?l=ar")
    expect(chat.find(".root")).to_have_attribute("dir", "rtl")
    expect(chat.find(".root")).to_have_attribute("lang", "ar")
    assert (chat.find(".launcher").bounding_box() or {})["x"] < 100  # the corner is mirrored
    chat.ask(QUESTION)
    expect(chat.find(".text")).to_have_css("direction", "ltr")  # the manual is English
    page.goto("/?l=tlh")
    expect(chat.find(".launcher")).to_have_attribute("aria-label", "Close chat")


def test_where_the_languages_file_does_not_come_the_chat_is_in_english(page: Page) -> None:
    page.route("**/languages/de.json", lambda route: route.abort())
    chat = opened(page, "/?l=de")
    expect(chat.question).to_have_attribute("placeholder", "Ask a question…")


def test_what_a_customer_loads_weighs_at_most_20_kb(bot: str) -> None:
    with client_of(bot) as client:
        script = client.get("/widget.js").content
    heaviest = max(len(gzip.compress(path.read_bytes())) for path in LANGUAGES)
    assert len(gzip.compress(script)) + heaviest <= 20 * 1024


def test_the_script_is_compressed_cached_and_open_to_other_sites(bot: str) -> None:
    with client_of(bot) as client:
        response = client.get("/widget.js")
        assert response.headers["content-encoding"] == "gzip"
        assert response.headers["content-type"].startswith("text/javascript")
        assert response.headers["cross-origin-resource-policy"] == "cross-origin"
        assert client.get("/widget.js", headers={"if-none-match": response.headers["etag"]}).status_code == 304
        plain = client.get("/widget.js", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == response.content
        assert client.get("/static/languages/de.json").headers["access-control-allow-origin"] == "*"
        assert client.get("/logo").content == LOGO


def test_no_module_takes_the_name_that_another_declares() -> None:
    names: dict[str, str] = {}
    for module in MODULES:
        text = (static_folder() / "widget" / f"{module}.js").read_text(encoding="utf-8")
        for name in re.findall(r"^(?:export )?(?:async )?(?:function\*?|class|const|let) (\w+)", text, re.MULTILINE):
            assert name not in names, f"{name} is in {names[name]} and {module}"
            names[name] = module
    assert {path.stem for path in (static_folder() / "widget").glob("*.js")} == set(MODULES)


def test_a_logo_that_is_no_picture_missing_or_too_heavy_is_told(tmp_path: Path) -> None:
    (tmp_path / "big.png").write_bytes(b"0" * 300_000)
    for name, told in {
        "logo.exe": "none of .svg",
        "none.png": "cannot be read: No such",
        "big.png": "at most 256",
    }.items():
        with pytest.raises(ByheartError, match=rf"chat\.logo: .*{re.escape(told)}"):
            read_logo(tmp_path / name)
