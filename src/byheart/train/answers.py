"""A model that learns to write answers: its batches, its gradients, and how it does on phrasings it has not seen."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import torch

from byheart.chat import Example
from byheart.errors import TrainError
from byheart.models import adapters
from byheart.models.writer import Rows, Writer, can_share
from byheart.progress import Notify, Progress
from byheart.train.buckets import Buckets
from byheart.train.cross_entropy import Table, chunked_cross_entropy, judge
from byheart.train.fit import TOKENS_AT_ONCE, TOKENS_SHARED, rows_at_once
from byheart.train.loop import TASK, Unseen
from byheart.train.optimizers import OptimizerName, make_optimizer
from byheart.train.prefixes import A_PASS, Part, parts_of
from byheart.train.ranks import Pieces
from byheart.train.spaced import Spaced

RIGHT_WORDS = 0.8  # share of the expected answer's words that a right answer has


@dataclasses.dataclass(frozen=True, slots=True)
class UnseenQuestions:
    """Phrasings that are not trained on: those whose loss is measured, and those that are asked."""

    examples: Sequence[Example]
    asked: Sequence[tuple[str, str]]  # question, expected answer
    most_tokens: int  # that an answer may have


class WriterLearner:
    """A writer with its examples (protocol: loop.Learner).

    Where the model computes in bf16, weights that are trained are kept in fp32 beside it (Micikevicius et al. 2018):
    a step of a thousandth of a weight is lost in bf16. Adapters are in fp32 as they are.
    """

    def __init__(
        self, writer: Writer, examples: Sequence[Example], order: Buckets | Spaced, unseen: UnseenQuestions, *,
        micro_batch: int, notify: Notify, optimizer: OptimizerName = "adamw", questions: int | None = None,
    ) -> None:  # fmt: skip
        """`questions`: how many of the examples, the first ones, are questions; None: all."""
        self._questions = len(examples) if questions is None else questions
        self.micro_batch = micro_batch
        self.pieces = Pieces()  # one: the whole
        self._writer = writer
        self._examples = examples
        self.order = order
        self._unseen = unseen
        self._notify = notify
        self._optimizer: OptimizerName = optimizer
        self._can_share = can_share(writer)
        self._computed = adapters.trainable(writer)
        self._weights: dict[str, torch.Tensor] = {
            name: weight if weight.dtype == torch.float32 else weight.detach().float().contiguous()
            for name, weight in self._computed.items()
        }

        self._table = self._own_table()

    @property
    def weights(self) -> Mapping[str, torch.Tensor]:
        """Return what the optimizer moves, in fp32."""
        return self._weights

    def optimizer(self, *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """Return the optimizer that was chosen."""
        return make_optimizer(
            self._optimizer, self._weights.values(), learning_rate=learning_rate, weight_decay=weight_decay,
            computed=self._computed.values(),
        )  # fmt: skip

    def learn(self, step: int) -> float | None:
        """Give the weights the gradients of a step's batch, and return its questions' loss (see `loss_of_questions`).

        Where memory runs out, fewer examples are computed at once, and their gradients added up to the same batch.
        Raises TrainError where even one does not fit.
        """
        positions = self.order.batch(step)
        batch = [self._examples[position] for position in positions]
        random_state = torch.get_rng_state()
        while True:
            try:
                loss, losses = self._gradients(batch)
            except (torch.OutOfMemoryError, RuntimeError, MemoryError) as fault:
                if not _is_out_of_memory(fault):
                    raise
                self._clear()
                self._need_less(batch, fault)
                torch.set_rng_state(random_state)
                continue
            if not math.isfinite(loss):
                return loss
            self.order.note(positions, losses)
            return loss_of_questions(loss, losses, batch, [position < self._questions for position in positions])

    def publish(self) -> None:
        """Let the model compute with the weights as they are now."""
        with torch.no_grad():
            for name, computed in self._computed.items():
                if computed is not self._weights[name]:
                    computed.copy_(self._weights[name])

    def validate(self) -> Unseen | None:
        """Return loss a token, share of answers that greedy decoding would give to the last token, and recall."""
        if not self._unseen.examples:
            return None
        self._writer.model.eval()
        loss, right, tokens = 0.0, 0, 0
        with torch.inference_mode():
            for examples in alike(self._unseen.examples, self.micro_batch):
                lost, right_N = judged(self._writer, self._writer.rows(examples))
                parts = torch.split(right_N, [len(example.answer) for example in examples])
                loss += lost
                right += sum(bool(part.all()) for part in parts)
                tokens += len(right_N)
        return Unseen(loss / tokens, right / len(self._unseen.examples), self._recall())

    def _gradients(self, batch: Sequence[Example]) -> tuple[float, list[float]]:
        """Return the loss a token of a batch, and of each of its examples; one that is no number gives no gradients."""
        adapters.train_mode(self._writer)
        tokens = sum(len(example.answer) for example in batch)
        total = 0.0
        each = [0.0] * len(batch)
        if self._table:
            self._table.is_empty, self._table.scale = True, 1 / tokens
        for places, shared in self._parts(batch):
            examples = [batch[place] for place in places]
            summed, losses_N = losses_of(self._writer, self._writer.rows(examples, shared=shared), self._table)
            loss = summed / tokens
            value = loss.item()
            if not math.isfinite(value):
                self._clear()
                return value, []
            if self._table:
                self._writer.head[0].grad = self._table.slope_V_D  # what is read adds its part to it
            loss.backward()  # type: ignore[no-untyped-call]
            total += value
            for place, mean in zip(places, means_of(losses_N, examples), strict=True):
                each[place] = mean
        if self._optimizer != "adamw":  # moments of 8 bits want gradients at the weights
            for name, computed in self._computed.items():
                weight = self._weights[name]
                if computed is not weight and computed.grad is not None:
                    weight.grad, computed.grad = computed.grad.float(), None
        return total, each

    def _own_table(self) -> Table | None:
        """Return where the output layer's gradient is added up on a CPU: all of a vocabulary's, too large to move.

        Made anew in each step, it would not fit again into the heap where small things have settled meanwhile. What is
        read adds but its own rows, where it is the same table.
        """
        weight, embedding = self._writer.head[0], self._writer.base.get_input_embeddings()
        is_trained = any(weight is computed for computed in self._computed.values())
        if self._writer.whole_logits or not is_trained or self._writer.device.type != "cpu":
            return None
        if embedding.weight is weight and isinstance(embedding, torch.nn.Embedding):
            embedding.sparse = True
        return Table(torch.empty_like(weight, requires_grad=False))

    def _parts(self, batch: Sequence[Example]) -> list[Part]:
        """Return what is computed together. Where layers are computed twice, there are no keys to go on from."""
        shares = self._can_share and not self._writer.base.is_activation_checkpointing
        a_pass = A_PASS.get(self._writer.device.type, max(A_PASS.values())) if shares else math.inf
        return parts_of(
            batch, most=self.micro_batch, a_pass=a_pass, most_alone=self._at_once(batch),
            most_kept=self._at_once(batch, TOKENS_SHARED),
        )  # fmt: skip

    def _recall(self) -> float | None:
        if not self._unseen.asked:
            return None
        written = self._writer.answers(
            [(question, ()) for question, _ in self._unseen.asked], most_tokens=self._unseen.most_tokens
        )
        right = [says(answer, expected) for answer, (_, expected) in zip(written, self._unseen.asked, strict=True)]
        return sum(right) / len(right)

    def _clear(self) -> None:
        for weight in (*self._computed.values(), *self._weights.values()):
            weight.grad = None

    def _at_once(self, batch: Sequence[Example], tokens: int = TOKENS_AT_ONCE) -> int:
        return rows_at_once(self.micro_batch, batch, on_cpu=self._writer.device.type == "cpu", tokens=tokens)

    def _need_less(self, batch: Sequence[Example], fault: BaseException) -> None:
        """Make the next try fit, and say how. Raises TrainError where nothing is left to try."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        base = self._writer.base
        now = min(self._at_once(batch), len(batch))
        if now > 1:
            self.micro_batch = now // 2
            said = f"{self.micro_batch} examples at once instead of {now}; a step still learns from {len(batch)}"
        elif not base.is_activation_checkpointing:
            compute_twice(self._writer)
            said = "layers are computed a second time for their gradients (gradient checkpointing)"
        else:
            raise TrainError(
                "Memory ran out with one example at a time and gradient checkpointing. Use a smaller base_model, or "
                "train.method: qlora."
            ) from fault
        self._notify(Progress(TASK, message=f"out of memory: goes on with {said}"))


