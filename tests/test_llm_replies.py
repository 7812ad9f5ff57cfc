from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pydantic
import pytest

from byheart.errors import TeacherError
from byheart.llm import Call, CallCache, Failed, FakeChatModel, Message, is_local, read_answer


class Colour(pydantic.BaseModel):
    colour: str


def test_a_damaged_cache_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(TeacherError, match=r"calls\.sqlite.*move it away"):
        CallCache(path)


@pytest.mark.parametrize(
    "reply",
    [
        '{"colour": "red"}',
        'Sure {really}: {"colour": "red", "more": 1} and {"colour": "blue"}',
        '<think>maybe {"colour": "blue"}</think>{"colour": "red"}',
        '```json\n{"colour": "red"}\n```',
    ],
)
def test_the_json_is_found_among_talk(reply: str) -> None:
    assert read_answer(reply, Colour) == Colour(colour="red")


@pytest.mark.parametrize("reply", ["", "[]", "{" * 5000, '{"a":' * 5000, '{"colour": "re', '{"colour": "\\ud800"}'])
def test_a_reply_without_usable_json_is_a_failure_and_no_crash(reply: str) -> None:
    assert isinstance(read_answer(reply, Colour), Failed)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost:11434/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://192.168.1.7/v1", True),
        ("http://gpu-box:8000/v1", True),
        ("https://api.openai.com/v1", False),
        ("https://8.8.8.8/v1", False),
    ],
)
def test_servers_nearby_are_told_from_the_world(address: str, local: bool) -> None:
    assert is_local(address) is local


def test_the_fake_reads_replies_as_the_client_does() -> None:
    call = Call((Message("user", "red"),), 0.3)
    teacher = FakeChatModel(lambda asked: json.dumps({"colour": asked.messages[0].content}))
    assert asyncio.run(teacher.ask(call, Colour)) == Colour(colour="red")
    assert teacher.calls == [call]
