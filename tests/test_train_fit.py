"""What makes a training step fit into memory: layers computed twice where the estimate says so, smaller moments."""

from __future__ import annotations

import dataclasses
import sys
import warnings

import pytest
import torch

from byheart.catalog import find_model
from byheart.chat import Example
from byheart.errors import MissingExtraError
from byheart.memory.choose import GB, Machine
from byheart.memory.size import Size, size_of
from byheart.models.adapters import LoraSettings
from byheart.train import fit, optimizers
from byheart.train.optimizers import MixedAdamW, choose_optimizer, gradients_of, make_optimizer

LORA = LoraSettings(targets="all-linear", rank=32, alpha=64, dropout=0.0)
EXAMPLES = [Example((1,) * 1500, (2,) * 500), Example((1,) * 10, (2,) * 5)]


def openchat() -> Size:
    entry = find_model("openchat/openchat_3.5")
    assert entry
    size = size_of(entry.architecture, entry.shape, parameters=entry.parameters)
    assert size
    return size


@pytest.mark.parametrize(
    ("gb", "twice", "said"),
    [(80, False, "without it"), (24, True, "with it, and does not fit without"), (8, True, "that will not fit")],
)
def test_layers_are_computed_twice_where_a_step_does_not_fit_otherwise(gb: int, twice: bool, said: str) -> None:
    work = fit.work_of(EXAMPLES, rows=1, base_model="openchat/openchat_3.5", lora=LORA)
    assert (work.batch.tokens, work.batch.learned) == (2000, 500)
    machine = Machine(1, gb * GB, "a GPU", in_bf16=True)
    found, reason = fit.choose_checkpointing("auto", size=openchat(), work=work, machine=machine, method="lora")
    assert found is twice
    assert said in reason
    assert f"of {gb}.0 GB" in reason


def test_moments_of_8_bits_are_estimated_as_such() -> None:
    machine = Machine(1, 80 * GB, "a GPU", in_bf16=True)
    reasons = [
        fit.choose_checkpointing("auto", size=openchat(), work=work, machine=machine, method="full")[1]
        for work in (
            fit.work_of(EXAMPLES, rows=1, base_model="openchat/openchat_3.5", lora=LORA, eight_bit_moments=eight_bit)
            for eight_bit in (False, True)
        )
    ]
    needed = [float(reason.split(" GB")[0].rpartition(" ")[2]) for reason in reasons]
    assert needed[0] - needed[1] == pytest.approx(
        7.24 * 4 * 1.05, abs=1.5
    )  # 2 bytes a weight, not 8; 4 of gradients, not 2


def test_what_the_config_says_about_checkpointing_is_done_and_an_unknown_architecture_is_said() -> None:
    work = fit.work_of(EXAMPLES, rows=1, base_model="some/folder", lora=dataclasses.replace(LORA, targets="attention"))
    machine = Machine(1, 8 * GB, "a GPU", in_bf16=True)
    for wish in ("always", "never"):
        found, reason = fit.choose_checkpointing(wish, size=openchat(), work=work, machine=machine, method="lora")
        assert (found, reason) == (wish == "always", "as train.gradient_checkpointing says")
    found, reason = fit.choose_checkpointing("auto", size=None, work=work, machine=machine, method="lora")
    assert not found
    assert "cannot be told beforehand" in reason


def test_paged_moments_need_a_gpu_and_say_so() -> None:
    assert choose_optimizer("paged-adamw-8bit", has_gpu=True) == ("paged-adamw-8bit", {})
    name, said = choose_optimizer("paged-adamw-8bit", has_gpu=False)
    assert name == "adamw-8bit"
    assert "there is no GPU" in said["train.optimizer"]


def test_moments_of_8_bits_take_a_quarter_of_the_memory_and_lead_to_the_same_place() -> None:
    pytest.importorskip("bitsandbytes")
    target = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    reached, taken = {}, {}
    for name in ("adamw", "adamw-8bit"):
        weight = torch.zeros(64, 128, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimizer = make_optimizer(name, [weight], learning_rate=0.05, weight_decay=0.0)  # type: ignore[arg-type]
        for _ in range(100):
            optimizer.zero_grad()
            (weight - target).square().sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        reached[name] = float((weight.detach() - target).abs().mean())
        taken[name] = sum(part.nbytes for part in optimizer.state[weight].values() if torch.is_tensor(part))
    assert max(reached.values()) < 0.1
    assert taken["adamw-8bit"] < 0.32 * taken["adamw"]


def test_a_missing_bitsandbytes_is_said_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match="qlora"):
        make_optimizer("adamw-8bit", [torch.zeros(1)], learning_rate=0.1, weight_decay=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_of_a_bf16_model_move_as_adamw_moves_them(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(optimizers._PIECE, "cpu", 50)  # weights in several pieces, and several weights in one
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in ((3, 4), (17, 9), (5,), (2, 2), (7,))]
    mixed, plain = ([weight.clone().requires_grad_() for weight in start] for _ in range(2))
    computed = [weight.detach().to(dtype).requires_grad_() for weight in start]
    ours = MixedAdamW(mixed, computed, learning_rate=0.1, weight_decay=0.02)
    theirs = torch.optim.AdamW(plain, lr=0.1, weight_decay=0.02, fused=True)
    for step in range(5):
        for number, (copy, weight) in enumerate(zip(computed, plain, strict=True)):
            copy.grad = torch.randn(weight.shape).to(dtype) if number != 3 or step > 2 else None
            weight.grad = None if copy.grad is None else copy.grad.float()
        assert len(gradients_of(ours)) == len(gradients_of(theirs)) == (5 if step > 2 else 4)
        ours.step()
        theirs.step()
        ours.zero_grad()
        assert gradients_of(ours) == []
    for found, expected in zip(mixed, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert ours.state_dict()["state"].keys() == theirs.state_dict()["state"].keys()
    again = MixedAdamW(mixed, computed, learning_rate=0.1, weight_decay=0.02)
    again.load_state_dict(theirs.state_dict())
    assert float(again.state[mixed[0]]["step"]) == 5
    torch.testing.assert_close(again.state[mixed[1]]["exp_avg"], ours.state[mixed[1]]["exp_avg"])


def test_a_cpu_computes_no_more_tokens_together_than_pay() -> None:
    short, long = Example((1,) * 60, (1,) * 40), Example((1,) * 900, (1,) * 700)
    assert fit.rows_at_once(16, [short] * 16, on_cpu=True) == 11
    assert fit.rows_at_once(8, [short] * 16, on_cpu=True) == 8
    assert fit.rows_at_once(16, [short, long], on_cpu=True) == 1
    assert fit.rows_at_once(16, [short, long], on_cpu=False) == 16
