"""Who asks: the eight perspectives that questions are written from, and the prompts that a language model gets.

Diversity of phrasing, not number of questions, is what makes a fact stick (Physics of Language Models 3.1), and a bot
that only saw tidy questions fails on real ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import string
from importlib import resources


@dataclasses.dataclass(frozen=True, slots=True)
class Perspective:
    """One kind of person asking."""

    name: str  # written into every pair
    description: str  # one line, for the teacher


PERSPECTIVES: tuple[Perspective, ...] = (
    Perspective("newcomer", "has never used the product, does not know its terms, asks plainly and politely"),
    Perspective("hurried", "types two to six keywords into the box, no sentence, no punctuation"),
    Perspective("rambling", "chats: first says what they are doing and why, then asks, in two or three sentences"),
    Perspective("administrator", "runs the product for a team; asks precisely, about settings, rights, consequences"),
    Perspective("troubleshooting", "describes a symptom, something missing or not working, without knowing its cause"),
    Perspective("non-native", "writes simple sentences with the slips of a learner: articles, word order, spelling"),
    Perspective("comparing", "compares two options or plans, or checks a limit, a number or a precondition"),
    Perspective("wrong term", "means the right thing but calls it by another word, as people from other products do"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt file; its id changes with its text, so that every pair says which wording made it."""

    id: str
    text: str

    def fill(self, **values: str) -> str:
        """Return the text with each $name replaced, once: a $ in a value stays as it is."""
        return string.Template(self.text).substitute(values)


def load_prompt(name: str) -> Prompt:
    """Return prompts/<name>.md of this package."""
    text = resources.files(__package__).joinpath("prompts", f"{name}.md").read_text(encoding="utf-8")
    return Prompt(id=f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}", text=text)
