"""GGUF, the one file that llama.cpp and what builds on it reads: weights, tokenizer, chat form.

Own mapping for Llama, Mistral, Qwen3 and GPT-2, over the tables of the `gguf` package; for any other architecture,
llama.cpp's own converter. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from byheart.errors import MissingExtraError, ModelError
from byheart.export.gguf_tokenizer import add_tokenizer
from byheart.export.hub import save_merged
from byheart.export.merge import merged_writer, writing
from byheart.models.adapters import read_description
from byheart.models.writer import Writer

Precision = Literal["f32", "f16", "bf16", "q8_0"]

CONVERTER = "convert_hf_to_gguf.py"  # llama.cpp's
_ROTARY = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "Qwen3ForCausalLM": "qwen3"}
_TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # GPT-2 keeps these input first
_STATIC_ROPE = {"default", "linear", "llama3"}  # the same frequencies for every length of text


def gguf_package() -> ModuleType:
    """Return the `gguf` package. Raises MissingExtraError where it is not installed."""
    try:
        import gguf  # noqa: PLC0415 - an extra
    except ImportError as missing:
        raise MissingExtraError("gguf", "gguf", "byheart export gguf") from missing
    return gguf


def export_gguf(
    model_folder: Path, target: Path, *, precision: Precision, name: str, questions: Sequence[str],
    converter: Path | None = None,
) -> str:  # fmt: skip
    """Write the trained model, merged, to the new file `target`, and return what wrote it; see write_gguf.

    Raises ModelError where the model is an encoder, the file is there already, or merging changes an answer.
    """
    demand_writer(model_folder)
    with writing(target) as partial:
        merged, _ = merged_writer(model_folder, questions=questions)
        return write_gguf(merged, partial, precision=precision, name=name, converter=converter)


def write_gguf(writer: Writer, path: Path, *, precision: Precision, name: str, converter: Path | None = None) -> str:
    """Write a merged model to `path`, and return what wrote it. Vectors and norms stay in f32.

    `converter`: llama.cpp's, in place of byheart's own mapping. Raises ModelError where the model cannot be a GGUF.
    """
    if writer.chat.encoder_decoder:
        raise ModelError("An encoder-decoder cannot be exported as GGUF. Use: byheart export hf")
    architecture = type(writer.base).__name__
    found = converter or (None if _covers(architecture) else shutil.which(CONVERTER))
    if found:
        _convert(writer, Path(found), path, precision)
        return f"llama.cpp's {CONVERTER}"
    if not _covers(architecture):
        covered = ", ".join([*_ROTARY, "GPT2LMHeadModel"])
        raise ModelError(
            f"byheart writes GGUF of {covered} by itself; for {architecture}, get llama.cpp and name its "
            f"{CONVERTER} with --converter."
        )
    _write(gguf_package(), writer, path, precision, name)
    return "byheart"


def demand_writer(model_folder: Path) -> None:
    """Raise ModelError where the model writes no answers."""
    trained = read_description(model_folder)
    if trained.family == "encoder":
        raise ModelError(
            f"{trained.base_model} is an encoder: it finds the manual's sentences, and writes none, so llama.cpp has "
            "no use for it. Use: byheart export hf"
        )


def _covers(architecture: str) -> bool:
    return architecture in _ROTARY or architecture == "GPT2LMHeadModel"


def _convert(writer: Writer, converter: Path, path: Path, precision: Precision) -> None:
    if not converter.is_file():
        raise ModelError(f"--converter {converter}: there is no such file.")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".gguf-") as folder:
        save_merged(writer, Path(folder))
        command = [sys.executable, str(converter), folder, "--outfile", str(path), "--outtype", precision]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not path.exists():
        last = next(iter(reversed(done.stderr.strip().splitlines())), f"exit code {done.returncode}")
        raise ModelError(f"{converter} failed: {last}")


def _write(gguf: ModuleType, writer: Writer, path: Path, precision: Precision, name: str) -> None:
    """Write header and tables first, then weight after weight, so that never two copies of all are in memory."""
    model = writer.base
    architecture = _ROTARY.get(type(model).__name__, "gpt2")
    kind = getattr(gguf.GGMLQuantizationType, precision.upper())
    out = gguf.GGUFWriter(path, architecture)
    out.add_type("model")
    out.add_name(name)
    out.add_file_type(_file_type(gguf, precision))
    out.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_sizes(out, writer, architecture)
    add_tokenizer(gguf, out, writer.chat, size=model.get_input_embeddings().weight.shape[0])
    kinds = {}
    for key, shape, _ in _tensors(gguf, writer, architecture):
        kinds[key] = kind if len(shape) > 1 else gguf.GGMLQuantizationType.F32
        if precision == "q8_0" and shape[-1] % 32:  # a block of Q8_0 holds 32 numbers of one row
            kinds[key] = gguf.GGMLQuantizationType.F16 if len(shape) > 1 else kinds[key]
        block, size = gguf.GGML_QUANT_SIZES[kinds[key]]
        out.add_tensor_info(key, shape, np.dtype(np.float32), int(np.prod(shape)) // block * size, kinds[key])
    try:
        out.write_header_to_file()
        out.write_kv_data_to_file()
        out.write_ti_data_to_file()
        for key, _, weight in _tensors(gguf, writer, architecture):
            out.write_tensor_data(gguf.quantize(weight(), kinds[key]))
    finally:
        out.close()


def _file_type(gguf: ModuleType, precision: Precision) -> int:
    names = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    return int(getattr(gguf.LlamaFileType, names[precision]))


def _add_sizes(out: Any, writer: Writer, architecture: str) -> None:
    """Add the model's dimensions. Raises ModelError where it does what llama.cpp's architecture does not."""
    config = writer.base.config
    if architecture == "gpt2":
        _demand(config.activation_function == "gelu_new", f"activation {config.activation_function}")
        _demand(config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx, "scaled attention")
        out.add_context_length(config.n_positions)
        out.add_embedding_length(config.n_embd)
        out.add_block_count(config.n_layer)
        out.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        out.add_head_count(config.n_head)
        out.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    _demand(config.hidden_act == "silu", f"activation {config.hidden_act}")
    head = _head_size(config)
    rope = config.rope_parameters
    _demand(rope["rope_type"] in _STATIC_ROPE, f"rope type {rope['rope_type']}")
    window = getattr(config, "sliding_window", None) or config.max_position_embeddings
    # llama.cpp's architecture looks at all of the text: up to the window, that is the same.
    out.add_context_length(min(config.max_position_embeddings, window))
    out.add_vocab_size(config.vocab_size)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_key_length(head)
    out.add_value_length(head)
    out.add_rope_dimension_count(head)
    out.add_rope_freq_base(float(rope["rope_theta"]))
    out.add_layer_norm_rms_eps(config.rms_norm_eps)


def _demand(fits: bool, what: str) -> None:
    if not fits:
        raise ModelError(
            f"Its {what} is none that byheart can write as GGUF. Name llama.cpp's {CONVERTER}: --converter"
        )


def _head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _tensors(
    gguf: ModuleType, writer: Writer, architecture: str
) -> Iterator[tuple[str, tuple[int, ...], Callable[[], NDArray[np.float32]]]]:
    """Yield for every weight its name in GGUF, its shape, and a function that returns its numbers."""
    model = writer.base
    config = model.config
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, architecture.upper()), config.num_hidden_layers)
    tied = model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    for key, weight in model.named_parameters(remove_duplicate=False):
        if tied and key == "lm_head.weight":
            continue  # llama.cpp takes the table of the tokens for it
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        _demand(name is not None, f"weight {key}")
        turned = architecture == "gpt2" and key.endswith(_TURNED)
        heads = 0
        if architecture == "llama":
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(
                key.split(".")[-2], 0
            )
        yield name, tuple(reversed(weight.shape)) if turned else tuple(weight.shape), _numbers(weight, turned, heads)
    factors = None if architecture == "gpt2" else _rope_factors(model)
    if factors is not None:
        _demand(architecture == "llama", "scaled rope")
        yield "rope_freqs.weight", tuple(factors.shape), lambda: factors


def _numbers(weight: torch.Tensor, turned: bool, heads: int) -> Callable[[], NDArray[np.float32]]:
    def read() -> NDArray[np.float32]:
        plain = weight.detach().float().cpu()
        if turned:
            plain = plain.T
        if heads:  # transformers rotates halves of a head, llama.cpp neighbours
            rows = plain.shape[0] // heads // 2
            plain = plain.reshape(heads, 2, rows, *plain.shape[1:]).swapaxes(1, 2).reshape(plain.shape)
        found: NDArray[np.float32] = plain.contiguous().numpy()
        return found

    return read


def _rope_factors(model: Any) -> NDArray[np.float32] | None:
    """Return by how much the model turns slower than plain RoPE does, for each frequency; None where it does not."""
    rotary = model.base_model.rotary_emb
    head = _head_size(model.config)
    base = float(model.config.rope_parameters["rope_theta"])
    plain = base ** -(torch.arange(0, head, 2, dtype=torch.float32) / head)
    factors: NDArray[np.float32] = (plain / rotary.inv_freq.float().cpu()).numpy()
    _demand(rotary.attention_scaling == 1.0, "scaling of attention")
    return None if np.allclose(factors, 1.0, rtol=1e-4) else factors
