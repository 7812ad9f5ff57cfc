"""A writer in pieces under DeepSpeed ZeRO-3 (Rajbhandari et al. 2020): weights, gradients and moments.

DeepSpeed moves the weights itself and clips the gradient; what it holds is read and set here, piece by piece, so that a
checkpoint is the same as under FSDP2 and goes on under either, on any number of ranks.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from byheart.errors import MissingExtraError
from byheart.models import adapters
from byheart.models.writer import Writer
from byheart.train.loop import CLIP_NORM
from byheart.train.optimizers import make_optimizer
from byheart.train.ranks import Layout, Ranks
from byheart.train.whole import Whole

_MOMENTS = ("exp_avg", "exp_avg_sq")  # as AdamW calls them


class Zero3:
    """The pieces under DeepSpeed (protocol: sharded.Sharding)."""

    def __init__(self, writer: Writer, ranks: Ranks) -> None:
        if not torch.cuda.is_available():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or it says, in every process, that it found no other
        warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
        try:
            import deepspeed  # noqa: PLC0415 - an extra, and seconds to import
        except ImportError as missing:
            raise MissingExtraError("deepspeed", "deepspeed", "train.sharding: deepspeed") from missing
        deepspeed.utils.logger.setLevel(logging.WARNING)
        # Ranks on one CPU would exchange through a kernel that is compiled first, for minutes; gloo does it without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        trained: dict[str, Any] = {**adapters.trainable(writer)}
        # Without a rate: DeepSpeed makes a step of its own while it starts, which must move nothing.
        inner = make_optimizer("adamw", trained.values(), learning_rate=0.0, weight_decay=0.0)
        module = Whole(writer)
        self._engine, self._zero, *_ = deepspeed.initialize(
            model=module, optimizer=inner, config=_config(writer), dist_init_required=False
        )
        if not writer.whole_logits:  # the loss takes the output layer's weight by itself
            deepspeed.zero.register_external_parameter(module, writer.base.get_output_embeddings().weight)
        self.whole: Any = self._engine
        self._trained = list(trained.values())
        self._rank = ranks.rank
        self.layouts: Mapping[str, Layout] = {
            name: Layout(tuple(weight.ds_shape), weight.ds_tensor.ds_numel) for name, weight in trained.items()
        }
        self.weights: Mapping[str, torch.Tensor] = dict(
            zip(trained, (self._piece(number) for number in range(len(trained))), strict=True)
        )
        self._is_new = False  # whether the model already computes with the pieces as they are
        self.clear_moments()

    def optimizer(self, *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """Return DeepSpeed's optimizer, as the loop uses one."""
        for group in self._zero.param_groups:
            group |= {"lr": learning_rate, "weight_decay": weight_decay}
        optimizer: Any = _Optimizer(self)
        return optimizer  # type: ignore[no-any-return]

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        """Add to the gradients of the pieces; `is_last`: of the step."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        self._engine.backward(loss)

    def clear(self) -> None:
        """Forget the gradients."""
        self._zero.zero_grad()
        self._zero.averaged_gradients = {}

    def publish(self) -> None:
        """Let the model compute with the weights as they are now, after the loop has put others into their place."""
        if not self._is_new:
            for number in range(len(self._zero.fp32_partitioned_groups_flat)):
                self._zero._reassign_or_swap_out_partitioned_parameters(number)
        self._is_new = False

    def step(self) -> None:
        """Move the weights."""
        self._engine.step()
        self._is_new = True

    def moments(self) -> dict[int, dict[str, torch.Tensor]]:
        """Return this rank's pieces of the moments, by the number of the weight."""
        steps = next(iter(self._zero.optimizer.state.values()))["step"]
        return {
            number: {name: self._piece(number, name) for name in _MOMENTS} | {"step": torch.as_tensor(steps)}
            for number in range(len(self._trained))
        }

    def restore_moments(self, moments: Mapping[int, Mapping[str, torch.Tensor]]) -> None:
        """Put moments into the place of those that are there."""
        for number, values in moments.items():
            for name in _MOMENTS:
                self._piece(number, name).copy_(values[name])
        for state in self._zero.optimizer.state.values():
            state["step"].copy_(next(iter(moments.values()))["step"])

    def clear_moments(self) -> None:
        """Begin as if no step had been made, with moments that a checkpoint can be put into."""
        for group in self._zero.fp32_partitioned_groups_flat:
            self._zero.optimizer.state[group] = {
                "step": torch.zeros((), device=group.device),
                **{name: torch.zeros_like(group) for name in _MOMENTS},
            }

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return where the rate is set."""
        groups: list[dict[str, Any]] = self._zero.param_groups
        return groups

    def _piece(self, number: int, moment: str | None = None) -> torch.Tensor:
        """Return this rank's piece of a weight in fp32, or of one of its moments, where DeepSpeed keeps it."""
        weight: Any = self._trained[number]
        piece: torch.Tensor = weight._z3_optimizer.get_local_fp32_param(weight, moment).detach()
        layout = list(self.layouts.values())[number]
        return piece[: layout.size_on(self._rank)]  # what is beyond only fills it up


class _Optimizer:
    """DeepSpeed's optimizer with the calls that the loop makes."""

    def __init__(self, zero: Zero3) -> None:
        self._zero = zero
        self.param_groups = [group | {"params": []} for group in zero.param_groups]  # clipped by DeepSpeed
        self.state = self

    def step(self) -> None:
        """Move the weights at the rate that the loop has set."""
        for inner, group in zip(self._zero.param_groups, self.param_groups, strict=True):
            inner["lr"] = group["lr"]
        self._zero.step()

    def zero_grad(self) -> None:
        """Do nothing: a step leaves no gradients."""

    def clear(self) -> None:
        """Forget the moments."""
        self._zero.clear_moments()

    def state_dict(self) -> dict[str, Any]:
        """Return the moments, by the number of the weight."""
        return {"state": self._zero.moments()}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """Put moments back."""
        if values["state"]:
            self._zero.restore_moments(values["state"])


def _config(writer: Writer) -> dict[str, Any]:
    """Return DeepSpeed's settings: what the loop does not do by itself."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,  # backward says itself which pass is a step's last
        "gradient_clipping": CLIP_NORM,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": writer.precision == torch.bfloat16},
        # Small ones in pieces, too: one that stays whole would have to be brought up to date after a resume.
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "steps_per_print": 10**9,
    }
