"""An HTML tree made ready for Markdown: boilerplate out; notes, tabs, terms, tables and UI labels as plain elements."""

from __future__ import annotations

import re
from collections.abc import Iterator

import lxml.html
from lxml.html import HtmlElement

from byheart.ingest.html_tables import simplify_tables

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")

_NEVER_TEXT = (
    "script", "style", "noscript", "template", "svg", "canvas", "iframe", "object", "embed", "video", "audio", "select",
    "input", "textarea", "button", "link", "meta", "dialog", "map", "math",
)  # fmt: skip
_BOILERPLATE = re.compile(
    r"(?:^|[\s_-])(?:breadcrumbs?|toc|tableofcontents|table-of-contents|on-this-page|pagination|pager|prev-next|"
    r"prevnext|navheader|navfooter|navbar|cookies?|cookie-?(?:banner|consent|notice)|consent|gdpr|edit-(?:this-)?page|"
    r"edit-link|edit-meta|skip-(?:link|to-content)|skip|sr-only|visually-hidden|feedback|was-this-helpful|"
    r"page-rating|article-votes|share|social|headerlink|reportbug|footer-nav|copyright-bar|search-(?:bar|box))(?=$|[\s_-])",
    re.IGNORECASE,
)
_ANCHOR_MARK = re.compile(
    r"^(?:[#¶§🔗]|permalink|link to this (?:heading|section)|direct link to .*|copy link|\s)*$", re.I
)
_BLOCKS = {"div", "aside", "section", "blockquote", "p", "details", "figure", "table", "dl"}
_NOTES = {
    "note": "Note", "tip": "Tip", "hint": "Tip", "warning": "Warning", "caution": "Caution", "danger": "Danger",
    "important": "Important", "info": "Info", "attention": "Warning", "error": "Danger", "alert": "Note",
    "callout": "Note", "admonition": "Note", "notice": "Note",
}  # fmt: skip
_NOTE_TITLE = re.compile(r"(?:admonition|callout|alert|note|aside)[-_]*(?:title|heading|header|label)|^title$", re.I)
_LABEL = re.compile(
    r"^(?:guilabel|guimenu|guisubmenu|guimenuitem|guibutton|menuselection|menuchoice|keycap|keycombo|ui-?label|shortcut)$"
)


def text_of(element: HtmlElement) -> str:
    """Return an element's text on one line."""
    return " ".join(element.text_content().split())


def words_in(element: HtmlElement) -> int:
    """Return how many words an element holds."""
    return len(element.text_content().split())


def drop(element: HtmlElement) -> None:
    """Take an element out; the text after it stays."""
    if element.getparent() is not None:
        element.drop_tree()


def heading_text(heading: HtmlElement) -> str:
    """Return a heading's text without the "#" or "¶" that sites hang on it."""
    copy = lxml.html.fromstring(lxml.html.tostring(heading, encoding="unicode", with_tail=False))
    _strip_anchor_marks(copy)
    return text_of(copy)


def drop_boilerplate(root: HtmlElement, *, whole_body: bool) -> None:
    """Take out what belongs to the site and not to the page."""
    certain = [*root.iter("nav"), *root.xpath('.//*[@role="navigation" or @role="search"]')]
    certain += root.xpath('.//*[@hidden or @aria-hidden="true"][not(@role="tabpanel")]')
    for element in certain:
        if element is not root and element.find(".//h1") is None:
            drop(element)
    size = max(words_in(root), 1)
    likely = [e for e in root.iter("footer") if whole_body or not _has_heading(e)]
    if whole_body:
        likely += [*root.iter("header", "aside"), *root.xpath('.//*[@role="contentinfo" or @role="complementary"]')]
    likely += [e for e in root.iter() if isinstance(e.tag, str) and _BOILERPLATE.search(_names(e))]
    for element in likely:
        if element is root or element.tag in HEADINGS:
            continue
        is_note = element.tag == "aside" and _note_kind(element)
        # What holds the page's title or most of its words is the page, whatever its class says.
        if not is_note and element.find(".//h1") is None and words_in(element) <= size / 2:
            drop(element)


def normalise(root: HtmlElement) -> None:
    """Rewrite everything that Markdown has no mark for. The order matters: notes hold tables, tables hold labels."""
    _label_tabs(root)  # their names are on buttons
    for element in list(root.iter(*_NEVER_TEXT)):
        if element is not root:
            drop(element)
    _mark_headings(root)
    _free_headings(root)
    _quote_notes(root)
    _write_out_terms(root)
    _write_out_details(root)
    simplify_tables(root)
    _bold_labels(root)
    _images_to_text(root)
    _plain_code(root)
    _collapse_space(root)


def _names(element: HtmlElement) -> str:
    return f"{element.get('class', '')} {element.get('id', '')}"


def _has_heading(element: HtmlElement) -> bool:
    return any(True for _ in element.iter(*HEADINGS))


