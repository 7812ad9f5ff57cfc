"""HTML tables as simple grids: one header row, no spans, text in every cell."""

from __future__ import annotations

import copy

import lxml.html
from lxml.html import HtmlElement

_MAX_COLUMNS = 64  # a colspan of 100,000 on a page of 2 kB must not become 100,000 cells
_MAX_ROWSPAN = 500
_MAX_CELLS = 100_000
_LAYOUT_BLOCKS = ("table", "pre", "blockquote")


def simplify_tables(root: HtmlElement) -> None:
    """Replace every table by one that Markdown can hold; layout tables become their contents."""
    for table in reversed(list(root.iter("table"))):  # inner tables first
        rows = _rows(table)
        if not rows or _is_layout(table, rows):
            _unwrap(table)
        else:
            _simplify(table, rows)


def _rows(table: HtmlElement) -> list[HtmlElement]:
    return [row for row in table.iter("tr") if next(row.iterancestors("table")) is table]


def _cells(row: HtmlElement) -> list[HtmlElement]:
    return [cell for cell in row if cell.tag in {"td", "th"}]


def _is_layout(table: HtmlElement, rows: list[HtmlElement]) -> bool:
    if table.get("role") in {"presentation", "none"} or any(True for b in _LAYOUT_BLOCKS for _ in _inside(table, b)):
        return True
    widest = max(len(_cells(row)) for row in rows)
    return widest <= 1 and not any(True for _ in table.iter("th"))


def _inside(table: HtmlElement, tag: str) -> list[HtmlElement]:
    return [element for element in table.iter(tag) if element is not table]


def _unwrap(table: HtmlElement) -> None:
    for element in list(table.iter("caption", "thead", "tbody", "tfoot", "tr", "td", "th", "colgroup", "col")):
        if element.tag in {"col", "colgroup"}:
            element.drop_tag()
        elif next(element.iterancestors("table"), table) is table:
            element.tag = "div"
    table.tag = "div"


def _span(cell: HtmlElement, name: str, most: int) -> int:
    value = (cell.get(name) or "1").strip()
    return (
        max(1, min(int(value), most)) if value.isdecimal() and len(value) < 10 else (most if value.isdecimal() else 1)
    )


def _grid(rows: list[HtmlElement]) -> list[list[HtmlElement | None]]:
    """Return the cells in their places. A cell over several rows is in each; over several columns, in its first.

    Header cells are in all of their columns: each column needs its name.
    """
    grid: list[list[HtmlElement | None]] = [[] for _ in rows]
    taken: dict[tuple[int, int], HtmlElement | None] = {}
    for y, row in enumerate(rows):
        x = 0
        for cell in _cells(row):
            while (y, x) in taken:
                x += 1
            width = _span(cell, "colspan", _MAX_COLUMNS)
            height = min(_span(cell, "rowspan", _MAX_ROWSPAN), len(rows) - y)
            repeated = cell.tag == "th"
            for dy in range(height):
                for dx in range(width):
                    if x + dx < _MAX_COLUMNS and len(taken) < _MAX_CELLS:
                        taken.setdefault((y + dy, x + dx), cell if dx == 0 or repeated else None)
            x += width
    for (y, x), cell in sorted(taken.items(), key=lambda item: item[0]):
        while len(grid[y]) < x:
            grid[y].append(None)
        grid[y].append(cell)
    return grid


def _simplify(table: HtmlElement, rows: list[HtmlElement]) -> None:
    grid = _grid(rows)
    own_widths = [
        sum(cell is not None for cell in line) for line, row in zip(grid, rows, strict=True) if len(_cells(row)) > 1
    ]
    width = min(max(map(len, grid)), max(own_widths, default=1))
    headers = _header_rows(rows)
    simple = lxml.html.Element("table")
    head = lxml.html.Element("tr")
    for x in range(width):
        names: list[str] = []
        for y in range(headers):
            cell = grid[y][x] if x < len(grid[y]) else None
            words = " ".join(cell.text_content().split()) if cell is not None else ""
            if words and words not in names:
                names.append(words)
        cell = lxml.html.Element("th")
        cell.text = " / ".join(names)
        head.append(cell)
    simple.append(head)
    for line in grid[headers:]:
        row = lxml.html.Element("tr")
        for x in range(width):
            row.append(_flat_cell(line[x] if x < len(line) else None))
        simple.append(row)
    caption = table.find("caption")
    if caption is not None and caption.text_content().strip():
        paragraph = lxml.html.Element("p")
        paragraph.text = " ".join(caption.text_content().split())
        table.addprevious(paragraph)
    simple.tail = table.tail
    table.getparent().replace(table, simple)


def _header_rows(rows: list[HtmlElement]) -> int:
    """Return how many rows at the top are headers: those of <thead>, or a first row of <th> or bold cells alone."""
    count = 0
    for row in rows:
        cells = _cells(row)
        if row.getparent().tag != "thead" and not (count == 0 and cells and all(map(_is_header_cell, cells))):
            break
        count += 1
    return count


def _is_header_cell(cell: HtmlElement) -> bool:
    words = "".join(cell.text_content().split())
    bold = "".join("".join(e.text_content().split()) for e in cell.iter("strong", "b"))
    return cell.tag == "th" or (bool(words) and bold == words)


def _flat_cell(source: HtmlElement | None) -> HtmlElement:
    """Return a cell as one line: list items and paragraphs one after the other."""
    cell = lxml.html.Element("td")
    if source is None:
        return cell
    copied = copy.deepcopy(source)  # a cell over several rows is needed again
    for item in list(copied.iter("li")):
        following = item.getnext()
        if following is not None and len(item) == 0 and item.text:
            item.text = item.text.rstrip().rstrip(";") + ";"
    for block in list(copied.iter("p", "div", "li", "ul", "ol", "br")):
        block.tail = " " + (block.tail or "")
        block.drop_tag()
    cell.text = copied.text
    for child in list(copied):
        cell.append(child)
    return cell
