"""How one of the eight perspectives says what it needs, at a temperature.

The temperature governs three things: how far down the list of forms the sampling reaches, how often a word is replaced
by one that customers use for it, and how many slips the voice makes. At 0 the plainest form is taken.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from typing import TypeVar

from byheart.synthesize import offline_phrasings as phrasings
from byheart.synthesize.offline_grammar import VERBS, base_to_gerund
from byheart.synthesize.offline_needs import Need, NeedKind

Item = TypeVar("Item")

_FUNCTION_WORDS = frozenset(
    """
    a an the of to in on at for with from by and or is are be do does did can could will would should i my me we
    our it its this that these those there here how what when where why which who if then than so as into up out
    not no any some you your have has had was were am
    """.split()
)
_SYNONYMS_OF = {
    word: tuple(other for other in group if other != word) for group in reversed(phrasings.SYNONYMS) for word in group
}
_SYNONYM_PATTERN = re.compile(r"\b(" + "|".join(sorted(map(re.escape, _SYNONYMS_OF), key=len, reverse=True)) + r")\b")


def say(need: Need, *, perspective: str, temperature: float, rng: random.Random) -> str:
    """Return the need as a question in the perspective's voice."""
    if perspective == "hurried":
        return keywords(need.phrase, temperature=temperature, rng=rng)
    forms = _forms(need.kind, perspective)
    question = _fill(pick(forms, temperature=temperature, rng=rng), need)
    if perspective == "wrong term" or rng.random() < 0.35 * temperature:
        question = reword(question, share=1.0 if perspective == "wrong term" else 0.4, rng=rng)
    if perspective == "administrator":
        question = _open(phrasings.ADMIN_OPENINGS, question, temperature=temperature, rng=rng)
    elif perspective == "rambling":
        question = _open(phrasings.RAMBLING_OPENINGS, question, temperature=max(temperature, 0.6), rng=rng)
    elif perspective == "newcomer" and temperature > 0:
        question = _open(phrasings.NEWCOMER_OPENINGS, question, temperature=temperature, rng=rng)
    elif perspective == "non-native":
        question = slip(question, amount=0.5 + temperature, rng=rng)
    if temperature > 0.5 and rng.random() < 0.3 * temperature:
        question = question.lower().rstrip("?.")
    return re.sub(r"\s+", " ", question).strip()


def pick(items: Sequence[Item], *, temperature: float, rng: random.Random) -> Item:
    """Sample an item by softmax(-rank / (5 x temperature)): the first at 0, nearly even at 1.2."""
    if temperature <= 0:
        return items[0]
    weights = [math.exp(-rank / (5 * temperature)) for rank in range(len(items))]
    return rng.choices(items, weights)[0]


def keywords(phrase: str, *, temperature: float, rng: random.Random) -> str:
    """Return two to six content words, shuffled and reworded more as the temperature rises."""
    words = [word for word in re.findall(r"[\w'/+.-]*\w", phrase) if word.lower() not in _FUNCTION_WORDS]
    if not words:
        words = phrase.split()
    if len(words) > 6:
        start = 0 if temperature <= 0 else rng.randrange(len(words) - 5)
        words = words[start : start + 6]
    if temperature >= 0.6 and len(words) > 3:
        words.pop(rng.randrange(len(words)))
    if temperature >= 0.9:
        rng.shuffle(words)
    text = " ".join(words).lower()
    return reword(text, share=0.5, rng=rng) if rng.random() < 0.5 * temperature else text


def reword(text: str, *, share: float, rng: random.Random) -> str:
    """Replace a share of the words by what customers call the same thing."""

    def replace(found: re.Match[str]) -> str:
        return rng.choice(_SYNONYMS_OF[found[1]]) if rng.random() < share else found[1]

    return _SYNONYM_PATTERN.sub(replace, text)


def slip(text: str, *, amount: float, rng: random.Random) -> str:
    """Make a learner's slips: articles lost, auxiliaries dropped, letters swapped, known misspellings."""
    words = []
    for word in text.split():
        lower = word.lower()
        if lower in {"a", "an", "the"} and rng.random() < 0.45 * amount:
            continue
        if lower in {"do", "does", "am", "is", "are"} and rng.random() < 0.25 * amount:
            continue
        if lower in phrasings.MISSPELLINGS and rng.random() < 0.4 * amount:
            words.append(phrasings.MISSPELLINGS[lower])
        elif len(word) > 5 and word.isalpha() and rng.random() < 0.06 * amount:
            spot = rng.randrange(1, len(word) - 2)
            words.append(word[:spot] + word[spot + 1] + word[spot] + word[spot + 2 :])
        else:
            words.append(word)
    return " ".join(words)


def _forms(kind: NeedKind, perspective: str) -> Sequence[str]:
    special = {"troubleshooting": phrasings.SYMPTOMS, "comparing": phrasings.COMPARISONS}.get(perspective, {})
    return special.get(kind, phrasings.FORMS[kind])


def _fill(form: str, need: Need) -> str:
    verb, _, rest = need.phrase.partition(" ")
    gerund = f"{base_to_gerund(verb)} {rest}".strip() if verb in VERBS else need.phrase
    text = form.replace("{x}", need.phrase).replace("{ing}", gerund)
    return text[:1].upper() + text[1:] if form[:1].isupper() or form.startswith("{") else text


def _open(openings: Sequence[str], question: str, *, temperature: float, rng: random.Random) -> str:
    opening = pick(openings, temperature=temperature, rng=rng)
    inner = (
        question
        if opening.startswith("{q}") or ". {q}" in opening or ": {q}" in opening
        else (question[:1].lower() + question[1:] if not question.startswith(("I ", "I'm ")) else question)
    )
    return opening.replace("{q}", inner)
