"""What to do next: rules over the figures, each with the reason that fired it. Pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from byheart.evaluate.coverage import Coverage, Tile
from byheart.evaluate.history import Level, Rejection, Step
from byheart.evaluate.metrics import Metrics, Refusals
from byheart.evaluate.questions import GROUPS, OUTSIDE, SEEN, UNSEEN, YOURS
from byheart.evaluate.wording import OTHER_WAYS, SYSTEM_NAMES, chance, percent, plural

# Where a figure calls for action. They are the aims that byheart sets itself for a manual it has not seen.
MOST_REFUSED = 0.08  # of the questions that the manual answers
LEAST_DECLINED = 0.85  # of the questions that it does not
MOST_LOST_BY_PHRASING = 0.10  # right on seen phrasing less right on unseen
CLEAR = 0.05  # p-value below which a difference is not taken for luck
MOST_FOR_ONE_REASON = 0.5  # of all pairs asked for
LINKS_SHOWN = 12

EXAMPLE_QUESTION = (
    '{"question": "can guests vote too?", "key_facts": ["Guests can vote"], "source": "guests.md#Roles"}\n'
    '{"question": "what does the gold plan cost?", "kind": "unanswerable"}'
)


@dataclasses.dataclass(frozen=True, slots=True)
class Advice:
    """Something to do, why, and where."""

    title: str
    reason: str
    code: str = ""
    tiles: tuple[Tile, ...] = ()  # the sections it is about
    more: int = 0  # sections that are not listed


def advise(
    *,
    metrics: Metrics,
    coverage: Coverage,
    pairs_by_section: frozenset[str],
    levels: Sequence[Level],
    rejections: Sequence[Rejection],
    steps: Sequence[Step],
    best: Step | None,
) -> list[Advice]:
    """Return what to do next, most useful first; a single line of praise where no rule fires."""
    found = [
        *_own_questions(metrics),
        *_inventions_and_refusals(metrics),
        *_no_gain(metrics),
        *_unknown_sections(coverage),
        *_phrasing(metrics),
        *_empty_sections(coverage, pairs_by_section),
        *_unasked_sections(coverage, pairs_by_section),
        *_rejections(levels, rejections),
        *(_doctor(steps) or _overfit(steps, best)),
    ]
    praise = Advice(
        "Put it before customers",
        "No figure calls for action. Start it, and collect the questions that customers really type.",
        "byheart serve .",
    )
    return found or [praise]


def _own_questions(metrics: Metrics) -> Iterator[Advice]:
    model = metrics.systems[0]
    cell = metrics.cell(model, YOURS)
    if cell is None:
        yield Advice(
            "Write down thirty real questions",
            "The questions here were made from the manual itself. Take real ones from your support inbox, in your "
            "customers' words, with the strings that a right answer must hold; some that the manual does not answer "
            "too. Save them as questions.jsonl beside the config, add the line `questions: [questions.jsonl]`, and "
            "run again: they become the headline of this page.",
            EXAMPLE_QUESTION,
        )
    elif cell.n < 30:
        yield Advice(
            "Add more of your own questions",
            f"With {plural(cell.n, 'question')} the true figure may lie anywhere from {percent(cell.correct.low)} to "
            f"{percent(cell.correct.high)}. A hundred questions make that range about twenty points wide.",
        )
    if cell is not None and cell.unscored:
        yield Advice(
            "Name key facts in your questions",
            f"{plural(cell.unscored, 'question')} of yours could not be graded: a line needs `key_facts`, strings of "
            "the page that a right answer contains.",
        )


def _inventions_and_refusals(metrics: Metrics) -> Iterator[Advice]:
    refusals: Refusals = metrics.refusals[0]
    declined, refused = refusals.outside.share, refusals.answerable.share
    if declined is not None and declined < LEAST_DECLINED:
        yield Advice(
            "Let it decline more",
            f"It declined {percent(declined)} of the questions that the manual does not answer; aim for "
            f"{percent(LEAST_DECLINED)} or more. Raise `answer.refuse_answerable` in the config: it trades some "
            "refusals of answerable questions for fewer inventions. Look at the worst questions first: where the "
            "manual does answer one, the question is wrong, not the bot.",
        )
    if refused is not None and refused > MOST_REFUSED:
        yield Advice(
            "Let it answer more",
            f"It declined {percent(refused)} of the questions that the manual answers; at most "
            f"{percent(MOST_REFUSED)} is the aim. Lower `answer.refuse_answerable`, or give it more phrasings to "
            "learn from: raise `synthesize.questions_per_section`.",
        )


def _no_gain(metrics: Metrics) -> Iterator[Advice]:
    group = next((name for name in (YOURS, UNSEEN) if metrics.cell(metrics.systems[0], name)), None)
    for paired in metrics.paired:
        if paired.baseline in OTHER_WAYS:
            continue
        if paired.group != group or (paired.only_system > paired.only_baseline and paired.p_value < CLEAR):
            continue
        name = SYSTEM_NAMES.get(paired.baseline, paired.baseline)
        yield Advice(
            f"Not clearly better than the {name}",
            f"On {paired.group}, it alone was right {paired.only_system} times, the {name} alone "
            f"{paired.only_baseline} times ({chance(paired.p_value)}): that may be luck. More questions make it clear; "
            "more phrasings (`synthesize.questions_per_section`), a teacher model (`synthesize.teacher: openai`) or a "
            "larger base model make it better.",
        )


def _unknown_sections(coverage: Coverage) -> Iterator[Advice]:
    unknown = [tile for tile in coverage.tiles if tile.status == "unknown"]
    if unknown:
        # Most often asked first: three wrong answers of three say more than one of one.
        unknown.sort(key=lambda tile: -tile.asked)
        yield Advice(
            f"Read the {plural(len(unknown), 'section')} it does not know",
            "No question about them was answered in full. A heading that says what the section is for, one statement "
            "a sentence, and steps as a numbered list help the bot as they help a reader.",
            tiles=tuple(unknown[:LINKS_SHOWN]),
            more=max(0, len(unknown) - LINKS_SHOWN),
        )


def _phrasing(metrics: Metrics) -> Iterator[Advice]:
    seen, unseen = (metrics.cell(metrics.systems[0], group) for group in (SEEN, UNSEEN))
    if seen is None or unseen is None or seen.correct.share is None or unseen.correct.share is None:
        return
    lost = seen.correct.share - unseen.correct.share
    if lost > MOST_LOST_BY_PHRASING:
        yield Advice(
            "Teach it more ways to ask",
            f"It answers {percent(seen.correct.share)} of the questions as it learned them, and "
            f"{percent(unseen.correct.share)} asked in new words: it learned phrasings, not facts. Raise "
            "`synthesize.questions_per_section`, or use a teacher model (`synthesize.teacher: openai`).",
        )


def _empty_sections(coverage: Coverage, pairs_by_section: frozenset[str]) -> Iterator[Advice]:
    without = [tile for tile in coverage.tiles if tile.section_id not in pairs_by_section]
    if without:
        yield Advice(
            f"{plural(len(without), 'section')} {'is' if len(without) == 1 else 'are'} not taught",
            "Their text gave no question-answer pair: often a lone link or an image. Write what the reader finds "
            "there, or leave them out with `ingest.exclude`.",
            tiles=tuple(without[:LINKS_SHOWN]),
            more=max(0, len(without) - LINKS_SHOWN),
        )


def _unasked_sections(coverage: Coverage, pairs_by_section: frozenset[str]) -> Iterator[Advice]:
    unasked = sum(tile.status == "unasked" and tile.section_id in pairs_by_section for tile in coverage.tiles)
    if unasked:
        yield Advice(
            "Ask about the whole manual",
            f"{plural(unasked, 'section')} of {len(coverage.tiles):,} were not asked about: the questions were sampled "
            "to save time. For a map without gaps raise `evaluate.max_questions_per_split`, and run "
            "`byheart evaluate` again.",
            f"byheart evaluate . --set evaluate.max_questions_per_split={len(coverage.tiles)}",
        )


def _rejections(levels: Sequence[Level], rejections: Sequence[Rejection]) -> Iterator[Advice]:
    asked = sum(level.asked for level in levels)
    if asked and rejections and rejections[0].count > MOST_FOR_ONE_REASON * asked:
        yield Advice(
            "Look at the rejected pairs",
            f"{percent(rejections[0].count / asked)} of the pairs asked for were rejected for one reason "
            f"(“{rejections[0].reason}”). The file 3-rejected.jsonl holds each with its evidence.",
        )


def _doctor(steps: Sequence[Step]) -> list[Advice]:
    """Return what the loss doctor advised last, where it did not do it by itself and all is not well since."""
    newest = next((step for step in reversed(steps) if step.diagnosis), None)
    if newest is None or newest.done or newest.diagnosis in ("too early", "healthy"):
        return []
    reason = f"Step {newest.step:,}: {newest.evidence}. {newest.advice}"
    return [Advice(f"The loss doctor says: {newest.diagnosis}", reason)]


def _overfit(steps: Sequence[Step], best: Step | None) -> Iterator[Advice]:
    validated = [step for step in steps if step.unseen_loss is not None]
    if len(validated) >= 2 and best is validated[0]:
        yield Advice(
            "Training did not help",
            "The loss on unseen phrasing was lowest at its first measurement and rose from there. Lower "
            "`train.learning_rate` (a third of it), or make more pairs.",
        )
    elif len(validated) >= 3 and best is validated[-1]:
        yield Advice(
            "Train longer",
            "The loss on unseen phrasing was still falling when the training ended. Raise `train.epochs`.",
        )


def groups_missing(metrics: Metrics) -> list[str]:
    """Return the groups made from the manual that no question was there for."""
    present = {cell.group for cell in metrics.cells}
    return [group for group in GROUPS if group in (SEEN, UNSEEN, OUTSIDE) and group not in present]
