"""From raw drafts to pairs: checked against the manual, duplicates out, phrasings held out. Nothing drops unnamed."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from byheart.records import Pair, Rejected, Section, Split, stable_id
from byheart.synthesize import filters
from byheart.synthesize.duplicates import contradictory, distinct_bigrams, repeated
from byheart.synthesize.similarity import near_pairs
from byheart.synthesize.split import Leaks, leaks, unseen
from byheart.synthesize.teachers import Draft, Drafts, Failure

REPEATED = "question repeats another with the same answer"
CONTRADICTORY = "question is asked of another section, which fits it better"
ANSWERED = "outside question is one that the manual answers"
OUTSIDE_TESTED_ONE_IN = 4
SAMPLE = 500  # questions of a level that its distinctness is counted on, the same for all levels


@dataclasses.dataclass(frozen=True, slots=True)
class Curated:
    """What came of the drafts."""

    pairs: tuple[Pair, ...]
    rejected: tuple[Rejected, ...]
    leaks: Leaks


def curated(
    *,
    answers: Sequence[Drafts],  # in the manual's order; the one outside the manual has section_id ""
    sections: Mapping[str, Section],
    statements: Mapping[str, str],  # of the facts, by id
    teacher: str,
    unseen_share: float,
    language: str,
    seed: int,
) -> Curated:
    """Return the pairs to train and test on, in the order of the drafts, and all that was left out."""
    rejected: list[Rejected] = []
    pairs: list[Pair] = []
    for answer in answers:
        made = [_pair(answer.section_id, draft, teacher) for draft in answer.drafts]
        rejected.extend(_failed(answer.section_id, failure, teacher) for failure in answer.failures)
        section = sections.get(answer.section_id)
        for pair, fault in zip(made, _faults(made, section, statements, language), strict=True):
            if fault:
                rejected.append(Rejected(pair, fault.reason, fault.evidence))
            else:
                pairs.append(pair)
    inside = _without_echoes([pair for pair in pairs if pair.section_id], sections, rejected)
    outside = _not_answered([pair for pair in pairs if not pair.section_id], inside, language, rejected)
    inside = _split(inside, unseen_share=unseen_share, language=language, seed=seed)
    leak = leaks(
        training=[pair.question for pair in inside if pair.split == "train"],
        held_out=[pair.question for pair in inside if pair.split == "unseen phrasing"],
        language=language,
    )
    return Curated((*inside, *outside), tuple(rejected), leak)


def level_counts(
    *, asked: Mapping[float, int], pairs: Sequence[Pair], rejected: Sequence[Rejected], seed: int
) -> list[dict[str, Any]]:
    """Return what each temperature level yielded, for questions about the manual (not those outside it).

    Faithfulness is the share of the drafts whose answer the section supports; distinctness is distinct-2 of the
    drafts, counted on equally many of each level.
    """
    drafts: dict[float, list[Pair]] = {level: [] for level in asked}
    for pair in itertools.chain(pairs, (item.pair for item in rejected)):
        if pair.section_id and pair.question:
            drafts.setdefault(pair.temperature, []).append(pair)
    reasons: dict[float, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for item in rejected:
        if item.pair.section_id and item.pair.question:
            reasons[item.pair.temperature][item.reason] += 1
    sample = min([SAMPLE, *(len(made) for made in drafts.values() if made)])
    rows = []
    for level, made in sorted(drafts.items()):
        dropped = reasons[level]
        unfaithful = sum(count for reason, count in dropped.items() if reason in filters.UNFAITHFUL)
        chosen = random.Random(seed).sample(made, min(sample, len(made)))
        rows.append(
            {
                "temperature": level,
                "asked": asked.get(level, 0),
                "delivered": len(made),
                "kept": len(made) - dropped.total(),
                "rejected": dict(sorted(dropped.items())),
                "faithfulness": round(1 - unfaithful / len(made), 4) if made else None,
                "distinctness": round(distinct_bigrams([pair.question for pair in chosen]), 4) if made else None,
            }
        )
    return rows


def _pair(section_id: str, draft: Draft, teacher: str) -> Pair:
    question = " ".join(draft.question.split())
    answer = draft.answer.strip()
    return Pair(
        id=stable_id(section_id, question, answer),
        fact_ids=draft.fact_ids,
        section_id=section_id,
        question=question,
        answer=answer,
        kind=draft.kind,
        perspective=draft.perspective,
        temperature=draft.temperature,
        teacher=teacher,
        prompt_id=draft.prompt_id,
        split="train" if section_id or not _is_tested(draft.question) else "outside",
    )


def _is_tested(outside_question: str) -> bool:
    """Tell whether a question outside the manual is held out to test on; the others teach the bot to decline."""
    return int(stable_id(outside_question), 16) % OUTSIDE_TESTED_ONE_IN == 0


def _failed(section_id: str, failure: Failure, teacher: str) -> Rejected:
    """Return the record of questions that never came: a pair without a question."""
    empty = Draft("", "", (), "", failure.temperature, "", "qa" if section_id else "refusal")
    return Rejected(_pair(section_id, empty, teacher), failure.reason, failure.evidence)


def _faults(
    made: Sequence[Pair], section: Section | None, statements: Mapping[str, str], language: str
) -> list[filters.Fault | None]:
    if section is None:
        return [filters.outside_fault(pair.question, language) for pair in made]
    source = filters.Source(headings=section.heading_path, markdown=section.markdown)
    return [
        filters.question_fault(pair.question, pair.answer, source)
        or filters.answer_fault(pair.answer, source)
        or _joint_fault(pair, section, statements)
        for pair in made
    ]


def _joint_fault(pair: Pair, section: Section, statements: Mapping[str, str]) -> filters.Fault | None:
    if pair.kind != "multi-hop":
        return None
    return filters.joint_fault(pair.answer, [statements[fact] for fact in pair.fact_ids], section.heading_path)


def _without_echoes(pairs: Sequence[Pair], sections: Mapping[str, Section], rejected: list[Rejected]) -> list[Pair]:
    """Return the pairs without repetitions and contradictions; a section's only questions stay, whatever they echo."""
    echoes = repeated(questions=[pair.question for pair in pairs], answers=[_answer_key(pair) for pair in pairs])
    left = [pair for index, pair in enumerate(pairs) if index not in echoes]
    texts = {key: " ".join([*section.heading_path, section.markdown]) for key, section in sections.items()}
    clashes = contradictory(
        questions=[pair.question for pair in left],
        section_ids=[pair.section_id for pair in left],
        section_texts=texts,
    )
    covered = {pair.section_id for index, pair in enumerate(left) if index not in clashes}
    clashes = {index: other for index, other in clashes.items() if left[index].section_id in covered}
    rejected.extend(Rejected(pairs[index], REPEATED, pairs[other].question) for index, other in echoes.items())
    rejected.extend(
        Rejected(left[index], CONTRADICTORY, f"section {left[other].section_id}") for index, other in clashes.items()
    )
    return [pair for index, pair in enumerate(left) if index not in clashes]


