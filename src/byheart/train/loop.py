"""The training loop, read top to bottom: one batch, its loss, one step; now and then the loss on unseen phrasing."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, Protocol

import torch

from byheart.errors import TrainError
from byheart.progress import Notify, Progress
from byheart.train import doctor
from byheart.train.checkpoint import StepRecord, Tensors, TrainState
from byheart.train.consult import consult, lower_after_fault
from byheart.train.heap import freed_memory_kept
from byheart.train.optimizers import gradients_of
from byheart.train.ranks import ALONE, Ranks, clip

TASK = "training"
WARM_UP = 0.1  # share of the steps over which the rate rises; then it falls to 0 (the usual schedule for BERT)
WEIGHT_DECAY = 0.01  # Sentence-BERT, SimCSE
CLIP_NORM = 1.0  # longest gradient that is followed: one odd batch must not undo many
CHECKPOINT_EVERY_S = 60.0  # what a kill costs at most
TIMED_STEPS = 3  # enough to tell how long the rest will take; the first one is slower and is not counted


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast to train."""

    total_steps: int
    learning_rate: float  # at its peak
    validate_every: int  # steps
    patience: int  # validations without a better loss
    seed: int
    auto: bool = False  # let the loss doctor change the rate, and stop

    @property
    def warm_up_steps(self) -> int:
        """Return over how many steps the rate rises."""
        return max(1, round(self.total_steps * WARM_UP))

    @property
    def waits(self) -> int:
        """Return how many validations without a better loss end the training: the doctor needs a few to judge."""
        return max(self.patience, doctor.RECENT) if self.auto else self.patience


@dataclasses.dataclass(frozen=True, slots=True)
class Unseen:
    """A validation on phrasings that are not trained on."""

    loss: float
    accuracy: float  # share of questions whose passage comes first, or whose answer is the likeliest to the last token
    recall: float | None = None  # share of a sample that was answered rightly when asked; None where nothing was asked


class Order(Protocol):
    """The order of the batches: buckets.Buckets, spaced.Spaced or batches.Schedule."""

    @property
    def steps_per_epoch(self) -> int:
        """Return how many steps see all of the data."""
        ...

    @property
    def state(self) -> Tensors:
        """Return what it depends on beside the seed and the step; a checkpoint keeps it."""
        ...

    def restore(self, saved: Tensors) -> None:
        """Go on as `state` was."""
        ...


