"""The generative families: models that write answers themselves, decoders (causal) and encoder-decoders (seq2seq).

In training the output layer, often a third of the work, sees the positions of the answer alone. Rows of a batch are
filled up on the right, where no decoder looks, so that a row's states are what they would be without its neighbours.
What rows of a decoder begin with alike is computed once: they go on from its keys and values, as in generation, and
their gradients add up in them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    StoppingCriteriaList,
)
from transformers.activations import NewGELUActivation
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.models.bloom.modeling_bloom import BloomGelu

from byheart.catalog import find_model
from byheart.chat import Chat, Example, Exchange, bind
from byheart.errors import MissingExtraError, ModelError
from byheart.models.attention import attend_in_fp32
from byheart.models.hub import explain_load_failure, model_source, quiet
from byheart.models.precision import choose_precision

WritingFamily = Literal["causal", "seq2seq"]

_PROMPTS_AT_ONCE = 32  # written side by side
_LONGEST_WINDOW = 4096  # tokens; a manual's question and answer need no more, whatever the model could read


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """Examples as tensors. B rows, T tokens, N positions of all rows whose next token is learned."""

    ids_B_T: torch.Tensor  # what a decoder reads; for an encoder-decoder, what its encoder reads
    mask_B_T: torch.Tensor | None  # for an encoder that sees both ways; None where all rows are of one length
    decoder_ids_B_T: torch.Tensor | None  # of an encoder-decoder
    row_N: torch.Tensor
    column_N: torch.Tensor
    target_N: torch.Tensor
    prefix_1_P: torch.Tensor | None = None  # what a decoder reads before each row of ids_B_T


class Writer:
    """A model that writes answers, with its tokenizer. `write` may be called from several threads; they take turns."""

    def __init__(self, model: torch.nn.Module, chat: Chat, *, precision: torch.dtype, reasons: dict[str, str]) -> None:
        self.model = model
        self.chat = chat
        self.precision = precision
        self.reasons = reasons
        self.device = next(model.parameters()).device
        self.whole_logits = False  # compute the output layer as the model does, at every position
        self._turn = threading.Lock()

    @property
    def tokenizer(self) -> Any:
        """Return the tokenizer."""
        return self.chat.tokenizer

    @property
    def base(self) -> Any:
        """Return the model itself, under the adapters."""
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "peft_config") else model

    @property
    def window(self) -> int:
        """Return how many tokens the model can read and write together."""
        config = self.base.config
        sizes = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions"))
        if self.chat.encoder_decoder:
            return _LONGEST_WINDOW if getattr(config, "model_type", "") == "t5" else next(filter(None, sizes), 512)
        return min(_LONGEST_WINDOW, next(filter(None, sizes), _LONGEST_WINDOW))

    def rows(self, examples: Sequence[Example], *, shared: int = 0) -> Rows:
        """Return examples as tensors, filled up on the right.

        `shared`: tokens that all prompts begin with, to be computed once; fewer than the shortest has. 0 for
        `logits`, and for a model that is not `can_share`.
        """
        if self.chat.encoder_decoder:
            start = self.base.config.decoder_start_token_id
            read, starts = [example.prompt for example in examples], [0] * len(examples)
            decoder = [(start, *example.answer[:-1]) for example in examples]
        else:
            read = [(example.prompt + example.answer[:-1])[shared:] for example in examples]
            starts = [len(example.prompt) - 1 - shared for example in examples]
            decoder = None
        ids_B_T, mask_B_T = self._filled(read)
        places = [
            (row, starts[row] + position)
            for row, example in enumerate(examples)
            for position in range(len(example.answer))
        ]
        return Rows(
            ids_B_T=ids_B_T,
            mask_B_T=mask_B_T if decoder else None,
            decoder_ids_B_T=self._filled(decoder)[0] if decoder else None,
            row_N=torch.tensor([row for row, _ in places], device=self.device),
            column_N=torch.tensor([column for _, column in places], device=self.device),
            target_N=torch.tensor([token for example in examples for token in example.answer], device=self.device),
            prefix_1_P=torch.tensor([examples[0].prompt[:shared]], device=self.device) if shared else None,
        )

    def states(self, rows: Rows) -> torch.Tensor:
        """Return states_N_D: what the output layer turns into the next token, at the learned positions alone."""
        with self._autocast():
            if rows.decoder_ids_B_T is None:
                past: dict[str, Any] = {"use_cache": False}
                if rows.prefix_1_P is not None:
                    past = {"use_cache": True, "past_key_values": self._past(rows.prefix_1_P, len(rows.ids_B_T))}
                hidden_B_T_D = self.base.base_model(input_ids=rows.ids_B_T, **past).last_hidden_state
            else:
                read = self.base.get_encoder()(input_ids=rows.ids_B_T, attention_mask=rows.mask_B_T)
                hidden_B_T_D = self.base.get_decoder()(
                    input_ids=rows.decoder_ids_B_T, encoder_hidden_states=read.last_hidden_state,
                    encoder_attention_mask=rows.mask_B_T, use_cache=False,
                ).last_hidden_state  # fmt: skip
                if getattr(self.base.config, "scale_decoder_outputs", False):
                    hidden_B_T_D = hidden_B_T_D * self.base.config.d_model**-0.5
        states_N_D: torch.Tensor = hidden_B_T_D[rows.row_N, rows.column_N]
        return states_N_D

    def _past(self, prefix_1_P: torch.Tensor, rows: int) -> Any:
        """Return the keys and values of a prefix for so many rows that go on from it: views, not copies."""
        past = self.base.base_model(input_ids=prefix_1_P, use_cache=True).past_key_values
        for layer in past.layers:
            layer.keys = layer.keys.expand(rows, -1, -1, -1)
            layer.values = layer.values.expand(rows, -1, -1, -1)
        return past

    def logits(self, rows: Rows) -> torch.Tensor:
        """Return logits_N_V at the learned positions, from the model's own forward pass over all of them."""
        inputs: dict[str, Any] = {"input_ids": rows.ids_B_T, "use_cache": False}
        if rows.decoder_ids_B_T is not None:
            inputs |= {"attention_mask": rows.mask_B_T, "decoder_input_ids": rows.decoder_ids_B_T}
        with self._autocast():
            logits_B_T_V: torch.Tensor = self.base(**inputs).logits
        return logits_B_T_V[rows.row_N, rows.column_N]

    @property
    def head(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return weight_V_D and bias_V (or None) of the output layer."""
        layer = self.base.get_output_embeddings()
        return layer.weight, getattr(layer, "bias", None)

    def write(
        self, prompts: Sequence[Sequence[int]], *, most_tokens: int, on_done: Callable[[int], None] | None = None,
        is_given_up: Callable[[int], bool] | None = None,
    ) -> list[list[int]]:  # fmt: skip
        """Return for each prompt the likeliest continuation, token by token, up to the end of the answer (greedy).

        Prompts of like length are written side by side. `on_done` gets the number of those that are done;
        `is_given_up` is asked before each token whether a prompt, by its number, is still worth it.
        """
        written: dict[int, list[int]] = {}
        order = sorted(range(len(prompts)), key=lambda position: (len(prompts[position]), position))
        for first in range(0, len(order), _PROMPTS_AT_ONCE):
            together = order[first : first + _PROMPTS_AT_ONCE]
            stop = _given_up(together, is_given_up) if is_given_up else None
            found = self._generate([prompts[position] for position in together], most_tokens, stop)
            written.update(zip(together, found, strict=True))
            if on_done:
                on_done(len(written))
        return [written[position] for position in range(len(prompts))]

    def answers(
        self, questions: Sequence[tuple[str, Sequence[Exchange]]], *, most_tokens: int,
        on_done: Callable[[int], None] | None = None, is_given_up: Callable[[int], bool] | None = None,
    ) -> list[str]:  # fmt: skip
        """Return the answers to questions, each with the exchanges before it; `most_tokens`: longest answer.

        What `on_done` and `is_given_up` are for: see `write`.
        """
        room = max(1, self.window - most_tokens)
        prompts = [self.chat.prompt(question, history, most_tokens=room)[:room] for question, history in questions]
        written = self.write(prompts, most_tokens=most_tokens, on_done=on_done, is_given_up=is_given_up)
        return [self.chat.text(ids) for ids in written]

    def _generate(
        self, prompts: Sequence[Sequence[int]], most_tokens: int, stop: StoppingCriteriaList | None
    ) -> list[list[int]]:
        longest = max(map(len, prompts))
        decoder_only = not self.chat.encoder_decoder
        pad = self.chat.pad_id
        # A decoder goes on at the right end of its prompt, so the gaps are on the left, where the mask hides them.
        gaps = [longest - len(prompt) for prompt in prompts]
        filled = [
            [pad] * gap + list(prompt) if decoder_only else [*prompt, *[pad] * gap]
            for prompt, gap in zip(prompts, gaps, strict=True)
        ]
        mask = [
            [0] * gap + [1] * (longest - gap) if decoder_only else [1] * (longest - gap) + [0] * gap for gap in gaps
        ]
        config = _greedy(self.base, self.chat, max_new_tokens=most_tokens)
        with self._turn, torch.inference_mode(), self._autocast(), quiet():
            self.model.eval()
            ids = self.base.generate(
                input_ids=torch.tensor(filled, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device),
                generation_config=config,
                stopping_criteria=stop,
            )
        start = longest if decoder_only else 1
        found: list[list[int]] = ids[:, start:].tolist()
        return found

    def _filled(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor | None]:
        longest = max(map(len, rows))
        ids = [[*row, *[self.chat.pad_id] * (longest - len(row))] for row in rows]
        ids_B_T = torch.tensor(ids, device=self.device)
        if all(len(row) == longest for row in rows):
            return ids_B_T, None
        lengths_B = torch.tensor([len(row) for row in rows], device=self.device)
        return ids_B_T, (torch.arange(longest, device=self.device)[None, :] < lengths_B[:, None]).long()

    @contextlib.contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            yield


def load_writer(
    base_model: str, *, family: WritingFamily, weights: Path | None = None, precision: str = "auto",
    four_bit: bool = False,
) -> Writer:  # fmt: skip
    """Load a model that writes answers. `weights`: a folder with all of its weights, trained, in place of the base's.

    Raises ModelError where it is missing, damaged, or cannot end an answer, and MissingExtraError where `four_bit`
    needs a package that is not installed.
    """
    dtype, _ = choose_precision(precision)
    source = str(weights) if weights else model_source(base_model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    more: dict[str, Any] = {}
    if four_bit:
        more = {"quantization_config": _four_bit(dtype), "device_map": {"": device}}
    kind: Any = AutoModelForSeq2SeqLM if family == "seq2seq" else AutoModelForCausalLM
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            model: Any = kind.from_pretrained(
                source, use_safetensors=True, dtype=dtype, trust_remote_code=False, **more
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as fault:
        raise ModelError(explain_load_failure(source, fault)) from fault
    if four_bit:
        _keep_differentiable(model)
    else:
        model = model.to(device)
    return wrap(model, tokenizer, base_model=base_model, family=family, precision=dtype)


def wrap(model: Any, tokenizer: Any, *, base_model: str, family: WritingFamily, precision: torch.dtype) -> Writer:
    """Return the Writer of a model and its tokenizer. Raises ModelError where they do not fit."""
    size, entries = model.get_input_embeddings().weight.shape[0], len(tokenizer)
    if entries > size:
        raise ModelError(
            f"base_model {base_model!r}: the tokenizer has {entries:,} tokens, the model only {size:,}: they do not "
            "belong together. Use the tokenizer that the model was saved with."
        )
    fuse_activations(model)
    if precision != torch.float32:
        attend_in_fp32(model)
    chat, reason = bind(tokenizer, find_model(base_model), encoder_decoder=family == "seq2seq")
    reasons = {"chat form": reason, "pad token": chat.pad_reason}
    writer = Writer(model.eval(), chat, precision=precision, reasons=reasons)
    # A repository may ask for sampling; an answer learned by heart is the likeliest one.
    model.generation_config = _greedy(model, chat)
    if not _head_is_plain(writer):
        writer.whole_logits = True
        writer.reasons["output layer"] = "as the model computes it, at every position: it does more than multiply"
    return writer


def can_share(writer: Writer) -> bool:
    """Tell whether rows can go on from a prefix that is computed once, and come to the same states: on an example."""
    if writer.chat.encoder_decoder or writer.whole_logits:
        return False
    one, two, three = (token % len(writer.tokenizer) for token in (5, 6, 7))
    examples = [Example((one, two, three), (one, three)), Example((one, two, one, three), (two,))]
    writer.model.eval()
    with torch.inference_mode():
        read = writer.base.base_model(input_ids=writer.rows(examples).ids_B_T, use_cache=True)
        if not _is_expandable(getattr(read, "past_key_values", None)):
            return False
        expected, found = (writer.states(writer.rows(examples, shared=shared)).float() for shared in (0, 2))
    return _are_close(found, expected, writer.precision)


def _is_expandable(past: Any) -> bool:
    """Tell whether a model keeps keys and values of every layer, and nothing else, such as a recurrent state."""
    if not isinstance(past, DynamicCache):
        return False
    layers: list[Any] = past.layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) and layer.is_initialized for layer in layers)


def fuse_activations(model: torch.nn.Module) -> None:
    """Compute GELU's tanh formula, which some models write out term by term, in one go: once over memory, not eight."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation | BloomGelu):
                setattr(module, name, torch.nn.GELU(approximate="tanh"))


def _greedy(model: Any, chat: Chat, **more: Any) -> Any:
    """Return settings under which the model writes the likeliest token each time, up to the end of the answer."""
    config: Any = GenerationConfig
    return config(
        do_sample=False, num_beams=1, eos_token_id=list(chat.stop_ids), pad_token_id=chat.pad_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None), **more,
    )  # fmt: skip


