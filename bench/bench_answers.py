"""How well does a trained bot answer a file of questions, and what would other constants do?

    python bench/bench_answers.py my-bot/run questions.jsonl [outside.jsonl]

Prints, for the shipped constants and for variations of each, the share of questions whose answer holds every key fact,
the share with the right page first, words an answer, and the shares of questions and outside questions declined; and
the time an answer takes. The README's table comes from `byheart run`. --published measures, too, the starter's model as
it was published, without the adapter that it brings and without any training on the manual.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from byheart.answer import bot, compose, confidence
from byheart.answer.base import Answer, Answerer
from byheart.answer.calibrate import calibrate, encode_questions
from byheart.catalog import STARTER
from byheart.evaluate.grading import grade_answer, page_key
from byheart.index import index as ranking
from byheart.index.index import build_index, load_index
from byheart.models.encoder import load_encoder
from byheart.store import RunFolder

VARIATIONS: tuple[tuple[ModuleType, str, tuple[float, ...]], ...] = (
    (ranking, "WEIGHT_DENSE", (0.0, 0.5, 2.0)),
    (ranking, "WEIGHT_UNIT", (0.0, 0.4, 1.6)),
    (ranking, "WEIGHT_LATE", (0.0, 1.0, 4.0)),
    (ranking, "WEIGHT_BM25", (0.0, 0.8, 3.0)),
    (compose, "FIRST_SHARE", (0.5, 1.0)),
    (compose, "MAX_PASSAGES", (1, 2, 4)),
    (compose, "NEAR_ENOUGH", (0.3, 2.0)),
    (confidence, "FAR_PENALTY", (0.0, 6.0, 20.0)),
    (confidence, "UNKNOWN_PENALTY", (0.0, 3.0)),
)


LIMITS = {"max_words": 150, "max_citations": 3}


@dataclasses.dataclass(frozen=True)
class Figures:
    facts: float
    page_first: float
    words: float
    declined: float
    outside_declined: float | None

    def line(self, name: str) -> str:
        outside = "" if self.outside_declined is None else f"  outside declined {self.outside_declined:6.1%}"
        return (
            f"{name:28} facts {self.facts:6.1%}  page first {self.page_first:6.1%}  words {self.words:4.0f}  "
            f"declined {self.declined:6.1%}{outside}"
        )


def measure(
    ask: Callable[[str], Answer], questions: Sequence[dict[str, Any]], outside: Sequence[dict[str, Any]]
) -> Figures:
    answers = [ask(item["question"]) for item in questions]
    verdicts = [
        grade_answer(answer=a.text, abstained=a.abstained, key_facts=q["key_facts"], outside=False)[0]
        for a, q in zip(answers, questions, strict=True)
    ]
    first = [
        _same_page(a.citations[0].url, q["source"]) if a.citations else False
        for a, q in zip(answers, questions, strict=True)
    ]
    refused = [ask(item["question"]).abstained for item in outside]
    return Figures(
        facts=statistics.mean(verdict == "correct" for verdict in verdicts),
        page_first=statistics.mean(first),
        words=statistics.mean(len(a.text.split()) for a in answers),
        declined=statistics.mean(a.abstained for a in answers),
        outside_declined=statistics.mean(refused) if refused else None,
    )


def as_published(folder: RunFolder) -> Answerer:
    """Return the bot that the starter's published weights make, calibrated as the others are."""
    encoder = load_encoder(STARTER, starter_adapter=False)
    index = build_index(load_index(folder / bot.MODEL / bot.INDEX).passages, encoder)
    kept = bot.load_calibration(folder / bot.MODEL / bot.CALIBRATION)
    refused = kept.refused_share if kept else 0.0
    questions = encode_questions(bot.calibration_questions(folder), base=encoder)
    calibration = questions and calibrate(questions, index=index, encoder=encoder, refuse_answerable=refused)
    return bot.ManualAnswerer(index=index, encoder=encoder, calibration=calibration, **LIMITS)


def _same_page(url: str, source: str) -> bool:
    mine, wanted = page_key(url), page_key(source)
    return mine == wanted or wanted.endswith("/" + mine) or mine.endswith("/" + wanted)


@contextmanager
def changed(module: ModuleType, name: str, value: float) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("outside", type=Path, nargs="?")
    parser.add_argument("--published", action="store_true", help="also measure the starter as it was published")
    parser.add_argument("--vary", action="store_true", help="also try other constants")
    arguments = parser.parse_args()
    questions, outside = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()] if path else []
        for path in (arguments.questions, arguments.outside)
    )
    folder = RunFolder(arguments.run)
    systems: tuple[bot.System, ...] = ("byheart", "untrained", "bm25")
    bots = {system: functools.partial(bot.load, folder, system=system, **LIMITS) for system in systems}
    if arguments.published:
        bots["published"] = functools.partial(as_published, folder)
    trained = None
    for system, load in bots.items():
        loaded = load()
        trained = trained or loaded
        loaded.answer(questions[0]["question"])
        started = time.perf_counter()
        figures = measure(loaded.answer, questions, outside)
        each_ms = 1000 * (time.perf_counter() - started) / (len(questions) + len(outside))
        print(figures.line(system), f" {each_ms:.0f} ms an answer", flush=True)
    if arguments.vary and isinstance(trained, bot.ManualAnswerer):
        for module, name, values in VARIATIONS:
            for value in values:
                with changed(module, name, value):
                    print(measure(trained.answer, questions, outside).line(f"{name} = {value}"), flush=True)


if __name__ == "__main__":
    main()
