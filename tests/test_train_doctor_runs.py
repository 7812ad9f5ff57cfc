"""The loss doctor on real trainings of a small model from scratch, one for each diagnosis. Run with -s to see them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest
import torch

from byheart.catalog import find_model
from byheart.errors import TrainError
from byheart.models.scratch import make_scratch
from byheart.progress import silent
from byheart.train import loop
from byheart.train.answers import UnseenQuestions, WriterLearner, length_of
from byheart.train.buckets import Buckets
from byheart.train.checkpoint import TrainState

pytestmark = pytest.mark.slow

WORDS = [f"{first}{second}" for first in ("ba", "ko", "ti", "mu", "re", "sa", "no", "li") for second in ("d", "n", "r")]
OTHERS = [f"{first}{last}" for first in ("xa", "vo", "pi", "zu", "ge", "ha", "jo", "fi") for last in ("s", "l", "m")]
ASKED = ("how do i {}", "what is {} for", "tell me about {}", "where is {}", "{} please", "i need {}")


def facts(count: int, rng: random.Random) -> list[tuple[str, str]]:
    return [(f"{rng.choice(WORDS)} {rng.choice(WORDS)}", " ".join(rng.choices(WORDS, k=6))) for _ in range(count)]


def manual(rng: random.Random) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return forty facts in six phrasings, and a seventh that is not trained on."""
    known = facts(40, rng)
    return [(ask.format(what), answer) for what, answer in known for ask in ASKED], [
        (f"explain {what}", answer) for what, answer in known
    ]


def few(rng: random.Random) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return a dozen facts in one phrasing each, and in another that is not trained on."""
    known = facts(12, rng)
    return [(rng.choice(ASKED).format(what), answer) for what, answer in known], [
        (f"explain {what}", answer) for what, answer in known
    ]


def menus(count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Return facts whose answers look alike, but for three words each."""
    return [
        (what, f"open the {first} menu , choose {second} and press {third}")
        for what, answer in facts(count, rng)
        for first, second, third in [answer.split()[:3]]
    ]


def many(rng: random.Random) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return four hundred facts in six phrasings, and a seventh that is not trained on."""
    known = menus(400, rng)
    return [(ask.format(what), answer) for what, answer in known for ask in ASKED], [
        (f"explain {what}", answer) for what, answer in known
    ]


def renamed(rng: random.Random) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return forty facts in six phrasings, and the same asked with other names of the things, which none of them uses.

    As customers do whose words no training question has.
    """
    known = menus(40, rng)
    names = [" ".join(rng.choices(OTHERS, k=2)) for _ in known]
    return [(ask.format(what), answer) for what, answer in known for ask in ASKED], [
        (rng.choice(ASKED).format(name), answer) for name, (_, answer) in zip(names, known, strict=True)
    ]