def _mark_headings(root: HtmlElement) -> None:
    """Give every heading its anchor as id: its own, or that of the element that the site links to."""
    for element in root.xpath('.//*[@role="heading"]'):
        level = element.get("aria-level", "2")
        element.tag = f"h{level}" if level in "123456" else "h2"
    for heading in list(root.iter(*HEADINGS)):
        anchor = _anchor_of(heading)
        _strip_anchor_marks(heading)
        if anchor and not re.search(r"[\s{}]", anchor):
            heading.set("id", anchor)
        elif heading.get("id") is not None:
            del heading.attrib["id"]


def _anchor_of(heading: HtmlElement) -> str:
    if heading.get("id"):
        return str(heading.get("id"))
    for inside in heading.iter():
        if isinstance(inside.tag, str) and (inside.get("id") or (inside.tag == "a" and inside.get("name"))):
            return str(inside.get("id") or inside.get("name"))
    for link in heading.iter("a"):
        if (link.get("href") or "").startswith("#") and len(link.get("href")) > 1:
            return str(link.get("href"))[1:]
    before = heading.getprevious()
    if before is not None and before.tag == "a" and not text_of(before) and (before.get("id") or before.get("name")):
        return str(before.get("id") or before.get("name"))
    for parent in heading.iterancestors("section", "div", "article"):
        if next(parent.iter(*HEADINGS)) is not heading:
            break
        if parent.get("id") and parent.tag != "article" and "section" in f"{parent.tag} {parent.get('class', '')}":
            return str(parent.get("id"))
    return ""


def _strip_anchor_marks(heading: HtmlElement) -> None:
    for link in list(heading.iter("a", "button", "span")):
        if link is heading or link.getparent() is None or len(link.xpath(".//img[@alt]")):
            continue
        if _ANCHOR_MARK.match(text_of(link)):
            drop(link)


def _free_headings(root: HtmlElement) -> None:
    """Lift headings out of lists, links, tables and quotes, where Markdown could not show them as headings."""
    for heading in root.iter(*HEADINGS):
        for parent in heading.iterancestors():
            if parent is root:
                break
            if parent.tag == "a" and parent.get("href"):
                _link_lines(parent, parent.get("href"))
            if parent.tag not in {"div", "section", "article", "main", "body", "header", "footer"}:
                parent.tag = "div"


def _link_lines(card: HtmlElement, target: str) -> None:
    """Link each line of a card to where the card as a whole did; its heading stays a heading."""
    for line in [child for child in card if child.tag not in HEADINGS]:
        if _has_heading(line) or any(child.tag in _BLOCKS for child in line):
            _link_lines(line, target)
        elif text_of(line):
            link = lxml.html.fragment_fromstring("<a></a>")
            link.set("href", target)
            link.text, line.text = line.text, None
            link.extend(list(line))
            line.append(link)


def _label_tabs(root: HtmlElement) -> None:
    """Put each tab's name before its panel."""
    for panel in root.xpath('.//*[@role="tabpanel"]'):
        name = ""
        label_id = panel.get("aria-labelledby")
        if label_id:
            labels = root.xpath(".//*[@id=$id]", id=label_id)
            name = text_of(labels[0]) if labels else ""
        if not name:
            lists = panel.xpath('preceding::*[@role="tablist"][1]')
            tabs = lists[0].xpath('.//*[@role="tab"]') if lists else []
            siblings = panel.xpath('preceding-sibling::*[@role="tabpanel"]')
            name = text_of(tabs[len(siblings)]) if len(siblings) < len(tabs) else ""
        if name:
            panel.insert(0, _labelled(f"{name.rstrip(':')}:"))
        panel.attrib.pop("hidden", None)
    for tabs in root.xpath('.//*[@role="tablist"]'):
        drop(tabs)


def _labelled(label: str) -> HtmlElement:
    paragraph = lxml.html.Element("p")
    strong = lxml.html.Element("strong")
    strong.text = label
    paragraph.append(strong)
    return paragraph


def _note_kind(element: HtmlElement) -> str:
    """Return "Note", "Warning", … for an element that is a note of the page, else ""."""
    if element.tag not in _BLOCKS:
        return ""
    words = re.split(r"[\s_]+|--?", element.get("class", "").lower())
    kinds = [_NOTES[word] for word in words if word in _NOTES]
    if not kinds:
        return "Note" if element.get("role") == "note" else ""
    return next((kind for kind in kinds if kind != "Note"), kinds[0])


def _quote_notes(root: HtmlElement) -> None:
    size = max(words_in(root), 1)
    for element in list(root.iter(*_BLOCKS)):
        kind = _note_kind(element)
        if not kind or element is root or element.getparent() is None or any(_note_ancestors(element)):
            continue
        if _has_heading(element) or (words_in(element) > 0.6 * size and size > 200):
            continue
        _flatten_note_table(element)
        label = kind
        title = next((e for e in element.iter("p", "div", "h5", "span", "strong", "summary") if e is not element
                      and any(_NOTE_TITLE.search(name) for name in e.get("class", "").split())), None)  # fmt: skip
        if title is not None:
            words = text_of(title).rstrip(":")
            label = words if not words or words.lower().startswith(kind.lower()) else f"{kind}: {words}"
            label = label or kind
            drop(title)
        element.tag = "blockquote"
        _prefix(element, f"{label[:1].upper()}{label[1:]}:")


