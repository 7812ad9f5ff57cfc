"""Notes, tabs, cards and JSX blocks of the documentation generators, as plain Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable

_FENCE = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+)?(`{3,}|~{3,})(?P<info>.*)$")
_ATTRIBUTE_VALUE = r"(?:\"[^\"]*\"|'[^']*'|\{(?:[^{}]|\{[^{}]*\})*\})"
_JSX = rf"</?[A-Z][\w.]*(?:[^<>{{}}\"']|{_ATTRIBUTE_VALUE})*>"
_JSX_TAG = re.compile(_JSX)
_JSX_OPEN = re.compile(rf"^(?P<indent>[ \t]*)<(?P<name>[A-Z][\w.]*)(?P<props>(?:[^<>{{}}\"']|{_ATTRIBUTE_VALUE})*?)"
                       r"(?P<selfclosed>/)?>(?P<rest>.*)$")  # fmt: skip
_PROP_LABEL = re.compile(r"\b(?:title|label|header|summary|tab|heading)=\{?[\"'`]([^\"'`]+)[\"'`]")
_PROP_TYPE = re.compile(r"\b(?:type|intent|variant|kind)=\{?[\"']([A-Za-z]+)[\"']")
_COLONS = re.compile(
    r"^(?P<indent>[ \t]*):{3,}[ \t]*\{?(?P<kind>[A-Za-z][\w-]*)\}?[ \t]*(?:\[(?P<boxed>[^\]]*)\]|(?P<title>[^{\n]*))"
    r"(?:\{[^}]*\})?[ \t]*$"
)
_COLONS_END = re.compile(r"^[ \t]*:{3,}[ \t]*$")
_BANG = re.compile(
    r"^(?P<indent>[ \t]*)(?:!!!|\?\?\?\+?)[ \t]+(?P<kind>[\w-]+)[^\"\n]*(?:\"(?P<title>[^\"]*)\")?[ \t]*$"
)
_EQUALS = re.compile(r"^(?P<indent>[ \t]*)===[!+]?[ \t]+\"(?P<title>[^\"]*)\"[ \t]*$")
_GITHUB_NOTE = re.compile(r"^(?P<quote>[ \t]*>[ \t]*)\[!(?P<kind>\w+)\][-+]?[ \t]*(?P<title>.*)$")
_LIQUID = re.compile(r"^(?P<indent>[ \t]*)\{%-?[ \t]*(?P<kind>[\w-]+)(?P<props>[^%]*)-?%\}[ \t]*$")
_ZULIP_TAB = re.compile(r"^(?P<indent>[ \t]*)\{tab\|(?P<title>[\w-]+)\}[ \t]*$")
_DIRECTIVE = re.compile(
    r"^[ \t]*(?:\{(?:start|end)_tabs\}|\{![^}]*!\}|\[\[?toc\]?\]|\[TOC\]|<!-- ?toc ?-->)[ \t]*$", re.I
)
_MODULE_LINE = re.compile(
    r"^(?:import\s+(?:[\w{}*,\s$]+\s+from\s+)?[\"'][^\"']+[\"'];?|export\s+(?:const|default|let)\s.*)[ \t]*$"
)
_JSX_END = re.compile(r"^[ \t]*(?:</[A-Z][\w.]*>|</?>)[ \t]*$")
_CARD = re.compile(r"^[ \t]*\[[ \t]*$")  # a link around a heading and a line or two about the page that it leads to
_CARD_LINES = 20  # at most
_CARD_END = re.compile(r"^[ \t]*\](?P<target>\([^()\s]+\))[ \t]*$")
_CARD_TEXT = re.compile(r"^(?P<mark>[ \t>]*(?:[-*+][ \t]+|\d+[.)][ \t]+)?)(?P<text>[^\s#\[](?!.*\]\().*)$")
_DEFINITION = re.compile(r"^(?P<term>[^\s#>|:*+\-\d`~<{\[].{0,79})\n+:[ \t]+(?=\S)", re.MULTILINE)

_NOTES = {
    "note": "Note", "info": "Info", "tip": "Tip", "hint": "Tip", "success": "Success", "check": "Tip",
    "important": "Important", "warning": "Warning", "warn": "Warning", "caution": "Caution", "danger": "Danger",
    "error": "Danger", "example": "Example", "question": "Question", "abstract": "Summary", "summary": "Summary",
    "seealso": "See also", "quote": "Quote", "bug": "Bug", "failure": "Failure", "attention": "Warning",
}  # fmt: skip
_JSX_NOTES = {"callout", "admonition", "aside", "alert", "hint"}
_COMMENT_OR_CODE = re.compile(
    r"(?P<fence>^[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+)?(?P<ticks>`{3,}|~{3,})[^\n]*\n.*?"
    r"(?:^[ \t>]*(?P=ticks)[`~]*[ \t]*$|\Z))"
    r"|(?P<code>(?<!`)(?P<tick>`+)(?!`)(?:(?!\n[ \t]*\n).)+?(?<!`)(?P=tick)(?!`))"
    r"|\{/\*[ \t]*(?P<anchor>#[\w-]+)[ \t]*\*/\}|<!--.*?-->|\{/\*.*?\*/\}",
    re.DOTALL | re.MULTILINE,
)


def unwrap_containers(text: str) -> str:
    """Return the text without comments, imports and containers; notes become quotes, tabs labelled paragraphs."""
    text = _COMMENT_OR_CODE.sub(_without_comment, text)
    text = _DEFINITION.sub(r"**\g<term>:** ", text)
    return "\n".join(_unwrap(_one_line_tags(text).split("\n")))


def _without_comment(match: re.Match[str]) -> str:
    if match["fence"] or match["code"]:
        return match[0]
    return f"{{{match['anchor']}}}" if match["anchor"] else ""


def _one_line_tags(text: str) -> str:
    """Put JSX tags that go over several lines on one."""
    return _JSX_TAG.sub(lambda tag: " ".join(tag[0].split("\n")) if "\n" in tag[0] else tag[0], text)


def _unwrap(lines: list[str]) -> list[str]:
    output: list[str] = []
    position = 0
    fence = ""
    while position < len(lines):
        line = lines[position]
        fence_mark = _FENCE.match(line)
        if fence:
            if fence_mark and fence_mark[1].startswith(fence) and not fence_mark["info"].strip():
                fence = ""
        elif fence_mark and "`" not in fence_mark["info"]:
            fence = fence_mark[1]
        else:
            taken = _container_at(lines, position)
            if taken is not None:
                replacement, position = taken
                output += replacement
                continue
        output.append(line)
        position += 1
    return output


def _container_at(lines: list[str], position: int) -> tuple[list[str], int] | None:
    """Return what stands for the container that opens at this line, and the line after it; None where none opens."""
    line = lines[position]
    if any(pattern.match(line) for pattern in (_DIRECTIVE, _MODULE_LINE, _COLONS_END, _JSX_END)):
        return [], position + 1
    for pattern, take in _CONTAINERS:
        if opened := pattern.match(line):
            return take(lines, position, opened)
    return None


def _github_note_at(_lines: list[str], position: int, opened: re.Match[str]) -> tuple[list[str], int]:
    label = opened["title"].strip() or _NOTES.get(opened["kind"].lower(), opened["kind"].capitalize())
    return [f"{opened['quote']}**{label}:**"], position + 1


def _zulip_tab_at(_lines: list[str], position: int, opened: re.Match[str]) -> tuple[list[str], int]:
    return [f"{opened['indent']}**{_words(opened['title'])}:**", ""], position + 1


def _colons_at(lines: list[str], position: int, opened: re.Match[str]) -> tuple[list[str], int]:
    end = _closing(lines, position, lambda text: bool(_COLONS.match(text)), lambda text: bool(_COLONS_END.match(text)))
    label = opened["boxed"] or opened["title"] or ""
    return _contained(opened["kind"], label, lines[position + 1 : end], opened["indent"]), min(end + 1, len(lines))


def _indented_at(lines: list[str], position: int, opened: re.Match[str]) -> tuple[list[str], int]:
    end = _indented_end(lines, position, opened["indent"])
    kind = opened.groupdict().get("kind") or ""
    return _contained(kind, opened["title"] or "", lines[position + 1 : end], opened["indent"]), end


def _liquid_at(lines: list[str], position: int, opened: re.Match[str]) -> tuple[list[str], int]:
    kind = opened["kind"]
    label = _PROP_LABEL.search(opened["props"])
    if kind not in {"hint", "tab", "step", "callout", "note", "tip", "warning"} or kind.startswith("end"):
        return ([f"{opened['indent']}**{label[1]}:**", ""] if label else []), position + 1
    end = _closing(
        lines,
        position,
        lambda text: bool((mark := _LIQUID.match(text)) and mark["kind"] == kind),
        lambda text: bool((mark := _LIQUID.match(text)) and mark["kind"] == f"end{kind}"),
    )
    style = re.search(r"style=\"(\w+)\"", opened["props"])
    note = style[1] if style else ("" if kind in {"tab", "step"} else kind)
    body = lines[position + 1 : end]
    return _contained(note, label[1] if label else "", body, opened["indent"]), min(end + 1, len(lines))


def _jsx_at(lines: list[str], position: int, opened: re.Match[str]) -> tuple[list[str], int]:
    name, indent = opened["name"], opened["indent"]
    label = _PROP_LABEL.search(opened["props"])
    title = label[1] if label else ""
    body, tail, after = _jsx_body(lines, position, opened)
    if opened["selfclosed"]:
        return [*([f"{indent}**{title}**", ""] if title else []), *tail], after
    kind = name.lower()
    if kind in _JSX_NOTES:
        type_given = _PROP_TYPE.search(opened["props"])
        kind = type_given[1].lower() if type_given and type_given[1].lower() in _NOTES else "note"
    return [*_contained(kind, title, body, indent), *tail], after


def _jsx_body(lines: list[str], position: int, opened: re.Match[str]) -> tuple[list[str], list[str], int]:
    """Return a JSX element's lines, what follows it on its last line, and the line after."""
    rest, closing = opened["rest"].strip(), f"</{opened['name']}>"
    if opened["selfclosed"] or closing in rest:
        inside, _, tail = ("", "", rest) if opened["selfclosed"] else rest.partition(closing)
        return [inside.strip()], [opened["indent"] + tail.strip()] if tail.strip() else [], position + 1
    opening = re.compile(rf"^[ \t]*<{re.escape(opened['name'])}\b(?!.*(?:/>|{re.escape(closing)}))")
    end = _closing(lines, position, lambda text: bool(opening.match(text)), lambda text: closing in text)
    body = [rest] if rest else []
    body += lines[position + 1 : end]
    if end < len(lines) and (last := lines[end].partition(closing)[0].strip()):
        body.append(last)
    return body, [], min(end + 1, len(lines))


