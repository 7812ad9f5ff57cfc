"""The trained model as a folder that transformers loads: the adapter added to its base, safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from byheart.errors import ModelError
from byheart.models.adapters import load_trained_writer, read_description, save_tokenizer
from byheart.models.hub import quiet
from byheart.store import rename_over, sync

CHECKED_QUESTIONS = 8  # answered before and after merging


def export_merged(model_folder: Path, target: Path, *, questions: Sequence[str]) -> int:
    """Write the merged model to the new folder `target`, and return how many questions it answers as before.

    `questions`: CHECKED_QUESTIONS of them are asked of the model with its adapter beside it and of the merged one.
    Raises ModelError where an answer differs, where the folder is there already, or where the model is one that writes
    no answers.
    """
    description = read_description(model_folder)
    if description.family == "encoder":
        raise ModelError(
            f"{description.base_model} is an encoder: it finds the manual's sentences, and is of no use without the "
            "index beside it. Copy the run folder instead."
        )
    if target.exists():
        raise ModelError(f"{target} is there already. Name another folder, or remove it.")
    asked = [(question, ()) for question in questions[:CHECKED_QUESTIONS]]
    most = description.longest_answer
    expected = load_trained_writer(model_folder, merge=False).answers(asked, most_tokens=most)
    merged = load_trained_writer(model_folder)
    if merged.answers(asked, most_tokens=most) != expected:
        raise ModelError(f"Merged, the model in {model_folder} answers otherwise than before: it was not exported.")
    partial = target.with_name(target.name + ".partial")
    with quiet():
        merged.base.save_pretrained(str(partial))
    save_tokenizer(merged, partial)
    sync(partial)
    rename_over(partial, target)
    return len(asked)
