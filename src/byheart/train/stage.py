"""The stage's entrance: sections and pairs in; the trained model, and the losses on the way there, out."""

from __future__ import annotations

from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from byheart.answer import bot as answering
from byheart.catalog import Family
from byheart.config import Config, Project
from byheart.errors import TrainError
from byheart.models import adapters
from byheart.models.families import family_of
from byheart.progress import Notify, Progress, StageResult, silent
from byheart.store import RunFolder
from byheart.train import retrieval, writing
from byheart.train.checkpoint import remove_checkpoint
from byheart.train.outcome import say
from byheart.train.ranks import joined

MODEL = "4-model"
STEPS = "4-steps.jsonl"
OUTPUTS = (MODEL, STEPS)


def run(project: Project, folder: RunFolder, notify: Notify) -> StageResult:
    """Train the base model on the pairs. Raises TrainError where that cannot start or go on.

    A run that was stopped goes on from its checkpoint, and ends with the weights of one that was not.
    """
    config = project.config
    family, why = family_of(config.base_model)
    chosen = say(notify, {"family": f"{family}: {why}"})
    with joined() as ranks:
        if family != "encoder":
            outcome = writing.run(project, folder, notify, family=family, ranks=ranks)
        elif ranks.size == 1:
            outcome = retrieval.run(project, folder, notify)
        else:
            raise TrainError(f"{config.base_model} is an encoder, which trains in one process: leave --gpus out.")
    with folder.replacing(MODEL) as partial:
        adapters.save_weights(outcome.model, partial, method=outcome.description.method)
        adapters.describe(partial, outcome.description)
        ending = say(notify, _finish(config, folder, partial, notify, family))
    folder.write(STEPS, outcome.history)
    remove_checkpoint(folder)
    return StageResult(OUTPUTS, outcome.counts, chosen | outcome.chosen | ending)


@record
def follow(project: Project, folder: RunFolder) -> None:
    """Take part in `run`, which another process calls: the first of many ranks. Nothing is written or said."""
    family, _ = family_of(project.config.base_model)
    with joined() as ranks:
        if family != "encoder":
            writing.run(project, folder, silent, family=family, ranks=ranks)


def _finish(config: Config, folder: RunFolder, model_folder: Path, notify: Notify, family: Family) -> dict[str, str]:
    """Make the folder complete: beside the weights, what answering needs."""
    with_intents = config.train.intents and family == "encoder"
    completed = answering.complete_model(
        folder,
        model_folder,
        refuse_answerable=config.answer.refuse_answerable,
        with_intents=with_intents,
        on_done=lambda task, done, total: notify(Progress(task, done, total)),
    )
    ending = {"declining": "never: too few questions to calibrate on; the bot answers everything"}
    if completed.calibration:
        ending = {
            "declining": f"below a confidence of {completed.calibration.threshold:.2f}: that refuses "
            f"{config.answer.refuse_answerable:.0%} of the questions held out (answer.refuse_answerable)"
        }
    if with_intents:
        ending["train.intents"] = completed.intents or "none: the manual has no parts to tell apart"
    return ending
