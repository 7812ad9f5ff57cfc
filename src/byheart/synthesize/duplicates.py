"""Which questions say what another already says: within one answer a waste, across answers a contradiction."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Sequence

from byheart.synthesize.similarity import near_pairs, words

# Looser than a near copy of the leak report: rewording by a word or two is what training wants, echoes are not.
DUPLICATE = 0.9


def repeated(*, questions: Sequence[str], answers: Sequence[str]) -> dict[int, int]:
    """Return, for each question that repeats an earlier one with the same answer, that earlier one."""
    by_answer: dict[str, list[int]] = collections.defaultdict(list)
    for index, answer in enumerate(answers):
        by_answer[" ".join(words(answer))].append(index)
    kept_for: dict[int, int] = {}
    for group in by_answer.values():
        sets = [questions[index] for index in group]
        for earlier, later in near_pairs(sets, threshold=DUPLICATE, same_content=False):
            # One that was itself dropped drops nothing: a chain of small changes may end far from where it began.
            if group[earlier] not in kept_for:
                kept_for.setdefault(group[later], group[earlier])
    return kept_for


def contradictory(
    *, questions: Sequence[str], section_ids: Sequence[str], section_texts: dict[str, str]
) -> dict[int, int]:
    """Return, for each question that another section is asked in the same words, the one to keep instead.

    Training that shows one question with two answers teaches neither, and evaluation would count one of them wrong.
    Kept is the question of the section that has most of its words; the first of the manual on a tie.
    """
    by_words: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
    for index, question in enumerate(questions):
        by_words[tuple(words(question))].append(index)
    text_words = {section: frozenset(words(text)) for section, text in section_texts.items()}
    kept_for: dict[int, int] = {}
    for wanted, group in by_words.items():
        best = max(group, key=lambda index: (len(text_words[section_ids[index]].intersection(wanted)), -index))
        kept_for |= {index: best for index in group if section_ids[index] != section_ids[best]}
    return kept_for


def distinct_bigrams(questions: Sequence[str]) -> float:
    """Return distinct-2 (Li et al. 2016): the share of word pairs that are new; 0 where there are none.

    It falls with the number of questions, so compare samples of one size.
    """
    pairs = [pair for question in questions for pair in itertools.pairwise(words(question))]
    return len(set(pairs)) / len(pairs) if pairs else 0.0
