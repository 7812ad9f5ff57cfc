"""PDF files to Markdown: headings by bookmarks, else by size of type; running headers and page numbers out."""

from __future__ import annotations

import ctypes
import dataclasses
import re
from collections import Counter
from pathlib import PurePosixPath

import pypdfium2
from pypdfium2 import raw

from byheart.ingest.markdown_text import Converted, tidy

_HEADING_SCALE = 1.12  # type a good tenth larger than the text's: the smallest step that style guides use
_PARAGRAPH_GAP = 1.5  # of the text's height: more than line spacing, less than an empty line
_MAX_HEADING_CHARACTERS = 150
_MAX_BOLD_HEADING_CHARACTERS = 80
_REPEATED_SHARE = 0.5  # a line at the edge of half of the pages is a running header
_BOLD_WEIGHT = 600
_CUT_WORD = re.compile("[\x02\ufffe]")  # what pdfium makes of a hyphen at a line's end, joining the two lines
_BULLET = re.compile(r"^[•◦▪‣●○–·]\s*")


@dataclasses.dataclass(frozen=True, slots=True)
class _Line:
    text: str
    page: int
    height: float  # of its type, in points
    top: float
    bottom: float
    is_bold: bool
    is_edge: bool  # first or last of its page


def convert_pdf(data: bytes, *, location: str) -> Converted:
    """Return a PDF as Markdown. Raises ValueError saying why it cannot be read."""
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as fault:
        if "assword" in str(fault):
            raise ValueError("it is encrypted: save it without a password") from fault
        raise ValueError(f"it is damaged: {fault}") from fault
    try:
        lines = [line for number in range(len(document)) for line in _page_lines(document, number)]
        outline = _outline(document)
        named = (document.get_metadata_value("Title") or "").strip()
    except pypdfium2.PdfiumError as fault:
        raise ValueError(f"it is damaged: {fault}") from fault
    finally:
        document.close()
    if not lines:
        raise ValueError("there is no text in it; if it is scanned, run text recognition (OCR) on it first")
    lines = _without_running_lines(lines)
    levels = _heading_levels(lines, outline)
    first_page = [line for line in lines if line.page == 0]
    largest = max(first_page, key=lambda line: line.height, default=None)
    title = largest.text if largest and lines.index(largest) in levels else named or PurePosixPath(location).stem
    return Converted(title, "", tidy("\n".join(_markdown_lines(lines, levels))))


