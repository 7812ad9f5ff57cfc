"""The questions a chat starts with: headings of the manual that read like something a customer would ask."""

from __future__ import annotations

from collections.abc import Sequence

from byheart.records import Section

_MAX_LENGTH = 48  # characters; a longer heading breaks over two lines of a phone's chip


def suggest(sections: Sequence[Section], *, count: int = 4) -> tuple[str, ...]:
    """Return up to `count` headings with text below them, from different documents, spread over the manual.

    Headings of three words and more say what they are about by themselves; where these are too few, shorter ones
    that are not a page's title fill up.
    """
    first_by_document: dict[str, str] = {}
    spare: dict[str, str] = {}
    for section in sections:
        heading = " ".join(section.heading_path[-1].split()) if section.heading_path else ""
        if not heading or len(heading) > _MAX_LENGTH or len(section.markdown) < 40:
            continue
        if len(heading.split()) >= 3:
            first_by_document.setdefault(section.document_id, heading)
        elif len(section.heading_path) > 1:
            spare.setdefault(section.document_id, heading)
    chosen = _spread(list(dict.fromkeys(first_by_document.values())), count)
    others = [heading for heading in dict.fromkeys(spare.values()) if heading not in chosen]
    return tuple(chosen + _spread(others, count - len(chosen)))


def _spread(items: Sequence[str], count: int) -> list[str]:
    if count <= 0 or len(items) <= count:
        return list(items[: max(count, 0)])
    return [items[index * len(items) // count] for index in range(count)]
