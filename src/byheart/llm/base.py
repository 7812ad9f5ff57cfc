"""What is asked of a language model, whichever it is; and the fake that tests use."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Literal, Protocol, Self, TypeVar

import pydantic


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One turn of a call."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """What a model is asked. Two equal calls are one: the second is answered from the cache."""

    messages: tuple[Message, ...]
    temperature: float
    seed: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """A call without a usable answer, while others may go on."""

    reason: str
    evidence: str


Answer = TypeVar("Answer", bound=pydantic.BaseModel)


class ChatModel(Protocol):
    """A language model that fills in a form. Open it with `async with`; then `ask` may run many times at once."""

    @property
    def name(self) -> str:
        """Return the model's name."""
        ...

    async def ask(self, call: Call, answer_type: type[Answer]) -> Answer | Failed:
        """Return the model's answer in the form wanted. Raises TeacherError where no call can be answered."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


class FakeChatModel:
    """A ChatModel for tests and examples: a function plays the model; `calls` holds what it was asked."""

    def __init__(self, reply: Callable[[Call], str], *, name: str = "fake") -> None:
        self.name = name
        self.calls: list[Call] = []
        self._play = reply

    async def ask(self, call: Call, answer_type: type[Answer]) -> Answer | Failed:
        """Return what the function says, read as a real model's reply would be."""
        self.calls.append(call)
        return read_answer(self._play(call), answer_type)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""


def read_answer(reply: str, answer_type: type[Answer]) -> Answer | Failed:
    """Return the JSON object in a reply, also from among talk, code fences or a train of thought."""
    text = re.sub(r"<think>.*?</think>", "", reply, flags=re.DOTALL)
    fault = "It holds no JSON object."
    # A brace in the talk before the object is skipped; 20 of them are enough to know that none is coming.
    for start in [match.start() for match in re.finditer(r"\{", text)][:20]:
        try:
            value, _ = json.JSONDecoder().raw_decode(text, start)
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could not be written to any file
            return answer_type.model_validate(value)
        except pydantic.ValidationError as misfit:
            first = misfit.errors()[0]
            fault = f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}."
        except (ValueError, RecursionError) as broken:
            fault = f"It is no readable JSON: {broken}."
    return Failed("the teacher's reply is not the JSON asked for", f"{fault} Reply: {reply[:300]}")
