"""A folder as model hubs hold them: weights in safetensors, tokenizer with its chat form, and the model card."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules

from byheart.errors import ModelError
from byheart.export.card import Story, card
from byheart.export.merge import CHECKED_QUESTIONS, merged_writer, writing
from byheart.models.adapters import DESCRIPTION, load_trained, load_trained_writer, save_tokenizer
from byheart.models.encoder import MAX_TOKENS
from byheart.models.hub import quiet
from byheart.models.writer import Writer

_SAME = 1e-4  # the largest difference of a vector's numbers: fp32, summed in another order


def export_hub(model_folder: Path, target: Path, story: Story, *, questions: Sequence[str]) -> int:
    """Write the trained model to the new folder `target`, and return how many questions it answers as before.

    A model that writes gets its adapter merged, for transformers; an encoder becomes one for sentence-transformers.
    Raises ModelError where an answer differs, or where the folder is there already.
    """
    if story.trained.family == "encoder":
        return _export_encoder(model_folder, target, story, questions=questions[:CHECKED_QUESTIONS])
    with writing(target) as partial:
        merged, checked = merged_writer(model_folder, questions=questions)
        save_merged(merged, partial)
        kind = "AutoModelForSeq2SeqLM" if merged.chat.encoder_decoder else "AutoModelForCausalLM"
        text = card(story, "merged", use=_use_writer(kind, merged), **prompt_of(merged))
        (partial / "README.md").write_text(text, encoding="utf-8")
    return checked


def export_adapter(model_folder: Path, target: Path, story: Story) -> None:
    """Write the LoRA adapter alone, with the tokenizer, to the new folder `target`.

    Raises ModelError where there is none, or where it fits no published base model.
    """
    trained = story.trained
    if trained.method not in ("lora", "qlora"):
        raise ModelError(f"train.method was {trained.method}: there is no adapter. Leave --adapter out.")
    if trained.family == "encoder":
        raise ModelError("An encoder's adapter stands on what the starter knows already. Leave --adapter out.")
    with writing(target) as partial:
        aside = shutil.ignore_patterns("index", "calibration.json", DESCRIPTION)
        shutil.copytree(model_folder, partial, ignore=aside)
        writer = load_trained_writer(model_folder)
        kind = "AutoModelForSeq2SeqLM" if writer.chat.encoder_decoder else "AutoModelForCausalLM"
        use = _use_writer(kind, writer, adapter=True)
        (partial / "README.md").write_text(card(story, "adapter", use=use, **prompt_of(writer)), encoding="utf-8")


def save_merged(writer: Writer, folder: Path) -> None:
    """Write a model without adapters, and its tokenizer, as transformers loads them."""
    with quiet():
        writer.base.save_pretrained(str(folder))
    save_tokenizer(writer, folder)


def prompt_of(writer: Writer) -> dict[str, str]:
    """Return for a card what the model is given for "QUESTION", and what ends its answer."""
    prompt = writer.tokenizer.decode(writer.chat.prompt("QUESTION"), clean_up_tokenization_spaces=False)
    return {"prompt": prompt, "end_token": writer.chat.form.end_token}


def _export_encoder(model_folder: Path, target: Path, story: Story, *, questions: Sequence[str]) -> int:
    encoder = load_trained(model_folder, precision="fp32")
    expected_N_D = encoder.vectors(questions)
    with writing(target) as partial:
        with quiet():
            encoder.model.save_pretrained(str(partial))  # type: ignore[operator]
            encoder.tokenizer.save_pretrained(str(partial))
            whole = SentenceTransformer(
                modules=[
                    modules.Transformer(str(partial), max_seq_length=MAX_TOKENS),
                    modules.Pooling(encoder.dimensions, pooling_mode="mean"),
                    modules.Normalize(),
                ],
                device="cpu",
            )
            whole.save(str(partial), create_model_card=False)
            again = SentenceTransformer(str(partial), device="cpu")
        found_N_D = again.encode(list(questions), show_progress_bar=False)
        if len(questions) and not np.allclose(found_N_D, expected_N_D, atol=_SAME):
            raise ModelError(f"Opened again, the encoder in {model_folder} gives other vectors: it was not exported.")
        (partial / "README.md").write_text(card(story, "sentence-transformers", use=_USE_ENCODER), encoding="utf-8")
    return len(questions)


def _use_writer(kind: str, writer: Writer, *, adapter: bool = False) -> str:
    load = f'model = {kind}.from_pretrained("THIS-FOLDER")'
    more = ""
    if adapter:
        load = f'model = PeftModel.from_pretrained({kind}.from_pretrained("BASE-MODEL"), "THIS-FOLDER")'
        more = "from peft import PeftModel\n"
    ask = 'inputs = tokenizer("Question: How do I …? Answer:", return_tensors="pt")'
    if not writer.chat.encoder_decoder:
        ask = (
            'asked = [{"role": "user", "content": "How do I …?"}]\n'
            'inputs = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", '
            "return_dict=True)"
        )
    start = "0" if writer.chat.encoder_decoder else 'inputs["input_ids"].shape[1]'
    return (
        f"```python\n{more}from transformers import {kind}, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("THIS-FOLDER")\n{load}\n{ask}\n'
        "written = model.generate(**inputs, max_new_tokens=300, do_sample=False)[0]\n"
        f"print(tokenizer.decode(written[{start}:], skip_special_tokens=True))\n```"
    )


_USE_ENCODER = """\
```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("THIS-FOLDER")
question, *passages = model.encode(["How do I …?", "a passage of the manual", "another"])
print(passages @ question)  # the passage that answers it has the highest number
```

Plain transformers loads it, too: the vector is the mean over the tokens' last hidden states, made one long."""