def _answer_key(pair: Pair) -> str:
    """Return what makes two answers the same: the text, and the section, which is the passage to be found."""
    return f"{pair.section_id} {pair.answer}"


def _not_answered(
    outside: Sequence[Pair], inside: Sequence[Pair], language: str, rejected: list[Rejected]
) -> list[Pair]:
    """Return the outside questions that resemble neither a question about the manual nor each other."""
    texts = [pair.question for pair in (*inside, *outside)]
    echoes: dict[int, int] = {}
    for earlier, later in near_pairs(texts, language=language, compared_from=len(inside)):
        if earlier - len(inside) not in echoes:
            echoes.setdefault(later - len(inside), earlier)
    for index, other in echoes.items():
        reason = ANSWERED if other < len(inside) else REPEATED
        rejected.append(Rejected(outside[index], reason, texts[other]))
    return [pair for index, pair in enumerate(outside) if index not in echoes]


def _split(pairs: Sequence[Pair], *, unseen_share: float, language: str, seed: int) -> list[Pair]:
    # A multi-hop question takes two facts as known: it must not be the last in training that a fact has.
    alone = {fact for pair in pairs if pair.kind != "multi-hop" for fact in pair.fact_ids}
    held = unseen(
        questions=[pair.question for pair in pairs],
        section_ids=[pair.section_id for pair in pairs],
        fact_ids=[[fact for fact in pair.fact_ids if pair.kind != "multi-hop" or fact not in alone] for pair in pairs],
        share=unseen_share,
        seed=seed,
        language=language,
    )
    names: dict[bool, Split] = {True: "unseen phrasing", False: "train"}
    return [dataclasses.replace(pair, split=names[index in held]) for index, pair in enumerate(pairs)]
