"""The recipe for a model that writes: what the config leaves open is chosen by size and data, with a reason each."""

from __future__ import annotations

from typing import Any

from byheart.train import plan


def test_choices_for_a_model_that_writes_are_given_with_their_reasons() -> None:
    common: dict[str, Any] = {
        "examples": 8000, "tokens_per_epoch": 400_000, "learning_rate": None, "batch_size": None, "epochs": None,
        "validations_per_epoch": 4, "patience": 2, "seed": 0,
    }  # fmt: skip
    large = plan.choose_writing_recipe(from_scratch=False, is_full=False, parameters=7_000_000_000, **common)
    assert (large.batch_size, large.recipe.learning_rate, large.recipe.total_steps) == (1, 1e-4, 40_000)
    small = plan.choose_writing_recipe(from_scratch=False, is_full=True, parameters=82_000_000, **common)
    assert (small.batch_size, small.recipe.learning_rate) == (4, 5e-5)
    adapted = plan.choose_writing_recipe(from_scratch=False, is_full=False, parameters=82_000_000, **common)
    assert (adapted.batch_size, adapted.recipe.learning_rate) == (4, 5e-4)
    scratch = plan.choose_writing_recipe(from_scratch=True, is_full=True, parameters=10_000_000, **common)
    assert scratch.recipe.learning_rate == plan.SCRATCH_RATE
    assert scratch.recipe.total_steps * scratch.batch_size * 50 == plan.SCRATCH_TOKENS  # an answer has 50: half of them
    for choice in (large, small, scratch):
        assert {"train.batch_size", "train.learning_rate", "train.epochs"} <= choice.reasons.keys()
        assert choice.recipe.validate_every * choice.batch_size >= plan.MEASURED_ANSWERS
