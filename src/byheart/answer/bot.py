"""The bot: a manual's index, an encoder and a calibration behind the Answerer protocol, and how they are loaded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError

from byheart.answer import confidence
from byheart.answer.base import Answer, Answerer, Turn
from byheart.answer.calibrate import CalibrationQuestions, calibrate, encode_questions
from byheart.answer.citing import NOTHING_ASKED, cite, declined, question_of
from byheart.answer.compose import compose
from byheart.answer.confidence import Calibration
from byheart.answer.grounds import Grounding, Grounds, Unsupported
from byheart.answer.intents import IntentHead, fit_intents, intents_of, load_intents
from byheart.answer.lexical import LexicalAnswerer
from byheart.answer.written import WrittenAnswerer
from byheart.catalog import STARTER, find_model
from byheart.errors import MissingInputError, ModelError
from byheart.index.index import Index, Match, build_index, load_index
from byheart.index.passages import make_passages
from byheart.models.adapters import load_trained, load_trained_writer, load_untrained_writer, read_description
from byheart.models.encoder import DualEncoder, Encoded, Encoder, load_encoder
from byheart.records import Document, Fact, Pair, Section, TypicalQuestion
from byheart.store import RunFolder

System = Literal["byheart", "closed-book", "retrieve", "untrained", "bm25"]

MODEL = "4-model"
INDEX = "index"
CALIBRATION = "calibration.json"
INTENTS = "intents.safetensors"
UNTRAINED = "untrained"  # folder with what differs in the baseline, the base model without any training
VECTORS = "vectors_P_D.npy"

EMBEDDED_TOKENS = 256  # what the starter's encoder was trained to read of one text


class ManualAnswerer:
    """Answers from the manual's own text, or says that the manual does not (protocol: base.Answerer)."""

    def __init__(
        self,
        *,
        index: Index,
        encoder: Encoder | DualEncoder,
        calibration: Calibration | None,
        max_words: int,
        max_citations: int,
        intents: IntentHead | None = None,
    ) -> None:
        self._index = index
        self._encoder = encoder
        self._calibration = calibration
        self._max_words = max_words
        self._max_citations = max_citations
        self._intents = intents

    def answer(self, question: str, history: Sequence[Turn] = ()) -> Answer:
        """Answer the question; `history` holds the turns before it, oldest first."""
        asked = question_of(question, history)
        if not asked or not self._index.passages:
            return NOTHING_ASKED
        encoded = self._encoder.encode_one(asked)
        intent = self._intents.intent_of(encoded.vector_D) if self._intents else ""
        return dataclasses.replace(self._answer(asked, encoded), intent=intent)

    def _answer(self, asked: str, encoded: Encoded) -> Answer:
        matches = self._index.search(asked, encoded)
        if self._calibration is None:
            return self._answered(matches, 1.0)
        evidence = confidence.evidence_of(asked, matches, self._index)
        probability = self._calibration.probability(confidence.question_vector(encoded), evidence)
        if probability < self._calibration.threshold:
            return declined(matches, probability, max_citations=self._max_citations)
        return self._answered(matches, probability)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the fine-tuned encoder's vector of each text (protocol: base.Embedder)."""
        vectors_N_D: list[list[float]] = self._encoder.vectors(texts, max_tokens=EMBEDDED_TOKENS).tolist()
        return vectors_N_D

    def _answered(self, matches: Sequence[Match], probability: float) -> Answer:
        composed = compose(matches, max_words=self._max_words)
        return Answer(composed.markdown, cite(composed.used, self._max_citations), round(probability, 4), False)


def systems(folder: RunFolder, *, grounding: Grounding) -> tuple[System, ...]:
    """Return what a trained bot can be measured as, and against; the first is the bot as it answers customers."""
    trained = read_description(folder / MODEL)
    if trained.family == "encoder":
        return ("byheart", "untrained", "bm25")
    entry = find_model(trained.base_model)
    if entry and entry.from_scratch:  # untrained it writes noise, and nobody taught it to read passages
        return ("byheart", "closed-book", "bm25")
    more: tuple[System, ...] = ("closed-book",) if grounding == "retrieve" else ("closed-book", "retrieve")
    return ("byheart", *more, "untrained", "bm25")


