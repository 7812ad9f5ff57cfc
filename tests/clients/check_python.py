"""What openai-python, langchain-openai and LiteLLM make of the API. Runs in an environment of its own.

python check_python.py http://127.0.0.1:8000
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # LiteLLM fetches a list of prices when it is imported

import litellm
import openai
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

QUESTION = "How do I move a card?"
START = "Drag the card, or press **M**."
MODEL = "example-bot"


def raises(kind: type[Exception], call: Any, words: str) -> Exception:
    """Return the error of `kind` that the call raises, and that holds `words`."""
    try:
        call()
    except kind as fault:
        assert words in str(fault), f"{fault} does not hold {words!r}"
        return fault
    raise AssertionError(f"no {kind.__name__}")


def check_openai(address: str) -> None:
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    asked: Any = [{"role": "user", "content": QUESTION}]
    whole = client.chat.completions.create(model=MODEL, messages=asked, temperature=0.2, seed=7)
    assert whole.choices[0].message.content.startswith(START)
    assert whole.model_extra["byheart"]["citations"]
    assert whole.usage.completion_tokens > 5
    chunks = list(
        client.chat.completions.create(model=MODEL, messages=asked, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    with client.chat.completions.stream(model=MODEL, messages=asked) as stream:
        assert stream.get_final_completion().choices[0].message.content == whole.choices[0].message.content
    cut = client.chat.completions.create(model=MODEL, messages=asked, max_tokens=4)
    assert (cut.choices[0].finish_reason, cut.choices[0].message.content) == ("length", "Drag the card,")
    stopped = client.chat.completions.create(model=MODEL, messages=asked, stop=[" or"])
    assert (stopped.choices[0].finish_reason, stopped.choices[0].message.content) == ("stop", "Drag the card,")
    create = client.chat.completions.create
    raises(openai.NotFoundError, lambda: create(model="gpt-9", messages=asked), "does not exist here")
    raises(openai.BadRequestError, lambda: create(model=MODEL, messages=asked, n=2), "'n'")
    raises(openai.BadRequestError, lambda: create(model=MODEL, messages=[]), "messages")
    failing: Any = [{"role": "user", "content": "fail"}]
    raises(openai.InternalServerError, lambda: create(model=MODEL, messages=failing), "went wrong")
    raises(openai.APIError, lambda: list(create(model=MODEL, messages=failing, stream=True)), "went wrong")
    assert [model.id for model in client.models.list()] == [MODEL]
    assert len(client.embeddings.create(model=MODEL, input=["a", "bc"]).data[1].embedding) == 3


def check_langchain(address: str) -> None:
    model = ChatOpenAI(model=MODEL, base_url=f"{address}/v1", api_key="none", max_retries=0, stream_usage=True)
    whole = model.invoke(QUESTION)
    assert whole.content.startswith(START)
    assert whole.usage_metadata["output_tokens"] > 5
    parts = list(model.stream(QUESTION))
    assert "".join(str(part.content) for part in parts) == whole.content
    assert len(parts) > 5
    assert any(part.usage_metadata for part in parts)
    assert model.bind(stop=[" or"]).invoke(QUESTION).content == "Drag the card,"
    assert model.bind(max_tokens=4).invoke(QUESTION).response_metadata["finish_reason"] == "length"
    again = model.invoke([HumanMessage("short"), AIMessage("One two, three."), HumanMessage(QUESTION)])
    assert again.content == whole.content
    assert [item.content for item in model.batch(["short", QUESTION])] == ["One two, three.", whole.content]
    raises(openai.APIError, lambda: list(model.stream("fail")), "went wrong")
    raises(openai.InternalServerError, lambda: model.invoke("fail"), "went wrong")
    raises(openai.BadRequestError, lambda: model.bind(n=2).invoke(QUESTION), "'n'")
    embeddings = OpenAIEmbeddings(
        model=MODEL, base_url=f"{address}/v1", api_key="none", check_embedding_ctx_length=False
    )
    assert embeddings.embed_documents(["a", "bcd"])[1] == [1.0, 0.0, 3.0]


def check_litellm(address: str) -> None:
    litellm.suppress_debug_info = True
    base: dict[str, Any] = {"model": f"openai/{MODEL}", "api_base": f"{address}/v1", "api_key": "none"}
    base["num_retries"] = 0
    asked = [{"role": "user", "content": QUESTION}]
    whole = litellm.completion(messages=asked, temperature=0, **base)
    text = whole.choices[0].message.content
    assert text.startswith(START)
    assert whole.usage.total_tokens > whole.usage.prompt_tokens
    parts = list(litellm.completion(messages=asked, stream=True, **base))
    assert "".join(part.choices[0].delta.content or "" for part in parts) == text
    assert parts[-1].choices[0].finish_reason == "stop"
    assert litellm.completion(messages=asked, stop=[" or"], **base).choices[0].message.content == "Drag the card,"
    assert litellm.completion(messages=asked, max_tokens=4, **base).choices[0].finish_reason == "length"
    failing = [{"role": "user", "content": "fail"}]
    raises(litellm.InternalServerError, lambda: litellm.completion(messages=failing, **base), "went wrong")
    raises(Exception, lambda: list(litellm.completion(messages=failing, stream=True, **base)), "went wrong")
    raises(litellm.BadRequestError, lambda: litellm.completion(messages=asked, n=2, **base), "'n'")
    found = litellm.embedding(input=["a", "bcd"], **base)
    assert found.data[1]["embedding"] == [1.0, 0.0, 3.0]


if __name__ == "__main__":
    for check in (check_openai, check_langchain, check_litellm):
        check(sys.argv[1])
        print(f"{check.__name__.removeprefix('check_')}: as it should be", flush=True)
