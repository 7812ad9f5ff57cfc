"""The models that byheart knows, as data: what each is called, how big it is, how it is spoken to, what LoRA adapts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

STARTER = "starter"
# Equal to the published weights of sentence-transformers/all-MiniLM-L6-v2; checked at every load.
STARTER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SCRATCH = "scratch:"

Family = Literal["causal", "seq2seq", "encoder"]
# How a conversation is written down for the model; chat.py has the forms.
ChatName = Literal[
    "none", "plain", "seq2seq", "openchat", "alpaca", "llama2", "mistral", "smollm2", "smollm3", "qwen3", "llama3",
    "gemma",
]  # fmt: skip
TokenizerKind = Literal["byte-level BPE", "SentencePiece BPE", "Unigram", "WordPiece"]


@dataclasses.dataclass(frozen=True, slots=True)
class ModelEntry:
    """One base model."""

    name: str  # what the config's `base_model` says
    hub_id: str
    family: Family
    architecture: str  # the class in transformers
    parameters: int  # exact; weights that stand in two places (tied embeddings) are counted once
    shape: Mapping[str, Any]  # arguments of the architecture's config class, where they differ from its defaults
    chat: ChatName
    start_token: str  # what comes before a conversation; "" for nothing
    end_token: str  # what ends an answer; "" for an encoder
    tokenizer: TokenizerKind
    attention_targets: tuple[str, ...]  # ends of the module names that LoRA adapts with `lora_targets: attention`
    linear_targets: tuple[str, ...]  # and those it adds with `all-linear`
    licence: str
    gated: bool  # its page must be visited and its licence accepted before a download
    about: str

    @property
    def from_scratch(self) -> bool:
        """Tell whether its weights are drawn at random and its tokenizer is trained on the manual."""
        return self.name.startswith(SCRATCH)


_APACHE = "Apache-2.0"

_BERT: dict[str, Any] = {
    "family": "encoder",
    "architecture": "BertModel",
    "chat": "none",
    "end_token": "",
    "tokenizer": "WordPiece",
    "attention_targets": ("query", "key", "value", "attention.output.dense"),
    "linear_targets": ("intermediate.dense", "output.dense"),
    "licence": _APACHE,
    "gated": False,
}
_LLAMA_TARGETS: dict[str, Any] = {
    "attention_targets": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "linear_targets": ("gate_proj", "up_proj", "down_proj"),
}
_GPT2: dict[str, Any] = {
    "family": "causal",
    "architecture": "GPT2LMHeadModel",
    "chat": "plain",
    "end_token": "<|endoftext|>",
    "tokenizer": "byte-level BPE",
    "attention_targets": ("attn.c_attn", "attn.c_proj"),
    "linear_targets": ("mlp.c_fc", "mlp.c_proj"),
    "gated": False,
}
_T5: dict[str, Any] = {
    "family": "seq2seq",
    "architecture": "T5ForConditionalGeneration",
    "chat": "seq2seq",
    "end_token": "</s>",
    "tokenizer": "Unigram",
    "attention_targets": ("q", "k", "v", "o"),
    "linear_targets": ("wi_0", "wi_1", "wo"),
    "licence": _APACHE,
    "gated": False,
}
_LLAMA_2_SHAPE: dict[str, Any] = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
}  # fmt: skip
_MISTRAL_SHAPE: dict[str, Any] = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768, "sliding_window": 4096,
}  # fmt: skip
_LLAMA_7B: dict[str, Any] = {
    "family": "causal", "architecture": "LlamaForCausalLM", "tokenizer": "SentencePiece BPE", "start_token": "<s>",
    "end_token": "</s>", **_LLAMA_TARGETS,
}  # fmt: skip
_MISTRAL_7B: dict[str, Any] = {
    "family": "causal", "architecture": "MistralForCausalLM", "tokenizer": "SentencePiece BPE", "start_token": "<s>",
    "licence": _APACHE, "gated": False, **_LLAMA_TARGETS,
}  # fmt: skip
_QWEN3: dict[str, Any] = {
    "family": "causal", "architecture": "Qwen3ForCausalLM", "chat": "qwen3", "end_token": "<|im_end|>",
    "tokenizer": "byte-level BPE", "licence": _APACHE, "gated": False, **_LLAMA_TARGETS,
}  # fmt: skip
_SMOLLM: dict[str, Any] = {
    "family": "causal", "end_token": "<|im_end|>", "tokenizer": "byte-level BPE", "licence": _APACHE, "gated": False,
    **_LLAMA_TARGETS,
}  # fmt: skip
_LLAMA3: dict[str, Any] = {
    "family": "causal", "architecture": "LlamaForCausalLM", "chat": "llama3",
    "start_token": "<|begin_of_text|>", "end_token": "<|eot_id|>", "tokenizer": "byte-level BPE",
    "licence": "Llama 3.2 Community License", "gated": True, **_LLAMA_TARGETS,
}  # fmt: skip
_GEMMA3: dict[str, Any] = {
    "family": "causal", "architecture": "Gemma3ForCausalLM", "chat": "gemma", "start_token": "<bos>",
    "end_token": "<end_of_turn>", "tokenizer": "SentencePiece BPE", "licence": "Gemma Terms of Use", "gated": True,
    **_LLAMA_TARGETS,
}  # fmt: skip


def _entry(common: Mapping[str, Any], name: str, parameters: int, shape: Mapping[str, Any], **rest: Any) -> ModelEntry:
    """Return a row: what its kin have in common, and what is its own."""
    values: dict[str, Any] = {"name": name, "hub_id": name, "parameters": parameters, "shape": shape, "about": ""}
    values["start_token"] = ""
    return ModelEntry(**(values | dict(common) | rest))


def _bert_shape(hidden: int, layers: int, heads: int) -> dict[str, int]:
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
    }  # fmt: skip


def _gpt2_shape(width: int, layers: int, heads: int) -> dict[str, int]:
    return {"n_embd": width, "n_layer": layers, "n_head": heads}


def _t5_shape(width: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "d_model": width, "d_ff": inner, "num_layers": layers, "num_heads": heads, "d_kv": 64, "vocab_size": 32128,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0,
    }  # fmt: skip


def _grouped_shape(
    *, hidden: int, inner: int, layers: int, heads: int, kv: int, vocab: int, tied: bool, **rest: Any
) -> dict[str, Any]:
    """Return the shape of a decoder whose heads share keys and values (Llama and its kin)."""
    return {
        "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "tie_word_embeddings": tied, **rest,
    }  # fmt: skip


_ENCODERS = (
    _entry(
        _BERT, STARTER, 22_713_216, _bert_shape(384, 6, 12), hub_id="sentence-transformers/all-MiniLM-L6-v2",
        about="the default: comes with the package, fine-tunes in minutes on two cores",
    ),
    *(
        _entry(_BERT, f"google/bert_uncased_{code}", parameters, shape, about=about)
        for code, parameters, shape, about in (
            ("L-2_H-128_A-2", 4_385_920, _bert_shape(128, 2, 2),
             "BERT tiny: not trained for search; learns it from the pairs alone"),
            ("L-4_H-256_A-4", 11_170_560, _bert_shape(256, 4, 4),
             "BERT mini: not trained for search; learns it from the pairs alone"),
            ("L-4_H-512_A-8", 28_763_648, _bert_shape(512, 4, 8),
             "BERT small: not trained for search; learns it from the pairs alone"),
        )
    ),
)  # fmt: skip

_SEVEN_BILLION = (
    *(
        _entry(
            _MISTRAL_7B, name, 7_241_748_480, _MISTRAL_SHAPE | {"vocab_size": 32002, "max_position_embeddings": 8192},
            chat="openchat", end_token="<|end_of_turn|>", about=about,
        )
        for name, about in (
            ("openchat/openchat_3.5", "a Mistral-7B, fine-tuned for chat: one 24 GB GPU with LoRA or QLoRA"),
            ("openchat/openchat-3.5-0106", "OpenChat 3.5 as of January 2024"),
        )
    ),
    _entry(
        _MISTRAL_7B, "mistralai/Mistral-7B-v0.1", 7_241_732_096, _MISTRAL_SHAPE, chat="plain", end_token="</s>",
        about="not trained to chat",
    ),
    _entry(
        _MISTRAL_7B, "mistralai/Mistral-7B-Instruct-v0.2", 7_241_732_096, _MISTRAL_SHAPE | {"sliding_window": None},
        chat="mistral", end_token="</s>", about="trained to chat",
    ),
    _entry(
        _LLAMA_7B, "chavinlo/alpaca-native", 6_738_423_808,
        _LLAMA_2_SHAPE | {"vocab_size": 32001, "max_position_embeddings": 2048}, chat="alpaca",
        licence="LLaMA licence (research only)", gated=False, about="a LLaMA-7B, trained to follow instructions",
    ),
    _entry(
        _LLAMA_7B, "meta-llama/Llama-2-7b-hf", 6_738_415_616, _LLAMA_2_SHAPE, chat="plain",
        licence="Llama 2 Community License", gated=True, about="not trained to chat",
    ),
    _entry(
        _LLAMA_7B, "meta-llama/Llama-2-7b-chat-hf", 6_738_415_616, _LLAMA_2_SHAPE, chat="llama2",
        licence="Llama 2 Community License", gated=True, about="trained to chat",
    ),
)  # fmt: skip

_EARLIER = (
    *(
        _entry(_GPT2, name, parameters, shape, hub_id=hub_id, licence=licence, about=about)
        for name, hub_id, parameters, shape, licence, about in (
            ("distilgpt2", "distilbert/distilgpt2", 81_912_576, _gpt2_shape(768, 6, 12), _APACHE,
             "the smallest GPT-2: fine-tunes on a laptop"),
            ("gpt2", "openai-community/gpt2", 124_439_808, _gpt2_shape(768, 12, 12), "MIT", "English only"),
            ("gpt2-medium", "openai-community/gpt2-medium", 354_823_168, _gpt2_shape(1024, 24, 16), "MIT", ""),
            ("gpt2-large", "openai-community/gpt2-large", 774_030_080, _gpt2_shape(1280, 36, 20), "MIT", ""),
            ("gpt2-xl", "openai-community/gpt2-xl", 1_557_611_200, _gpt2_shape(1600, 48, 25), "MIT", ""),
        )
    ),
    _entry(
        {}, "EleutherAI/gpt-neo-1.3B", 1_315_575_808,
        {"hidden_size": 2048, "num_layers": 24, "num_heads": 16, "attention_types": [[["global", "local"], 12]]},
        family="causal", architecture="GPTNeoForCausalLM", chat="plain", end_token="<|endoftext|>",
        tokenizer="byte-level BPE", attention_targets=("q_proj", "k_proj", "v_proj", "out_proj"),
        linear_targets=("c_fc", "c_proj"), licence="MIT", gated=False,
    ),
    _entry(
        {}, "facebook/opt-350m", 331_196_416,
        {"hidden_size": 1024, "num_hidden_layers": 24, "ffn_dim": 4096, "num_attention_heads": 16,
         "word_embed_proj_dim": 512, "do_layer_norm_before": False},
        family="causal", architecture="OPTForCausalLM", chat="plain", start_token="</s>", end_token="</s>",
        tokenizer="byte-level BPE", attention_targets=("q_proj", "k_proj", "v_proj", "out_proj"),
        linear_targets=("fc1", "fc2"),
        licence="OPT-175B licence (research only)", gated=False,
    ),
    _entry(
        {}, "bigscience/bloomz-560m", 559_214_592,
        {"vocab_size": 250880, "hidden_size": 1024, "n_layer": 24, "n_head": 16},
        family="causal", architecture="BloomForCausalLM", chat="plain", end_token="</s>", tokenizer="byte-level BPE",
        attention_targets=("query_key_value", "self_attention.dense"),
        linear_targets=("dense_h_to_4h", "dense_4h_to_h"), licence="BigScience RAIL 1.0", gated=False,
        about="46 languages",
    ),
    *(
        _entry(_T5, f"google/flan-t5-{size}", parameters, _t5_shape(*shape), about=about)
        for size, parameters, shape, about in (
            ("small", 76_961_152, (512, 1024, 8, 6), "reads the question, writes the answer"),
            ("base", 247_577_856, (768, 2048, 12, 12), "reads the question, writes the answer"),
            ("large", 783_150_080, (1024, 2816, 24, 16), ""),
            ("xl", 2_849_757_184, (2048, 5120, 24, 32), ""),
        )
    ),
)  # fmt: skip

_TODAYS = (
    *(
        _entry(
            _QWEN3, f"Qwen/Qwen3-{size}", parameters,
            _grouped_shape(hidden=hidden, inner=inner, layers=layers, heads=heads, kv=8, vocab=151936, tied=True,
                           head_dim=128, max_position_embeddings=40960, rope_theta=1_000_000.0),
            about=about,
        )
        for size, parameters, hidden, inner, layers, heads, about in (
            ("0.6B", 596_049_920, 1024, 3072, 28, 16, "100 languages; a small GPU"),
            ("1.7B", 1_720_574_976, 2048, 6144, 28, 16, "100 languages; a small GPU"),
            ("4B", 4_022_468_096, 2560, 9728, 36, 32, "100 languages"),
        )
    ),
    *(
        _entry(
            _SMOLLM, f"HuggingFaceTB/SmolLM2-{size}-Instruct", parameters,
            _grouped_shape(hidden=hidden, inner=inner, layers=layers, heads=heads, kv=kv, vocab=49152, tied=True,
                           max_position_embeddings=8192),
            architecture="LlamaForCausalLM", chat="smollm2", about=about,
        )
        for size, parameters, hidden, inner, layers, heads, kv, about in (
            ("135M", 134_515_008, 576, 1536, 30, 9, 3, "English; fine-tunes on a laptop"),
            ("360M", 361_821_120, 960, 2560, 32, 15, 5, "English"),
            ("1.7B", 1_711_376_384, 2048, 8192, 24, 32, 32, "English"),
        )
    ),
    _entry(
        _SMOLLM, "HuggingFaceTB/SmolLM3-3B", 3_075_098_624,
        _grouped_shape(hidden=2048, inner=11008, layers=36, heads=16, kv=4, vocab=128256, tied=True,
                       max_position_embeddings=65536),
        architecture="SmolLM3ForCausalLM", chat="smollm3", about="six European languages",
    ),
    *(
        _entry(
            _LLAMA3, f"meta-llama/Llama-3.2-{size}-Instruct", parameters,
            _grouped_shape(hidden=hidden, inner=8192, layers=layers, heads=heads, kv=8, vocab=128256, tied=True,
                           head_dim=head_dim, max_position_embeddings=131072),
            about="eight languages",
        )
        for size, parameters, hidden, layers, heads, head_dim in (
            ("1B", 1_235_814_400, 2048, 16, 32, 64), ("3B", 3_212_749_824, 3072, 28, 24, 128),
        )
    ),
    *(
        _entry(
            _GEMMA3, f"google/gemma-3-{size}-it", parameters,
            _grouped_shape(hidden=hidden, inner=inner, layers=layers, heads=4, kv=1, vocab=262144, tied=True,
                           head_dim=256, max_position_embeddings=32768, sliding_window=512),
            about="English" if size == "1b" else "English; two thirds of it are embeddings",
        )
        for size, parameters, hidden, inner, layers in (
            ("270m", 268_098_176, 640, 2048, 18), ("1b", 999_885_952, 1152, 6912, 26),
        )
    ),
)  # fmt: skip

# Shapes for two cores and a manual. 4,096 entries are what the tokenizer gets at most; a small manual fills fewer.
_SCRATCH_VOCABULARY = 4096
_FROM_SCRATCH: dict[str, Any] = {"licence": "yours", "gated": False, "start_token": ""}
_SCRATCH_MODELS = (
    _entry(
        _LLAMA_7B | _FROM_SCRATCH, f"{SCRATCH}llama-10m", 10_424_448,
        _grouped_shape(hidden=384, inner=1024, layers=5, heads=6, kv=6, vocab=_SCRATCH_VOCABULARY, tied=True,
                       max_position_embeddings=1024),
        chat="plain", tokenizer="byte-level BPE", end_token="<|endoftext|>",
        about="random weights: learns the manual's words from nothing, to try the generative way without a download",
    ),
    _entry(
        _GPT2 | _FROM_SCRATCH, f"{SCRATCH}gpt2-10m", 10_839_168,
        {**_gpt2_shape(384, 5, 6), "vocab_size": _SCRATCH_VOCABULARY, "bos_token_id": 0, "eos_token_id": 0},
        about="random weights, GPT-2's architecture",
    ),
    _entry(
        _T5 | _FROM_SCRATCH, f"{SCRATCH}t5-10m", 10_491_648,
        {**_t5_shape(256, 1024, 4, 4), "vocab_size": _SCRATCH_VOCABULARY, "tie_word_embeddings": True},
        about="random weights, T5's architecture",
    ),
)  # fmt: skip

MODELS: tuple[ModelEntry, ...] = (*_ENCODERS, *_SEVEN_BILLION, *_EARLIER, *_TODAYS, *_SCRATCH_MODELS)


def find_model(name: str) -> ModelEntry | None:
    """Return the catalogue's entry for a `base_model`, by name or hub id; None where it has none."""
    return next((entry for entry in MODELS if name in (entry.name, entry.hub_id)), None)
