"""Markdown's inline marks taken off: the words that a reader sees."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markdown_it.token import Token

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])

# Only these count as HTML; anything else in angle brackets (<your-domain>) is a placeholder that the reader sees.
HTML_TAGS = frozenset(
    "a abbr address area article aside audio b base bdi bdo big blockquote body br button canvas caption center cite "
    "code col colgroup dd del details dfn dialog div dl dt em embed fieldset figcaption figure font footer form h1 h2 "
    "h3 h4 h5 h6 head header hgroup hr html i iframe img input ins kbd label legend li link main map mark meta nav "
    "noscript object ol optgroup option output p param picture pre progress q s samp script section select small "
    "source span strike strong style sub summary sup svg table tbody td template textarea tfoot th thead time title "
    "tr track tt u ul var video wbr".split()
)

_MARKS = re.compile(r"[\\`*_\[\]<&!~]")
_LEFTOVER_MARKS = re.compile(r"\*\*|__|~~|\s*\]\([^()\s]*\)")
_TAG_NAME = re.compile(r"</?\s*([A-Za-z][\w-]*)")


def plain_text(markdown: str) -> str:
    """Return inline Markdown as plain text on one line."""
    if not _MARKS.search(markdown):
        return " ".join(markdown.split())
    inline = PARSER.parseInline(markdown)[0]
    text = "".join(_token_text(token) for token in inline.children or [])
    return " ".join(text.split())


def without_leftover_marks(text: str) -> str:
    """Drop the marks that are left where a sentence was cut out of the middle of bold text or a link."""
    return " ".join(_LEFTOVER_MARKS.sub("", text).split())


def _token_text(token: Token) -> str:
    if token.type in {"text", "text_special", "code_inline"}:
        return token.content
    if token.type in {"softbreak", "hardbreak"}:
        return " "
    if token.type == "image":
        return "".join(_token_text(child) for child in token.children or [])
    if token.type == "html_inline":
        name = _TAG_NAME.match(token.content)
        if name and name[1].lower() not in HTML_TAGS:
            return token.content
        return " " if name and name[1].lower() == "br" else ""
    return ""
