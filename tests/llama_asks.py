"""Ask a GGUF through llama.cpp, in a Python that has llama_cpp (the export tests run it as a program of its own).

    python llama_asks.py MODEL.gguf MOST_TOKENS < prompts.json > answers.json

In: [{"text": …, "messages": […]}]; out: for each, the ids of the text, the ids written greedily, and the ids that
llama.cpp makes of the messages with the file's own chat template.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import llama_cpp
from llama_cpp.llama_chat_format import Jinja2ChatFormatter


def main(path: str, most_tokens: int) -> None:
    exact = llama_cpp.GGML_TYPE_F32  # its cache of keys and values is f16 else, which turns near ties around
    model: Any = llama_cpp.Llama(path, n_ctx=512, n_threads=1, verbose=False, type_k=exact, type_v=exact)
    template = model.metadata["tokenizer.chat_template"]
    token_of = {key: model.metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("bos", "eos")}
    texts = {key: model._model.token_get_text(int(index)) if index else "" for key, index in token_of.items()}
    formatter = Jinja2ChatFormatter(template=template, eos_token=texts["eos"], bos_token=texts["bos"])
    answers = []
    for asked in json.load(sys.stdin):
        ids = model.tokenize(asked["text"].encode(), add_bos=False, special=True)
        written: list[int] = []
        model.reset()
        for token in model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
            if llama_cpp.llama_vocab_is_eog(model._model.vocab, token):
                break
            written.append(token)
            if len(written) == most_tokens:
                break
        rendered = formatter(messages=asked["messages"]).prompt
        answers.append(
            {"ids": ids, "written": written, "chat": model.tokenize(rendered.encode(), add_bos=False, special=True)}
        )
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
