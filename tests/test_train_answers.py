"""Models of nearly every architecture learn a dozen answers by heart, and give them back word for word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from byheart.catalog import MODELS, ModelEntry, find_model
from byheart.chat import Example, bind
from byheart.errors import TrainError
from byheart.models import adapters
from byheart.models.writer import Writer, load_writer
from byheart.progress import silent
from byheart.train import cross_entropy, loop
from byheart.train.answers import UnseenQuestions, WriterLearner, length_of, says
from byheart.train.buckets import Buckets
from byheart.train.spaced import Spaced
from tiny_models import tiny_model

THINGS = ("board", "guest", "timer", "plan", "card", "seat", "owner", "month", "task", "date", "dots", "user")
ASKED = [
    (f"Where is the {thing}?", f"Open {other} {number} and choose Delete.")
    for number, (thing, other) in enumerate(zip(THINGS, reversed(THINGS), strict=True), 1)
]
ARCHITECTURES = list(
    {entry.architecture: entry for entry in MODELS if entry.family != "encoder" and not entry.from_scratch}.values()
)
METHODS: dict[str, tuple[adapters.Method, adapters.Targets]] = {
    "LoRA on attention": ("lora", "attention"),
    "LoRA on all linear layers": ("lora", "all-linear"),
    "all weights": ("full", "all-linear"),
}
# Random weights have more to learn than a dozen answers, and an adapter on them less to learn it with.
# After 160 steps its likeness gets 7 to 11 of the 12 right, as do several with adapters on attention alone.
SLOW_TO_LEARN = "SmolLM3ForCausalLM"
RATES = {"LoRA on attention": 5e-3, "LoRA on all linear layers": 7e-3, "all weights": 3e-3}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ModelEntry], str]:
    made: dict[str, str] = {}

    def folder(entry: ModelEntry) -> str:
        if entry.name not in made:
            texts = [text for asked in ASKED for text in asked]
            made[entry.name] = tiny_model(entry, tmp_path_factory.mktemp("models") / "model", texts=texts)
        return made[entry.name]

    return folder


def writer_of(entry: ModelEntry, folder: str) -> Writer:
    writer = load_writer(folder, family="seq2seq" if entry.family == "seq2seq" else "causal", precision="fp32")
    writer.chat, _ = bind(writer.tokenizer, entry, encoder_decoder=entry.family == "seq2seq")
    return writer


def learner_of(writer: Writer, *, batch_size: int = 4, micro_batch: int = 4, notify: object = silent) -> WriterLearner:
    examples = writer.chat.examples([(question, answer, ()) for question, answer in ASKED])
    unseen = UnseenQuestions(examples[:4], ASKED[:2], most_tokens=max(len(e.answer) for e in examples) + 4)
    buckets = Buckets([length_of(example) for example in examples], batch_size=batch_size, seed=0)
    return WriterLearner(
        writer, examples, buckets, unseen, micro_batch=micro_batch, notify=notify,  # type: ignore[arg-type]
    )  # fmt: skip


def learn(writer: Writer, entry: ModelEntry, how: str, *, steps: int = 160) -> loop.TrainState:
    method, targets = METHODS[how]
    torch.manual_seed(0)
    lora = adapters.LoraSettings(targets=targets, rank=16, alpha=32, dropout=0.0)
    adapters.prepare(writer, base_model=entry.name, method=method, lora=lora)
    recipe = loop.Recipe(total_steps=steps, learning_rate=RATES[how], validate_every=steps, patience=1, seed=0)
    return loop.train(learner=learner_of(writer), recipe=recipe, state=None, save=lambda state: None, notify=silent)


def cases() -> list[Any]:
    """Return every architecture with every method; quick are adapters everywhere, and all three methods on GPT-2."""
    found = []
    for entry in ARCHITECTURES:
        for how in METHODS:
            named = entry.architecture
            quick = named.startswith("GPT2") or (how == "LoRA on all linear layers" and named != SLOW_TO_LEARN)
            found.append(pytest.param(entry, how, id=f"{named}, {how}", marks=() if quick else pytest.mark.slow))
    return found


@pytest.mark.parametrize(("entry", "how"), cases())
def test_a_dozen_answers_are_learned_by_heart(
    entry: ModelEntry, how: str, folder_of: Callable[[ModelEntry], str]
) -> None:
    writer = writer_of(entry, folder_of(entry))
    is_slow = entry.architecture == SLOW_TO_LEARN or how == "LoRA on attention"
    state = learn(writer, entry, how, steps=400 if is_slow else 160)
    assert writer.answers([(question, ()) for question, _ in ASKED], most_tokens=40) == [answer for _, answer in ASKED]
    last = state.history[-1]
    assert (last.unseen_accuracy, last.recall) == (1.0, 1.0)
    assert last.unseen_loss is not None
    assert state.history[0].unseen_loss is not None
    assert last.unseen_loss < 0.2 < state.history[0].unseen_loss


def test_a_base_of_four_bits_learns_by_heart_and_its_adapter_is_whole(
    folder_of: Callable[[ModelEntry], str], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    entry = find_model("meta-llama/Llama-2-7b-hf")
    assert entry
    writer = load_writer(folder_of(entry), family="causal", precision="fp32", four_bit=True)
    writer.chat, _ = bind(writer.tokenizer, entry, encoder_decoder=False)
    four_bit = [name for name, module in writer.model.named_modules() if type(module).__name__ == "Linear4bit"]
    assert len(four_bit) == 7 * 2  # q, k, v, o, gate, up and down of two layers
    torch.manual_seed(0)
    lora = adapters.LoraSettings(targets="all-linear", rank=16, alpha=32, dropout=0.0)
    adapters.prepare(writer, base_model=entry.name, method="qlora", lora=lora)
    recipe = loop.Recipe(total_steps=100, learning_rate=7e-3, validate_every=100, patience=1, seed=0)
    loop.train(learner=learner_of(writer), recipe=recipe, state=None, save=lambda state: None, notify=silent)
    assert writer.answers([(question, ()) for question, _ in ASKED], most_tokens=40) == [answer for _, answer in ASKED]
    adapters.save_weights(writer, tmp_path / "adapter", method="qlora")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(saved) == 2 * len(four_bit)
    assert {weight.dtype for weight in saved.values()} == {torch.float32}


def small_writer(folder_of: Callable[[ModelEntry], str]) -> Writer:
    entry = find_model("distilgpt2")
    assert entry
    writer = writer_of(entry, folder_of(entry))
    torch.manual_seed(0)
    lora = adapters.LoraSettings(targets="all-linear", rank=4, alpha=8, dropout=0.0)
    adapters.prepare(writer, base_model=entry.name, method="lora", lora=lora)
    with torch.no_grad():
        for weight in adapters.trainable(writer).values():
            weight.add_(torch.randn_like(weight) * 0.05)
    return writer


def gradients(learner: WriterLearner) -> dict[str, torch.Tensor]:
    learner.learn(0)
    return {name: weight.grad.clone() for name, weight in learner.weights.items() if weight.grad is not None}


def test_gradients_added_up_over_small_parts_are_those_of_the_whole_batch(
    folder_of: Callable[[ModelEntry], str],
) -> None:
    writer = small_writer(folder_of)
    whole = gradients(learner_of(writer, batch_size=8, micro_batch=8))
    learner = learner_of(writer, batch_size=8, micro_batch=3)
    learner._clear()
    parts = gradients(learner)
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-6, rtol=1e-4)


def test_out_of_memory_halves_what_is_computed_at_once_and_learns_from_the_same_batch(
    folder_of: Callable[[ModelEntry], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = small_writer(folder_of)
    expected = gradients(learner_of(writer, batch_size=8, micro_batch=8))
    said: list[str] = []
    learner = learner_of(writer, batch_size=8, micro_batch=8, notify=lambda event: said.append(event.message))
    learner._clear()
    rows_of = writer.rows

    def full(examples: Sequence[Example], **more: int) -> Any:
        if len(examples) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return rows_of(examples, **more)

    monkeypatch.setattr(writer, "rows", full)
    found = gradients(learner)
    assert learner.micro_batch == 2
    assert [line.rpartition("with ")[2] for line in said] == [
        "4 examples at once instead of 8; a step still learns from 8",
        "2 examples at once instead of 4; a step still learns from 8",
    ]
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


def test_memory_that_is_too_small_for_one_example_ends_with_a_way_out(
    folder_of: Callable[[ModelEntry], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = small_writer(folder_of)
    said: list[str] = []
    learner = learner_of(writer, batch_size=2, micro_batch=2, notify=lambda event: said.append(event.message))

    def full(examples: Sequence[Example], **more: int) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(writer, "rows", full)
    with pytest.raises(TrainError, match=r"Use a smaller base_model, or train\.method: qlora"):
        learner.learn(0)
    assert "gradient checkpointing" in said[-1]


def test_a_fault_that_is_not_about_memory_is_not_hidden(
    folder_of: Callable[[ModelEntry], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = small_writer(folder_of)
    learner = learner_of(writer)

    def broken(examples: Sequence[Example], **more: int) -> Any:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(writer, "rows", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        learner.learn(0)


@pytest.mark.parametrize("bias", [True, False])
def test_chunked_cross_entropy_is_cross_entropy(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 4 * 11 * 4)  # four rows at a time
    monkeypatch.setitem(cross_entropy._BLOCK_LOGITS_ON, "cpu", 2 * 11)  # of them two in fp32
    torch.manual_seed(0)
    targets = torch.randint(0, 11, (10,))
    parts: list[list[torch.Tensor]] = []
    losses = []
    for chunked in (True, False):
        torch.manual_seed(1)
        states, weight = torch.randn(10, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
        offset = torch.randn(11, requires_grad=True) if bias else None
        if chunked:
            loss, each = cross_entropy.chunked_cross_entropy(states, weight, offset, targets)
            torch.testing.assert_close(each.sum(), loss.detach())
            assert not each.requires_grad
        else:
            logits = torch.nn.functional.linear(states, weight, offset)
            loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        (loss / 10).backward()
        losses.append(loss.detach())
        parts.append([part.grad for part in (states, weight, offset) if part is not None and part.grad is not None])
    torch.testing.assert_close(*losses)
    assert len(parts[0]) == len(parts[1]) == 2 + bias
    for found, expected in zip(*parts, strict=True):
        torch.testing.assert_close(found, expected)


def test_judging_finds_the_loss_and_which_tokens_are_the_likeliest() -> None:
    states, weight, targets = torch.eye(4) * 9, torch.eye(4), torch.tensor([0, 1, 3, 3])
    loss, right = cross_entropy.judge(states, weight, None, targets)
    assert right.tolist() == [True, True, False, True]
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(states, targets, reduction="sum")))


def test_an_answer_is_right_when_it_has_nearly_all_of_the_words() -> None:
    assert says("Open the dashboard, and choose: Delete!", "Open the dashboard and choose Delete.")
    assert not says("Open the dashboard.", "Open the dashboard and choose Delete.")


def test_weights_in_bf16_are_trained_in_fp32_beside_the_model(folder_of: Callable[[ModelEntry], str]) -> None:
    entry = find_model("distilgpt2")
    assert entry
    writer = load_writer(folder_of(entry), family="causal", precision="bf16")
    learner = learner_of(writer)
    assert {weight.dtype for weight in adapters.trainable(writer).values()} == {torch.bfloat16}
    assert {weight.dtype for weight in learner.weights.values()} == {torch.float32}
    optimizer = learner.optimizer(learning_rate=1e-5, weight_decay=0.0)
    before = {name: weight.clone() for name, weight in learner.weights.items()}
    learner.learn(0)
    optimizer.step()
    learner.publish()
    moved = [name for name, weight in learner.weights.items() if not weight.equal(before[name])]
    assert moved
    for name, weight in adapters.trainable(writer).items():
        torch.testing.assert_close(weight, learner.weights[name].bfloat16())


def test_two_renderings_of_one_fact_never_stand_in_one_batch_while_others_are_left() -> None:
    lengths = [(10 + number % 5, 5) for number in range(400)]
    facts = [(f"fact {number // 8}",) for number in range(400)]
    for batches in (
        Buckets(lengths, batch_size=8, seed=3, facts=facts), Spaced(lengths, batch_size=8, seed=3, facts=facts)
    ):  # fmt: skip
        epoch = [batches.batch(step) for step in range(50)]
        assert sorted(position for batch in epoch for position in batch) == list(range(400))
        doubled = [batch for batch in epoch if len({facts[position] for position in batch}) < len(batch)]
        assert len(doubled) <= 1  # the last of a pool may have no choice
    alone = Buckets(lengths[:16], batch_size=4, seed=3, facts=[("one",)] * 16)
    assert sorted(position for step in range(4) for position in alone.batch(step)) == list(range(16))


def test_what_is_known_rests_ever_longer_and_what_is_not_comes_back_in_every_round() -> None:
    spaced = Spaced([(10, 5)] * 40, batch_size=4, seed=0)
    seen: list[list[int]] = []
    for step in range(200):
        batch = spaced.batch(step)
        assert spaced.batch(step) == batch
        seen.append(batch)
        spaced.note(batch, [0.01 if position < 30 else 2.0 for position in batch])
    times = [sum(position in batch for batch in seen) for position in range(40)]
    assert min(times[30:]) > 3 * max(times[:30])
    assert min(times[:30]) >= 5
    spaced.note([0], [3.0])  # forgotten: it comes back in the next round
    first_round = [position for step in range(200, 204) for position in spaced.batch(step)]
    assert 0 in first_round


def test_spaced_repetition_goes_on_exactly_from_its_state_in_the_middle_of_a_round() -> None:
    def train(spaced: Spaced, steps: range) -> list[list[int]]:
        made = []
        for step in steps:
            made.append(spaced.batch(step))
            spaced.note(made[-1], [((position * 7 + step) % 10) / 20 for position in made[-1]])
        return made

    lengths = [(10 + number % 7, 5) for number in range(50)]
    whole = Spaced(lengths, batch_size=4, seed=1)
    before = train(whole, range(31))
    kept = {name: tensor.clone() for name, tensor in whole.state.items()}
    after = train(whole, range(31, 120))
    again = Spaced(lengths, batch_size=4, seed=1)
    again.restore(kept)
    assert train(again, range(31, 120)) == after
    assert len(before) == 31


def test_an_epoch_visits_every_example_once_in_batches_of_like_length() -> None:
    lengths = [(10 + number % 37, 5) for number in range(1000)]
    buckets = Buckets(lengths, batch_size=8, seed=3)
    assert buckets.steps_per_epoch == 125
    epoch = [buckets.batch(step) for step in range(125)]
    assert sorted(position for batch in epoch for position in batch) == list(range(1000))
    filled = sum(max(lengths[p][0] for p in batch) * len(batch) for batch in epoch)
    assert filled < 1.1 * sum(length for length, _ in lengths)
    assert epoch != [buckets.batch(step) for step in range(125, 250)]
    again = Buckets(lengths, batch_size=8, seed=3)
    assert [again.batch(step) for step in range(200)] == epoch + [buckets.batch(step) for step in range(125, 200)]
