"""The chat in the terminal, and how an answer looks there."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from rich.console import Console
from rich.markdown import Markdown
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from byheart.answer.base import Answer, Answerer, Turn
from byheart.errors import ByheartError
from byheart.records import Citation
from byheart.serve.engine import describe

_LINE_PAUSE_S = 0.015  # between the lines of an answer, in a terminal: quick, yet the eye can follow
_HELP = """\
/sources  where the last answer comes from
/reset    forget the conversation
/help     this list
/quit     leave (or Ctrl-D)"""

# Escape sequences and marks that turn the direction of writing: a manual's text must not steer the terminal.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# A link to another page of the manual leads nowhere from a terminal: only its text is shown.
_RELATIVE_LINK = re.compile(r"(?<!!)\[([^\]\n]*)\]\((?!https?://)[^)\n]*\)")


def chat(
    answerer: Answerer,
    console: Console,
    *,
    title: str,
    read: Callable[[str], str] = input,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Answer what is typed until /quit, Ctrl-D, or Ctrl-C at the prompt."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # Windows has none; the chat works without
            importlib.import_module("readline")  # from now on input() has line editing and a history
    console.print(Text(clean(title), style="bold"))
    console.print("Ask in your own words. /help shows the commands.", style="dim")
    history: list[Turn] = []
    last: Answer | None = None
    while (line := _read_line(console, read)) is not None:
        command = line if line.startswith("/") and " " not in line else ""
        if not line:
            continue
        if command in {"/quit", "/exit"}:
            break
        if command == "/reset":
            history, last = [], None
            console.print("The conversation is forgotten.", style="dim")
        elif command == "/sources":
            _show_sources_of(console, last)
        elif command:
            console.print(
                _HELP if command == "/help" else f"There is no {command}.\n{_HELP}", style="dim", markup=False
            )
        elif (answer := _answer(answerer, console, line, history, pause)) is not None:
            last = answer
            history += [Turn("user", line), Turn("assistant", answer.text)]


def show_answer(console: Console, answer: Answer, *, pause: Callable[[float], None] | None = None) -> None:
    """Print an answer with its sources. With `pause`, its lines appear one after the other on a terminal."""
    console.print()
    if answer.abstained:
        console.print(Text("Not sure", style="bold yellow"))
    body = Markdown(_RELATIVE_LINK.sub(r"\1", clean(answer.text)))
    for line in console.render_lines(body, pad=False):
        console.print(_Line(line), end="")
        if pause is not None and console.is_terminal:
            pause(_LINE_PAUSE_S)
    if answer.citations:
        console.print()
        console.print(Text("Nearest pages" if answer.abstained else "Sources", style="dim"))
        for number, citation in enumerate(answer.citations, 1):
            _show_citation(console, number, citation)
    console.print()


def answer_json(question: str, answer: Answer) -> str:
    """Return an answer as JSON: the fields of the API's `byheart` object, and the texts."""
    return json.dumps(
        {"question": question, "answer": answer.text, **describe(answer, question)}, ensure_ascii=False, indent=2
    )


def clean(text: str) -> str:
    """Return the text without characters that steer a terminal."""
    return _CONTROLS.sub("", text)


class _Line:
    """A rendered line, as something that can be printed."""

    def __init__(self, segments: list[Segment]) -> None:
        self._segments = segments

    def __rich_console__(self, _console: Console, _options: object) -> list[Segment]:
        return [*self._segments, Segment.line()]


def _read_line(console: Console, read: Callable[[str], str]) -> str | None:
    try:
        return clean(read("You › ")).strip()
    except (EOFError, KeyboardInterrupt):
        console.print()
        return None


def _answer(
    answerer: Answerer, console: Console, question: str, history: list[Turn], pause: Callable[[float], None]
) -> Answer | None:
    try:
        with console.status("Looking it up …"):
            answer = answerer.answer(question, tuple(history))
        show_answer(console, answer, pause=pause)
    except KeyboardInterrupt:
        console.print("\nStopped.", style="dim")
        return None
    except ByheartError as fault:
        console.print(Text(clean(str(fault)), style="red"))
        return None
    return answer


def _show_sources_of(console: Console, answer: Answer | None) -> None:
    if answer is None:
        console.print("There is no answer yet.", style="dim")
        return
    console.print(f"Confidence {answer.confidence:.0%}" + (" (not sure)" if answer.abstained else ""), style="dim")
    for number, citation in enumerate(answer.citations, 1):
        _show_citation(console, number, citation, score=True)


def _show_citation(console: Console, number: int, citation: Citation, *, score: bool = False) -> None:
    """Print the section and its address: a link where the terminal knows links, and readable where it does not."""
    parts = [part for part in clean(citation.heading).split(" › ") if part]
    path = parts if parts[:1] == [clean(citation.title)] else [clean(citation.title), *parts]
    url = clean(citation.url)
    link = Style(link=url) if urlsplit(url).scheme in {"http", "https"} else Style()
    line = Text(f"{number}. ", style="dim")
    line.append(" › ".join(path), style=link)
    if score:
        line.append(f"  {citation.score:.2f}", style="dim")
    console.print(line, overflow="fold")
    console.print(Text(f"   {url}", style=Style(dim=True) + link), overflow="fold", highlight=False)
