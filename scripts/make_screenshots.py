"""Write the pictures of docs/: the chat page and the widget in the states that customers see, with made-up answers.

    .venv/bin/python scripts/make_screenshots.py [folder]

It needs a Chromium (see tests/browser.py) and no model. Look at the pictures after a change of the chat's styles.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from PIL import Image  # noqa: E402
from playwright.sync_api import Browser  # noqa: E402

from browser import Chat, open_browser  # noqa: E402
from byheart.answer.base import Answer, Receipt  # noqa: E402
from byheart.answer.receipts import sentences_of  # noqa: E402
from byheart.records import Citation  # noqa: E402
from byheart.serve.api import create_app  # noqa: E402
from byheart.serve.engine import FakeAnswerer  # noqa: E402
from byheart.serve.widget import Look  # noqa: E402
from serving import running  # noqa: E402

LONG = """To move a board to another workspace you need the **Editor** role in both.

1. Open the board and choose **⋯ → Move to…** in its top bar.
2. Pick the workspace, then a folder:
   - *Shared* folders are seen by every member;
   - *Private* folders by you alone.
3. Confirm with **Move**. Links to the board stay valid.

| What | Moves along | Note |
|---|---|---|
| Comments | yes | with their authors |
| Guests | no | invite them again |
| Version history | yes | up to 90 days on the Team plan |

> **Note**
> A board that belongs to a template cannot be moved; copy it instead.

The same by the API:

```sh
curl -X PATCH https://api.inkwell.example/v1/boards/BOARD_ID \\
  -d '{"workspace": "WORKSPACE_ID"}'
```

More on roles: [Roles and rights](people/roles.md).
"""
ARABIC = "اسحب البطاقة إلى العمود الجديد، أو حدّدها واضغط **M**.\n\n1. حدّد البطاقة.\n2. اختر *نقل إلى*."
ANSWERS = {
    "How do I move a board to another workspace?": Answer(
        LONG,
        (
            Citation("Boards", "Boards › Move a board to another workspace", "boards.md#move", 0.9, ""),
            Citation("Roles and rights", "Roles and rights › What each role may do", "people/roles.md#may", 0.6, ""),
        ),
        0.93,
        False,
    ),
    "Can I invite someone without an account?": Answer(
        "Yes. Share the board with a **guest link**: guests join with a name, and need no account.\n\n"
        "Guests can draw and comment; they cannot export or invite others.",
        (
            Citation("Guests and visitors", "Guests and visitors › Invite a guest", "people/guests.md#invite", 0.9, ""),
            Citation("Roles and rights", "Roles and rights › What each role may do", "people/roles.md#may", 0.6, ""),
        ),
        0.9,
        False,
        receipts=(
            Receipt(
                "Share the board with a **guest link**: guests join with a name, and need no account.",
                "people/guests.md#invite",
                "",
            ),
            Receipt("Guests can draw and comment; they cannot export or invite others.", "people/roles.md#may", ""),
        ),
    ),
    "Do you have a parental control mode?": Answer(
        "I did not find this in the manual. These pages come nearest.",
        (
            Citation("Roles and rights", "Roles and rights › What each role may do", "people/roles.md#may", 0.3, ""),
            Citation("Security", "Security › Restrict sign-in", "admin/security.md#restrict", 0.2, ""),
        ),
        0.2,
        True,
    ),
    "كيف أنقل بطاقة؟": Answer(
        ARABIC,
        (Citation("البطاقات", "البطاقات › نقل بطاقة", "cards.md#move", 0.9, ""),),
        0.9,
        False,
        receipts=tuple(Receipt(text, "cards.md#move", "") for text in sentences_of(ARABIC)),
    ),
}
LOOK = Look(accent="#4f46e5", contact="help@inkwell.example")
SUGGESTIONS = ("Share a board with guests", "Export a board as PDF", "Set up single sign-on", "Restore an old version")
HOST_PAGE = """<!doctype html><html lang="{language}"><meta name="viewport" content="width=device-width">
<title>Help</title><style>body{{font:16px/1.7 Georgia,serif;max-width:640px;margin:48px 64px;color:#333}}
@media (prefers-color-scheme:dark){{body{{background:#111;color:#ccc}}}}</style>
<h1>Getting started</h1><p>A board is an endless sheet that your team shares. Put notes on it, draw, vote, and
come back to it later. Everyone sees what everyone does, while they do it.</p><h2>Your first board</h2>
<p>Choose <b>New board</b> on the start page, and give it a name. Press <b>N</b> for a sticky note.</p>
<h2>Invite your team</h2><p>Choose <b>Share</b> in the top bar. Guests need no account.</p>
<script src="/widget.js"{attributes}></script></html>"""


class Bot(FakeAnswerer):
    """Fails where it is told to."""

    def answer(self, question: str, history: object = ()) -> Answer:
        """Return the table's answer."""
        if "outage" in question:
            raise RuntimeError("on purpose")
        return super().answer(question)


def main(folder: Path) -> None:
    """Take every picture."""
    app = create_app(Bot(ANSWERS), model_name="demo", title="Inkwell Board", suggestions=SUGGESTIONS, look=LOOK)
    folder.mkdir(parents=True, exist_ok=True)
    with running(app) as address, open_browser() as browser:
        for name, options in SHOTS.items():
            take(browser, address, folder / f"{name}.png", **options)


def take(
    browser: Browser,
    address: str,
    target: Path,
    *,
    ask: tuple[str, ...] = (),
    size: tuple[int, int] = (1200, 820),
    dark: bool = False,
    host: str = "",
    language: str = "en",
    attributes: str = "",
    then: str = "",
) -> None:
    """Take one picture. `host` puts the widget into a help page; `then` clicks a button by its name."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        locale=language,
        has_touch=size[0] < 480,
        device_scale_factor=1,
    )
    page = context.new_page()
    page.route("**/v1/feedback", lambda route: route.fulfill(json={}))
    if host:
        text = HOST_PAGE.format(language=language, attributes=attributes)
        page.route("**/host", lambda route: route.fulfill(body=text, content_type="text/html"))
        page.goto(f"{address}/host")
        page.locator("byheart-chat .launcher").click()
    else:
        page.goto(address)
    for question in ask:
        Chat(page).ask(question)
    if then:
        page.get_by_role("button", name=then).last.click()
    page.mouse.move(5, 5)
    page.wait_for_timeout(400)
    with Image.open(BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").quantize(160).save(target, optimize=True)
    context.close()


MOVE, GUEST, UNSURE, ARABIC_QUESTION = ANSWERS
PHONE = (390, 760)
SHOTS: dict[str, dict[str, object]] = {
    "chat-welcome": {},
    "chat-answer": {"ask": (GUEST, MOVE), "size": (1200, 1100)},
    "chat-dark": {"ask": (MOVE,), "dark": True, "size": (1200, 1100)},
    "chat-unsure": {"ask": (UNSURE,)},
    "chat-error": {"ask": (GUEST, "Is there an outage?")},
    "widget-answer": {"host": "yes", "ask": (GUEST,), "attributes": ' data-accent="#0f766e" data-title="Ask Inkwell"'},
    "widget-unsure": {"host": "yes", "ask": (UNSURE,), "dark": True},
    "widget-feedback": {"host": "yes", "ask": (GUEST,), "then": "Not helpful"},
    "widget-rtl": {"host": "yes", "ask": (ARABIC_QUESTION,), "language": "ar", "attributes": ' data-accent="#facc15"'},
    "phone-answer": {"host": "yes", "size": PHONE, "ask": (MOVE,)},
}

if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures")
