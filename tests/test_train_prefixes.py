"""What examples begin with alike is computed once, and nothing that is learned changes by it: in every architecture."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from byheart.catalog import MODELS, ModelEntry, find_model
from byheart.chat import Example
from byheart.models import adapters
from byheart.models.writer import Writer, can_share, load_writer
from byheart.progress import silent
from byheart.train.answers import UnseenQuestions, WriterLearner, compute_twice, length_of, losses_of
from byheart.train.buckets import Buckets
from byheart.train.prefixes import A_PASS, KEYS_AND_VALUES, SHARED, groups_of, parts_of
from byheart.train.spaced import Spaced
from peak_memory import PeakMemory
from tiny_models import tiny_model

ARCHITECTURES = list({entry.architecture: entry for entry in MODELS if entry.family == "causal"}.values())
DECODERS = pytest.mark.parametrize("entry", ARCHITECTURES, ids=lambda entry: entry.architecture)
METHODS: tuple[adapters.Method, ...] = ("lora", "full")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ModelEntry], str]:
    made: dict[str, str] = {}

    def folder(entry: ModelEntry) -> str:
        if entry.name not in made:
            made[entry.name] = tiny_model(entry, tmp_path_factory.mktemp("models") / "model")
        return made[entry.name]

    return folder


def writer_of(folder: str, *, method: adapters.Method) -> Writer:
    """Return a tiny model with weights to train; its adapters are no zeros any more."""
    writer = load_writer(folder, family="causal", precision="fp32")
    torch.manual_seed(0)
    lora = adapters.LoraSettings(targets="all-linear", rank=4, alpha=8, dropout=0.0)
    adapters.prepare(writer, base_model=folder, method=method, lora=lora)
    with torch.no_grad():
        for weight in adapters.trainable(writer).values() if method == "lora" else ():
            weight.add_(torch.randn_like(weight) * 0.05)
    return writer


def tokens(count: int, seed: int) -> tuple[int, ...]:
    """Return ids that every tiny tokenizer has."""
    chance = random.Random(seed)
    return tuple(chance.randrange(3, 250) for _ in range(count))


def batch_of(*sizes: int, prefix: int = 45) -> list[Example]:
    """Return so many questions about each of some passages, all of different lengths."""
    return [
        Example(tokens(prefix, passage) + tokens(5 + 3 * number, 100 * passage + number), tokens(4 + number, number))
        for passage, size in enumerate(sizes) for number in range(size)
    ]  # fmt: skip


def learner_of(writer: Writer, batch: list[Example], *, shared: bool = True) -> WriterLearner:
    order = Buckets([(1,)] * len(batch), batch_size=len(batch), seed=0)
    learner = WriterLearner(
        writer, batch, order, UnseenQuestions([], [], 0), micro_batch=len(batch), notify=silent
    )  # fmt: skip
    assert learner._can_share
    learner._can_share = shared
    return learner


def learned(learner: WriterLearner, batch: list[Example]) -> tuple[float, list[float], dict[str, torch.Tensor]]:
    """Return the loss of a batch, those of its examples, and the gradients of all weights that are trained."""
    loss, each = learner._gradients(batch)
    gradients = {name: weight.grad.clone() for name, weight in learner.weights.items() if weight.grad is not None}
    learner._clear()
    return loss, each, gradients


def prefixes_seen(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which the length of every prefix that is computed is added."""
    seen: list[int] = []
    past_of = writer._past

    def noted(prefix_1_P: torch.Tensor, rows: int) -> Any:
        seen.append(prefix_1_P.shape[1])
        return past_of(prefix_1_P, rows)

    monkeypatch.setattr(writer, "_past", noted)
    return seen