def _given_up(numbers: Sequence[int], is_given_up: Callable[[int], bool]) -> StoppingCriteriaList:
    """Return what ends the rows of a batch that nobody waits for any more; `numbers`: which prompt each row is."""

    def stop(ids_B_T: torch.Tensor, _scores: Any, **_more: Any) -> torch.Tensor:
        return torch.tensor([is_given_up(number) for number in numbers], device=ids_B_T.device)

    criteria: Any = [stop]
    return StoppingCriteriaList(criteria)


def _head_is_plain(writer: Writer) -> bool:
    """Tell whether the model's logits are its last states times the output layer, on an example."""
    if writer.base.get_output_embeddings() is None:
        return False
    rows = writer.rows([Example((5 % len(writer.tokenizer), 6 % len(writer.tokenizer)), (7 % len(writer.tokenizer),))])
    with torch.inference_mode():
        expected = writer.logits(rows).float()
        weight, bias = writer.head
        states = writer.states(rows)
        if states.shape[-1] != weight.shape[-1]:
            return False
        found = torch.nn.functional.linear(states.to(weight.dtype), weight, bias).float()
    return _are_close(found, expected, writer.precision)


def _are_close(found: torch.Tensor, expected: torch.Tensor, precision: torch.dtype) -> bool:
    tolerance = 1e-4 if precision == torch.float32 else 0.05
    return bool((found - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max())))


def _keep_differentiable(model: torch.nn.Module) -> None:
    """Keep layers of 4 bits as they can be trained through.

    On a CPU with bf16 instructions bitsandbytes 0.50 rearranges them the first time that they are asked without
    gradients, for a kernel that has none: what is validated first would learn nothing right after.
    """
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False


def _four_bit(dtype: torch.dtype) -> Any:
    """Return the settings of QLoRA (Dettmers et al. 2023): NF4, its scales quantised once more."""
    try:
        import bitsandbytes  # noqa: F401, PLC0415 - an extra, and a second to import
    except ImportError as missing:
        raise MissingExtraError("bitsandbytes", "qlora", "train.method: qlora") from missing
    config: Any = BitsAndBytesConfig
    return config(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
