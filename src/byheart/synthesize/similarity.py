"""When are two questions the same? Words, without case, punctuation and plural; and the join that finds near copies.

Pure and exact: no sampling, no hashing of sets, so that the leak report can be trusted to the last pair.
"""

from __future__ import annotations

import collections
import functools
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence

NEAR = 0.8  # Jaccard similarity of two questions' words from which one is a near copy of the other

# Words that carry grammar, not content: also how a text's language is told. Each list holds the most frequent
# function words of its language; English has its question words too, as questions differ by them without differing.
FUNCTION_WORDS: dict[str, frozenset[str]] = {
    "en": frozenset(
        (
            "a an the and or but if of to in on at for with from by as into about than then so that this these those "
            "it its is are was were be been am do does did doing have has had can could may might must shall should "
            "will would i me my we us our you your he she they them their there here how what when where which who "
            "why whom whose any some all please just also very get got not no"
        ).split()
    ),
    "de": frozenset(
        (
            "der die das den dem des ein eine einen einem einer und oder aber wenn ist sind war wird werden kann "
            "können muss ich wir sie mein mit von zu zum zur auf für im bei nicht kein keine wie was wo warum auch es"
        ).split()
    ),
    "fr": frozenset(
        (
            "le la les un une des du de et ou mais si est sont être je nous vous mon ma mes votre vos avec pour dans "
            "sur par pas ne comment que qui quoi où pourquoi ce cette ces il elle peut puis"
        ).split()
    ),
    "es": frozenset(
        (
            "el la los las un una unos unas y o pero si es son ser estar yo mi su sus con para por en del al no "
            "cómo como qué que dónde cuándo puedo puede se lo este esta"
        ).split()
    ),
    "it": frozenset(
        (
            "il lo la i gli le un uno una e o ma se è sono essere io mio con per in nel della dei delle di da non "
            "come che cosa dove quando posso può si questo questa"
        ).split()
    ),
    "pt": frozenset(
        (
            "o a os as um uma uns umas e ou mas se é são ser eu meu com para por em no na nos nas do da dos das não "
            "como que onde quando posso pode este esta"
        ).split()
    ),
    "nl": frozenset(
        (
            "de het een en of maar als is zijn was word wordt kan kunnen moet ik wij je jij u mijn met van naar op "
            "voor in bij niet geen hoe wat waar waarom ook dit deze dat er"
        ).split()
    ),
}

_IDEOGRAPH = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"  # written without spaces: each is a word
_WORD = re.compile(rf"\d+(?:[.,]\d+)*|{_IDEOGRAPH}|(?:(?!{_IDEOGRAPH})[^\W\d_])+(?:['’](?:[^\W\d_])+)?")


@functools.lru_cache(maxsize=100_000)  # every question is looked at by half a dozen checks
def words(text: str) -> tuple[str, ...]:
    """Return the words of a text, in order, without case, punctuation, and plural or possessive s."""
    return tuple(_stem(word) for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def content_words(text: str, language: str = "en") -> list[str]:
    """Return the words that are not function words of the language."""
    stop = FUNCTION_WORDS.get(language, FUNCTION_WORDS["en"])
    return [word for word in words(text) if word not in stop]


def near_pairs(
    texts: Sequence[str],
    *,
    threshold: float = NEAR,
    same_content: bool = True,
    language: str = "en",
    compared_from: int = 0,
) -> Iterator[tuple[int, int]]:
    """Yield every (earlier, later) whose words have a Jaccard similarity of `threshold` or more.

    With `same_content` also those that are the same once function words are left out. Texts before `compared_from`
    are not compared with each other.

    Two sets that similar share one of their rarest words, so only texts that do are compared (prefix filter of
    Bayardo et al. 2007): 10,000 questions take a second or two.
    """
    sets = [frozenset(words(text)) for text in texts]
    contents = [frozenset(content_words(text, language) if same_content else ()) for text in texts]
    counts = collections.Counter(word for item in sets for word in item)
    holders: dict[str, list[int]] = collections.defaultdict(list)
    alike: dict[frozenset[str], list[int]] = collections.defaultdict(list)
    for later, item in enumerate(sets):
        rarest = sorted(item, key=lambda word: (counts[word], word))
        prefix = rarest[: len(item) - math.ceil(threshold * len(item) - 1e-9) + 1]
        if later >= compared_from:
            found = {
                earlier
                for earlier in set().union(*(holders[word] for word in prefix))
                if jaccard(sets[earlier], item) >= threshold
            }
            found.update(alike[contents[later]] if contents[later] else ())
            yield from ((earlier, later) for earlier in sorted(found))
        alike[contents[later]].append(later)
        for word in prefix:
            holders[word].append(later)


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the share of the words of both that both have; 0 where there are none."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if shared else 0.0


def clusters(count: int, pairs: Iterator[tuple[int, int]]) -> list[int]:
    """Return for each item the first item that it is linked to, over any number of pairs."""
    leader = list(range(count))

    def find(item: int) -> int:
        while leader[item] != item:
            leader[item] = leader[leader[item]]
            item = leader[item]
        return item

    for one, other in pairs:
        first, second = sorted((find(one), find(other)))
        leader[second] = first
    return [find(item) for item in range(count)]


@functools.lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    """Cut a possessive or plural s, the only ending that is safe without a dictionary."""
    word = re.sub(r"['’]s?$", "", word)
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word