def load(
    folder: RunFolder, *, system: System, max_words: int, max_citations: int,
    grounding: Grounding = "closed-book", unsupported: Unsupported = "passage",
) -> Answerer:  # fmt: skip
    """Load a trained bot, or one of the baselines it is measured against.

    Of a model that writes, "closed-book" is what it says without the manual at hand, nothing checked or declined, and
    "untrained" is the same of its base: with receipts, one that knows nothing would get the credit for the manual's own
    passages. "retrieve" has the best passages in its prompt, and receipts. Of an encoder, "untrained" is the same bot
    with the base model. "bm25" ranks by BM25 alone. All others are calibrated in the same way on the same questions.
    Raises MissingInputError where nothing was trained yet.
    """
    index, calibration, intents = _search_of(folder, untrained=system == "untrained")
    trained = read_description(folder / MODEL)
    if trained.family != "encoder" and system != "bm25":
        load_writer = load_untrained_writer if system == "untrained" else load_trained_writer
        alone = system in ("closed-book", "untrained")
        grounds = Grounds(
            index=index, encoder=load_encoder(STARTER), calibration=calibration, max_words=max_words,
            max_citations=max_citations, unsupported=unsupported, with_receipts=not alone,
            grounding="closed-book" if alone else "retrieve" if system == "retrieve" else grounding,
        )  # fmt: skip
        writer = load_writer(folder / MODEL)
        return WrittenAnswerer(writer=writer, longest_answer=trained.longest_answer, grounds=grounds)
    if system == "bm25":
        return LexicalAnswerer(
            index=index, questions=calibration_questions(folder).answered,
            refuse_answerable=calibration.refused_share if calibration else 0.0, max_words=max_words,
            decline=lambda matches: declined(matches, 0.0, max_citations=max_citations),
            cite=lambda matches: cite(matches, max_citations),
        )  # fmt: skip
    encoder = trained_encoder(folder / MODEL) if system == "byheart" else load_encoder(trained.base_model)
    return ManualAnswerer(
        index=index, encoder=encoder, calibration=calibration, max_words=max_words, max_citations=max_citations,
        intents=intents,
    )  # fmt: skip


def load_grounds(
    folder: RunFolder, *, max_words: int, max_citations: int, grounding: Grounding, unsupported: Unsupported
) -> Grounds:
    """Load what stands beside a model that runs elsewhere, whatever family the bot was trained as.

    Raises MissingInputError where nothing was trained yet.
    """
    index, calibration, _ = _search_of(folder, untrained=False)
    return Grounds(
        index=index, encoder=trained_encoder(folder / MODEL), calibration=calibration, max_words=max_words,
        max_citations=max_citations, grounding=grounding, unsupported=unsupported,
    )  # fmt: skip


def _search_of(folder: RunFolder, *, untrained: bool) -> tuple[Index, Calibration | None, IntentHead | None]:
    description = folder / MODEL / "byheart.json"
    if not description.exists():
        raise MissingInputError(f"{folder / MODEL} is not there yet: train the bot first (byheart run)")
    try:
        index = load_index(folder / MODEL / INDEX)
        kept = folder / MODEL
        if untrained and (kept / UNTRAINED).exists():
            kept /= UNTRAINED
            index = dataclasses.replace(index, vectors_P_D=np.load(kept / VECTORS, allow_pickle=False))
        calibration = load_calibration(kept / CALIBRATION)
        intents = load_intents(kept / INTENTS) if (kept / INTENTS).exists() else None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as fault:
        raise ModelError(f"{folder / MODEL} is damaged ({fault}). Make it again: byheart train") from fault
    return index, calibration, intents


def trained_encoder(model_folder: Path) -> Encoder | DualEncoder:
    """Return the encoder in a model folder: fine-tuned text vectors over the base model's token vectors.

    Beside a model that writes answers it is the starter's, as it comes.
    """
    trained = read_description(model_folder)
    if trained.family != "encoder":
        return load_encoder(STARTER)
    base = load_encoder(trained.base_model)
    return base if trained.method == "none" else DualEncoder(tuned=load_trained(model_folder), base=base)


