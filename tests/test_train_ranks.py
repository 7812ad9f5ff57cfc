"""Training on two ranks: each holds half, both learn from all, and the loss is that of one process."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from byheart.config import Project
from byheart.errors import TrainError
from byheart.progress import silent
from byheart.store import RunFolder
from byheart.train import loop, plan, writing
from byheart.train.checkpoint import CHECKPOINT
from byheart.train.ranks import ALONE, Layout, Ranks, world
from byheart.train.sharded import layers, shares_of
from ranks_lab import on_ranks
from test_train_writing import project_of, tiny_gpt2

Made = tuple[Project, RunFolder]
SHARDINGS = (
    pytest.param(
        "deepspeed",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(
                importlib.util.find_spec("deepspeed") is None,  # not imported: that takes seconds, and warns
                reason="NOT CHECKED: no DeepSpeed here. Install byheart[deepspeed], or run make test-slow, which does.",
            ),
        ],
    ),
    "fsdp",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_gpt2(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def few_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MEASURED_ANSWERS", 5)
    monkeypatch.setattr(plan, "ASKED_QUESTIONS", 0)


def train(made: Made, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Train, and return what this rank held, the losses, and the weights that were kept: whole, on the first rank."""
    seen: dict[str, Any] = {}

    def watched(*, learner: Any, **rest: Any) -> loop.TrainState:
        seen["held"] = sum(piece.numel() for piece in learner.weights.values())
        state = loop.train(learner=learner, **rest)
        state.weights = dict(learner.weights)
        whole = learner.pieces.whole(state)
        seen["weights"] = {name: weight.detach().clone() for name, weight in whole.weights.items()}
        seen["losses"] = [loss for record in state.history for loss in (record.train_loss, record.unseen_loss) if loss]
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "loop", _Loop(watched))
        outcome = writing.run(*made, silent, family="causal", ranks=ranks)
    kept = outcome.model.model.named_parameters() if ranks.is_first else ()
    seen["kept"] = {name: weight.detach() for name, weight in kept}
    return seen


class _Loop:
    """The module `loop` with another `train`."""

    def __init__(self, train: Any) -> None:
        self.train = train
        self.TASK = loop.TASK


def near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        # GPT-2's key bias has no gradient but rounding, whose sign Adam follows at full speed.
        tolerance = 0.02 if name.endswith("c_attn.bias") else 2e-5
        assert torch.allclose(found[name], weight, atol=tolerance), name


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_ranks_hold_half_each_and_learn_what_one_process_learns(
    tmp_path: Path, base: str, method: str, sharding: str
) -> None:
    settings = {"epochs": 1, "method": method, "sharding": sharding, "batch_size": 5, "micro_batch_size": 2}
    one = train(project_of(tmp_path / "one", base, **settings))
    made = project_of(tmp_path / "two", base, **settings)
    first, second = on_ranks(2, functools.partial(train, made), tmp_path / "out")
    assert first["held"] + second["held"] == one["held"]
    assert abs(first["held"] - second["held"]) <= 0.02 * one["held"]
    assert first["losses"] == second["losses"] == pytest.approx(one["losses"], abs=1e-5)
    near(first["weights"], one["weights"])
    near(first["kept"], one["kept"])


def test_two_ranks_move_fp32_weights_by_gradients_in_bf16_as_one_process_does(tmp_path: Path, base: str) -> None:
    settings = {"epochs": 2, "method": "full", "batch_size": 4, "precision": "bf16", "learning_rate": 1e-3}
    one = train(project_of(tmp_path / "one", base, **settings))
    made = project_of(tmp_path / "two", base, **settings)
    first, second = on_ranks(2, functools.partial(train, made), tmp_path / "out")
    assert {weight.dtype for weight in first["weights"].values()} == {torch.float32}
    assert first["losses"] == second["losses"] == pytest.approx(one["losses"], rel=0.02)  # other rounding in bf16
    assert one["losses"][-1] < 0.5 * one["losses"][0]


