"""The loss doctor in the loop: what it says is kept, `auto` acts on it, and a resumed run goes on as changed."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping

import pytest
import torch

from byheart.errors import TrainError
from byheart.progress import Progress, silent
from byheart.train import doctor, loop
from byheart.train.buckets import Planned
from byheart.train.checkpoint import TrainState
from byheart.train.consult import what_was_done
from doctor_histories import Curve, falling, straight, swinging, valley

STEPS = 400
ILL: dict[str, tuple[Curve, Curve]] = {
    "jumpy": (swinging(2.0, 0.3), swinging(2.0, 0.2)),
    "overfitting": (falling(3.0, 0.05), valley(3.0, 0.2, 1.2)),
    "slow": (straight(3.0, 2.7), straight(3.0, 2.7)),
    "flat": (falling(3.0, 2.6, pace=30), falling(3.0, 2.7, pace=30)),
}


class SameEveryTime(Planned):
    steps_per_epoch = 100

    def restore(self, saved: dict[str, torch.Tensor]) -> None:
        assert saved == {}


class Scripted:
    """A Learner whose losses follow curves of the share of steps done; its one weight remembers the steps."""

    def __init__(self, train: Curve, unseen: Curve, *, broken_at: Callable[[int], bool] = lambda step: False) -> None:
        self._train, self._unseen, self._broken_at = train, unseen, broken_at
        self._weight = torch.zeros(1)
        self.step = 0
        self.order = SameEveryTime()

    @property
    def weights(self) -> Mapping[str, torch.Tensor]:
        return {"weight": self._weight}

    def optimizer(self, *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW([self._weight], lr=learning_rate, weight_decay=weight_decay)

    def learn(self, step: int) -> float:
        self.step = step + 1
        self._weight.grad = torch.ones(1)
        return math.nan if self._broken_at(step) else self._train(step / STEPS)

    def publish(self) -> None:
        pass

    def validate(self) -> loop.Unseen:
        return loop.Unseen(self._unseen(self.step / STEPS), 0.4)


def recipe(*, auto: bool, patience: int = 99) -> loop.Recipe:
    return loop.Recipe(
        total_steps=STEPS, learning_rate=1e-3, validate_every=20, patience=patience, seed=0, auto=auto
    )  # fmt: skip


def train(
    learner: Scripted, *, auto: bool, state: TrainState | None = None, patience: int = 99,
    save: Callable[[TrainState], None] = lambda state: None, notify: Callable[[Progress], None] = silent,
) -> TrainState:  # fmt: skip
    return loop.train(
        learner=learner, recipe=recipe(auto=auto, patience=patience), state=state, save=save, notify=notify
    )


@pytest.mark.parametrize("kind", ILL)
def test_without_auto_each_illness_is_said_once_kept_in_the_steps_and_nothing_is_changed(kind: str) -> None:
    said: list[str] = []
    state = train(Scripted(*ILL[kind]), auto=False, notify=lambda event: said.append(event.message))
    found = [record for record in state.history if record.diagnosis == kind]
    assert found
    assert all(record.evidence and record.advice and not record.done for record in found)
    assert all(record.unseen_loss is not None for record in state.history if record.diagnosis)
    lines = [line for line in said if line.startswith(f"loss doctor, step {found[0].step}: {kind}: ")]
    assert len(lines) == 1
    assert found[0].advice in lines[0]
    assert {record.rate_factor for record in state.history} == {1.0}
    assert state.step == STEPS
    assert what_was_done(state.history) == {}


@pytest.mark.parametrize("action", ["none", "lower the rate", "raise the rate", "stop"])
def test_what_auto_would_do_is_told_with_the_advice_and_nothing_is_promised_that_it_cannot_do(
    action: doctor.Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = doctor.Diagnosis("underfit", "it rests at 4", "Raise train.epochs.", action)
    monkeypatch.setattr(doctor, "diagnose", lambda *_args, **_more: found)
    told = "" if action == "none" else f" With train.auto: true the training would {action} by itself."
    state = train(Scripted(*ILL["jumpy"]), auto=False)
    assert {record.advice for record in state.history if record.diagnosis} == {found.advice + told}
    state = train(Scripted(*ILL["jumpy"]), auto=True)
    assert {record.advice for record in state.history if record.diagnosis} == {found.advice}


def test_auto_lowers_the_rate_where_the_loss_jumps_and_three_times_at_most() -> None:
    said: list[str] = []
    state = train(Scripted(*ILL["jumpy"]), auto=True, notify=lambda event: said.append(event.message))
    factors = list(dict.fromkeys(record.rate_factor for record in state.history))
    assert factors[:2] == pytest.approx([1.0, 1 / 3])
    assert len(factors) <= 1 + doctor.MOST_LOWERED
    changed = next(record for record in state.history if record.done)
    after = state.history[changed.step + 1]
    assert after.learning_rate == pytest.approx(loop.learning_rate_at(changed.step, recipe(auto=True)) / 3)
    assert "The learning rate was lowered to 0.333 times the planned one." in "\n".join(said)
    assert f"step {changed.step}, jumpy: the learning rate was lowered" in what_was_done(state.history)["loss doctor"]


def test_auto_raises_the_rate_where_the_loss_is_smooth_and_slow() -> None:
    state = train(Scripted(*ILL["slow"]), auto=True)
    assert 2.0 in {record.rate_factor for record in state.history}
    assert state.step == STEPS


def test_auto_stops_where_it_overfits_and_keeps_the_best_weights() -> None:
    learner = Scripted(*ILL["overfitting"])
    state = train(learner, auto=True)
    assert state.step < STEPS
    assert state.best_step == pytest.approx(0.4 * STEPS)
    assert (
        loop.why_it_ended(state, recipe(auto=True)) == f"the loss doctor stopped it at step {state.step} (overfitting)"
    )
    assert learner.weights["weight"].equal(state.best_weights["weight"])


def test_auto_waits_longer_than_patience_so_that_the_doctor_can_judge() -> None:
    assert train(Scripted(*ILL["jumpy"]), auto=False, patience=1).step < STEPS / 4
    state = train(Scripted(*ILL["jumpy"]), auto=True, patience=1)
    assert any(record.done for record in state.history)


@pytest.mark.parametrize("kind", ["jumpy", "slow", "overfitting"])
def test_a_resumed_run_goes_on_with_the_changed_rate_and_ends_alike(kind: str) -> None:
    saved: list[TrainState] = []
    whole = train(Scripted(*ILL[kind]), auto=True, save=lambda state: saved.append(copy.deepcopy(state)))
    assert any(record.done for record in whole.history)
    for state in saved[::4]:
        again = train(Scripted(*ILL[kind]), auto=True, state=copy.deepcopy(state))
        assert [dataclasses.replace(record, seconds=0) for record in again.history] == [
            dataclasses.replace(record, seconds=0) for record in whole.history
        ]
        assert again.weights["weight"].equal(whole.weights["weight"])
        assert (again.rate_factor, again.ended) == (whole.rate_factor, whole.ended)


def test_a_loss_that_is_no_number_lowers_the_rate_from_the_best_weights_or_ends_training() -> None:
    curves = (falling(3.0, 0.3), falling(3.0, 0.8))
    with pytest.raises(TrainError, match=r"training has diverged.*train\.auto lowers it"):
        train(Scripted(*curves, broken_at=lambda step: step == 50), auto=False)
    said: list[str] = []
    learner = Scripted(*curves, broken_at=lambda step: step == 50)
    state = train(learner, auto=True, notify=lambda event: said.append(event.message))
    record = state.history[51]
    assert (record.train_loss, record.diagnosis) == (None, "not a number")
    assert "the best weights are back in place" in record.done
    assert state.history[52].rate_factor == pytest.approx(1 / 3)
    assert any("the loss of step 51 is infinite or not a number" in line for line in said)
    assert state.step == STEPS
    with pytest.raises(TrainError, match="training has diverged"):
        train(Scripted(*curves, broken_at=lambda step: step >= 50), auto=True)