def calibration_questions(folder: RunFolder) -> CalibrationQuestions:
    """Return the questions of a run that the decision to decline is fitted on."""
    pairs = folder.read("3-pairs.jsonl", Pair)
    typical = folder.read("3-typical.jsonl", TypicalQuestion)
    outside = [pair.question for pair in pairs if pair.kind == "refusal" and pair.split == "train"]
    return CalibrationQuestions(
        answered=tuple(pair.question for pair in pairs if pair.split == "unseen phrasing"),
        outside=(*outside, *(item.question for item in typical if not item.answered)),
        typical=tuple(item.question for item in typical if item.answered),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Completed:
    """What was fitted beside trained weights."""

    calibration: Calibration | None  # None: too few questions, so that nothing is declined
    intents: str  # what they are, in words; "" where there are none


def complete_model(
    folder: RunFolder,
    model_folder: Path,
    *,
    refuse_answerable: float,
    with_intents: bool,
    on_done: Callable[[str, int, int], None],
) -> Completed:
    """Write what answering needs into a folder that holds trained weights: index, calibration, intents.

    The baseline's go beside them: they differ in the passages' vectors alone. `on_done(task, done, total)` tells how
    far it is.
    """
    encoder = trained_encoder(model_folder)
    base, tuned = (encoder.base, encoder.tuned) if isinstance(encoder, DualEncoder) else (encoder, None)
    passages = make_passages(
        folder.read("2-sections.jsonl", Section),
        folder.read("2-facts.jsonl", Fact),
        folder.read("1-documents.jsonl", Document),
    )
    total = len(passages) * (2 if tuned else 1)
    untrained = build_index(passages, base, on_done=lambda done: on_done("indexing", done, total))
    index = untrained
    if tuned:
        vectors_P_D = tuned.vectors(
            [passage.text for passage in passages],
            on_done=lambda done: on_done("indexing", len(passages) + done, total),
        )
        index = dataclasses.replace(untrained, vectors_P_D=vectors_P_D)
    index.save(model_folder / INDEX)
    questions = encode_questions(
        calibration_questions(folder),
        base=base,
        on_done=lambda done, total: on_done("encoding questions", done, total),
    )

    def fitted(index: Index, encoder: Encoder | DualEncoder) -> Calibration | None:
        if questions is None:
            return None
        return calibrate(
            questions,
            index=index,
            encoder=encoder,
            refuse_answerable=refuse_answerable,
            on_done=lambda done, total: on_done("calibrating", done, total),
        )

    if tuned:
        (model_folder / UNTRAINED).mkdir()
        np.save(model_folder / UNTRAINED / VECTORS, untrained.vectors_P_D, allow_pickle=False)
        save_calibration(model_folder / UNTRAINED / CALIBRATION, fitted(untrained, base))
    calibration = fitted(index, encoder)
    save_calibration(model_folder / CALIBRATION, calibration)
    return Completed(calibration, _teach_intents(folder, model_folder, index, encoder) if with_intents else "")


def _teach_intents(folder: RunFolder, model_folder: Path, index: Index, encoder: Encoder | DualEncoder) -> str:
    """Fit what tells intents on the training questions, write it, and say what they are.

    Returns "" where the manual has no parts to tell apart; nothing is written then.
    """
    by_section, level = intents_of(folder.read("2-sections.jsonl", Section), folder.read("1-documents.jsonl", Document))
    asked = [(pair.question, pair.section_id) for pair in folder.read("3-pairs.jsonl", Pair) if pair.split == "train"]
    head = fit_intents(asked, index=index, encoder=encoder, intents=by_section)
    if head is None:
        return ""
    head.save(model_folder / INTENTS)
    return f"{len(head.intents)}, each a {level} of the manual"


def save_calibration(path: Path, calibration: Calibration | None) -> None:
    """Write the calibration, or that there is none."""
    path.write_text(json.dumps(dataclasses.asdict(calibration) if calibration else None) + "\n", encoding="utf-8")


def load_calibration(path: Path) -> Calibration | None:
    """Read what save_calibration wrote."""
    values = json.loads(path.read_text(encoding="utf-8"))
    if values is None:
        return None
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return Calibration(**fields)
