"""From a heading or a statement of the manual to what a customer may need: a task, a thing, a limit, a symptom …

A need is what is asked for, free of the way of asking; `offline_phrasings` puts it into words.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Literal

from byheart.synthesize.offline_grammar import (
    ADVERBS,
    VERBS,
    base_to_gerund,
    first_person,
    gerund_to_base,
    is_verb_phrase,
    lower_first,
    shorten,
    task_of,
)

NeedKind = Literal["task", "thing", "who", "allowed", "blocked", "event", "limit", "place", "shortcut", "default",
                   "question", "claim", "keywords"]  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Need:
    """What is asked for.

    `phrase` is a verb phrase (task, who, blocked, shortcut), a noun phrase (thing, limit, place, default), a clause
    (event, allowed, claim), words (keywords), or a whole question.
    """

    kind: NeedKind
    phrase: str
    weight: float = 1.0  # how telling the need is: sampled in proportion


_ARTICLES = r"(?:the|a|an|your|this|each|every|all|any)"
_NUMBER = re.compile(r"\d")
_ONLY_SOME_MAY = re.compile(
    r"\bonly (?P<who>[\w\s/,-]{3,50}?) (?:can|may|are able to|have permission to) (?P<what>[^.;]+)", re.I
)
_ALLOWS_YOU_TO = re.compile(
    r"\b(?:allows?|lets?|enables?|helps?|makes? it possible for) (?:you|users|members|people) (?:to )?"
    r"(?P<task>\w+ [^.;]{3,80})",
    re.I,
)
_DEFINITION = re.compile(
    rf"^(?P<what>(?:{_ARTICLES}\s)?[\w\s/'’-]{{2,45}}?) (?:is|are) "
    r"(?P<rest>(?:a|an|the|used|called|where|what)\b.+)$",
    re.I,
)
_QUESTION_START = re.compile(r"^(what|why|how|when|where|who|which|can|could|do|does|is|are|will|should|may)\b", re.I)
_LEADING_NUMBER = re.compile(r"^(?:step\s+)?[\dIVX]+(?:\.\d+)*[.):]?\s+|^\d+(?:\.\d+)*\.?\s*[:-]\s*", re.I)
_STOP_HEADINGS = frozenset(
    """
    overview introduction intro notes note tips tip summary conclusion examples example more details see also
    related articles general other misc miscellaneous faq
    """.split()
) | {"see also", "related articles", "next steps", "what's next", "learn more", "before you start", "further reading"}


def heading_needs(heading_path: tuple[str, ...]) -> list[Need]:
    """Return the needs that a section's headings name, the innermost first."""
    headings = [clean_heading(heading) for heading in heading_path]
    own = headings[-1]
    parent = next((h for h in reversed(headings[:-1]) if h.lower() != own.lower()), "")
    needs: list[Need] = []
    if own.lower() in _STOP_HEADINGS and parent:
        own, parent = parent, ""
    if own.endswith("?") or (
        _QUESTION_START.match(own) and len(own.split()) > 3 and not own.lower().startswith("how to")
    ):
        needs.append(Need("question", own.rstrip("?"), 3.0))
    elif task := task_of(own):
        needs.append(Need("task", first_person(task), 3.0))
        if parent and len(own.split()) <= 3 and not _shares_word(task, parent):
            needs.append(Need("task", f"{first_person(task)} ({lower_first(parent)})", 1.0))
    elif own:
        needs.append(Need("thing", lower_first(own), 2.0))
        if parent and len(own.split()) <= 4 and not _shares_word(own, parent):
            needs.append(Need("thing", f"{lower_first(own)} for {lower_first(parent)}", 2.0))
    if parent:
        needs.append(Need("keywords", f"{parent} {own}".lower(), 1.0))
    return needs


def statement_needs(statement: str, heading: str) -> list[Need]:
    """Return the needs that one statement of the manual serves."""
    text = re.sub(r"\s+", " ", statement).strip()
    return [need for need in _frames(text, clean_heading(heading)) if 2 < len(need.phrase) < 160]


def salient_words(statement: str) -> str:
    """Return the longer, rarer-looking words of a statement, at most six, in their order."""
    words = [word for word in re.findall(r"[\w'/+.-]*\w", statement) if len(word) > 3 or word.isupper()]
    longest = set(sorted(words, key=lambda word: (-len(word), word))[:6])
    return " ".join(dict.fromkeys(word for word in words if word in longest))


def clean_heading(heading: str) -> str:
    """Return a heading without numbering, arrows, symbols and brackets at its end."""
    heading = _LEADING_NUMBER.sub("", heading.strip())
    heading = re.sub(r"[^\w\s'’.,/&?!+()\-]", " ", heading)
    return re.sub(r"\s+", " ", heading).strip(" .:,-")


