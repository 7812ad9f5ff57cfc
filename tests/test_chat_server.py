"""The chat in a browser with all of the server behind it: thumbs that are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from browser import Chat, open_browser
from byheart.serve.conversations import wanting
from byheart.serve.database import Database
from serving import QUESTION, Bot, make_app, running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


def test_a_thumb_with_its_reason_is_in_the_list_of_what_to_do_better(browser: Browser, tmp_path: Path) -> None:
    database = Database("", folder=tmp_path)
    database.migrate()
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
    found = Database("", folder=tmp_path)
    assert [(item.question, item.reason, item.comment) for item in wanting(found)] == [
        (QUESTION, "incomplete", "And on a phone?")
    ]
    found.close()
