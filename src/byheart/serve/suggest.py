"""What a customer may ask first, and next: headings of the manual that read like something to ask."""

from __future__ import annotations

from collections.abc import Sequence

from byheart.records import Citation, Section

_MAX_LENGTH = 48  # characters; a longer heading breaks over two lines of a phone's chip
_LEAST_TEXT = 40  # characters; below a heading with less there is no answer


def suggest(sections: Sequence[Section], *, count: int = 4) -> tuple[str, ...]:
    """Return up to `count` headings with text below them, from different documents, spread over the manual.

    Headings of three words and more say what they are about by themselves; where these are too few, shorter ones
    that are not a page's title fill up.
    """
    first_by_document: dict[str, str] = {}
    spare: dict[str, str] = {}
    for section in sections:
        heading = _heading(section)
        if not heading:
            continue
        if len(heading.split()) >= 3:
            first_by_document.setdefault(section.document_id, heading)
        elif len(section.heading_path) > 1:
            spare.setdefault(section.document_id, heading)
    chosen = _spread(list(dict.fromkeys(first_by_document.values())), count)
    others = [heading for heading in dict.fromkeys(spare.values()) if heading not in chosen]
    return tuple(chosen + _spread(others, count - len(chosen)))


class FollowUps:
    """What may be asked next: other headings of the pages that an answer cites, nearest to what it cites first."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self._sections = {section.id: section for section in sections}
        self._by_document: dict[str, list[Section]] = {}
        for section in sections:
            if len(section.heading_path) > 1 and len(_heading(section).split()) >= 3:
                self._by_document.setdefault(section.document_id, []).append(section)

    def after(self, citations: Sequence[Citation], *, count: int = 3) -> tuple[str, ...]:
        """Return up to `count` headings: for the first page that is cited, then the next, those that follow first."""
        cited = [section for item in citations if (section := self._sections.get(item.section_id))]
        known = {_heading(section) for section in cited}
        found: dict[str, None] = {}
        for start in cited:
            near = sorted(self._by_document.get(start.document_id, ()), key=lambda item: _distance(start, item))
            found.update(dict.fromkeys(heading for item in near if (heading := _heading(item)) not in known))
        return tuple(found)[:count]


def _distance(start: Section, other: Section) -> tuple[int, bool]:
    return abs(other.order - start.order), other.order < start.order


def _heading(section: Section) -> str:
    """Return the section's own heading; nothing where it is too long for a chip or has no text below it."""
    heading = " ".join(section.heading_path[-1].split()) if section.heading_path else ""
    return heading if len(heading) <= _MAX_LENGTH and len(section.markdown) >= _LEAST_TEXT else ""


def _spread(items: Sequence[str], count: int) -> list[str]:
    if count <= 0 or len(items) <= count:
        return list(items[: max(count, 0)])
    return [items[index * len(items) // count] for index in range(count)]