def _page_lines(document: pypdfium2.PdfDocument, number: int) -> list[_Line]:
    page = document[number]
    text_page = page.get_textpage()
    lines: list[_Line] = []
    position = 0
    for piece in re.split(r"(\r\n|\r|\n)", text_page.get_text_range()):
        words = " ".join(_CUT_WORD.sub("", piece).split())
        if words:
            middle = position + next((i for i in range(len(piece) // 2, len(piece)) if piece[i].isalnum()), 0)
            _, bottom, _, top = text_page.get_charbox(middle, loose=True)
            weight = raw.FPDFText_GetFontWeight(text_page, middle)
            is_bold = weight >= _BOLD_WEIGHT or "bold" in _font_name(text_page, middle)
            lines.append(_Line(words, number, max(top - bottom, 0.1), top, bottom, is_bold, is_edge=False))
        position += len(piece)
    text_page.close()
    page.close()
    return [dataclasses.replace(line, is_edge=i in {0, len(lines) - 1}) for i, line in enumerate(lines)]


def _font_name(text_page: pypdfium2.PdfTextPage, position: int) -> str:
    flags = ctypes.c_int()
    length = raw.FPDFText_GetFontInfo(text_page, position, None, 0, flags)
    if length <= 1:
        return ""
    buffer = ctypes.create_string_buffer(length)
    raw.FPDFText_GetFontInfo(text_page, position, buffer, length, flags)
    return buffer.value.decode("utf-8", "replace").lower()


def _outline(document: pypdfium2.PdfDocument) -> dict[tuple[int, str], int]:
    """Return the level of each bookmark by its page and title."""
    levels: dict[tuple[int, str], int] = {}
    for mark in document.get_toc():
        target = mark.get_dest()
        page = target.get_index() if target else None
        if page is not None:
            levels[page, _key(mark.get_title())] = min(mark.level + 1, 6)
    return levels


def _key(title: str) -> str:
    return re.sub(r"\W+", "", title).casefold()


def _without_running_lines(lines: list[_Line]) -> list[_Line]:
    """Drop what stands at the edge of most pages, apart from its numbers."""
    pages = len({line.page for line in lines})
    if pages < 3:
        return lines
    shapes = Counter(re.sub(r"\d+", "0", line.text) for line in lines if line.is_edge)
    running = {shape for shape, count in shapes.items() if count >= max(3, _REPEATED_SHARE * pages)}
    return [line for line in lines if not (line.is_edge and re.sub(r"\d+", "0", line.text) in running)]


def _heading_levels(lines: list[_Line], outline: dict[tuple[int, str], int]) -> dict[int, int]:
    """Return the heading level of each line, by its index, that is a heading."""
    by_bookmark = {
        index: level
        for index, line in enumerate(lines)
        if (level := outline.get((line.page, _key(line.text)), 0)) and len(line.text) <= _MAX_HEADING_CHARACTERS
    }
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[round(line.height, 1)] += len(line.text)
    body = sizes.most_common(1)[0][0]
    large = [
        index
        for index, line in enumerate(lines)
        if line.height >= _HEADING_SCALE * body
        and len(line.text) <= _MAX_HEADING_CHARACTERS
        and re.search(r"[^\W\d]", line.text)
    ]
    if by_bookmark:
        top = max((lines[i].height for i in large if lines[i].page == 0), default=0.0)
        title = {i: 1 for i in large if lines[i].page == 0 and lines[i].height == top and i not in by_bookmark}
        shift = 1 if title else 0
        return title | {index: min(level + shift, 6) for index, level in by_bookmark.items()}
    ranks = sorted({round(lines[index].height) for index in large}, reverse=True)
    levels = {index: min(ranks.index(round(lines[index].height)) + 1, 5) for index in large}
    for index, line in enumerate(lines):
        if (
            index not in levels
            and line.is_bold
            and _is_alone(lines, index, body)
            and not line.text.endswith((".", ",", ";", ":"))
        ):
            levels[index] = min(len(ranks) + 1, 6)
    return levels


def _is_alone(lines: list[_Line], index: int, body: float) -> bool:
    """Tell whether a short line has room above it and text below it."""
    line = lines[index]
    if len(line.text) > _MAX_BOLD_HEADING_CHARACTERS or index + 1 == len(lines) or lines[index + 1].is_bold:
        return False
    above = lines[index - 1] if index else None
    return above is None or above.page != line.page or above.bottom - line.top > 0.3 * body


def _markdown_lines(lines: list[_Line], levels: dict[int, int]) -> list[str]:
    output: list[str] = []
    for index, line in enumerate(lines):
        previous = lines[index - 1] if index else None
        text = _BULLET.sub("- ", line.text)
        if index in levels:
            if previous and levels.get(index - 1) == levels[index] and _follows(previous, line):  # over two lines
                output[-2] = f"{output[-2]} {line.text}"
            else:
                output += ["", f"{'#' * levels[index]} {line.text}", ""]
            continue
        if previous and index - 1 not in levels and not _follows(previous, line):
            output.append("")
        output.append(_escaped(text))
    return output


def _follows(above: _Line, below: _Line) -> bool:
    """Tell whether two lines are of one paragraph; one that goes over to the next page has no full stop."""
    if above.page != below.page:
        return not above.text.endswith((".", "!", "?", ":"))
    return above.top - below.top < _PARAGRAPH_GAP * max(above.height, below.height)


def _escaped(text: str) -> str:
    return re.sub(r"^(#{1,6}(?=\s)|>|={2,}$|-{2,}$)", r"\\\1", text.replace("<", "\\<"))
