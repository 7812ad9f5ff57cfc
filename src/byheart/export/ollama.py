"""A Modelfile for Ollama: the chat form as its template, the tokens that end an answer, and greedy answers.

The format: https://docs.ollama.com/modelfile; the template is Go's text/template.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from byheart.catalog import find_model
from byheart.chat import Chat
from byheart.export.card import Story, card
from byheart.export.gguf_file import Precision, demand_writer, write_gguf
from byheart.export.hub import prompt_of
from byheart.export.merge import merged_writer, writing


def export_ollama(
    model_folder: Path, target: Path, story: Story, *, precision: Precision, questions: Sequence[str],
    converter: Path | None = None,
) -> None:  # fmt: skip
    """Write the new folder `target`: GGUF, Modelfile and model card. Raises ModelError as export_gguf does."""
    demand_writer(model_folder)
    with writing(target) as partial:
        partial.mkdir()
        merged, _ = merged_writer(model_folder, questions=questions)
        write_gguf(merged, partial / _GGUF, precision=precision, name=story.name, converter=converter)
        entry = find_model(story.trained.base_model)
        licence = (
            f"Base model: {entry.licence if entry else 'see there'}. Manual: {story.docs_licence or 'ask its owner'}."
        )
        text = modelfile(
            merged.chat, gguf_name=_GGUF, window=merged.window, longest_answer=story.trained.longest_answer,
            licence=licence,
        )  # fmt: skip
        (partial / "Modelfile").write_text(text, encoding="utf-8")
        use = f"```sh\nollama create {story.name} -f Modelfile\nollama run {story.name} 'How do I …?'\n```"
        (partial / "README.md").write_text(card(story, "gguf", use=use, **prompt_of(merged)), encoding="utf-8")


_GGUF = "model.gguf"


def modelfile(chat: Chat, *, gguf_name: str, window: int, longest_answer: int, licence: str) -> str:
    """Return the Modelfile. `window`: tokens of question and answer together; `longest_answer`: in tokens."""
    stops = [chat.tokenizer.convert_ids_to_tokens(token) for token in sorted(chat.stop_ids)]
    parameters = {
        "temperature": 0,  # what was learned by heart is the likeliest answer
        "repeat_penalty": 1.0,  # Ollama's default, 1.1, bends an answer that must repeat the manual's words
        "num_ctx": window,
        "num_predict": longest_answer,
    }
    lines = [
        f"FROM ./{gguf_name}",
        f'TEMPLATE """{template(chat)}"""',
        *(f"PARAMETER {key} {value}" for key, value in parameters.items()),
        *(f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops),
        f'LICENSE """{licence}"""',
    ]
    return "\n".join(lines) + "\n"


def template(chat: Chat) -> str:
    """Return the form as a Go template, in one line: every space and newline of it is part of the prompt.

    The start token is left out: Ollama puts it there, as the GGUF says. So are system messages: no answer was learned
    with one.
    """
    form = chat.form
    question = (
        f"{{{{ if $asked }}}}{_text(form.between)}{{{{ else }}}}{_text(form.opening)}{{{{ end }}}}"
        f"{{{{ $asked = true }}}}{{{{ .Content }}}}{_text(form.after_question)}"
    )
    answer = f"{_text(form.before_answer)}{{{{ .Content }}}}{_text(form.before_end + form.end_token)}"
    return (
        "{{ $asked := false }}{{ range .Messages }}"
        f'{{{{ if eq .Role "user" }}}}{question}{{{{ else if eq .Role "assistant" }}}}{answer}{{{{ end }}}}'
        f"{{{{ end }}}}{_text(form.before_new_answer)}"
    )


def _text(words: str) -> str:
    """Return words as a Go string: a brace or a newline in them cannot be taken for the template's own."""
    return f"{{{{ {json.dumps(words)} }}}}" if words else ""
