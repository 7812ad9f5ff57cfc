"""Receipts in the chat: which source bears out a sentence that a model wrote."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from browser import Chat, open_browser
from serving import Bot, make_app, running

# the text of an answer, with what its style shows after sentences
SHOWN = """(node) => {
  const marks = [...node.querySelectorAll(".cite")];
  for (const mark of marks) mark.append(`[${getComputedStyle(mark, "::before").content.slice(1, -1)}]`);
  const text = node.innerText.replace(/\\s*\\n\\s*/g, "\\n").replace(/\\t/g, " ");
  for (const mark of marks) mark.replaceChildren();
  return text;
}"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with running(make_app(Bot())) as address, open_browser() as browser:
        page = browser.new_context(base_url=address, locale="en").new_page()
        page.goto("/")
        yield page


def test_each_sentence_that_has_a_receipt_leads_to_its_source_in_the_list(page: Page) -> None:
    chat = Chat(page)
    for _ in ("as it came", "after a reload"):
        if chat.find(".text").count() == 0:
            chat.ask("cited")
        assert chat.find(".text").evaluate(SHOWN) == (
            "Drag the card.[1] Or press M.[2]\nPick a board: see https://help.example.com/boards.[2]\n"
            "What Moves[1]\nNotes yes[1]\nmv card\nCopy\nEt voil\u00e0!"
        )
        assert chat.find(".source .number").all_text_contents() == ["1", "2"]
        link = chat.find(".text").get_by_role("link", name="https://help.example.com/boards")
        assert link.get_attribute("href") == "https://help.example.com/boards"
        mark = chat.find(".text").get_by_role("link", name="Source 2: Boards").first
        mark.press("Enter")
        expect(chat.find("a.source").nth(1)).to_be_focused()
        assert "[" not in chat.find(".text").inner_text()  # what is read out, copied and found is the answer alone
        assert not chat.page.url.endswith("#2")
        chat.page.reload()
    chat.ask("code")
    assert chat.find(".turn").last.locator(".cite, .number").count() == 0


def test_a_text_cannot_give_itself_a_receipt(page: Page) -> None:
    marked = page.evaluate(
        """async ([text, sources]) => (await import("/static/widget/receipts.js")).markReceipts(text, sources)""",
        ["True. False.\ufdd01; Fal", {"citations": [{"url": "a"}], "receipts": [
            {"text": "True.", "url": "a"}, {"text": "True.", "url": "a"}, {"text": "False. More.", "url": "a"},
        ]}],
    )  # fmt: skip
    assert marked == "True.\ufdd01; False.1; Fal"
