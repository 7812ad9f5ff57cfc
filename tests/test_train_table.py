"""The output layer's gradient has a place of its own on a CPU: the same gradients, in the same memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from byheart.catalog import MODELS, ModelEntry
from byheart.models import adapters
from byheart.models.writer import load_writer
from byheart.progress import silent
from byheart.train.answers import UnseenQuestions, WriterLearner, length_of, losses_of
from byheart.train.buckets import Buckets
from byheart.train.cross_entropy import Table, chunked_cross_entropy
from tiny_models import tiny_model

WRITERS = list({entry.architecture: entry for entry in MODELS if entry.family != "encoder"}.values())
ASKED = [
    (f"Where is the {thing}?", f"Open the {thing} and choose Delete.")
    for thing in ("board", "guest", "timer", "plan", "card", "seat")
]


@pytest.mark.parametrize("entry", WRITERS, ids=lambda entry: entry.architecture)
def test_gradients_are_those_of_the_backward_pass(entry: ModelEntry, tmp_path: Path) -> None:
    folder = tiny_model(entry, tmp_path / "model", texts=[text for asked in ASKED for text in asked])
    family = "seq2seq" if entry.family == "seq2seq" else "causal"
    writer = load_writer(folder, family=family, precision="fp32")
    torch.manual_seed(0)
    adapters.prepare(writer, base_model=folder, method="full", lora=adapters.LoraSettings("all-linear", 8, 16, 0.0))
    examples = writer.chat.examples([(question, answer, ()) for question, answer in ASKED])
    adapters.train_mode(writer)
    loss, _ = losses_of(writer, writer.rows(examples))
    (loss / sum(len(example.answer) for example in examples)).backward()  # type: ignore[no-untyped-call]
    weights = adapters.trainable(writer)
    expected = {name: weight.grad.clone() for name, weight in weights.items() if weight.grad is not None}
    order = Buckets([length_of(example) for example in examples], batch_size=6, seed=0)
    learner = WriterLearner(writer, examples, order, UnseenQuestions([], [], 0), micro_batch=2, notify=silent)
    places = set()
    for step in range(3):  # what a step left in the memory does not count in the next
        for weight in weights.values():
            weight.grad = None
        learner.learn(step)
        assert {name for name, weight in weights.items() if weight.grad is not None} == expected.keys()
        for name, slope in expected.items():
            found = weights[name].grad
            assert found is not None
            torch.testing.assert_close(found, slope, atol=1e-5, rtol=1e-5)
        assert writer.head[0].grad is not None
        places.add(writer.head[0].grad.data_ptr())
    assert len(places) == 1 or writer.whole_logits


def test_what_is_added_to_a_table_is_scaled_and_summed_over_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byheart.train.cross_entropy.CHUNK_BYTES", 4 * 11 * 4)  # four rows at a time
    torch.manual_seed(0)
    states, weight = torch.randn(10, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    targets = torch.randint(0, 11, (10,))
    plain, _ = chunked_cross_entropy(states, weight, None, targets)
    (plain / 10).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    expected, weight.grad = weight.grad, None
    table = Table(torch.full((11, 5), float("nan")), scale=0.1)
    loss, _ = chunked_cross_entropy(states, weight, None, targets, table)
    (loss / 10).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is None
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(table.slope_V_D, expected)