def noise(rng: random.Random) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return answers that nothing in the question tells: there is nothing to learn but how answers look."""
    syllables = [f"{first}{last}" for first in "bcdfghjklmnprstv" for last in ("a", "e", "i", "o", "u", "an", "er")]
    said = [(ASKED[0].format("it"), " ".join(rng.choices(syllables, k=6))) for _ in range(3240)]
    return said[:3200], said[3200:]


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """What is learned, how fast, for how long, and by how large a model."""

    data: Callable[[random.Random], tuple[list[tuple[str, str]], list[tuple[str, str]]]]
    learning_rate: float
    steps: int = 400
    width: int = 96
    layers: int = 3


RUNS = {
    "healthy": Run(manual, 2e-3),
    "jumpy": Run(few, 0.03),  # many facts at such a rate rest high instead, or swing with the rounding
    "slow": Run(manual, 2e-6),
    "overfitting": Run(few, 3e-3),
    "flat": Run(noise, 2e-3),
    "underfit": Run(many, 1e-2, width=16, layers=1),  # 8,720 weights for 400 facts
    "parroting": Run(renamed, 2e-3),
    "unfinished": Run(manual, 2e-3, steps=100),
}


def train(name: str, *, auto: bool, rate: float = 0.0, seed: int = 7) -> TrainState:
    run = RUNS[name]
    train_on, unseen = run.data(random.Random(seed))
    entry = find_model("scratch:llama-10m")
    assert entry
    heads = min(4, run.width // 8)
    shape = {
        "hidden_size": run.width, "intermediate_size": 2 * run.width, "num_hidden_layers": run.layers,
        "num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": run.width // heads, "vocab_size": 400,
    }  # fmt: skip
    small = dataclasses.replace(entry, shape={**entry.shape, **shape})
    writer = make_scratch(small, [text for pair in (*train_on, *unseen) for text in pair], seed=0)
    examples, measured = (
        writer.chat.examples([(ask, answer, ()) for ask, answer in part]) for part in (train_on, unseen)
    )
    learner = WriterLearner(
        writer, examples, Buckets([length_of(example) for example in examples], batch_size=8, seed=0),
        UnseenQuestions(measured, [], 20), micro_batch=8, notify=silent,
    )  # fmt: skip
    recipe = loop.Recipe(
        total_steps=run.steps, learning_rate=rate or run.learning_rate, validate_every=16, patience=99, seed=0,
        auto=auto,
    )  # fmt: skip
    torch.manual_seed(0)
    return loop.train(learner=learner, recipe=recipe, state=None, save=lambda state: None, notify=silent)


def show(name: str, state: TrainState, *, auto: bool) -> None:
    unseen = [record.unseen_loss for record in state.history if record.unseen_loss is not None]
    print(
        f"\n{name}{', auto' if auto else ''}: unseen {unseen[0]:.2f}, best {state.best_loss:.2f}, last {unseen[-1]:.2f}"
    )
    told = ""
    for record in state.history:
        if record.diagnosis not in ("", told, "too early") or record.done:
            print(f"  step {record.step}: {record.diagnosis}: {record.evidence} {record.done}")
        told = record.diagnosis or told


@pytest.mark.parametrize("name", RUNS)
def test_a_real_run_gets_its_diagnosis_and_a_healthy_one_no_other(name: str) -> None:
    state = train(name, auto=False)
    show(name, state, auto=False)
    kinds = {record.diagnosis for record in state.history} - {"", "too early"}
    assert name in kinds
    if name == "healthy":
        assert kinds == {"healthy"}


@pytest.mark.parametrize("name", ["overfitting", "flat", "underfit", "parroting", "unfinished"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_that_learned_too_little_ends_with_the_reason_whatever_its_facts(name: str, seed: int) -> None:
    state = train(name, auto=False, seed=seed)
    show(f"{name}, facts {seed}", state, auto=False)
    assert state.history[-1].diagnosis == name


def test_auto_raises_a_slow_rate_and_reaches_a_lower_loss_on_unseen_phrasing() -> None:
    states = [train("slow", auto=auto) for auto in (False, True)]
    show("slow", states[1], auto=True)
    assert states[0].best_loss is not None
    assert states[1].best_loss is not None
    assert states[1].best_loss < states[0].best_loss


def test_auto_lowers_the_rate_of_a_loss_that_jumps() -> None:
    state = train("jumpy", auto=True)
    show("jumpy", state, auto=True)
    assert state.rate_factor == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", ["overfitting", "flat", "parroting"])
def test_auto_ends_a_run_that_gains_nothing_more_and_keeps_its_best_weights(name: str) -> None:
    state = train(name, auto=True)
    show(name, state, auto=True)
    assert state.step < RUNS[name].steps
    assert state.best_step < state.step
    assert name in state.ended


def test_a_rate_at_which_the_loss_is_no_number_ends_the_run_with_the_way_out() -> None:
    with pytest.raises(TrainError, match="training has diverged"):
        train("healthy", auto=False, rate=1e30)