def _note_ancestors(element: HtmlElement) -> Iterator[bool]:
    for parent in element.iterancestors():
        yield parent.tag == "blockquote" and parent.get("data-note") == "yes"


def _flatten_note_table(note: HtmlElement) -> None:
    """DocBook draws a note as a table with an icon and the word "Note": keep the text alone."""
    table = note.find("table")
    if table is None or table.find(".//img") is None:
        return
    for cell in list(table.iter("th")):
        drop(cell)
    for element in [table, *table.iter("tbody", "tr", "td")]:
        element.tag = "div"
    for image in list(table.iter("img")):
        if (image.get("alt") or "").startswith("["):
            drop(image)


def _prefix(note: HtmlElement, label: str) -> None:
    """Put the label in front of the note's first paragraph, on its line."""
    note.set("data-note", "yes")
    own = text_of(note).lower()
    if own.startswith(label.lower().rstrip(":")):
        return
    strong = lxml.html.Element("strong")
    strong.text = label
    for empty in [e for e in note.iter("div", "p") if e is not note and not words_in(e) and e.find(".//img") is None]:
        drop(empty)
    target = note
    while not (target.text or "").strip() and len(target) and target[0].tag in {"div", "p", "section"}:
        target = target[0]
    strong.tail = " " + (target.text or "").lstrip()
    target.text = None
    target.insert(0, strong)


def _write_out_terms(root: HtmlElement) -> None:
    """<dt>Term</dt><dd>meaning</dd> becomes a paragraph "**Term:** meaning"."""
    for dl in list(root.iter("dl")):
        dl.tag = "div"
    terms: list[str] = []
    for element in list(root.iter("dt", "dd")):
        if element.tag == "dt":
            inner = text_of(element)
            previous = element.getprevious()
            terms = [*terms, inner] if previous is not None and previous.get("data-term") else [inner]
            element.set("data-term", "yes")
            following = element.getnext()
            if following is None or following.tag not in {"dd", "dt"}:  # a term without a meaning
                element.tag = "p"
            continue
        element.tag = "div"
        if terms:
            previous = element.getprevious()
            while previous is not None and previous.get("data-term"):
                drop(previous)
                previous = element.getprevious()
            label = ", ".join(term.rstrip(":") for term in terms if term)
            if label:
                _prefix(element, f"{label}:")
        terms = []


def _write_out_details(root: HtmlElement) -> None:
    for summary in list(root.iter("summary")):
        words = text_of(summary)
        if words:
            summary.addprevious(_labelled(words))
        drop(summary)
    for details in root.iter("details"):
        details.tag = "div"


def _bold_labels(root: HtmlElement) -> None:
    for element in root.iter("span", "kbd", "var", "u", "tt", "samp"):
        names = element.get("class", "").split()
        if element.tag == "kbd" or any(_LABEL.match(name) for name in names):
            element.tag = "strong"
        elif element.tag in {"tt", "samp"}:
            element.tag = "code"
    for outer in list(root.iter("strong", "b", *HEADINGS)):
        for inner in list(outer.iter("strong", "b")):
            if inner is not outer and inner.getparent() is not None:
                inner.drop_tag()
    for heading_strong in root.xpath(".//strong | .//b"):
        if not text_of(heading_strong) and not len(heading_strong):
            heading_strong.drop_tag()


def _images_to_text(root: HtmlElement) -> None:
    for image in list(root.iter("img")):
        alt = " ".join((image.get("alt") or "").split())
        figure = next((e for e in image.iterancestors() if "figure" in f"{e.tag} {e.get('class', '')}".split()), None)
        if figure is not None and alt and alt in text_of(figure):
            alt = ""  # the caption says it already
        if re.match(r"^[\w-]+\.(?:png|jpe?g|gif|svg|webp)$", alt, re.I) or alt.startswith("["):
            alt = ""
        replacement = lxml.html.Element("span")
        replacement.text = alt
        replacement.tail = image.tail
        image.getparent().replace(image, replacement)


def _plain_code(root: HtmlElement) -> None:
    """Take line numbers and colours out of code blocks; links and labels inside code would show their marks."""
    for pre in list(root.iter("pre")):
        for gutter in pre.xpath('.//*[contains(@class, "lineno") or contains(@class, "line-number")]'):
            drop(gutter)
        for line_break in list(pre.iter("br")):
            line_break.tail = "\n" + (line_break.tail or "")
            line_break.drop_tag()
        for inside in list(pre.iter()):
            if inside is not pre and inside.tag != "code" and inside.getparent() is not None:
                inside.drop_tag()
    for code in list(root.iter("code")):
        for inside in list(code.iter()):
            if inside is not code and inside.getparent() is not None:
                inside.drop_tag()


def _collapse_space(root: HtmlElement) -> None:
    for element in root.iter():
        in_pre = element.tag == "pre" or any(True for _ in element.iterancestors("pre"))
        if element.text and not in_pre:
            element.text = re.sub(r"\s+", " ", element.text)
        if element.tail and not any(True for _ in element.iterancestors("pre")):
            element.tail = re.sub(r"\s+", " ", element.tail)
