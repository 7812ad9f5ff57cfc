"""Inline HTML, JSX, images and reference links inside Markdown, as plain Markdown."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from markdown_it.common.utils import normalizeReference

from byheart.ingest.html import fragment_markdown
from byheart.ingest.plain import HTML_TAGS, PARSER

_CODE = r"(?P<code>(?<!`)(?P<tick>`+)(?!`)(?:(?!\n[ \t]*\n).)+?(?<!`)(?P=tick)(?!`))"
_HTML_BLOCK = re.compile(
    r"^[ \t]*<(?P<name>table|dl|ul|ol|pre|figure)\b[^>]*>.*?</(?P=name)>", re.DOTALL | re.MULTILINE | re.I
)
_DROPPED = re.compile(
    r"<(?P<name>script|style|svg|iframe|video|audio|noscript|template)\b[^>]*?(?:/>|>.*?</(?P=name)>)", re.DOTALL | re.I
)
_HEADING = re.compile(r"<h(?P<level>[1-6])\b(?P<props>[^>]*)>(?P<text>.*?)</h(?P=level)>", re.DOTALL | re.I)
_ID = re.compile(r"\bid=[\"']?([^\"'\s>]+)", re.I)
_TAG = re.compile(
    _CODE + r"|<code\b[^>]*>(?P<htmlcode>.*?)</code>"
    r"|(?P<escaped>\\<)"
    r"|<(?P<address>(?:https?|mailto|ftp):[^>\s]+|[\w.+-]+@[\w.-]+)>"
    r"|<a\b[^>]*?\bhref=[\"']?(?P<href>[^\"'\s>]+)[\"']?[^>]*>(?P<linked>.*?)</a>"
    r"|<img\b(?P<img>[^>]*)/?>"
    r"|<(?P<slash>/?)(?P<name>[A-Za-z][\w.-]*)(?P<props>(?:[^<>\"'{}]|\"[^\"]*\"|'[^']*'|\{[^{}]*\})*?)/?>",
    re.DOTALL | re.I,
)
_IMAGE = re.compile(
    _CODE + r"|!\[(?P<alt>[^\]]*)\](?:\((?:[^()\s]|\([^()]*\))*(?:\s+(?:\"[^\"]*\"|'[^']*'))?"
    r"[^()]*\)(?:\{[^}]*\})?|\[[^\]]*\])",
    re.DOTALL,
)
_EMPTY_LINK = re.compile(r"(?<!!)\[\s*\]\([^)]*\)")
_REFERENCE = re.compile(
    _CODE + r"|(?<![\]\\!])\[(?P<text>(?:[^\[\]`]|`[^`]*`)+)\](?:\[(?P<label>[^\[\]]*)\])?(?![(\[:])", re.DOTALL
)
_REFERENCE_DEFINITION = re.compile(r"^ {0,3}\[(?P<label>[^\]^][^\]]*)\]:[ \t]*\n?[ \t]*\S[^\n]*\n?", re.MULTILINE)
_HEADING_ATTRIBUTES = re.compile(
    r"^(?P<heading>[ \t>]*#{1,6}[ \t].*?)[ \t]*\{:?[ \t]*(?P<attributes>[#.][^}]*)\}[ \t]*#*[ \t]*$", re.MULTILINE
)
_ATTRIBUTE_LIST = re.compile(r"(?<=[)`*_])\{:[^}\n]*\}|^[ \t]*\{:[^}\n]*\}[ \t]*$", re.MULTILINE)
_JSX_SPACE = re.compile(r"\{(?:' '|\" \"|` `)\}")
_FILE_NAME = re.compile(r"^[\w-]+\.(?:png|jpe?g|gif|svg|webp)$", re.I)
_MARKS = {"b": "**", "strong": "**", "kbd": "**", "i": "*", "em": "*", "s": "~~", "del": "~~"}
_BLOCKS = frozenset("p div section center figure article header footer li tr summary figcaption blockquote".split())


def resolve_inline(text: str) -> str:
    """Return the text with its HTML, images and reference links resolved; code stays as it is."""
    env: dict[str, Any] = {}
    tokens = PARSER.parse(text, env)
    lines = text.split("\n")
    output: list[str] = []
    done = 0
    html_lines = {n for token in tokens if token.type == "html_block" and token.map for n in range(*token.map)}
    for token in tokens:
        if token.type not in {"fence", "code_block"} or token.map is None:
            continue
        first, end = token.map
        if token.type == "code_block" and first > 0 and first - 1 in html_lines and not lines[first - 1].strip():
            continue
        output.append(_resolve(lines[done:first], done, html_lines, env))
        output += lines[first:end]
        done = end
    output.append(_resolve(lines[done:], done, html_lines, env))
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(output))


def _resolve(lines: list[str], first: int, html_lines: set[int], env: dict[str, Any]) -> str:
    # Text inside <div> is indented for the eye; without its tags it would turn into code.
    flat = [line.lstrip() if first + n in html_lines else line for n, line in enumerate(lines)]
    text = "\n".join(flat)
    if "<" in text:
        text = _DROPPED.sub("", text)
        text = _HTML_BLOCK.sub(lambda block: f"\n{fragment_markdown(block[0])}\n", text)
        text = _HEADING.sub(_heading, text)
        text = _TAG.sub(_tag, text)
    text = _HEADING_ATTRIBUTES.sub(_heading_attributes, text)
    text = _ATTRIBUTE_LIST.sub("", text)
    text = _JSX_SPACE.sub(" ", text)
    if "![" in text:
        text = _EMPTY_LINK.sub("", _IMAGE.sub(_image, text))
    references = env.get("references") or {}
    if references:
        text = _REFERENCE_DEFINITION.sub(lambda m: "" if normalizeReference(m["label"]) in references else m[0], text)
        text = _REFERENCE.sub(lambda m: _reference(m, references), text)
    return text


def _heading(match: re.Match[str]) -> str:
    anchor = _ID.search(match["props"]) or _ID.search(match["text"])
    text = " ".join(_TAG.sub(_tag, match["text"]).split())
    return f"\n{'#' * int(match['level'])} {text}{f' {{#{anchor[1]}}}' if anchor else ''}\n"


def _tag(match: re.Match[str]) -> str:
    if match["code"] or match["escaped"] or match["address"]:
        return match[0]
    if match["htmlcode"] is not None:
        return _code_span(re.sub(r"</?[A-Za-z][^>]*>", "", match["htmlcode"]))
    if match["href"]:
        linked = " ".join(_TAG.sub(_tag, match["linked"]).split())
        return f"[{linked}]({match['href']})" if linked else ""
    if match["img"] is not None:
        alt = re.search(r"\balt=(?:\"([^\"]*)\"|'([^']*)')", match["img"])
        return _alt_text((alt[1] or alt[2] or "") if alt else "")
    return _other_tag(match)


def _other_tag(match: re.Match[str]) -> str:
    name = match["name"].lower()
    is_component = match["name"][0].isupper() and len(name) > 1
    if name not in HTML_TAGS:
        is_element = is_component or match["slash"] or "=" in match["props"]
        return "" if is_element else f"\\{match[0]}"  # a placeholder such as <your-domain> stays, as text
    if name in _BLOCKS:
        return "\n"
    return " " if name == "br" else _MARKS.get(name, "")


def _code_span(html: str) -> str:
    code = unescape(html).strip()
    if not code:
        return ""
    return f"`` {code} ``" if "`" in code else f"`{code}`"


def _heading_attributes(match: re.Match[str]) -> str:
    anchor = re.search(r"#([^\s}]+)", match["attributes"])
    return f"{match['heading'].rstrip('# ')}{f' {{#{anchor[1]}}}' if anchor else ''}"


def _image(match: re.Match[str]) -> str:
    return match[0] if match["code"] else _alt_text(match["alt"])


def _alt_text(alt: str) -> str:
    alt = " ".join(alt.split())
    return "" if _FILE_NAME.match(alt) or alt.lower() in {"image", "img", "screenshot", "logo", "icon"} else alt


def _reference(match: re.Match[str], references: dict[str, Any]) -> str:
    if match["code"]:
        return match[0]
    reference = references.get(normalizeReference(match["label"] or match["text"]))
    return f"[{match['text']}]({reference['href']})" if reference else match[0]
