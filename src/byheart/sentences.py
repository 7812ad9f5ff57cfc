"""Where sentences end in Markdown text: offsets, so that every sentence can be found again in its source."""

from __future__ import annotations

import re

# Text whose full stops never end a sentence: code, link targets, addresses.
_PROTECTED = re.compile(
    r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)"  # code span
    r"|\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:\s+\"[^\"]*\")?\)"  # link target
    r"|<https?://[^>\s]+>"
    r"|https?://\S+",
    re.DOTALL,
)
_END = re.compile(
    r"(?P<stop>[.!?…]+)(?P<close>[\"'”’»)\]*_]*)(?P<gap>\s+)(?P<next>\S)"  # spaced scripts
    r"|(?P<wide>[。！？]+)(?P<wideclose>[”’」』）*_]*)\s*(?=\S)"  # Chinese, Japanese
    r"|(?: {2,}|\\)\n\s*(?=\S)"  # hard line break
)
_LAST_WORD = re.compile(r"[\w.'’-]+$")
_ABBREVIATIONS = frozenset(
    "e.g i.e eg ie vs cf approx ca resp incl excl esp fig figs no nos vol sec ch pp ed eds dr mr mrs ms prof st jr sr "
    "min max dept est ext tel z.b bzw d.h u.a ggf evtl p.ex".split()
)
_WORDS_TOO = frozenset({"no", "st", "min", "max", "ed"})  # abbreviations before a number alone
_MAYBE_LAST = frozenset("etc a.m p.m u.s u.k inc ltd co corp al".split())  # these may close a sentence, too


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of each sentence, without the white space between them."""
    protected = [match.span() for match in _PROTECTED.finditer(text)]
    spans = []
    start = 0
    for match in _END.finditer(text):
        if any(begin < match.start() < end - 1 for begin, end in protected) or not _ends_sentence(text, match, start):
            continue
        end = _after_marks(match)
        spans.append((start, end))
        start = end
    spans.append((start, len(text)))
    return [span for span in (_stripped(text, *span) for span in spans) if span[0] < span[1]]


def _after_marks(match: re.Match[str]) -> int:
    if match["stop"]:
        return match.end("close")
    if match["wide"]:
        return match.end("wideclose")
    return match.end()


def _ends_sentence(text: str, match: re.Match[str], start: int) -> bool:
    if not match["stop"]:
        return True
    following = match["next"]
    if following.islower():
        return False
    before = _LAST_WORD.search(text, start, match.start())
    if match["stop"] != "." or before is None:
        return True
    word = before[0].lower().strip("'’")
    if word in _MAYBE_LAST:
        return following.isupper()
    is_abbreviation = word in _ABBREVIATIONS and (word not in _WORDS_TOO or following.isdigit())
    is_initial = len(word) == 1 and word.isalpha() and word != "i"
    is_number_at_start = word.isdigit() and before.start() == start
    return not (is_abbreviation or is_initial or is_number_at_start)


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))