class Learner(Protocol):
    """What is trained: a model and its batches."""

    @property
    def weights(self) -> Mapping[str, torch.Tensor]:
        """Return what the optimizer moves, by name."""
        ...

    @property
    def order(self) -> Order:
        """Return what decides which examples stand in which step."""
        ...

    def optimizer(self, *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """Return the optimizer of the weights."""
        ...

    def learn(self, step: int) -> float | None:
        """Give the weights the gradients of a step's batch, and return its loss; one that is no number gives none.

        Of what stands beside the questions nothing is told: None where a batch holds nothing else.
        """
        ...

    def publish(self) -> None:
        """Let the model compute with the weights as they are now."""
        ...

    def validate(self) -> Unseen | None:
        """Return how it does on unseen phrasing; None where there is none."""
        ...


def train(
    *,
    learner: Learner,
    recipe: Recipe,
    state: TrainState | None,
    save: Callable[[TrainState], None],
    notify: Notify,
    ranks: Ranks = ALONE,
) -> TrainState:
    """Train, leave the best weights in the model, and return the last state.

    `state`: where an earlier run was stopped; `save` is called with the state at every validation, after
    CHECKPOINT_EVERY_S, and when Ctrl-C ends the run. Each of `ranks` calls it, with its own part of the weights and of
    the state. Raises TrainError where a loss is not a number.
    """
    optimizer = learner.optimizer(learning_rate=recipe.learning_rate, weight_decay=WEIGHT_DECAY)
    if state is None:
        state = _untrained(learner, learner.validate())
    else:
        _restore(learner, state.weights)
        _restore_moments(optimizer, state.moments)
        learner.order.restore(state.order)
    watch = _Watch(done_s=state.seconds, first_step=state.step)
    with freed_memory_kept(), _interrupts_deferred() as interrupted:
        while not why_it_ended(state, recipe):
            rate = learning_rate_at(state.step, recipe) * state.rate_factor
            torch.manual_seed(random.Random(f"dropout {recipe.seed} {state.step}").getrandbits(63))
            loss = learner.learn(state.step)
            if loss is None or math.isfinite(loss):
                _step(learner, optimizer, rate, ranks)
            state.step += 1
            said = ""
            is_due = state.step % recipe.validate_every == 0 or state.step == recipe.total_steps
            unseen = learner.validate() if is_due else None
            state.seconds = watch.seconds()
            state.history.append(_record(state, loss, unseen, rate, learner.order.steps_per_epoch))
            losses = (loss or 0.0, unseen.loss if unseen else 0.0)
            if bad := [lost for lost in losses if not math.isfinite(lost)]:
                said = _recover(learner, optimizer, state, recipe, bad[0])
            elif is_due:
                _keep_if_best(state, learner, unseen)
                said = consult(
                    state, total_steps=recipe.total_steps, warm_up_steps=recipe.warm_up_steps, auto=recipe.auto,
                    is_last=bool(why_it_ended(state, recipe)),
                )  # fmt: skip
            # Asked once: a Ctrl-C from here on ends the next step.
            is_last, is_late = ranks.agree(interrupted() or ranks.told_to_stop, watch.checkpoint_is_due())
            if is_due or is_last or is_late:
                # Not copies, which a CPU would hold in its memory beside the weights: saved before they move again.
                state.weights, state.moments = _as_they_are(learner), _moments(optimizer)
                state.order = learner.order.state
                save(state)
                watch.saved()
            notify(Progress(TASK, state.step, recipe.total_steps, describe_losses(state.history)))
            if said:
                notify(Progress(TASK, message=said))
            if estimate := watch.estimate(state.step, recipe.total_steps):
                notify(Progress(TASK, message=estimate))
            if is_last:
                raise KeyboardInterrupt
    _restore(learner, state.best_weights)
    return state


def why_it_ended(state: TrainState, recipe: Recipe) -> str:
    """Return why there is no next step; "" where there is one."""
    if state.step >= recipe.total_steps:
        return f"all {recipe.total_steps} steps are done"
    if state.validations_since_best >= recipe.waits:
        return (
            f"stopped early at step {state.step} of {recipe.total_steps}: the loss on unseen phrasing has not fallen "
            f"in {recipe.waits} validations (train.patience)"
        )
    return state.ended


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """Return the planned rate of a step, counted from 0: a linear rise, then a linear fall that ends above 0."""
    if step < recipe.warm_up_steps:
        return recipe.learning_rate * (step + 1) / recipe.warm_up_steps
    return recipe.learning_rate * (recipe.total_steps - step) / max(1, recipe.total_steps - recipe.warm_up_steps)


def describe_losses(history: Sequence[StepRecord]) -> str:
    """Return the newest losses: "loss 0.41, unseen phrasing 0.52"."""
    recent = [record.train_loss for record in history[-10:] if record.train_loss is not None]
    unseen = [record.unseen_loss for record in history if record.unseen_loss is not None]
    recalls = [record.recall for record in history if record.recall is not None]
    said = [f"loss {sum(recent) / len(recent):.2f}"] if recent else []
    said += [f"unseen phrasing {unseen[-1]:.2f}"] if unseen else []
    return ", ".join([*said, f"{recalls[-1]:.0%} of it answered" if recalls else ""]).removesuffix(", ")


class _Watch:
    """What the clock decides: when to save, and what to say about the time that is left."""

    def __init__(self, *, done_s: float, first_step: int) -> None:
        """`done_s`: seconds that earlier runs spent; `first_step`: steps that they did."""
        self._started = time.monotonic() - done_s
        self._saved = time.monotonic()
        self._first_step = first_step
        self._second_step_at = 0.0

    def seconds(self) -> float:
        return time.monotonic() - self._started

    def saved(self) -> None:
        self._saved = time.monotonic()

    def checkpoint_is_due(self) -> bool:
        return time.monotonic() - self._saved >= CHECKPOINT_EVERY_S

    def estimate(self, step: int, total_steps: int) -> str:
        """Return how long it will take, once, when TIMED_STEPS are done; else ""."""
        done = step - self._first_step
        if done == 1:
            self._second_step_at = time.monotonic()
        if done != TIMED_STEPS + 1:
            return ""
        each_s = (time.monotonic() - self._second_step_at) / TIMED_STEPS
        left = total_steps - step
        return f"{left} more steps of {each_s:.2g} s: about {left * each_s / 60:.1f} minutes, and validations"


def _step(learner: Learner, optimizer: torch.optim.Optimizer, rate: float, ranks: Ranks) -> None:
    """Move the weights down the slope that was learned."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    clip(gradients_of(optimizer), CLIP_NORM, ranks)
    optimizer.step()
    optimizer.zero_grad()
    learner.publish()


def _untrained(learner: Learner, unseen: Unseen | None) -> TrainState:
    """Return the state before the first step: the untrained model is the best one so far."""
    start = {name: weight.detach().cpu().clone() for name, weight in learner.weights.items()}
    state = TrainState(
        step=0, weights=start, moments={}, best_weights=start, best_step=0, best_loss=unseen.loss if unseen else None,
        validations_since_best=0, seconds=0.0, history=[],
    )  # fmt: skip
    if unseen:
        state.history.append(_record(state, None, unseen, 0.0, 1))
    return state


def _record(
    state: TrainState, loss: float | None, unseen: Unseen | None, rate: float, steps_per_epoch: int
) -> StepRecord:
    return StepRecord(
        step=state.step,
        epoch=round(state.step / steps_per_epoch, 3),
        train_loss=_number(loss),
        unseen_loss=_number(unseen.loss) if unseen else None,
        unseen_accuracy=unseen.accuracy if unseen else None,
        recall=unseen.recall if unseen else None,
        learning_rate=rate,
        seconds=round(state.seconds, 2),
        rate_factor=state.rate_factor,
    )


def _number(loss: float | None) -> float | None:
    """Return a loss, or None for one that is infinite or not a number, which no JSON file can hold."""
    return loss if loss is not None and math.isfinite(loss) else None


def _keep_if_best(state: TrainState, learner: Learner, unseen: Unseen | None) -> None:
    """Keep the weights where they do better on unseen phrasing than any before; without validation, the last ones."""
    if unseen is None or state.best_loss is None or unseen.loss < state.best_loss:
        _copy_into(state.best_weights, learner)
        state.best_step = state.step
        state.best_loss = unseen.loss if unseen else None
        state.validations_since_best = 0
    else:
        state.validations_since_best += 1


def _recover(learner: Learner, optimizer: torch.optim.Optimizer, state: TrainState, recipe: Recipe, loss: float) -> str:
    """Put the best weights back after a loss that is no number, and return what was changed so that it goes on better.

    Raises TrainError where the loss doctor may change nothing, or has done so often enough.
    """
    _restore(learner, state.best_weights)
    said = lower_after_fault(state, loss) if recipe.auto else ""
    if not said:
        raise TrainError(
            f"The loss is {loss} at step {state.step} of {recipe.total_steps}, with a learning rate of up to "
            f"{recipe.learning_rate:g}: training has diverged. Set train.learning_rate lower (a tenth: "
            f"{recipe.learning_rate / 10:g}), or train.precision to fp32 if it is bf16; train.auto lowers it by itself."
        )
    optimizer.state.clear()  # the moments hold what led astray
    return said


def _as_they_are(learner: Learner) -> Tensors:
    return {name: weight.detach() for name, weight in learner.weights.items()}


def _copy_into(saved: Tensors, learner: Learner) -> None:
    with torch.no_grad():
        for name, weight in learner.weights.items():
            saved[name].copy_(weight)


def _restore(learner: Learner, saved: Tensors) -> None:
    with torch.no_grad():
        for name, weight in learner.weights.items():
            weight.copy_(saved[name])
    learner.publish()


def _moments(optimizer: torch.optim.Optimizer) -> Tensors:
    # Small ones are copied: the 8-bit optimizer's weights share one table, which safetensors refuses to write twice.
    return {
        f"{number}/{name}": tensor.clone() if (tensor := torch.as_tensor(value).detach()).numel() <= 256 else tensor
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in _flat(values).items()
    }


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimizer's values for a weight, those that it keeps one level down under "level/name"."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= {f"{name}/{inner}": item for inner, item in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _restore_moments(optimizer: torch.optim.Optimizer, moments: Tensors) -> None:
    values: dict[int, dict[str, Any]] = {}
    for key, tensor in moments.items():
        number, *levels, name = key.split("/")
        place = values.setdefault(int(number), {})
        for level in levels:
            place = place.setdefault(level, {})
        # AdamW of 8 bits counts its steps with a plain number, torch's with a tensor of floats.
        place[name] = int(tensor) if tensor.dim() == 0 and tensor.dtype == torch.int64 else tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": values})


@contextlib.contextmanager
def _interrupts_deferred() -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C back until the step at hand is whole; a second one ends at once. Yields: was there one?"""
    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or before == signal.SIG_IGN:
        yield lambda: False  # signals reach the main thread alone; a background job was told to ignore them
        return
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)
