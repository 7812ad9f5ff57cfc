"""The child process that reads pages: `python -m byheart.ingest.worker MEMORY_MB`.

It answers each request on stdin (a JSON header and the file's bytes) with one JSON object on stdout. A file that needs
too much memory, or crashes a parser, takes this process down and not byheart; the parent starts another.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import struct
import sys
from typing import Any, BinaryIO

from byheart.ingest.convert import read_page

LENGTHS = struct.Struct(">II")  # bytes of the header, bytes of the file
ANSWER_LENGTH = struct.Struct(">I")


def main() -> None:
    """Answer requests until stdin closes."""
    memory_bytes = int(sys.argv[1]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    _answer(answers, {})  # ready: the time of starting is not counted against the first file
    while lengths := requests.read(LENGTHS.size):
        header_length, data_length = LENGTHS.unpack(lengths)
        header = json.loads(requests.read(header_length))
        _answer(answers, _read(requests.read(data_length), header))


def _read(data: bytes, header: dict[str, str]) -> dict[str, Any]:
    try:
        return dataclasses.asdict(read_page(data, **header))
    except MemoryError:
        return {"reason": "", "fatal": "memory"}
    except RecursionError:
        return {"reason": "its elements are nested too deep"}
    except ValueError as fault:
        return {"reason": str(fault)}
    except Exception as fault:  # noqa: BLE001 - whatever a parser stumbles over is this file's fault, and is reported
        return {"reason": f"it cannot be read: {type(fault).__name__}: {fault}"}


def _answer(answers: BinaryIO, answer: dict[str, Any]) -> None:
    text = json.dumps(answer).encode()
    answers.write(ANSWER_LENGTH.pack(len(text)))
    answers.write(text)
    answers.flush()


if __name__ == "__main__":
    main()
