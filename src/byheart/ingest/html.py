"""HTML pages to Markdown: the page's own text, with every heading and anchor, without the site around it."""

from __future__ import annotations

import re
from typing import Any

import lxml.html
from lxml import etree
from lxml.html import HtmlElement
from markdownify import ASTERISK, ATX, MarkdownConverter

from byheart.ingest.html_clean import (
    HEADINGS,
    drop_boilerplate,
    heading_text,
    normalise,
    text_of,
    words_in,
)
from byheart.ingest.markdown_text import Converted, tidy

_SITE_SUFFIX = re.compile(r"\s+[|·–—»•-]\s+|\s*::\s*")
_ENCODING_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_LINE_START = re.compile(r"^(\s*)(#{1,6}(?=\s|$)|[-+>](?=\s)|\d{1,9}[.)](?=\s)|={3,}|:{3,}|`{3,}|~{3,})")
_MIN_ARTICLE_WORDS = 30  # below that, an article extractor has nothing to choose from
_MIN_ROOT_SHARE = 0.25  # a "main" with less than a quarter of the body's words is not the page's text


def convert_html(html: str, *, base_url: str = "", fallback_title: str = "") -> Converted:
    """Return a page as Markdown. Raises ValueError where there is no text in it."""
    document = _parsed(html)
    language = document.get("lang") or document.get("{http://www.w3.org/XML/1998/namespace}lang") or ""
    if base_url.startswith(("http://", "https://")):
        document.make_links_absolute(base_url, handle_failures="ignore")
    page_title = " ".join((document.findtext(".//title") or "").split())
    root, is_semantic = _root(document)
    h1 = next((e for e in [*root.iter("h1"), *document.iter("h1")] if text_of(e)), None)
    title = heading_text(h1) if h1 is not None else _without_site(page_title)
    drop_boilerplate(root, whole_body=not is_semantic)
    has_structure = is_semantic or any(True for _ in root.iter(*HEADINGS))
    if not has_structure and words_in(root) >= _MIN_ARTICLE_WORDS:
        article = _article(html)
        if article:
            return Converted(title or fallback_title, language, article)
    normalise(root)
    markdown = tidy(_Converter().convert(lxml.html.tostring(root, encoding="unicode")))
    if not title:
        first = next((text_of(e) for e in root.iter(*HEADINGS)), "")
        title = first or fallback_title
    return Converted(title, language, markdown)


def fragment_markdown(html: str) -> str:
    """Return a piece of HTML, such as a table inside Markdown, as Markdown."""
    root = lxml.html.fragment_fromstring(html, create_parent="div")
    normalise(root)
    return tidy(_Converter().convert(lxml.html.tostring(root, encoding="unicode")))


def _parsed(html: str) -> HtmlElement:
    text = _ENCODING_DECLARATION.sub("", html).replace("\0", "")
    parser = lxml.html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        document = lxml.html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except etree.ParserError as fault:
        raise ValueError("there is no text in it") from fault
    if document.find("body") is None:
        raise ValueError("there is no text in it")
    return document


def _root(document: HtmlElement) -> tuple[HtmlElement, bool]:
    """Return the element that holds the page's own text, and whether the page says so itself."""
    body = document.find("body")
    mains = document.xpath('//main | //*[@role="main"]')
    articles = document.xpath("//article[not(ancestor::article)]")
    candidates = mains or (articles if len(articles) == 1 else [])
    if candidates:
        best = max(candidates, key=words_in)
        if words_in(best) >= _MIN_ROOT_SHARE * words_in(body):
            return best, True
    return body, False


def _without_site(title: str) -> str:
    """ "Voting | Acme Help" gives "Voting"."""
    return _SITE_SUFFIX.split(title)[0].strip() or title


def _article(html: str) -> str:
    # Loaded here because it takes half a second, and few pages come to this point.
    import trafilatura  # noqa: PLC0415

    text = trafilatura.extract(html, output_format="markdown", include_tables=True, favor_recall=True)
    return tidy(text) if text else ""


class _Converter(MarkdownConverter):
    """markdownify with anchors on headings, and only the escapes that the text needs."""

    def __init__(self) -> None:
        super().__init__(
            heading_style=ATX,
            bullets="-",
            strong_em_symbol=ASTERISK,
            bs4_options="lxml",
            autolinks=False,
            code_language_callback=_code_language,
        )

    def escape(self, text: str, parent_tags: set[str]) -> str:
        """Escape what Markdown would take for a mark; underscores inside words are none."""
        text = re.sub(r"([\\`*<\[\]])", r"\\\1", text)
        return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)

    def process_text(self, el: Any, parent_tags: set[str] | None = None) -> str:
        """Escape a text that would begin a list, heading or quote at the start of its block."""
        text: str = super().process_text(el, parent_tags)  # type: ignore[misc]
        if el.previous_sibling is None and not {"pre", "code"} & (parent_tags or set()):
            text = _LINE_START.sub(
                lambda m: f"{m[1]}\\{m[2]}" if not m[2][0].isdigit() else f"{m[1]}{m[2][:-1]}\\{m[2][-1]}", text
            )
        return text

    def convert_hN(self, n: int, el: Any, text: str, parent_tags: set[str]) -> str:  # noqa: N802
        """Return the heading with its anchor."""
        text = re.sub(r"^(\d+)\\([.)])", r"\1\2", " ".join(text.split()))  # "2. Workflow" is no list here
        anchor = el.get("id")
        return f"\n\n{'#' * n} {text}{f' {{#{anchor}}}' if anchor else ''}\n\n" if text else ""

    def convert_a(self, el: Any, text: str, parent_tags: set[str]) -> str:
        """Return a link without its tooltip."""
        del el["title"]
        linked: str = super().convert_a(el, text, parent_tags)  # type: ignore[misc]
        return linked

    def convert_td(self, el: Any, text: str, parent_tags: set[str]) -> str:
        """Return a cell on one line, its own pipes escaped."""
        return " " + " ".join(text.replace("|", "\\|").split()) + " |"

    convert_th = convert_td

    def convert_pre(self, el: Any, text: str, parent_tags: set[str]) -> str:
        """Return a code block whose fence is longer than any inside it."""
        text = text.strip("\n").rstrip()
        longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
        fence = "`" * (longest + 1)
        return f"\n\n{fence}{_code_language(el) or ''}\n{text}\n{fence}\n\n" if text.strip() else ""


def _code_language(element: Any) -> str | None:
    for node in (element, element.find("code")):
        for name in (node.get("class") or []) if node is not None else []:
            if match := re.match(r"(?:language|lang|highlight-source)-([\w+#-]+)", name):
                return match[1]
    return None
