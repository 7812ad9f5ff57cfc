"""Just enough English grammar to turn headings and statements into what a customer asks for.

The word lists are general English for software; none comes from a manual.
"""

from __future__ import annotations

import re

VERBS = frozenset(
    """
    accept access activate adapt add adjust align allow analyze animate annotate apply approve archive arrange ask
    assign attach authenticate authorize automate avoid back block book bookmark boost browse build bulk buy
    calculate call cancel capture categorize center change chat check choose clean clear clone close collaborate
    collapse collect color combine comment compare complete compose configure confirm connect contact contribute
    control convert copy count create crop customize cut deactivate debug decide decline decrease define delete
    deliver deploy describe design detach detect determine develop disable disconnect discover dismiss display
    distribute dock download drag draw drop duplicate edit email embed enable encrypt end enlarge enter erase
    escape evaluate exclude execute exit expand experiment explore export extend extract filter find finish fix
    flag flip focus follow force format forward generate get give go grant group grow handle help hide highlight
    identify ignore implement import improve include increase indent insert inspect install integrate interact
    introduce invert invite join jump keep label launch learn leave let limit link list load locate lock log look
    make manage mark mask match measure mention merge message migrate minimize mirror modify monitor move mute
    name navigate nest notify open optimize order organize override pan paste pause permit pick pin place play
    position post prepare present press preview print process promote protect provide publish pull purchase push
    quit quote reach react read reactivate rearrange receive recolor record recover redeem redo reduce refer
    refresh register reject reload remind remove rename renew reopen reorder repeat replace reply report request
    require reschedule reset resize resolve respond restore restrict resume retrieve return reuse revert review
    revoke revise rotate run save scale scan schedule scroll search secure see select send separate set share
    shift show shrink sign skip snap snooze sort specify split star start stop store stretch submit subscribe
    switch sync synchronize tag take test toggle track transfer transform translate troubleshoot try turn type
    unarchive understand undo unfollow ungroup unhide uninstall unlink unlock unmute unpin unpublish unsubscribe
    update upgrade upload use validate verify view visit vote wait watch withdraw work write zoom
    """.split()
)

_IRREGULAR = {"setting": "set", "getting": "get", "lying": "lie", "dying": "die", "tying": "tie", "seeing": "see"}
_GERUND_NOUNS = frozenset(
    """
    billing pricing string thing king ring spring setting during nothing anything
    """.split()
)

_OBJECT_BEFORE = (
    "help|let|allow|enable|show|give|ask|send|tell|remind|notify|invite|require|want|need|for|to|with|from|by|of"
)
_FIRST_PERSON = (
    (re.compile(rf"\b((?:{_OBJECT_BEFORE})s?) you\b(?! (?:are|can|have|will|want|need))", re.I), r"\1 me"),
    (re.compile(r"\byou are\b", re.I), "I am"),
    (re.compile(r"\byou're\b", re.I), "I'm"),
    (re.compile(r"\byou've\b", re.I), "I've"),
    (re.compile(r"\byou'll\b", re.I), "I'll"),
    (re.compile(r"\byourself\b", re.I), "myself"),
    (re.compile(r"\byours\b", re.I), "mine"),
    (re.compile(r"\byour\b", re.I), "my"),
    (re.compile(r"\byou\b", re.I), "I"),
)


def gerund_to_base(word: str) -> str | None:
    """Return "delete" for "deleting"; None where the word is no gerund of a known verb."""
    lower = word.lower()
    if lower in _GERUND_NOUNS and lower not in _IRREGULAR:
        return None
    if lower in _IRREGULAR:
        return _IRREGULAR[lower]
    if not lower.endswith("ing") or len(lower) < 5:
        return None
    stem = lower[:-3]
    candidates = [stem, stem + "e"]
    if len(stem) > 2 and stem[-1] == stem[-2]:
        candidates.append(stem[:-1])
    return next((candidate for candidate in candidates if candidate in VERBS), None)


def base_to_gerund(verb: str) -> str:
    """Return "deleting" for "delete"."""
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    doubles = {"set", "get", "cut", "put", "run", "drag", "drop", "crop", "pin", "unpin", "tag", "snap", "pan", "swap"}
    if verb in doubles | {"stop", "skip", "log", "let", "begin", "quit", "flip", "plan", "map", "submit", "scan"}:
        return verb + verb[-1] + "ing"
    return verb + "ing"


def first_person(text: str) -> str:
    """Return the manual's "you" as the customer says it: "your board" becomes "my board"."""
    for pattern, replacement in _FIRST_PERSON:
        text = pattern.sub(replacement, text)
    return text


def is_verb_phrase(phrase: str) -> bool:
    """Tell whether the phrase starts with a verb in its base form ("delete a team")."""
    words = phrase.lower().split()
    if not words or words[0] not in VERBS:
        return False
    # "Display settings", "Search results": a lone noun behind the word makes it a name, not a task.
    return len(words) > 2 or (len(words) == 2 and not words[1].endswith(("ings", "tions", "ments", "ults")))


def task_of(phrase: str) -> str | None:
    """Return the task that a heading names, as a verb phrase in base form; None where it names none.

    "Deleting a team", "How to delete a team", "Delete a team" all give "delete a team".
    """
    phrase = ADVERBS.sub("", phrase.strip())
    phrase = re.sub(r"^(how (to|do (i|you)|can (i|you))|to|want to|steps to)\s+", "", phrase.strip(), flags=re.I)
    words = phrase.split()
    if not words:
        return None
    base = gerund_to_base(words[0])
    if base and len(words) > 1:
        rest = re.sub(
            r"\b(and|or|,) (\w+ing)\b", lambda m: f"{m[1]} {gerund_to_base(m[2]) or m[2]}", " ".join(words[1:])
        )
        return f"{base} {rest}"
    if is_verb_phrase(phrase):
        return words[0].lower() + phrase[len(words[0]) :]
    return None


ADVERBS = re.compile(
    r"^(?:(?:also|then|now|just|really|always|easily|quickly|simply|only|optionally|either|please) )+", re.I
)


def lower_first(text: str) -> str:
    """Lower the first letter, unless the first word is a name or an acronym ("API keys", "iOS")."""
    first = text.split(" ", 1)[0]
    return text if any(letter.isupper() for letter in first[1:]) or first == "I" else text[:1].lower() + text[1:]


def shorten(phrase: str, *, max_words: int) -> str:
    """Cut a phrase at its first clause boundary, and at `max_words`, never after a word that wants another."""
    phrase = re.split(r"\s*[:;(]\s*|,\s|\s[–—-]\s|\.\s", phrase, maxsplit=1)[0]
    boundary = re.search(r"\s(so that|because|which|where|by (?=\w+ing)|unless|although|while|as well as)\s", phrase)
    if boundary and boundary.start() > 12:
        phrase = phrase[: boundary.start()]
    words = phrase.split()[:max_words]
    while len(words) > 2 and words[-1].lower() in _NEVER_LAST:
        words.pop()
    return " ".join(words).rstrip(" .,;:!?")


_NEVER_LAST = frozenset(
    """
    a an the of to in on at for with from by and or your my its their this that these those is are be as into if
    """.split()
)
