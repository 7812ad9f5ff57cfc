"""Is a question fit to learn, and is its answer what the manual says? A reason and the evidence where not."""

from __future__ import annotations

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Sequence

from byheart.synthesize.similarity import FUNCTION_WORDS, content_words, words

MAX_QUESTION_WORDS = 80  # a rambling chat message; longer ones are pasted text
MAX_ANSWER_WORDS = 400
UNSUPPORTED_SHARE = 0.2  # content words of an answer's sentence that the section need not have ("then", "simply")
COPIED_SHARE = 0.9  # content words of the answer that a question may not repeat
LEAKED_WORDS = 4  # an answer of so many words, found whole in its question, leaves nothing to learn
FOREIGN_SCRIPT_SHARE = 0.05  # a script with less of the section's letters than this is foreign to it

# The reasons that say an answer is not the manual's.
UNKNOWN_NUMBER = "answer has a number that the section does not"
UNKNOWN_LABEL = "answer names a label that the section does not"
UNSUPPORTED = "answer is not in the section"
TURNED_ROUND = "answer denies what the section affirms, or affirms what it denies"
NOT_JOINED = "answer does not take its two facts"  # a multi-hop question's
UNFAITHFUL = frozenset({UNKNOWN_NUMBER, UNKNOWN_LABEL, UNSUPPORTED, TURNED_ROUND})

_CONTEXT_ONLY = re.compile(
    r"\b(?:this|the (?:given|provided|above|following)) (?:section|article|document|text|passage|excerpt|chapter|"
    r"manual|paragraph|help page|page (?:say|describe|explain|mention)\w*)\b"
    r"|\b(?:mentioned|described|listed|shown|explained|stated|given) (?:above|below|here)\b"
    r"|\b(?:passage|section|table|list) (?:above|below)\b|\bin the text\b"
    r"|\baccording to the (?:text|passage|section|article|manual|document\w*|guide)\b|\bfact \d+\b",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"(?:https?://|www\.)[^\s)>\]]*[\w/]|\b[\w.+-]+@[\w-]+\.\w+", re.IGNORECASE)
_LABEL = re.compile(r"\*\*([^*\n]+)\*\*|`([^`\n]+)`|“([^”\n]+)”|\"([^\"\n]+)\"")
_TAG = re.compile(r"<[^<>\n]{1,300}>")
_NUMBERED = re.compile(r"^\s*\d+[.)]\s+", re.MULTILINE)
_NEGATIONS = frozenset(
    "not no never cannot without neither nor nicht kein keine nie pas jamais nunca non não niet".split()
)
_SMALL_TALK = frozenset("yes sure okay ok ja oui sí sim sì".split())


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Why a draft is not kept."""

    reason: str
    evidence: str


class Source:
    """A section's text, prepared once for the many answers that are checked against it."""

    def __init__(self, *, headings: Iterable[str], markdown: str) -> None:
        headings = tuple(headings)
        text = "\n".join([*headings, plain(markdown)])
        self.language = language_of(text)
        self.raw = "\n".join([*headings, markdown]).casefold()
        self.flat = _flat(text)
        self.words = frozenset(words(text))
        self.spoken = _spoken(text)
        self.sentences = [frozenset(words(sentence)) for sentence in sentences(text)]
        self.scripts = _scripts(text)


def question_fault(question: str, answer: str, source: Source) -> Fault | None:
    """Return why the question is not fit to learn, or None."""
    for address in _ADDRESS.findall(question):
        if address.casefold() not in source.raw:
            return Fault("question holds an address that the section does not", address)
    return (
        _form_fault(question, source.language)
        or _language_fault(question, source)
        or _copy_fault(question, answer, source)
    )


def outside_fault(question: str, language: str) -> Fault | None:
    """Return why a question outside the manual is not fit to be asked, or None."""
    if address := _ADDRESS.search(question):
        return Fault("question holds an address", address[0])
    spoken = language_of(question)
    if spoken and language in FUNCTION_WORDS and spoken != language:
        return Fault("question is in another language", f"{spoken}, the manual is {language}")
    return _form_fault(question, language)


def answer_fault(answer: str, source: Source) -> Fault | None:
    """Return what in the answer the section's text does not support, or None."""
    if not words(answer):
        return Fault("empty answer", answer)
    if len(words(answer)) > MAX_ANSWER_WORDS:
        return Fault("answer too long", f"{len(words(answer))} words, at most {MAX_ANSWER_WORDS}")
    for label in ("".join(groups) for groups in _LABEL.findall(_TAG.sub(" ", answer))):
        if _flat(label) not in source.flat:
            return Fault(UNKNOWN_LABEL, label)
    for sentence in sentences(plain(_NUMBERED.sub("", answer))):
        if fault := _sentence_fault(sentence, source):
            return fault
    return None


