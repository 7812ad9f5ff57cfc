"""A writer whose weights, gradients and moments lie in pieces on many ranks, each of which sees its share of a batch.

The pieces come together layer by layer while they are needed: FSDP2 (torch's fully_shard; Zhao et al. 2023) or
DeepSpeed ZeRO-3 (Rajbhandari et al. 2020). Loss and gradient are those of one process with the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from byheart.chat import Example
from byheart.errors import TrainError
from byheart.models import adapters
from byheart.models.writer import Writer
from byheart.train.answers import UnseenQuestions, alike, loss_of_questions, means_of
from byheart.train.buckets import Buckets
from byheart.train.loop import Unseen
from byheart.train.optimizers import make_optimizer
from byheart.train.ranks import Layout, Pieces, Ranks
from byheart.train.spaced import Spaced
from byheart.train.whole import Whole
from byheart.train.zero3 import Zero3


class Sharding(Protocol):
    """How a model lies in pieces: Fsdp, or zero3.Zero3."""

    whole: Any  # a Whole, or what stands for it
    layouts: Mapping[str, Layout]
    weights: Mapping[str, torch.Tensor]  # this rank's pieces, flat and in fp32

    def optimizer(self, *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """Return the optimizer of the pieces."""
        ...

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        """Add to the gradients of the pieces; `is_last`: of the step."""
        ...

    def clear(self) -> None:
        """Forget the gradients."""
        ...

    def publish(self) -> None:
        """Let the model compute with the weights as they are now."""
        ...


class Fsdp:
    """The pieces under FSDP2 (protocol: Sharding)."""

    def __init__(self, writer: Writer, ranks: Ranks) -> None:
        self.whole: Any = Whole(writer)
        # Gradients are added up over the ranks in fp32, as they are over the chunks of a batch.
        policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
        for layer in layers(writer.model):
            fully_shard(layer, mp_policy=policy)
        fully_shard(self.whole, mp_policy=policy)
        self._computed = {name: _local(weight) for name, weight in adapters.trainable(writer).items()}
        self._trained = adapters.trainable(writer)
        self.layouts: Mapping[str, Layout] = {
            name: Layout(tuple(weight.shape), math.ceil(weight.shape[0] / ranks.size) * math.prod(weight.shape[1:]))
            for name, weight in self._trained.items()
        }
        self.weights: Mapping[str, torch.Tensor] = {
            name: piece if piece.dtype == torch.float32 else piece.float() for name, piece in self._computed.items()
        }

    def optimizer(self, *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """Return AdamW on this rank's pieces."""
        return make_optimizer(
            "adamw", self.weights.values(), learning_rate=learning_rate, weight_decay=weight_decay,
            computed=self._computed.values(),
        )  # fmt: skip

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        """Add to the gradients of the pieces; `is_last`: of the step."""
        loss.backward()  # type: ignore[no-untyped-call]
        if not is_last:
            return
        for name, weight in self._trained.items():
            if weight.grad is not None:
                self._computed[name].grad, weight.grad = _local(weight.grad), None

    def clear(self) -> None:
        """Forget the gradients."""
        for weight in (*self._trained.values(), *self._computed.values()):
            weight.grad = None

    def publish(self) -> None:
        """Let the model compute with the weights as they are now."""
        with torch.no_grad():
            for name, piece in self._computed.items():
                if piece is not self.weights[name]:
                    piece.copy_(self.weights[name])


def shard(
    writer: Writer, ranks: Ranks, how: Literal["fsdp", "deepspeed"], *, batch_size: int
) -> tuple[Sharding, dict[str, str]]:
    """Leave each rank its piece of the model, and return how, and what there is to say about it."""
    said = {"ranks": f"{ranks.size}, each with a piece of the weights, by {how} (train.sharding)"}
    if batch_size < ranks.size:
        idle = ranks.size - batch_size
        said["train.batch_size"] = f"{batch_size}: in each step {idle} of the ranks have no example of their own"
    return (Fsdp if how == "fsdp" else Zero3)(writer, ranks), said


