from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence

import pytest
from rich.console import Console

from byheart.answer.base import Answer, Turn
from byheart.cli_chat import answer_json, chat, show_answer
from byheart.errors import ModelError
from byheart.records import Citation
from serving import ANSWER, ANSWER_FIELDS, QUESTION, Bot


def console(width: int = 80, *, terminal: bool = False) -> Console:
    return Console(
        file=io.StringIO(), width=width, force_terminal=terminal, color_system="standard" if terminal else None
    )


def text_of(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


def typed(*lines: str | type[BaseException]) -> Callable[[str], str]:
    rest = list(lines)

    def read(_prompt: str) -> str:
        line = rest.pop(0) if rest else EOFError
        if isinstance(line, str):
            return line
        raise line

    return read


def talk(bot: Bot, *lines: str | type[BaseException], width: int = 80) -> str:
    target = console(width)
    chat(bot, target, title="Example Help", read=typed(*lines))
    return text_of(target)


def test_a_chat_shows_answers_with_their_sources_and_remembers_the_turns() -> None:
    bot = Bot()
    shown = talk(bot, QUESTION, "", "short", "/quit", "never asked")
    assert "Drag the card, or press M." in shown
    assert "1. Cards › Move a card" in shown
    assert "cards/move.md#move-a-card" in shown
    assert [question for question, _ in bot.asked] == [QUESTION, "short"]
    assert bot.asked[1][1] == (Turn("user", QUESTION), Turn("assistant", ANSWER.text))


def test_the_commands_do_what_the_help_says() -> None:
    bot = Bot()
    shown = talk(bot, "/sources", "/help", "/nonsense", QUESTION, "/sources", "/reset", "short", "/board menu?")
    assert "There is no answer yet." in shown
    assert shown.count("/reset    forget the conversation") == 2
    assert "There is no /nonsense." in shown
    assert "Confidence 90%" in shown
    assert "0.91" in shown
    assert bot.asked[1] == ("short", ())
    assert bot.asked[2][0] == "/board menu?"


def test_an_answer_that_abstains_is_marked() -> None:
    shown = talk(Bot(), "unknown")
    assert "Not sure" in shown
    assert "Nearest pages" in shown
    assert "is First steps." in shown


def test_ctrl_c_at_the_prompt_leaves_and_in_an_answer_only_stops_it() -> None:
    class Interrupted(Bot):
        def answer(self, question: str, history: Sequence[Turn] = ()) -> Answer:
            if question == "long":
                raise KeyboardInterrupt
            if question == "broken":
                raise ModelError("the adapter is gone: run byheart train")
            return super().answer(question, history)

    bot = Interrupted()
    shown = talk(bot, "long", "broken", "short", KeyboardInterrupt, "never asked")
    assert "Stopped." in shown
    assert "the adapter is gone: run byheart train" in shown
    assert bot.asked == [("short", ())]


@pytest.mark.parametrize("width", [40, 80])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    url = "https://help.example.com/a-very-long-path/that-goes-on/and-on/move.html#move-a-card"
    answer = Answer(
        ANSWER.text + "\n\n| Role | May edit | May comment |\n|---|---|---|\n| Viewer | no | yes |",
        (Citation("Cards", "Cards › A heading of some length › Move a card", url, 0.9, "s"),),
        0.9,
        False,
    )
    target = console(width)
    show_answer(target, answer)
    lines = text_of(target).splitlines()
    assert max(len(line) for line in lines) <= width
    assert url in "".join(line.strip() for line in lines)


def test_addresses_are_links_on_a_terminal_and_plain_elsewhere() -> None:
    terminal, pipe = console(terminal=True), console()
    show_answer(terminal, ANSWER)
    show_answer(pipe, ANSWER)
    assert ";https://help.example.com/boards\x1b\\" in text_of(terminal)
    assert "\x1b" not in text_of(pipe)


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    target = console(terminal=True)
    show_answer(target, Answer("The manual does not say.", (), 0.1, True))
    assert "\x1b[1m" in text_of(target)
    assert "33m" not in text_of(target)


def test_a_manual_cannot_steer_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e [bold]x[/bold]"
    target = console(terminal=True)
    show_answer(target, Answer(f"Text {evil}", (Citation(evil, evil, f"a.md{evil}", 0.5, "s"),), 0.9, False))
    shown = text_of(target)
    assert not any(character in shown for character in ("\x07", "\x9b", "\u202e", "\x1b]0", "\x1b[2J"))
    assert "[bold]x[/bold]" in shown


def test_lines_appear_one_by_one_on_a_terminal_only() -> None:
    pauses: list[float] = []
    show_answer(console(terminal=True), ANSWER, pause=pauses.append)
    assert len(pauses) >= 3
    count = len(pauses)
    show_answer(console(), ANSWER, pause=pauses.append)
    assert len(pauses) == count


def test_json_output_has_the_fields_of_the_api() -> None:
    value = json.loads(answer_json(QUESTION, ANSWER))
    assert list(value) == ANSWER_FIELDS
    assert set(value["citations"][0]) == {"title", "heading", "url", "score"}
