"""The map of the manual: for every section, what the model was asked of it and what it knew. Pure functions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from byheart.records import Document, Section, Verdict

Status = Literal["known", "partly", "unknown", "unasked"]


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """A section on the map."""

    section_id: str
    page_title: str
    heading: str  # heading path, joined with " › "
    url: str
    asked: int
    correct: int

    @property
    def status(self) -> Status:
        """Known: all that was asked; partly: some; unknown: none."""
        if self.asked == 0:
            return "unasked"
        if self.correct == self.asked:
            return "known"
        return "partly" if self.correct else "unknown"


@dataclasses.dataclass(frozen=True, slots=True)
class PageTiles:
    """A page on the map, with its sections in order."""

    title: str
    location: str
    tiles: tuple[Tile, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Coverage:
    """The whole map."""

    pages: tuple[PageTiles, ...]
    textless: int  # sections that are a heading alone: nothing to ask for, not on the map

    @property
    def tiles(self) -> list[Tile]:
        """All sections of the map, in the order of the manual."""
        return [tile for page in self.pages for tile in page.tiles]

    @property
    def counts(self) -> Counter[Status]:
        """How many sections there are of each status."""
        return Counter(tile.status for tile in self.tiles)


def map_coverage(
    *,
    documents: Sequence[Document],
    sections: Sequence[Section],
    verdicts: Mapping[str, Sequence[Verdict]],
) -> Coverage:
    """Return the map, from the verdicts on the questions of each section; unscored ones count as not asked."""
    tiles: dict[str, list[Tile]] = {document.id: [] for document in documents}
    titles = {document.id: document.title or document.location for document in documents}
    textless = 0
    for section in sorted(sections, key=lambda section: section.order):
        if not section.markdown.strip():
            textless += 1
            continue
        scored = [verdict for verdict in verdicts.get(section.id, ()) if verdict != "unscored"]
        tile = Tile(
            section_id=section.id,
            page_title=titles.get(section.document_id, section.document_id),
            heading=" › ".join(section.heading_path),
            url=section.url,
            asked=len(scored),
            correct=scored.count("correct"),
        )
        tiles.setdefault(section.document_id, []).append(tile)
    locations = {document.id: document.location for document in documents}
    pages = tuple(
        PageTiles(titles.get(key, key), locations.get(key, key), tuple(inside))
        for key, inside in tiles.items()
        if inside
    )
    return Coverage(pages, textless)