def test_two_ranks_learn_the_documents_and_conversations_that_one_process_learns(tmp_path: Path, base: str) -> None:
    settings = {"epochs": 1, "batch_size": 3, "mix_documents": 0.4, "mix_conversations": 0.1}
    one = train(project_of(tmp_path / "one", base, **settings))
    made = project_of(tmp_path / "two", base, **settings)
    first, second = on_ranks(2, functools.partial(train, made), tmp_path / "out")
    assert first["losses"] == second["losses"] == pytest.approx(one["losses"], abs=1e-5)
    near(first["weights"], one["weights"])


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_ranks(
    tmp_path: Path, base: str, before: int, after: int, sharding: str
) -> None:
    settings = {"epochs": 2, "sharding": sharding, "repetition": "spaced"}
    whole = train(project_of(tmp_path / "whole", base, **settings))
    made = project_of(tmp_path / "cut", base, **settings)

    def run(size: int, work: Any) -> Any:
        return on_ranks(size, work, tmp_path / f"out {size}")[0] if size > 1 else work(ALONE)

    assert run(before, functools.partial(stopped, made))
    assert (made[1] / CHECKPOINT).exists()
    resumed = run(after, functools.partial(train, made))
    assert resumed["losses"] == pytest.approx(whole["losses"], abs=1e-4)
    near(resumed["weights"], whole["weights"])


def stopped(made: Made, ranks: Ranks) -> bool:
    """Train until the seventh step, when one of the ranks, not the first, is told to stop; say whether all stopped."""
    with pytest.MonkeyPatch.context() as patch:
        asked: list[int] = []

        def told(self: Ranks) -> bool:
            asked.append(1)
            return len(asked) == 7 and self.rank == self.size - 1

        patch.setattr(Ranks, "told_to_stop", property(told))
        try:
            writing.run(*made, silent, family="causal", ranks=ranks)
        except KeyboardInterrupt:
            return len(asked) == 7
    return False


def test_every_rank_makes_as_many_passes_and_every_example_counts_once() -> None:
    for size in (1, 2, 5, 8):
        for ranks in (1, 2, 3, 8):
            for micro_batch in (1, 2, 4):
                shares = [shares_of(size, Ranks(rank, ranks), micro_batch) for rank in range(ranks)]
                assert len({len(share) for share in shares}) == 1
                counted = [place for share in shares for places, counts in share if counts for place in places]
                assert sorted(counted) == list(range(size))
                assert all(len(places) <= micro_batch for share in shares for places, _ in share)


def test_pieces_cover_a_tensor_whatever_its_size() -> None:
    for rows, columns, ranks in ((5, 3, 2), (1, 4, 2), (3, 1, 4), (8, 2, 8)):
        layout = Layout((rows, columns), -(-rows // ranks) * columns)
        assert sum(layout.size_on(rank) for rank in range(ranks)) == rows * columns


def test_only_the_outermost_lists_of_modules_are_layers() -> None:
    block = torch.nn.Sequential(torch.nn.ModuleList([torch.nn.Linear(1, 1)]))
    model = torch.nn.Sequential(torch.nn.ModuleList([block]), torch.nn.Linear(1, 1))
    assert layers(model) == [block]


def test_the_environment_of_torchrun_and_of_slurm_is_recognised() -> None:
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert world(torchrun | {"HOME": "/"}) == torchrun
    slurm = {
        "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "3", "SLURM_JOB_ID": "70123",
        "SLURM_STEP_NODELIST": "gpu[01-02]", "MASTER_ADDR": "gpu01",
    }  # fmt: skip
    assert world(slurm) == {
        "RANK": "3", "WORLD_SIZE": "16", "LOCAL_RANK": "3", "MASTER_ADDR": "gpu01", "MASTER_PORT": "29623",
    }  # fmt: skip
    assert world({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) == {}  # a batch script, not a task of it
    assert world({"WORLD_SIZE": "1"}) == {}


def test_four_bits_are_for_one_gpu(tmp_path: Path, base: str) -> None:
    with pytest.raises(TrainError, match="qlora is for one GPU"):
        writing.run(*project_of(tmp_path, base, method="qlora"), silent, family="causal", ranks=Ranks(0, 2))
