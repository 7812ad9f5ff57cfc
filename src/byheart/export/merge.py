"""The trained model as one: its adapter added to its base, and checked to answer as before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from byheart.errors import ModelError, RunFolderError
from byheart.models.adapters import load_trained_writer, read_description
from byheart.models.writer import Writer
from byheart.store import remove, rename_over, sync

CHECKED_QUESTIONS = 8  # answered before and after merging


def merged_writer(model_folder: Path, *, questions: Sequence[str]) -> tuple[Writer, int]:
    """Return the model with its adapter merged, and how many questions it answers as with the adapter beside it.

    `questions`: CHECKED_QUESTIONS of them are asked. Raises ModelError where an answer differs.
    """
    asked = [(question, ()) for question in questions[:CHECKED_QUESTIONS]]
    most = read_description(model_folder).longest_answer
    expected = load_trained_writer(model_folder, merge=False).answers(asked, most_tokens=most)
    merged = load_trained_writer(model_folder)
    if merged.answers(asked, most_tokens=most) != expected:
        raise ModelError(f"Merged, the model in {model_folder} answers otherwise than before: it was not exported.")
    return merged, len(asked)


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yield a path to write a new file or folder at; it becomes `target` when the block ends well.

    Raises ModelError where `target` is there already, and RunFolderError where the disk refuses.
    """
    if target.exists():
        raise ModelError(f"{target} is there already. Name another place with --out, or remove it.")
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove(partial)
        yield partial
        sync(partial)
        rename_over(partial, target)
    except OSError as fault:
        raise RunFolderError(f"{partial}: {fault.strerror or fault}. Free space, or name another place.") from fault