def joint_fault(answer: str, statements: Sequence[str], headings: Sequence[str]) -> Fault | None:
    """Return why the answer to a multi-hop question is not made of all its facts, or None.

    All of them together bear it out, and none can be left out.
    """
    if fault := answer_fault(answer, Source(headings=headings, markdown="\n".join(statements))):
        return Fault(NOT_JOINED, f"more than they say: {fault.evidence}")
    for spare in statements:
        rest = [statement for statement in statements if statement is not spare]
        if answer_fault(answer, Source(headings=headings, markdown="\n".join(rest))) is None:
            return Fault(NOT_JOINED, f"without this one it is answered, too: {spare}")
    return None


def plain(markdown: str) -> str:
    """Return Markdown's text without its marks, links' addresses and images; line breaks stay."""
    text = re.sub(r"!\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)
    text = _TAG.sub(" ", text)
    text = re.sub(r"^\s*(?:[-*+>#|]+|:::\w*|```\w*|\d+[.)])\s+", "", text, flags=re.MULTILINE)
    text = re.sub(r"\*\*|__|`|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)|\\(?=[^\w\s])", "", text)
    return re.sub(r"[ \t]*\|[ \t]*", "\n", text).strip()


def sentences(text: str) -> list[str]:
    """Return a text's sentences. A line break ends one, unless the next line goes on in lower case."""
    parts = re.split(r"\n+(?![a-zà-ÿ])|(?<=[.!?;:])\s+|(?<=[。！？])", text)
    return [part.strip() for part in parts if part.strip()]


def language_of(text: str) -> str:
    """Return the language whose function words the text has most of; "" where no language is twice as likely."""
    found = re.findall(r"[^\W\d_]+", text.casefold())
    hits = collections.Counter({code: sum(word in stop for word in found) for code, stop in FUNCTION_WORDS.items()})
    (first, most), (_, next_most) = hits.most_common(2)
    return first if most >= 3 and most >= 2 * next_most else ""


def _sentence_fault(sentence: str, source: Source) -> Fault | None:
    if _spoken(sentence) in source.spoken:
        return None
    found = words(sentence)
    numbers = [word for word in found if word[0].isdigit() and word not in source.words]
    if numbers:
        return Fault(UNKNOWN_NUMBER, f"{', '.join(numbers)} in: {sentence}")
    content = set(content_words(sentence, source.language)) - _SMALL_TALK - _NEGATIONS
    missing = sorted(content - source.words)
    if len(missing) > UNSUPPORTED_SHARE * len(content):
        return Fault(UNSUPPORTED, f"{', '.join(missing)} in: {sentence}")
    # The words may all be there and say the opposite: a sentence that they come from must deny or affirm alike.
    origins = [item for item in source.sentences if content and len(content & item) >= COPIED_SHARE * len(content)]
    if origins and all(_negated(item) != _negated(found) for item in origins):
        return Fault(TURNED_ROUND, sentence)
    return None


def _negated(found: Iterable[str]) -> bool:
    return any(word in _NEGATIONS or word.endswith(("n't", "n’t")) for word in found)


def _form_fault(question: str, language: str) -> Fault | None:
    found = words(question)
    if not found:
        return Fault("empty question", question)
    if len(found) > MAX_QUESTION_WORDS:
        return Fault("question too long", f"{len(found)} words, at most {MAX_QUESTION_WORDS}")
    if not content_words(question, language):
        return Fault("question without content", question)
    if context := _CONTEXT_ONLY.search(question):
        return Fault("question refers to a text that its reader does not see", context[0])
    return None


def _language_fault(question: str, source: Source) -> Fault | None:
    language = language_of(question)
    if language and source.language and language != source.language:
        return Fault("question is in another language", f"{language}, the section is {source.language}")
    letters = _scripts(question)
    script, _ = letters.most_common(1)[0] if letters else ("", 0)
    if script and source.scripts[script] < FOREIGN_SCRIPT_SHARE * source.scripts.total():
        return Fault("question is in another script", script)
    return None


def _copy_fault(question: str, answer: str, source: Source) -> Fault | None:
    answer_words = words(plain(answer))
    if len(answer_words) >= LEAKED_WORDS and _spoken(plain(answer)) in _spoken(question):
        return Fault("question gives its answer away", answer)
    content = set(content_words(plain(answer), source.language))
    copied = content & set(words(question))
    if len(content) > LEAKED_WORDS + 1 and len(copied) >= COPIED_SHARE * len(content):
        return Fault("question copies its answer", ", ".join(sorted(copied)))
    return None


def _spoken(text: str) -> str:
    return f" {' '.join(words(text))} "


def _flat(text: str) -> str:
    return " ".join(plain(unicodedata.normalize("NFKC", text)).casefold().split())


def _scripts(text: str) -> collections.Counter[str]:
    """Return how many letters each script has; Japanese's three count as one with Chinese."""
    names = (unicodedata.name(letter, "?").split()[0].split("-")[0] for letter in text if letter.isalpha())
    return collections.Counter("CJK" if name in {"HIRAGANA", "KATAKANA", "CJK"} else name for name in names)