def losses_of(writer: Writer, rows: Rows, table: Table | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of the losses of all learned tokens, and losses_N without gradients; `table`: see there."""
    if writer.whole_logits:
        logits = writer.logits(rows).float()
        losses_N = torch.nn.functional.cross_entropy(logits, rows.target_N, reduction="none")
        return losses_N.sum(), losses_N.detach()
    return chunked_cross_entropy(writer.states(rows), *writer.head, rows.target_N, table)


def judged(writer: Writer, rows: Rows) -> tuple[float, torch.Tensor]:
    """Return the sum of the losses, and for each learned token whether it is the likeliest; without gradients."""
    if writer.whole_logits:
        logits = writer.logits(rows).float()
        lost = torch.nn.functional.cross_entropy(logits, rows.target_N, reduction="sum")
        return float(lost), logits.argmax(-1) == rows.target_N
    return judge(writer.states(rows), *writer.head, rows.target_N)


def means_of(losses_N: torch.Tensor, examples: Sequence[Example]) -> list[float]:
    """Return the loss a token of each example."""
    means: list[float] = torch.stack(
        [part.mean() for part in torch.split(losses_N, [len(example.answer) for example in examples])]
    ).tolist()
    return means


def loss_of_questions(
    loss: float, losses: Sequence[float], batch: Sequence[Example], asked: Sequence[bool]
) -> float | None:
    """Return the loss a token of a batch's questions; None where it has none.

    A document's loss lies elsewhere: told along, it would look to the loss doctor like a loss that jumps.
    """
    if all(asked):
        return loss
    tokens = [len(example.answer) * is_asked for example, is_asked in zip(batch, asked, strict=True)]
    summed = sum(mean * count for mean, count in zip(losses, tokens, strict=True))
    return summed / sum(tokens) if any(asked) else None


def alike(examples: Sequence[Example], size: int) -> Iterator[list[Example]]:
    """Yield the examples in batches of like length."""
    ordered = iter(sorted(examples, key=length_of))
    while batch := list(itertools.islice(ordered, size)):
        yield batch


def compute_twice(writer: Writer) -> None:
    """Switch on gradient checkpointing."""
    writer.base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


def length_of(example: Example) -> tuple[int, ...]:
    """Return what a row is sorted by: the longer side first, so that like stands beside like."""
    return len(example.prompt) + len(example.answer), len(example.prompt)


def says(answer: str, expected: str) -> bool:
    """Tell whether an answer has nearly all words of the expected one."""
    words = set(re.findall(r"\w+", expected.lower()))
    return len(words & set(re.findall(r"\w+", answer.lower()))) >= RIGHT_WORDS * len(words)


def _is_out_of_memory(fault: BaseException) -> bool:
    # torch says it with a class on a GPU, and with words on a CPU.
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(fault, torch.OutOfMemoryError | MemoryError) or any(said in str(fault) for said in words)
