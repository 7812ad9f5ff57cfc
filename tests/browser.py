"""A Chromium to try the chat in, driven by Playwright; and what keeps its pages from the rest of the network."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

FLAGS = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"


def find_browser() -> str:
    """Return a Chromium, or skip the test. Automatic checks set CI and must have one."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on this machine, and CI is set: the chat page must not go unchecked")
        pytest.skip("NOT CHECKED: no Chromium on this machine. Install the package chromium to test the chat page.")
    return browser


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Yield a browser without a proxy, so that it reaches this machine alone."""
    executable = find_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=[*FLAGS.split(), "--no-proxy-server"], chromium_sandbox=False
        )
        try:
            yield browser
        finally:
            browser.close()


class Chat:
    """The chat in a page, as a person finds it. Playwright's locators look into the shadow root."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.question = self.find(".bottom textarea")
        self.send = self.find(".send")

    def find(self, selector: str) -> Locator:
        """Return what the selector finds in the chat."""
        return self.page.locator("byheart-chat").locator(selector)

    def ask(self, question: str) -> None:
        """Ask, and wait for the answer's end, whichever it is."""
        count = self.find(".turn.bot .actions").count()
        self.question.fill(question)
        self.question.press("Enter")
        self.find(".turn.bot .actions").nth(count).wait_for()
