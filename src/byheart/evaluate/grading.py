"""Grading: does an answer hold what it must, and does its first citation name the right page? Pure functions."""

from __future__ import annotations

import unicodedata
import urllib.parse
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath

from byheart.records import Verdict

ANSWER_WORDS = 160  # an answer is graded by what a customer reads: a longer one could hold everything
STATEMENT_RECALL = 0.9  # a fact is found when so many of its words are: the answer may join two sentences
_PAGE_SUFFIXES = frozenset({".md", ".mdx", ".markdown", ".html", ".htm", ".txt", ".rst"})
_FOLDER_PAGES = frozenset({"index", "readme"})


def grade_answer(
    *,
    answer: str,
    abstained: bool,
    key_facts: Sequence[str],
    outside: bool,
    headings: Sequence[str] = (),
    word_recall: float = 1.0,
) -> tuple[Verdict, str]:
    """Return the verdict on an answer, and the evidence for it.

    `word_recall` below 1 also accepts a key fact of which that share of words is in the answer, in any order.
    `headings` of the cited sections count as read: a fact's statement may begin with its section's heading.
    """
    if outside:
        return ("correct", "declined") if abstained else ("incorrect", "answered, though the manual does not say")
    if not key_facts:
        return "unscored", "no key facts to compare with"
    if abstained:
        return "not attempted", "declined"
    kept = " ".join([*answer.split()[:ANSWER_WORDS], *headings])
    missing = [fact for fact in key_facts if not holds(kept, fact, word_recall=word_recall)]
    if missing:
        return "incorrect", "missing: " + " | ".join(missing)
    return "correct", f"holds {len(key_facts)} of {len(key_facts)} key facts"


def holds(answer: str, fact: str, *, word_recall: float = 1.0) -> bool:
    """Say whether the answer contains the fact, compared without case, spaces and punctuation."""
    needle = squeezed(fact)
    if not needle:  # "+" or "…": nothing but punctuation, so punctuation is what counts
        return fact.strip() in answer
    if needle in squeezed(answer):
        return True
    if word_recall >= 1.0:
        return False
    wanted = Counter(words(fact))
    return (wanted & Counter(words(answer))).total() >= word_recall * wanted.total()


def squeezed(text: str) -> str:
    """Return the letters and digits alone, in one case."""
    return "".join(char for char in unicodedata.normalize("NFKC", text).casefold() if char.isalnum())


def words(text: str) -> list[str]:
    """Return the words of a text in one case; punctuation separates them."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char if char.isalnum() else " " for char in folded).split()


def page_key(location: str) -> str:
    """Return what two ways of naming one page have in common.

    "https://help.example.com/teams/#roles", "teams.md#Roles", "./teams/index.html" are all "teams" in the end: the
    host, the anchor, the suffix, and a folder page's name go.
    """
    address = urllib.parse.urlsplit(location.strip().replace("\\", "/").partition("#")[0])
    path = PurePosixPath(urllib.parse.unquote(address.path).casefold().strip("/") or "index")
    if path.suffix in _PAGE_SUFFIXES:
        path = path.with_suffix("")
    if path.name in _FOLDER_PAGES and path.parent.name:
        path = path.parent
    return str(path) + (f"?{address.query}" if address.query else "")


def pages_named(source: str, page_keys: Mapping[str, str]) -> frozenset[str]:
    """Return the locations that `source` may mean; more than one where it is ambiguous, none where it fits no page.

    `page_keys` maps every location to its page key. The user names a page as they know it ("pages/teams.md#Roles"), the
    run by its address or its path in the docs folder ("teams.md"). So keys are compared from the end, by whole path
    segments: the same key, else the longest that `source` ends with, else all that end with `source`.
    """
    wanted = page_key(source)
    inner = [key for key in page_keys.values() if f"/{wanted}".endswith(f"/{key}")]
    if inner:
        longest = max(inner, key=len)
        return frozenset(location for location, key in page_keys.items() if key == longest)
    return frozenset(location for location, key in page_keys.items() if key.endswith(f"/{wanted}"))


def page_is_first(*, cited: str, right: Collection[str]) -> tuple[bool, str]:
    """Say whether the page cited first ("" for none) is one of the right ones, and the evidence."""
    if not right:
        return False, "the source names no page of the manual"
    if cited in right:
        return True, ""
    return False, f"cited {cited or 'nothing'} instead of {' or '.join(sorted(right))}"
