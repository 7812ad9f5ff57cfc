"""A bot whose model writes the answer, in this process; what it may say of that is decided by the index beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from byheart.answer.base import Answer, Turn
from byheart.answer.batched import BatchedWriter
from byheart.answer.generated import GeneratedAnswerer
from byheart.answer.grounds import Asked, Grounds, words_that_fit
from byheart.models.writer import Writer


class WrittenAnswerer:
    """Answers in the model's own words, as learned from the manual, with the passages that bear it out.

    Protocols: base.Answerer, base.BatchAnswerer.
    """

    def __init__(self, *, writer: Writer, longest_answer: int, grounds: Grounds) -> None:
        self._writer = writer
        self._grounds = grounds
        self._most_tokens = min(longest_answer, grounds.most_tokens)
        self._passage_words = words_that_fit(writer.window, most_tokens=self._most_tokens)

    def answer(self, question: str, history: Sequence[Turn] = ()) -> Answer:
        """Answer the question; `history` holds the turns before it, oldest first."""
        return self._answers([(question, history)], lambda done: None)[0]

    def answer_many(self, questions: Sequence[str], on_done: Callable[[int], None]) -> list[Answer]:
        """Answer questions that have nothing to do with each other; `on_done` gets the number of those written."""
        return self._answers([(question, ()) for question in questions], on_done)

    def in_batches(self) -> GeneratedAnswerer:
        """Return the same bot for a server: questions that come at the same time are written side by side."""
        writer = BatchedWriter(self._writer, most_tokens=self._most_tokens)
        return GeneratedAnswerer(writer=writer, grounds=self._grounds, passage_words=self._passage_words)

    def _answers(self, asked: Sequence[tuple[str, Sequence[Turn]]], on_done: Callable[[int], None]) -> list[Answer]:
        opened = [self._grounds.ask(*item, passage_words=self._passage_words) for item in asked]
        texts = iter(
            self._writer.answers(
                [(item.prompt, item.history) for item in opened if isinstance(item, Asked)],
                most_tokens=self._most_tokens,
                on_done=on_done,
            )
        )
        return [self._grounds.answer(item, next(texts)) if isinstance(item, Asked) else item for item in opened]