@pytest.mark.parametrize("method", METHODS)
@DECODERS
def test_losses_and_gradients_are_those_of_rows_computed_one_by_one(
    entry: ModelEntry, method: adapters.Method, folder_of: Callable[[ModelEntry], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_of(folder_of(entry), method=method)
    batch = batch_of(4, 1, 3)
    plain = learned(learner_of(writer, batch, shared=False), batch)
    seen = prefixes_seen(writer, monkeypatch)
    shared = learned(learner_of(writer, batch), batch)
    assert seen[1:] == [45, 45]  # the first is the try whether it can
    assert plain[2].keys() == shared[2].keys() == adapters.trainable(writer).keys()
    for found, expected in zip(shared, plain, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@DECODERS
def test_a_changed_neighbour_that_goes_on_from_the_same_prefix_moves_nothing(
    entry: ModelEntry, folder_of: Callable[[ModelEntry], str]
) -> None:
    writer = writer_of(folder_of(entry), method="lora")
    batch = batch_of(3)
    other = Example(batch[2].prompt[:45] + tokens(len(batch[2].prompt) - 45, 9), tokens(len(batch[2].answer), 8))
    with torch.inference_mode():
        before, after = (
            writer.states(writer.rows([*batch[:2], last], shared=45)).split([4, 5, len(last.answer)])
            for last in (batch[2], other)
        )
    torch.testing.assert_close(before[:2], after[:2], atol=1e-6, rtol=0)
    assert not torch.allclose(before[2], after[2], atol=1e-2)


@pytest.mark.parametrize("method", METHODS)
@DECODERS
def test_what_is_shared_takes_no_more_memory_than_is_counted(
    entry: ModelEntry, method: adapters.Method, folder_of: Callable[[ModelEntry], str]
) -> None:
    writer = writer_of(folder_of(entry), method=method)

    def peak(rows: int, *, shared: int) -> int:
        batch = [Example(tokens(300, 0) + tokens(30, 1 + row), tokens(30, row)) for row in range(rows)]
        writer.model.zero_grad()
        made = writer.rows(batch, shared=shared)
        with PeakMemory([]) as memory:
            losses_of(writer, made)[0].backward()  # type: ignore[no-untyped-call]
        return memory.peak

    one, four = peak(1, shared=0), peak(4, shared=0)
    counted = 300 * (1 + 8 * KEYS_AND_VALUES) + 8 * 60
    assert peak(8, shared=300) < one + (four - one) / 3 * (counted / 360 - 1)
    assert counted < 0.5 * 8 * 360


def test_where_layers_are_computed_twice_nothing_is_shared(
    folder_of: Callable[[ModelEntry], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = find_model("distilgpt2")
    assert entry
    writer = writer_of(folder_of(entry), method="lora")
    batch = batch_of(4)
    learner = learner_of(writer, batch)
    seen = prefixes_seen(writer, monkeypatch)
    expected = learned(learner, batch)
    assert seen == [45]
    compute_twice(writer)
    found = learned(learner, batch)
    assert seen == [45]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_models_that_cannot_go_on_from_a_prefix_do_not(
    folder_of: Callable[[ModelEntry], str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    flan, entry = find_model("google/flan-t5-base"), find_model("distilgpt2")
    assert flan
    assert entry
    folder = tiny_model(flan, tmp_path_factory.mktemp("t5") / "model")
    assert not can_share(load_writer(folder, family="seq2seq", precision="fp32"))
    writer = writer_of(folder_of(entry), method="full")
    assert can_share(writer)
    past_of = writer._past

    def wrong(prefix_1_P: torch.Tensor, rows: int) -> Any:
        return past_of(prefix_1_P.flip(1), rows)

    monkeypatch.setattr(writer, "_past", wrong)
    assert not can_share(writer)
    writer.whole_logits = True
    assert not can_share(writer)


def test_parts_are_chosen_so_that_the_fewest_tokens_are_computed() -> None:
    batch = batch_of(3, 2, 1)
    mixed = [batch[place] for place in (3, 0, 5, 1, 4, 2)]
    parts = parts_of(mixed, most=8, a_pass=32)
    assert sorted((sorted(places), shared) for places, shared in parts) == [([0, 4], 45), ([1, 3, 5], 45), ([2], 0)]
    (three, shared), rest = parts_of(mixed, most=8, a_pass=50)
    assert (sorted(three), shared) == ([1, 3, 5], 45)
    assert rest == ([0, 2, 4], 0)  # 45 saved are not worth a pass
    assert parts_of(mixed, most=8, a_pass=math.inf) == [([0, 1, 2, 3, 4, 5], 0)]
    assert parts_of(mixed, most=2, a_pass=math.inf) == [([0, 1], 0), ([2, 3], 0), ([4, 5], 0)]
    assert parts_of(mixed, most=8, a_pass=math.inf, most_alone=4) == [([0, 1, 2, 3], 0), ([4, 5], 0)]
    assert max(len(places) for places, _ in parts_of(batch_of(9), most=4, a_pass=32)) == 4
    assert parts_of(batch_of(4, prefix=SHARED - 1), most=8, a_pass=1) == [([0, 1, 2, 3], 0)]
    assert parts_of(batch_of(8), most=8, a_pass=32)[0][1] == 45
    for places, shared in (kept := parts_of(eight := batch_of(8), most=8, a_pass=32, most_kept=2)):
        longest = max(length_of(eight[place])[0] for place in places)
        assert shared * (1 + len(places) * KEYS_AND_VALUES) + len(places) * (longest - shared) <= 2 * 82
    assert sum(shared == 45 for _, shared in kept) == 3
    assert parts_of([Example((5,) * 60, (1,))] * 2, most=8, a_pass=32) == [([0, 1], 59)]  # the last one stays


@pytest.mark.parametrize("seed", range(20))
def test_no_other_runs_of_sorted_prompts_save_more(seed: int) -> None:
    chance = random.Random(seed)
    trunk = tokens(200, seed)
    batch = [
        Example(trunk[: chance.randrange(10, 150)] + tokens(chance.randrange(1, 40), 50 + chance.randrange(4)), (1,))
        for _ in range(6)
    ]

    def saved(parts: list[tuple[list[int], int]]) -> float:
        return sum(shared * (len(places) - 1) - A_PASS["cpu"] for places, shared in parts if shared)

    order = sorted(range(6), key=lambda place: batch[place].prompt)

    def runs(ends: tuple[int, ...]) -> list[tuple[list[int], int]]:
        """Return the parts that come of cutting the sorted batch there, what shares too little left to itself."""
        found = [order[first:end] for first, end in itertools.pairwise((0, *ends, 6))]
        return [(run, shared) for run in found if (shared := len(commonprefix(run))) >= SHARED]

    def commonprefix(run: list[int]) -> list[int]:
        columns = zip(*(batch[place].prompt[:-1] for place in run), strict=False)
        return [ids[0] for ids in itertools.takewhile(lambda ids: len({*ids}) == 1, columns)] if len(run) > 1 else []

    cuts = itertools.chain.from_iterable(itertools.combinations(range(1, 6), count) for count in range(6))
    parts = parts_of(batch, most=6, a_pass=A_PASS["cpu"])
    assert sorted(place for places, _ in parts for place in places) == list(range(6))
    assert saved(parts) == max(saved(runs(ends)) for ends in cuts)


def test_what_all_prompts_begin_with_makes_no_group() -> None:
    system = tokens(60, 77)
    examples = [dataclasses.replace(example, prompt=system + example.prompt) for example in batch_of(3, 2, 1)]
    groups = groups_of(examples)
    assert len({*groups[:3]}) == len({*groups[3:5]}) == 1
    assert groups[0] != groups[3]
    assert groups[5] == -1
    assert min(groups[:5]) >= 0
    assert groups_of(batch_of(1, 1)) == [-1, -1]
    assert groups_of(batch_of(1)) == [-1]
    assert groups_of([]) == []


def test_what_is_shared_in_losses_of_is_shared_in_states(folder_of: Callable[[ModelEntry], str]) -> None:
    entry = find_model("distilgpt2")
    assert entry
    writer = writer_of(folder_of(entry), method="full")
    batch = batch_of(4)
    rows = writer.rows(batch, shared=45)
    assert rows.prefix_1_P is not None
    assert rows.prefix_1_P.numel() + rows.ids_B_T.numel() < writer.rows(batch).ids_B_T.numel() / 2
    torch.testing.assert_close(
        losses_of(writer, rows)[0], losses_of(writer, writer.rows(batch))[0], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("kind", [Buckets, Spaced])
def test_examples_of_one_prefix_stand_in_one_batch_and_those_of_one_fact_do_not(kind: Any) -> None:
    passages = [example for size in range(100) for example in batch_of(*[0] * size, 6)]
    alone = [Example(tokens(20 + number % 30, 1000 + number), tokens(5, number)) for number in range(600)]
    examples = [*passages, *alone]
    random.Random(0).shuffle(examples)
    facts = [(f"fact {example.prompt[:45]} {len(example.answer) % 3}",) for example in examples]  # each in two of six
    groups, lengths = groups_of(examples), [length_of(example) for example in examples]
    order = kind(lengths, batch_size=6, seed=1, facts=facts, groups=groups)
    epoch = [order.batch(step) for step in range(order.steps_per_epoch)]
    assert sorted(place for batch in epoch for place in batch) == list(range(1200))
    assert sum(len({facts[place] for place in batch}) < len(batch) for batch in epoch) <= 4  # the last of a pool

    def saved(epoch: list[list[int]]) -> int:
        parts = (parts_of([examples[place] for place in batch], most=6, a_pass=32) for batch in epoch)
        return sum(shared * (len(places) - 1) for found in parts for places, shared in found)

    # Each six make two times three with different facts, of which two are spared the passage: 400 of 600.
    assert saved(epoch) > 0.8 * 45 * 400
    apart = kind(lengths, batch_size=6, seed=1, facts=facts)
    assert saved([apart.batch(step) for step in range(order.steps_per_epoch)]) < 0.2 * 45 * 400
    again = kind(lengths, batch_size=6, seed=1, facts=facts, groups=groups)
    assert [again.batch(step) for step in range(order.steps_per_epoch)] == epoch