def _card_at(lines: list[str], position: int, _opened: re.Match[str]) -> tuple[list[str], int]:
    """Put the link on each line of text instead of around them all, which Markdown does not know."""
    near = lines[position + 1 : position + _CARD_LINES]  # brackets on lines of their own may be anything
    size = next((number for number, line in enumerate(near) if _CARD.match(line) or _CARD_END.match(line)), len(near))
    closing = _CARD_END.match(near[size]) if size < len(near) else None
    if closing is None:
        return [lines[position]], position + 1

    def linked(line: re.Match[str]) -> str:
        return f"{line['mark']}[{line['text']}]{closing['target']}"

    return ["", *(_CARD_TEXT.sub(linked, line) for line in near[:size]), ""], position + size + 2


def _contained(kind: str, title: str, body: list[str], indent: str) -> list[str]:
    """Return a container's text with its label: a note as a quote, anything else as labelled text."""
    title = title.strip().strip("\"'").strip()
    inside = _unwrap(textwrap.dedent("\n".join(body)).strip("\n").split("\n"))
    note = _NOTES.get(kind.lower())
    label = title if not note or title.lower().startswith(note.lower()) or not title else f"{note}: {title}"
    label = label or note or ""
    has_heading = any(re.match(r"[ \t]*#{1,6}[ \t]", line) for line in inside)
    text = _labelled(label, inside, join=bool(note))
    if note and not has_heading:  # a heading inside a quote would cut the quote in two
        text = [f"> {line}".rstrip() for line in text]
    return ["", *(indent + line if line else "" for line in text), ""]


