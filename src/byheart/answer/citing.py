"""What every bot does around its answers: read the question, cite the passages, decline with the nearest page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from byheart.answer.base import Answer, Turn
from byheart.answer.followup import standalone
from byheart.chat import REFUSAL
from byheart.index.index import Match
from byheart.records import Citation

MAX_QUESTION_CHARACTERS = 2000  # the encoder reads 64 tokens; more is pasted text
NOTHING_ASKED = Answer("Please ask a question about the manual.", (), 0.0, abstained=True)


def question_of(question: str, history: Sequence[Turn]) -> str:
    """Return the question with what it leans on; "" where nothing is asked."""
    asked = standalone(question, history)[:MAX_QUESTION_CHARACTERS].strip()
    # Without a letter or a digit (invisible characters, say) the encoder may find no token at all to compare.
    return asked if re.search(r"\w", asked) else ""


def declined(matches: Sequence[Match], probability: float, *, max_citations: int) -> Answer:
    """Return the answer that the manual does not say it, with the nearest pages."""
    citations = cite(matches, max_citations)
    nearest = citations[0]
    place = nearest.title if nearest.heading == nearest.title else f"{nearest.title} › {nearest.heading}"
    text = f"{REFUSAL} The nearest page is [{place.replace('[', '(').replace(']', ')')}]({nearest.url})."
    return Answer(text, citations, round(probability, 4), abstained=True)


def cite(matches: Sequence[Match], most: int) -> tuple[Citation, ...]:
    """Return the citations of the passages, each section once."""
    by_section: dict[str, Citation] = {}
    for match in matches:
        passage = match.passage
        inner = passage.heading_path[1:] or passage.heading_path
        by_section.setdefault(
            passage.section_id,
            Citation(
                title=passage.title,
                heading=" › ".join(inner),
                url=passage.url,
                score=round(min(1.0, max(0.0, match.dense)), 4),
                section_id=passage.section_id,
            ),
        )
        if len(by_section) == most:
            break
    return tuple(by_section.values())
