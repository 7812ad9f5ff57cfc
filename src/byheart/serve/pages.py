"""The manual's own pages, rendered from what was ingested: a citation of a file opens here, at its heading."""

from __future__ import annotations

import html
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from byheart.records import Document, Section

_EXPLICIT_ANCHOR = re.compile(r"\s*\{\s*#[^\s{}]+\s*\}\s*$")
_UNSEEN = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(
    r"</?\s*(a|abbr|b|big|button|center|cite|details|div|em|figure|figcaption|font|i|iframe|img|ins|kbd|mark|p|picture"
    r"|script|small|source|span|strong|style|sub|summary|sup|svg|u|video)\b[^<>]*>",
    re.IGNORECASE,
)
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


class Manual:
    """The manual's pages by their path. Pages of a website have an address of their own and are not served again."""

    def __init__(self, documents: Iterable[Document], sections: Iterable[Section]) -> None:
        self._documents = {item.location: item for item in documents if not urlsplit(item.location).netloc}
        ids = {item.id for item in self._documents.values()}
        self._sections: dict[str, list[Section]] = {}
        for section in sections:
            if section.document_id in ids:
                self._sections.setdefault(section.document_id, []).append(section)

    def titles(self) -> dict[str, str]:
        """Return every page's title by its path, in the manual's order."""
        return {path: document.title for path, document in self._documents.items()}

    def page(self, path: str, *, site_title: str) -> str | None:
        """Return the page as HTML; None where the manual has no such page."""
        document = self._documents.get(path)
        if document is None:
            return None
        body = render_markdown(document.markdown, _anchors(self._sections.get(document.id, ())))
        if not re.match(r"\s*<h1\b", body):
            body = f"<h1>{html.escape(document.title)}</h1>\n{body}"
        return fill_template(
            "page.html",
            title=document.title,
            site=site_title,
            language=document.language or "en",
            root="../" * (path.count("/") + 1),
            body=_Trusted(body),
        )

    def contents(self, *, site_title: str) -> str:
        """Return the list of all pages as HTML."""
        rows = (
            f'<li><a href="{html.escape(quote(path))}">{html.escape(title)}</a></li>'
            for path, title in self.titles().items()
        )
        body = f"<h1>{html.escape(site_title)}</h1>\n<ul>{''.join(rows)}</ul>"
        return fill_template(
            "page.html", title="All pages", site=site_title, language="en", root="../", body=_Trusted(body)
        )


class _Trusted(str):
    """HTML that was made here, and goes into a template as it is."""


def fill_template(name: str, **values: str) -> str:
    """Return a page of static/ with its $names filled in; values are escaped."""
    template = string.Template(files("byheart.serve").joinpath("static", name).read_text(encoding="utf-8"))
    return template.substitute(
        {key: value if isinstance(value, _Trusted) else html.escape(value) for key, value in values.items()}
    )


def render_markdown(markdown: str, anchors: Sequence[str]) -> str:
    """Return Markdown as HTML that holds no markup but its own; the last headings get the anchors as their ids."""
    # HTML is parsed as the ingest does, so that both see the same headings; it is rendered as text
    parser = _Parser("commonmark").enable(["table", "strikethrough"])
    for name, rule in _RULES.items():
        parser.add_render_rule(name, rule)
    tokens = parser.parse(markdown)
    headings = [index for index, token in enumerate(tokens) if token.type == "heading_open"]
    used = list(anchors)[max(0, len(anchors) - len(headings)) :]
    for index, anchor in zip(headings[len(headings) - len(used) :], used, strict=True):
        if anchor:
            tokens[index].attrSet("id", anchor)
    for index in headings:
        _drop_explicit_anchor(tokens[index + 1])
    return str(parser.renderer.render(tokens, parser.options, {}))


def _anchors(sections: Iterable[Section]) -> list[str]:
    """Return the anchors of a document's sections in order: one for each heading, after one for text before them."""
    ordered = sorted(sections, key=lambda section: section.order)
    return [section.url.rpartition("#")[2] if "#" in section.url else "" for section in ordered]


def _drop_explicit_anchor(inline: Token) -> None:
    children = inline.children or []
    if children and children[-1].type == "text":
        children[-1].content = _EXPLICIT_ANCHOR.sub("", children[-1].content)


def _as_text(markup: str) -> str:
    """Return HTML of the manual as text: comments, scripts and known tags go, placeholders like <your-domain> stay."""
    text = _TAG.sub("", _UNSEEN.sub("", markup))
    return "<br>".join(html.escape(part) for part in _BREAK.split(text))


def _html_inline(_self: RendererHTML, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    return _as_text(tokens[index].content)


def _html_block(_self: RendererHTML, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    text = _as_text(tokens[index].content).strip()
    return f"<p>{text}</p>\n" if text else ""


def _image(_self: RendererHTML, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    """Show a picture's description: the pictures themselves are not ingested, and other sites are not asked."""
    text = tokens[index].content.strip()
    return f'<span class="picture">{html.escape(text)}</span>' if text else ""


def _table_open(_self: RendererHTML, _tokens: Sequence[Token], _index: int, _options: Any, _env: Any) -> str:
    return '<div class="table" tabindex="0"><table>\n'


def _table_close(_self: RendererHTML, _tokens: Sequence[Token], _index: int, _options: Any, _env: Any) -> str:
    return "</table></div>\n"


def _code(_self: RendererHTML, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    """Show a block of code; it can be scrolled by keyboard where it is wider than the page, as tables can."""
    return f'<pre tabindex="0"><code>{html.escape(tokens[index].content)}</code></pre>\n'


class _Parser(MarkdownIt):
    """Markdown whose links lead to pages and mail alone; the rule it comes with forbids four schemes, and no more."""

    def validateLink(self, url: str) -> bool:  # noqa: N802  # its name there
        """Say whether a link may be followed."""
        try:
            scheme = urlsplit(url).scheme.lower()
        except ValueError:  # no address, whatever it is
            return False
        return scheme in {"", "http", "https", "mailto"}


_RULES: Mapping[str, Any] = {
    "code_block": _code,
    "fence": _code,
    "html_block": _html_block,
    "html_inline": _html_inline,
    "image": _image,
    "table_open": _table_open,
    "table_close": _table_close,
}