def _frames(text: str, heading: str) -> Iterator[Need]:
    """Yield what each sentence pattern gives; a statement may fit several."""
    label = re.match(r"^([^:.]{2,50}):\s+(.+)$", text)
    if label and not label[1].lower().startswith(("http", "note", "tip", "warning")):
        yield from _labelled(label[1], label[2], heading)
        text = label[2]
    yield from _conditional_frames(text)
    yield from _permission_frames(text)
    yield from _task_frames(text)
    yield from _thing_frames(text, heading)


def _labelled(term: str, rest: str, heading: str) -> Iterator[Need]:
    """`Term: explanation`, a definition or a table cell."""
    term = clean_heading(re.sub(r"\s[–—-]\s", " ", term))
    if task := task_of(term):
        yield Need("task", first_person(task), 2.0)
    elif term:
        yield Need("thing", lower_first(term), 1.5)
        if heading and not _shares_word(term, heading):
            yield Need("thing", f"{lower_first(term)} in {lower_first(heading)}", 1.0)
    if _NUMBER.search(rest) and not is_verb_phrase(term):
        yield Need("limit", lower_first(term), 1.5)


def _conditional_frames(text: str) -> Iterator[Need]:
    """If, when, after, by default."""
    if found := re.match(r"^(?:if|when|whenever|once|after) (?P<condition>[^,]{8,90}), (?P<result>.+)$", text, re.I):
        condition = found["condition"]
        gerund = re.match(r"^(\w+ing)\b(.*)$", condition)
        if gerund and (base := gerund_to_base(gerund[1])):
            condition = f"you {base}{gerund[2]}"
        if re.match(r"^(you )?(want|need|would like|wish|prefer)( to)? ", condition, re.I):
            wanted = re.sub(r"^(you )?(want|need|would like|wish|prefer)( to)? ", "", condition, flags=re.I)
            if task := task_of(wanted):
                yield Need("task", first_person(task), 3.0)
        else:
            yield Need("event", first_person(lower_first(condition)), 2.5)
        result = re.match(r"^(?:please )?(\w+) (.+)$", found["result"])
        if result and result[1].lower() in VERBS:
            yield Need("claim", first_person(lower_first(condition)), 1.0)
    elif found := re.match(
        r"^(?P<result>[^,]{10,90}?),? (?:if|when|whenever|once) (?P<condition>[^,.]{8,80})", text, re.I
    ):
        yield Need("event", first_person(lower_first(found["condition"])), 1.0)
    if found := re.search(r"\bby default,? (?P<clause>[^.]{6,80})|(?P<before>[^.]{6,70}?) by default\b", text, re.I):
        clause = found["clause"] or found["before"] or ""
        subject = re.split(r"\b(is|are|will|can|has|have|does|do|gets?|shows?)\b", clause, maxsplit=1)[0]
        if 1 <= len(subject.split()) <= 8:
            yield Need("default", first_person(lower_first(subject.strip())), 2.0)


def _permission_frames(text: str) -> Iterator[Need]:
    """Who may, what cannot, what is allowed."""
    if found := _ONLY_SOME_MAY.search(text):
        what = first_person(shorten(found["what"], max_words=10))
        yield Need("who", what, 3.0)
        yield Need("blocked", what, 2.0)
        return
    if found := re.search(r"(?P<who>[^.;,:]{3,60}?) (?:can ?not|can[’']t|are not able to|is not able to|is unable to) "
                          r"(?P<what>[^.;]+)", text, re.I):  # fmt: skip
        what, who = shorten(found["what"], max_words=10), found["who"].strip()
        verb = what.split(" ", 1)[0].lower()
        if verb == "be":
            yield Need("allowed", first_person(f"{lower_first(who)} {what}"), 2.5)
        else:
            yield Need("blocked", first_person(what), 3.0)
            if who.lower() not in {"you", "it", "they"}:
                yield Need("allowed", first_person(f"{lower_first(who)} {what}"), 2.5)
        return
    if found := re.match(r"^(?P<who>[^.;,:]{3,50}?) (?:can|may|are able to) (?P<what>[^.;]+)", text, re.I):
        what, who = ADVERBS.sub("", shorten(found["what"], max_words=11)), found["who"].strip()
        if re.search(r"(^|\b(this|that|which|means|where) ?\b.*|\b)(you|users|it)$", who, re.I):
            for part in _coordinated(what):
                yield Need("task", first_person(part), 2.5)
        elif not re.match(r"^(this|that|these|there|which|it)\b", who, re.I):
            yield Need("allowed", first_person(f"{lower_first(who)} {what}"), 2.5)
            if not what.lower().startswith("be "):
                yield Need("who", first_person(what), 2.0)


