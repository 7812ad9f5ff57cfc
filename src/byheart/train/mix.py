"""What a model that writes learns beside its questions: the manual as documents, conversations, replay, and reading.

The shares are of tokens read, as documents are ten times as long as answers and a step's work goes by tokens. Only
what stands beside the questions is measured out: no question is ever dropped for it.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from byheart.errors import TrainError
from byheart.sentences import sentence_spans

# 40 % documents, 40 % questions, 5 to 10 % conversations, 5 % refusals, 10 % replay: after EntiGraph (Yang et al. 2024)
# and sdg_hub. Passages, for a bot that is served with some, are ours. Not measured here.
USUAL = {"documents": 0.4, "conversations": 0.05, "replay": 0.1, "passages": 0.3}
NAMES = tuple(USUAL)
MOST = 0.9  # of all tokens, that defaults fill up
LONGEST = 512  # tokens of an example that is made here; what `byheart plan` counts with, too
LONGEST_READ = 1024  # of one with passages in its prompt
_TURNS = (2, 3)

Item = TypeVar("Item")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:\s+\"[^\"]*\")?\)")
_BLOCK = re.compile(r"(?:^(```|~~~).*?(?:^\1|\Z)|.)+?(?:\n\s*\n|\Z)", re.DOTALL | re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """A question (or a document's headings) with what is learned to follow it, in words."""

    question: str
    answer: str
    history: tuple[tuple[str, str], ...] = ()
    fact_ids: tuple[str, ...] = ()
    place: tuple[str, str] = ("", "")  # ids of page and section; "" for a question that the manual does not answer


@dataclasses.dataclass(frozen=True, slots=True)
class Shares:
    """Of all tokens that are read in an epoch."""

    documents: float
    conversations: float
    replay: float
    passages: float = 0.0

    @property
    def questions(self) -> float:
        """Return what is left for the questions."""
        return 1 - self.documents - self.conversations - self.replay - self.passages


def choose_shares(
    *, documents: float | None, conversations: float | None, replay: float | None, passages: float | None,
    has_replay: bool, reads: bool, from_scratch: bool,
) -> tuple[Shares, dict[str, str]]:  # fmt: skip
    """Return the shares, and under a setting's name "value: reason" for what the config left open or cannot have.

    `reads`: whether the bot is served with passages in its prompts.
    """
    reasons: dict[str, str] = {}
    wished = {"documents": documents, "conversations": conversations, "replay": replay, "passages": passages}
    room = MOST - sum(value or 0.0 for value in wished.values())
    found: dict[str, float] = {}
    for name, value in wished.items():
        if name == "replay" and not has_replay:
            found[name], why = 0.0, "train.replay names no file; its share goes to the questions"
        elif value is not None:
            found[name] = value
            continue
        elif from_scratch:
            found[name], why = 0.0, "a model from scratch reads few tokens, and all of them go to the questions"
        elif name == "passages" and not reads:
            found[name], why = 0.0, "the bot answers by heart (answer.grounding)"
        else:
            found[name] = round(max(0.0, min(USUAL[name], room)), 6)
            room -= found[name]
            source = (
                "for what answer.grounding puts into prompts" if name == "passages" else "after EntiGraph and sdg_hub"
            )
            why = f"of the tokens, {source}; not measured here"
        reasons[f"train.mix_{name}"] = f"{found[name]:g}: {why}"
    return Shares(**found), reasons


def documents(
    sections: Iterable[tuple[Sequence[str], str, tuple[str, ...]]], *, fits: Callable[[str, str], bool]
) -> tuple[list[Told], int]:
    """Return the sections (heading path, Markdown, ids of their facts) as documents, long ones in several parts.

    `fits`: tells of headings and text whether they are short enough. A part has all facts of its section. Also returns
    how many parts are left out, as not even a word of them fits.
    """
    made: list[Told] = []
    left_out = 0
    for path, markdown, fact_ids in sections:
        headings = " › ".join(path)
        fit = functools.lru_cache(functools.partial(fits, f"{headings} (99/99)"))
        parts = cut(_LINK.sub(r"\1", markdown).strip(), fits=fit)
        for number, part in enumerate(parts, 1):
            title = f"{headings} ({number}/{len(parts)})" if len(parts) > 1 else headings
            if fit(part):
                made.append(Told(title, part.strip(), fact_ids=fact_ids))
            else:
                left_out += 1
    return made, left_out


def cut(text: str, *, fits: Callable[[str], bool]) -> list[str]:
    """Return the text in parts that fit, which joined are the text: cut between blocks, else lines, sentences, words.

    A single word that does not fit stays whole.
    """
    if not text or fits(text):
        return [text] if text else []
    ways = (_blocks, _lines, _sentences, _words)
    pieces = next((found for way in ways if len(found := way(text)) > 1), [text])
    if len(pieces) == 1:
        return [text]
    parts: list[str] = []
    for piece in pieces:
        if parts and fits(parts[-1] + piece):
            parts[-1] += piece
        else:
            parts += cut(piece, fits=fits)
    return parts


def conversations(pairs: Sequence[Told], *, shuffle: random.Random) -> Iterator[Told]:
    """Yield conversations of two or three turns about one section, else one page; the last answer is the learned one.

    No turn repeats a fact or an answer of those before it: it would teach to copy. Each pair stands in one at most.
    """
    pages = collections.defaultdict(list)
    for pair in pairs:
        if pair.place[1]:
            pages[pair.place[0]].append(pair)
    for page in shuffle.sample(list(pages), len(pages)):
        rank = {section: shuffle.random() for section in dict.fromkeys(pair.place[1] for pair in pages[page])}
        left = sorted(shuffle.sample(pages[page], len(pages[page])), key=lambda pair: rank[pair.place[1]])
        while len(left) > 1:
            turns = _turns(left, most=shuffle.choice(_TURNS))
            if len(turns) > 1:
                last = turns[-1]
                earlier = tuple((turn.question, turn.answer) for turn in turns[:-1])
                yield dataclasses.replace(last, history=earlier)


def rounds(pool: Sequence[Told], *, shuffle: random.Random) -> Iterator[Sequence[Told]]:
    """Yield the pool again and again, each time in another order."""
    while pool:
        yield shuffle.sample(pool, len(pool))


def fill(items: Iterable[Item], *, tokens: float, length: Callable[[Item], int]) -> list[Item]:
    """Return the first items, as many as come nearest to so many tokens."""
    taken: list[Item] = []
    for item in items:
        if tokens < length(item) / 2:
            break
        taken.append(item)
        tokens -= length(item)
    return taken


def read_replay(path: Path) -> list[Told]:
    """Return a file's conversations. Raises TrainError naming file and line of one that cannot be learned."""
    found = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    found.append(_replayed(line, f"{path}:{number}"))
    except (OSError, UnicodeDecodeError) as fault:
        raise TrainError(f"train.replay: {path} cannot be read: {fault}. It must be JSONL in UTF-8.") from fault
    if not found:
        raise TrainError(f"train.replay: {path} holds no conversation. Leave train.replay out to go without.")
    return found


def _replayed(line: str, place: str) -> Told:
    """Return the conversation in a line: OpenAI's "messages", system ones left out, or "question" and "answer"."""
    try:
        values: Any = json.loads(line)
        if "messages" not in values:
            return Told(_said(values["question"]), _said(values["answer"]))
        spoken = [message for message in values["messages"] if message["role"] != "system"]
        roles = [message["role"] for message in spoken]
        if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
            raise ValueError(f"its messages are by {', '.join(map(str, roles)) or 'nobody'}")
        texts = [_said(message["content"]) for message in spoken]
    except (ValueError, KeyError, TypeError) as fault:
        raise TrainError(
            f"train.replay: {place}: no conversation ({type(fault).__name__}: {fault}). A line is "
            '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}, user and '
            'assistant by turns, or {"question": "…", "answer": "…"}.'
        ) from fault
    turns = list(zip(texts[::2], texts[1::2], strict=True))
    return Told(*turns[-1], history=tuple(turns[:-1]))


def _said(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text is missing")
    return value


def _turns(left: list[Told], *, most: int) -> list[Told]:
    """Take a conversation's turns out of `left`: the first, and the next ones that say something else."""
    turns = [left.pop(0)]
    place = 0
    while len(turns) < most and place < len(left):
        said, facts = {turn.answer for turn in turns}, {fact for turn in turns for fact in turn.fact_ids}
        if left[place].answer in said or not facts.isdisjoint(left[place].fact_ids):
            place += 1
        else:
            turns.append(left.pop(place))
    return turns


def _blocks(text: str) -> list[str]:
    """Return paragraphs, lists, tables and fenced code, each with the empty lines after it."""
    return [match[0] for match in _BLOCK.finditer(text)]


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _sentences(text: str) -> list[str]:
    starts = [0, *(start for start, _ in sentence_spans(text)[1:]), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(starts)]


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*", text)
