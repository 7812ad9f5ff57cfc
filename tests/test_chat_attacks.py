"""Attacks in answers, citations, configuration and pages: nothing of them runs, nothing of them loads, in Chromium.

The policies that forbid scripts and other sites are switched off here: the chat must be safe without their help.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from attacks import SCRIPTS, SPIES
from browser import open_browser
from byheart.records import Document
from byheart.serve.pages import render_markdown
from byheart.serve.widget import Look
from serving import Bot, make_app, running

DRIVER = (Path(__file__).parent / "attack.js").read_text(encoding="utf-8")
ALARM = "for (const name of ['alert', 'confirm', 'prompt', 'print', 'open']) window[name] = () => (window.hacked = 1);"
PAGES = [
    Document(f"d{number}", f"{number}.md", text[:40], "en", text, "", "") for number, text in enumerate(SCRIPTS + SPIES)
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    app = make_app(Bot(), documents=PAGES, sections=[], look=Look(contact="help@example.com"))
    # one page of all attacks, as each was rendered: opening each in turn takes half a minute
    body = "".join(f"<main>{render_markdown(document.markdown, [])}</main>" for document in PAGES)

    async def show_all(_request: Request) -> Response:
        return HTMLResponse(f"<!doctype html><title>All</title>{body}")

    app.router.routes.insert(0, Route("/pages/all", show_all))
    with running(app) as address:
        yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page without a policy. It fails when anything but the bot's server is asked, or a dialog opens."""
    context = browser.new_context(base_url=address, bypass_csp=True, reduced_motion="reduce", locale="en")
    context.add_init_script(ALARM)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (asked.append("a dialog"), dialog.dismiss()))
    yield page
    assert page.evaluate("window.hacked ?? null") is None
    context.close()
    host = urlsplit(address).netloc
    assert {url for url in asked if urlsplit(url).netloc != host} == set()
    # what a picture, style or script of an attack would have asked this server for
    known = {"/", "/widget.js", "/logo", "/brand.css", "/v1/chat/completions"}
    paths = {urlsplit(url).path for url in asked}
    assert {path for path in paths - known if not path.startswith(("/static/", "/pages/"))} == set()


def test_there_are_as_many_attacks_as_we_say() -> None:
    assert len(set(SCRIPTS)) >= 300
    assert len(set(SPIES)) >= 50


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("attacks", [SCRIPTS, SPIES], ids=["scripts", "spies"])
def test_no_attack_in_a_streamed_answer_or_its_sources_runs_or_loads(page: Page, attacks: list[str], seed: int) -> None:
    page.goto("/")
    page.locator("byheart-chat .welcome").wait_for()
    report = page.evaluate(DRIVER, {"attacks": attacks, "seed": seed})
    assert report["faults"] == []
    assert report["hacked"] is None
    assert set(report["protocols"]) <= {"http:", "https:", "mailto:"}
    assert report["draws"] > 10 * len(attacks)  # every piece was drawn, not the whole at once
    page.wait_for_timeout(300)  # what was loaded late would be among the requests


def test_the_test_would_notice(page: Page) -> None:
    page.goto("/")
    page.locator("byheart-chat .welcome").wait_for()
    unsafe = """() => {
      const shadow = document.querySelector("byheart-chat").shadowRoot;
      const append = (text) => (shadow.querySelector(".messages").innerHTML = text);
      append("<img src=data:, onerror=window.hacked=1>");
      return new Promise((resolve) => setTimeout(() => resolve(window.hacked), 300));
    }"""
    assert page.evaluate(unsafe) == 1
    page.evaluate("delete window.hacked")
    report = page.evaluate(
        DRIVER.replace(
            "chat.submit(attack);",
            "chat.submit(attack);shadow.querySelector('article').append(document.createElement('img'));",
        ),
        {"attacks": ["x"], "seed": 1},
    )
    assert ["x", "<img>"] in report["faults"]


def test_no_attack_in_a_page_of_the_manual_runs_or_loads(page: Page) -> None:
    for document in PAGES[::60]:
        page.goto(f"/pages/{document.location}")
        assert check_manual(page) == [], document.markdown
    page.goto("/pages/all")
    assert page.locator("main").count() == len(PAGES)
    assert check_manual(page) == []
    page.wait_for_timeout(300)


def check_manual(page: Page) -> list[str]:
    """Return what is wrong: tags and attributes that run or load something, and links to anything but pages."""
    found: list[str] = page.evaluate("""() => [...document.querySelectorAll("main *")].flatMap((node) => [
      ..."script img iframe svg style link object embed video audio form input base meta".split(" ")
        .filter((name) => node.localName === name),
      ...node.getAttributeNames().filter((name) => name.startsWith("on") || /^(style|src|srcset|ping)$/.test(name)),
      ...(node.localName === "a" && !/^(https?|mailto):/.test(node.href) ? [node.href] : []),
    ])""")
    return found + (["a script ran"] if page.evaluate("window.hacked ?? null") else [])


@pytest.mark.parametrize(
    "attack",
    [
        SCRIPTS[0],
        SCRIPTS[240],
        '"><script>window.hacked=1</script>',
        "</script><script>window.hacked=1//",
        "\u2028;window.hacked=1//",
    ],
)
def test_no_attack_in_the_configuration_runs(browser: Browser, attack: str) -> None:
    look = Look(greeting=attack, contact=f"https://desk.example.com/{{transcript}}?{attack}", accent="#123")
    with running(make_app(Bot(), title=attack, suggestions=[attack], look=look)) as address:
        context = browser.new_context(base_url=address, bypass_csp=True, reduced_motion="reduce")
        context.add_init_script(ALARM)
        page = context.new_page()
        page.goto("/")
        heading = page.locator("byheart-chat .welcome h2")
        assert heading.text_content() == attack
        page.locator("byheart-chat .chips button").click()
        page.locator("byheart-chat .contact a").wait_for()
        assert page.evaluate("window.hacked ?? null") is None
        context.close()
