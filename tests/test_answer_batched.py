"""Questions that come at the same time are written side by side, and answered as one by one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from byheart.answer.batched import BatchedWriter
from byheart.catalog import find_model
from byheart.chat import Exchange
from byheart.models.writer import Writer, load_writer
from tiny_models import tiny_model

QUESTIONS = ["How do I delete a board?", "Who can invite a guest?", "timer", "How many cards does a board hold up to?"]


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Writer:
    entry = find_model("gpt2")
    assert entry is not None
    folder = tiny_model(entry, tmp_path_factory.mktemp("models") / "model")
    return load_writer(folder, family="causal", precision="fp32")


class Counted:
    """A writer that says which batches it was given, and that can be held up."""

    def __init__(self, writer: Writer | None = None) -> None:
        self.batches: list[list[str]] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.given_up: Callable[[int], bool] = lambda _row: False
        self._writer = writer

    def answers(self, questions: Sequence[tuple[str, Sequence[Exchange]]], **options: Any) -> list[str]:
        self.batches.append([question for question, _ in questions])
        self.given_up = options["is_given_up"]
        if self._writer:
            return self._writer.answers(questions, **options)
        self.entered.set()
        assert self.go_on.wait(10)
        if "fail" in self.batches[-1]:
            raise RuntimeError("no")
        return [question.upper() for question, _ in questions]


def batched(writer: Any, **options: Any) -> BatchedWriter:
    return BatchedWriter(writer, most_tokens=12, **options)


def test_answers_in_a_batch_are_those_given_one_by_one(writer: Writer) -> None:
    counted = Counted(writer)

    async def ask_all() -> list[str]:
        together = batched(counted)
        return await asyncio.gather(*(together.write(question, ()) for question in QUESTIONS))

    answers = asyncio.run(ask_all())
    assert counted.batches == [QUESTIONS]
    assert answers == [writer.answers([(question, ())], most_tokens=12)[0] for question in QUESTIONS]
    assert len(set(answers)) > 1


def test_who_comes_later_waits_for_the_next_batch_and_no_batch_is_too_large() -> None:
    counted = Counted()

    async def scenario() -> list[str]:
        together = batched(counted, at_once=2)
        first = [asyncio.create_task(together.write(question, ())) for question in "ab"]
        await asyncio.to_thread(counted.entered.wait, 10)
        later = [asyncio.create_task(together.write(question, ())) for question in "cde"]
        await asyncio.sleep(0)
        counted.go_on.set()
        return list(await asyncio.gather(*first, *later))

    assert asyncio.run(scenario()) == list("ABCDE")
    assert counted.batches == [["a", "b"], ["c", "d"], ["e"]]


def test_who_leaves_is_out_of_the_batch_and_of_the_queue() -> None:
    counted = Counted()

    async def scenario() -> list[bool]:
        together = batched(counted, at_once=2)
        stays, leaves = (asyncio.create_task(together.write(question, ())) for question in "ab")
        await asyncio.to_thread(counted.entered.wait, 10)
        waits = asyncio.create_task(together.write("c", ()))
        await asyncio.sleep(0)
        leaves.cancel()
        waits.cancel()
        await asyncio.sleep(0)
        seen = [counted.given_up(row) for row in (0, 1)]
        counted.go_on.set()
        assert await stays == "A"
        return seen

    assert asyncio.run(scenario()) == [False, True]
    assert counted.batches == [["a", "b"]]


def test_a_row_that_is_given_up_is_written_no_further_and_changes_no_other(writer: Writer) -> None:
    asked = [(question, ()) for question in QUESTIONS]
    steps = 0

    def gives_up(row: int) -> bool:
        nonlocal steps
        steps += row == 0
        return row == 1 or (row == 2 and steps > 3)

    alone = writer.answers(asked, most_tokens=12)
    found = writer.answers(asked, most_tokens=12, is_given_up=gives_up)
    assert (found[0], found[3]) == (alone[0], alone[3])
    assert len(found[1]) < len(alone[1])
    steps = 0
    writer.answers(asked, most_tokens=12, is_given_up=lambda row: gives_up(row) or True)
    assert steps == 1  # all gave up: nothing was written after the first token


def test_a_fault_reaches_everyone_in_the_batch_and_nobody_after_it() -> None:
    counted = Counted()
    counted.go_on.set()

    async def scenario() -> None:
        together = batched(counted)
        faults = await asyncio.gather(*(together.write(q, ()) for q in ("fail", "x")), return_exceptions=True)
        assert [str(fault) for fault in faults] == ["no", "no"]
        assert await together.write("again", ()) == "AGAIN"

    asyncio.run(scenario())
