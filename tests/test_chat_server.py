"""The chat in a browser with all of the server behind it: thumbs that are kept, and keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from browser import Chat, open_browser
from byheart.serve.conversations import wanting
from byheart.serve.database import Database
from byheart.serve.gate import GateRules
from byheart.serve.keys import add_key
from byheart.serve.widget import Look
from serving import QUESTION, Bot, make_app, running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database("", folder=tmp_path)
    opened.migrate()
    yield opened
    opened.close()


def test_a_thumb_with_its_reason_is_in_the_list_of_what_to_do_better(browser: Browser, database: Database) -> None:
    with running(make_app(Bot(), database=database)) as place, browser.new_page(base_url=place) as page:
        page.goto("/")
        chat = Chat(page)
        chat.ask(QUESTION)
        chat.find(".thumb.down").click()
        form = chat.find(".reasons")
        form.get_by_label("Something is missing").check(force=True)
        form.get_by_role("textbox").fill("And on a phone?")
        form.get_by_role("button", name="Send feedback").click()
        expect(chat.find(".actions .note")).to_have_text("Thank you for your feedback.")
        expect(chat.find(".thumb.down")).to_have_attribute("aria-pressed", "true")
    found = [(item.question, item.reason, item.comment) for item in wanting(database)]
    assert found == [(QUESTION, "incomplete", "And on a phone?")]


def test_with_a_key_for_pages_the_chat_just_works(browser: Browser, database: Database) -> None:
    _, text = add_key(database, name="Website", scopes=["page"])
    rules = GateRules(keys_required=True)
    app = make_app(Bot(), database=database, rules=rules, look=Look(key=text))
    with running(app) as place, browser.new_page(base_url=place) as page:
        page.goto("/")
        chat = Chat(page)
        chat.ask(QUESTION)
        expect(chat.find(".turn.bot .text")).to_contain_text("Drag the card")
        chat.find(".thumb.up").click()
        expect(chat.find(".actions .note")).to_have_text("Thank you for your feedback.")


def test_without_one_the_chat_asks_for_a_key_until_it_is_right_and_keeps_it_in_the_tab(
    browser: Browser, database: Database
) -> None:
    _, text = add_key(database, name="Anna", scopes=["chat"])
    app = make_app(Bot(), database=database, rules=GateRules(keys_required=True))
    with running(app) as place, browser.new_page(base_url=place) as page:
        page.goto("/")
        chat = Chat(page)
        chat.question.fill(QUESTION)
        chat.question.press("Enter")
        expect(chat.find(".problem")).to_contain_text("asks for a key")
        for shown in ("bh_0_wrong", text):
            chat.find(".key input").fill(shown)
            chat.find(".key button").click()
            expect(chat.find(".waiting")).to_have_count(0)
        expect(chat.find(".turn.bot .text")).to_contain_text("Drag the card")
        chat.find(".thumb.up").wait_for()  # the answer is whole
        page.reload()
        chat.ask("short")
        expect(chat.find(".turn.bot .text").nth(1)).to_have_text("One two, three.")
        assert text not in page.content()
