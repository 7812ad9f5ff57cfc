"""Questions that lean on the turns before them: "and how do I undo that?"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from byheart.answer.base import Turn
from byheart.index.index import tokens_of

_LEANING = re.compile(
    r"^\s*(and|but|or|so|also|then|what about|how about|what if|why not|how so|really|"
    r"is it(?! possible)|does it|can it|are they|do they|can they)\b",
    re.IGNORECASE,
)
_POINTING = re.compile(  # "is it possible" and "is there" point to nothing
    r"\b(it(?! possible)|its|that|this|these|those|them|they|(?<!\bis )(?<!\bare )there|one|ones|same|instead|again|"
    r"else)\b",
    re.IGNORECASE,
)
_OWN_WORDS = 3  # a question with more content words of its own stands alone unless it points back
_REMEMBERED_TURNS = 2


def standalone(question: str, history: Sequence[Turn]) -> str:
    """Return the question with what it leans on: the customer's own earlier questions, the newest last."""
    earlier = [turn.text for turn in history if turn.role == "user"]
    chain = [question]
    for text in reversed(earlier[-_REMEMBERED_TURNS:]):
        if not leans(chain[0]):
            break
        chain.insert(0, text)
    return " ".join(chain)


def leans(question: str) -> bool:
    """Tell whether a question cannot be understood without the one before it."""
    content = len(tokens_of(question))
    if content == 0:
        return True
    starts = bool(_LEANING.match(question))
    points = bool(_POINTING.search(question))
    return (content <= _OWN_WORDS and (starts or points)) or (points and starts and content <= 2 * _OWN_WORDS)