def _labelled(label: str, body: list[str], *, join: bool) -> list[str]:
    while body and not body[0].strip():
        body = body[1:]
    if not label:
        return body
    starts_with_prose = bool(body) and not re.match(
        r"[ \t]*(?:[-*+][ \t]|\d+[.)][ \t]|#|>|\||`{3}|~{3}|<|:::)", body[0]
    )
    marked = f"**{label.rstrip(':')}:**"
    if join and starts_with_prose:
        return [f"{marked} {body[0].strip()}", *body[1:]]
    return [marked, "", *body]


def _closing(lines: list[str], position: int, opens: Callable[[str], bool], closes: Callable[[str], bool]) -> int:
    """Return the line that closes the container opened at `position`, or the number of lines where none does."""
    depth = 0
    for number in range(position + 1, len(lines)):
        if closes(lines[number]):
            if depth == 0:
                return number
            depth -= 1
        elif opens(lines[number]):
            depth += 1
    return len(lines)


def _indented_end(lines: list[str], position: int, indent: str) -> int:
    """Return the line after the block that is indented below `position`."""
    end = position + 1
    for number in range(position + 1, len(lines)):
        line = lines[number]
        if line.strip():
            if len(line) - len(line.lstrip(" ")) < len(indent) + 2 and not line.startswith("\t"):
                break
            end = number + 1
    return end


def _words(slug: str) -> str:
    words = slug.replace("-", " ").replace("_", " ")
    return words[:1].upper() + words[1:]


_CONTAINERS = (
    (_GITHUB_NOTE, _github_note_at),
    (_ZULIP_TAB, _zulip_tab_at),
    (_CARD, _card_at),
    (_COLONS, _colons_at),
    (_BANG, _indented_at),
    (_EQUALS, _indented_at),
    (_LIQUID, _liquid_at),
    (_JSX_OPEN, _jsx_at),
)
