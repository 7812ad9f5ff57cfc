"""Which phrasings are held out. Every fact is learned; what is held out is how it is asked.

Questions that resemble each other form a cluster, and a cluster is learned or held out as a whole: else the loss on
held-out phrasings would measure how well the model copies.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

from byheart.records import stable_id
from byheart.synthesize.similarity import NEAR, clusters, near_pairs

# Clusters reach further than near copies, so that what is held out differs by more than the leak report looks at.
CLUSTER = 0.65
ENOUGH_TO_HOLD_OUT = 4  # questions of a section from which at least one is held out, where its clusters allow it


@dataclasses.dataclass(frozen=True, slots=True)
class Leaks:
    """How many held-out questions have a near copy in training; `examples` are (held out, its copy)."""

    held_out: int
    leaking: int
    share: float
    definition: str
    examples: tuple[tuple[str, str], ...]


def unseen(
    *,
    questions: Sequence[str],
    section_ids: Sequence[str],
    fact_ids: Sequence[Sequence[str]],
    share: float,
    seed: int,
    language: str = "en",
) -> frozenset[int]:
    """Return the questions to hold out: about `share` of each section's, as whole clusters.

    A cluster stays in training where a fact or a section would have no question left there.
    """
    by_section: dict[str, list[int]] = collections.defaultdict(list)
    for index, section in enumerate(section_ids):
        by_section[section].append(index)
    leaders = _clustered(questions, list(by_section.values()), language)
    members: dict[int, list[int]] = collections.defaultdict(list)
    for index, leader in enumerate(leaders):
        members[leader].append(index)
    teaches = [{section_ids[index], *fact_ids[index]} for index in range(len(questions))]
    left = collections.Counter(taught for item in teaches for taught in item)  # questions in training that teach it
    held: set[int] = set()
    for indices in by_section.values():
        wanted = max(round(share * len(indices)), int(len(indices) >= ENOUGH_TO_HOLD_OUT))
        order = sorted(
            {leaders[index] for index in indices}, key=lambda leader: stable_id(str(seed), questions[leader])
        )
        for leader in sorted(order, key=lambda leader: len(members[leader]) > wanted):  # too large ones come last
            taken = len(held.intersection(indices))
            # A section of few, large clusters gives one of them, rather than none, while most of it stays.
            room = max(wanted - taken, 0 if taken else len(indices) // 3)
            loss = collections.Counter(taught for index in members[leader] for taught in teaches[index])
            spares = all(left[taught] > lost for taught, lost in loss.items())
            if leader not in held and taken < wanted and len(members[leader]) <= room and spares:
                held.update(members[leader])
                left -= loss
    return frozenset(held)


def _clustered(questions: Sequence[str], sections: Sequence[Sequence[int]], language: str) -> list[int]:
    """Return each question's cluster: near copies anywhere in the manual, and what is similar within a section."""
    pairs = list(near_pairs(questions, language=language))
    for indices in sections:
        own = [questions[index] for index in indices]
        similar = near_pairs(own, threshold=CLUSTER, same_content=False)
        pairs.extend((indices[one], indices[other]) for one, other in similar)
    return clusters(len(questions), iter(pairs))


def leaks(*, training: Sequence[str], held_out: Sequence[str], language: str = "en") -> Leaks:
    """Return how many held-out questions have a near copy in training; it knows nothing of the clusters."""
    copies: dict[int, int] = {}
    texts = [*training, *held_out]
    for one, other in near_pairs(texts, language=language, compared_from=len(training)):
        if one < len(training):
            copies.setdefault(other - len(training), one)
    return Leaks(
        held_out=len(held_out),
        leaking=len(copies),
        share=len(copies) / len(held_out) if held_out else 0.0,
        definition=f"word Jaccard similarity of {NEAR} or more, or the same words once function words are left out",
        examples=tuple((held_out[late], training[early]) for late, early in list(copies.items())[:20]),
    )
