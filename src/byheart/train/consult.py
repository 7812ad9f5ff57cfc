"""Asking the loss doctor while a model trains: what it says goes into the steps' records, and `auto` acts on it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from byheart.train import doctor
from byheart.train.checkpoint import StepRecord, TrainState

_NOTHING_TO_SAY = ("", "too early")
_WITH_AUTO = " With train.auto: true the training would {} by itself."
_CHANGES: dict[doctor.Action, str] = {
    "lower the rate": "the learning rate was lowered",
    "raise the rate": "the learning rate was raised",
    "stop": "training was stopped",
}


def consult(state: TrainState, *, total_steps: int, warm_up_steps: int, auto: bool, is_last: bool) -> str:
    """Write into the newest record what the losses say, and return a line for the screen.

    The line is "" where there is nothing to say that was not said at the validation before. With `auto`, the state's
    rate factor, or its reason to end, is changed as the doctor advises. `is_last`: nothing comes after it but by that.
    """
    said_before = next((record.diagnosis for record in reversed(state.history) if record.diagnosis), "")
    found = doctor.diagnose(
        _readings(state.history), total_steps=total_steps, warm_up_steps=warm_up_steps, is_last=is_last
    )
    if found.action != "none" and not auto:
        found = dataclasses.replace(found, advice=found.advice + _WITH_AUTO.format(found.action))
    done = _act(state, found) if auto and state.step < total_steps else ""
    _note(state, found, done)
    if found.kind in _NOTHING_TO_SAY or (found.kind == said_before and not done):
        return ""
    rest = done or found.advice
    return f"loss doctor, step {state.step}: {found.kind}: {found.evidence}." + (f" {_sentence(rest)}" if rest else "")


def lower_after_fault(state: TrainState, loss: float) -> str:
    """Lower the rate after a loss that is no number, and return a line for the screen; "" where it is low already."""
    found = doctor.diagnose([doctor.Reading(state.step, loss, None)], total_steps=state.step)
    done = _act(state, found)
    if not done:
        return ""
    done += ", and the best weights are back in place"
    _note(state, found, done)
    return f"loss doctor, step {state.step}: {found.kind}: {found.evidence}. {_sentence(done)}"


def what_was_done(history: Sequence[StepRecord]) -> dict[str, str]:
    """Return what the doctor changed, for the account of the choices; empty where nothing."""
    changes = [f"step {record.step}, {record.diagnosis}: {record.done}" for record in history if record.done]
    return {"loss doctor": "; ".join(changes)} if changes else {}


def _act(state: TrainState, found: doctor.Diagnosis) -> str:
    """Do what the diagnosis asks for, and return it in words; "" where nothing is done."""
    if found.action == "stop":
        state.ended = f"the loss doctor stopped it at step {state.step} ({found.kind})"
        return _CHANGES["stop"]
    factor = doctor.next_factor(_readings(state.history), found.action)
    if math.isclose(factor, state.rate_factor):
        return ""
    state.rate_factor = factor
    state.validations_since_best = 0  # the new rate gets its own chance
    return f"{_CHANGES[found.action]} to {factor:.3g} times the planned one"


def _note(state: TrainState, found: doctor.Diagnosis, done: str) -> None:
    state.history[-1] = dataclasses.replace(
        state.history[-1], diagnosis=found.kind, evidence=found.evidence, advice=found.advice, done=done
    )


def _readings(history: Sequence[StepRecord]) -> list[doctor.Reading]:
    return [
        doctor.Reading(
            record.step,
            record.train_loss,
            record.unseen_loss,
            record.rate_factor,
            record.unseen_accuracy if record.recall is None else record.recall,
        )
        for record in history
    ]


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:].removesuffix(".") + "."