def _task_frames(text: str) -> Iterator[Need]:
    """Instructions, purposes and key presses."""
    if found := re.match(r"^(?:in order )?to (?P<task>[^,]{4,80}), (?P<how>.+)$", text, re.I):
        for part in _coordinated(found["task"]):
            yield Need("shortcut" if _KEYS.search(found["how"]) else "task", first_person(part), 3.0)
    if found := re.search(r"\b(?P<how>[^.;]{4,90}?) (?:in order )?to (?P<task>\w+ [^.;]{3,80})", text):
        task = shorten(found["task"], max_words=9)
        if is_verb_phrase(task):
            kind: NeedKind = "shortcut" if _KEYS.search(found["how"]) else "task"
            yield Need(kind, first_person(task), 2.5)
    words = text.split()
    if words and words[0].lower() in VERBS and len(words) > 2:
        yield Need("task", first_person(lower_first(shorten(text, max_words=9))), 0.7)
    if found := _ALLOWS_YOU_TO.search(text):
        for part in _coordinated(shorten(found["task"], max_words=10)):
            if is_verb_phrase(part):
                yield Need("task", first_person(part), 2.5)
    if re.search(r"\bby (\w+ing)\b", text) and (found := re.search(r"\bby (?P<task>\w+ing [^.;]{3,60})", text)):
        phrase = task_of(found["task"])
        if phrase:
            yield Need("task", first_person(shorten(phrase, max_words=8)), 0.7)


def _thing_frames(text: str, heading: str) -> Iterator[Need]:
    """Definitions, limits, places, labels."""
    if found := _DEFINITION.match(text):
        subject = re.sub(rf"^{_ARTICLES}\s", "", found["what"], flags=re.I).strip()
        if subject.lower() not in _PRONOUNS:
            yield Need("thing", lower_first(subject), 2.5)
            purpose = re.search(r"\bused (?:to|for) (?P<task>.{4,60})", found["rest"])
            if purpose:
                yield Need(
                    "task", first_person(task_of(shorten(purpose["task"], max_words=9)) or "use " + subject), 1.5
                )
    if _NUMBER.search(text) and (found := re.search(_LIMIT_WORDS, text, re.I)):
        topic, *verb = re.split(r"\b(is|are|can|must|may|has|have|cannot)\b", text, maxsplit=1)
        topic = topic.strip()
        if verb and 1 <= len(topic.split()) <= 7 and topic.lower() not in _PRONOUNS:
            yield Need("limit", first_person(lower_first(topic)), 2.0)
        elif heading:
            yield Need("limit", lower_first(heading), 1.5)
    for found in re.finditer(r"\b(?:in|from|at|under|on|through|via) the (?P<place>[\w\s&/-]{3,40}?) "
                             r"(?P<what>menu|panel|sidebar|tab|page|section|settings|toolbar|dialog|window|button|icon)\b",
                             text, re.I):  # fmt: skip
        yield Need("place", f"{lower_first(found['place'])} {found['what'].lower()}", 0.8)
    if (
        re.match(r"^(the|this|these|each|it|there|all|some|any|no|every)?\b", text, re.I)
        and 4 <= len(text.split()) <= 22
    ):
        yield Need("claim", first_person(lower_first(shorten(text, max_words=14))), 0.8)


_PRONOUNS = frozenset(
    """
    it this that these those there they which what he she we you here all some
    """.split()
)
_KEYS = re.compile(r"\b(press|hold|holding|pressing|shortcut|ctrl|cmd|alt|shift|hotkey|key)\b|[⌘⌥⇧]", re.I)
_LIMIT_WORDS = (
    r"\b(up to|at most|at least|maximum|minimum|limit|max|min|only|no more than|fewer than|less than|more than|"
)
_LIMIT_WORDS += (
    r"per|every|within|exceed|days?|hours?|minutes?|weeks?|months?|MB|GB|KB|px|pixels?|characters?|%|percent)\b"
)


def _coordinated(phrase: str) -> list[str]:
    """Split "create, edit and delete boards" into the tasks that it lists, each with the object that they share."""
    phrase = shorten(phrase, max_words=12) if "," not in phrase else phrase
    found = re.match(r"^(?P<verbs>\w+(?:, \w+)*,? (?:and|or) \w+) (?P<object>.+)$", phrase)
    if found:
        verbs = re.split(r", (?:and |or )?| and | or ", found["verbs"])
        if all(verb.lower() in VERBS for verb in verbs):
            return [f"{verb.lower()} {shorten(found['object'], max_words=7)}" for verb in verbs]
    return [lower_first(shorten(phrase, max_words=10))]


def _shares_word(a: str, b: str) -> bool:
    def content(text: str) -> set[str]:
        return {word.rstrip("s") for word in re.findall(r"\w{4,}", text.lower())}

    return bool(content(a) & content(b))


def gerund_of(task: str) -> str:
    """Return "deleting a team" for "delete a team"."""
    verb, _, rest = task.partition(" ")
    return f"{base_to_gerund(verb)} {rest}".strip()