class ShardedLearner:
    """A writer in pieces with its examples (protocol: loop.Learner)."""

    def __init__(
        self, writer: Writer, examples: Sequence[Example], order: Buckets | Spaced, unseen: UnseenQuestions, *,
        micro_batch: int, ranks: Ranks, sharding: Sharding, questions: int | None = None,
    ) -> None:  # fmt: skip
        """`questions`: how many of the examples, the first ones, are questions; None: all."""
        self._questions = len(examples) if questions is None else questions
        self._writer = writer
        self._examples = examples
        self.order = order
        self._unseen = unseen
        self._micro_batch = micro_batch
        self._ranks = ranks
        self._sharding = sharding
        self.pieces = Pieces(ranks, sharding.layouts)

    @property
    def weights(self) -> Mapping[str, torch.Tensor]:
        """Return this rank's pieces of what the optimizer moves, flat and in fp32."""
        return self._sharding.weights

    def optimizer(self, *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """Return the optimizer of the pieces."""
        return self._sharding.optimizer(learning_rate=learning_rate, weight_decay=weight_decay)

    def learn(self, step: int) -> float | None:
        """Give the pieces the gradients of a step's batch, and return its questions' loss (see `loss_of_questions`).

        Raises TrainError where memory runs out: one rank alone cannot do with less, as the others wait for it.
        """
        positions = self.order.batch(step)
        batch = [self._examples[position] for position in positions]
        try:
            losses = self._gradients(batch)
        except torch.OutOfMemoryError as fault:
            raise TrainError(
                f"Memory ran out with {self._micro_batch} examples at once. Set train.micro_batch_size lower, or "
                "train.gradient_checkpointing: always, or use more GPUs: byheart plan."
            ) from fault
        loss, *each = self._ranks.sum(*losses)
        if not math.isfinite(loss):
            self._sharding.clear()
            return loss
        self.order.note(positions, each)
        return loss_of_questions(loss, each, batch, [position < self._questions for position in positions])

    def _gradients(self, batch: Sequence[Example]) -> list[float]:
        """Return this rank's part of the batch's loss a token, then of each example's: 0 for those of other ranks."""
        adapters.train_mode(self._writer)
        tokens = sum(len(example.answer) for example in batch)
        found = [0.0] * (1 + len(batch))
        shares = shares_of(len(batch), self._ranks, self._micro_batch)
        for number, (places, counts) in enumerate(shares, 1):
            examples = [batch[place] for place in places]
            summed, losses_N = self._sharding.whole(self._writer.rows(examples))
            loss = summed / tokens * counts
            # The ranks' gradients are averaged; they shall be added up.
            self._sharding.backward(loss * self._ranks.size, is_last=number == len(shares))
            if counts:
                found[0] += loss.item()
                for place, mean in zip(places, means_of(losses_N, examples), strict=True):
                    found[1 + place] = mean
        return found

    def publish(self) -> None:
        """Let the model compute with the weights as they are now."""
        self._sharding.publish()

    def validate(self) -> Unseen | None:
        """Return loss a token and share of answers that are the likeliest to the last token; nothing is asked."""
        if not self._unseen.examples:
            return None
        self._writer.model.eval()
        lost, right, tokens = 0.0, 0, 0
        with torch.no_grad():
            for together in alike(self._unseen.examples, self._micro_batch * self._ranks.size):
                for places, counts in shares_of(len(together), self._ranks, self._micro_batch):
                    examples = [together[place] for place in places]
                    loss, right_N = self._sharding.whole(self._writer.rows(examples))
                    if counts:
                        parts = torch.split(right_N, [len(example.answer) for example in examples])
                        lost += loss
                        right += sum(bool(part.all()) for part in parts)
                        tokens += len(right_N)
        lost, right_of_all, tokens_of_all = self._ranks.sum(lost, right, tokens)
        return Unseen(lost / tokens_of_all, right_of_all / len(self._unseen.examples))


def shares_of(size: int, ranks: Ranks, micro_batch: int) -> list[tuple[range, int]]:
    """Return the places in a batch that a rank computes, pass by pass, and whether they count (1 or 0).

    Every rank has as many passes as the others, as they exchange weights in each; one that has nothing to do in a pass
    computes the first place, which does not count.
    """
    mine = range(ranks.rank, size, ranks.size)
    passes = [mine[first : first + micro_batch] for first in range(0, math.ceil(size / ranks.size), micro_batch)]
    return [(places, 1) if places else (range(1), 0) for places in passes]


def layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the model's layers: the outermost modules that stand in a list."""
    found: list[torch.nn.Module] = []
    inside: set[torch.nn.Module] = set()
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and module not in inside:
            found += list(module)
            inside.update(part for layer in module for part in layer.modules())
    return found


def _local(tensor: Any) -> torch.Tensor:
    """Return this rank's part of a tensor, flat, in the same memory."""
    piece: torch.Tensor = tensor.to_local().detach().view(-1)
    return piece
