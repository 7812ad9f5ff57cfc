"""What can go wrong with a request, and what follows from it: try again, give this call up, or stop them all."""

from __future__ import annotations

import dataclasses
import email.utils
import re
import time
from collections.abc import Mapping
from typing import Literal

import openai

SHORTEST_KEY = 8  # a placeholder such as "none" is no secret, and hiding it would garble messages


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong with one request."""

    action: Literal["again", "refused", "stop"]
    message: str
    status: int = 0  # HTTP's, where the way out depends on it
    wait_s: float | None = None  # where the server said how long
    billed: bool = False  # the server may have worked on it
    unreachable: bool = False


class UnreadableError(Exception):
    """A 200 whose body is not a completion."""


def classified(error: Exception, *, timeout_s: float, api_key: str) -> Fault:
    """Return what follows from an error of the SDK."""
    if isinstance(error, openai.APIStatusError):
        return _classified_status(error, api_key)
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return Fault("again", f"no answer within {timeout_s:g} s (synthesize.timeout_s)", billed=True)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        unreachable = type(cause).__name__ in {"ConnectError", "UnsupportedProtocol"}  # of httpx, which the SDK hides
        return Fault("again", str(cause or error) or "cut line", billed=not unreachable, unreachable=unreachable)
    return Fault("again", str(error), billed=True)


def way_out(fault: Fault, *, model: str, base_url: str, key_origin: str, reached: bool) -> str:
    """Return the message of a TeacherError: what happened, where, and what to do."""
    where = f"The teacher {model} at {base_url}"
    kept = "What was answered is kept: run again to go on."
    match fault.status:
        case 401 | 403:
            return f"{where} refused the key from {key_origin} ({fault.message}). Set a valid key there."
        case 404 | 405:
            return (
                f"{where} is not there ({fault.message}). Set synthesize.model to one that the server has "
                "(its /models lists them), or correct synthesize.base_url (most end in /v1)."
            )
        case 402 | 429:
            return f"{where} takes no more calls: {fault.message}. Check its quota, or wait. {kept}"
        case 400 | 422:
            return (
                f"{where} does not take these temperatures: {fault.message}. Set synthesize.temperatures to what "
                "it takes, for instance [1.0], or choose another model."
            )
    if fault.unreachable and not reached:
        return (
            f"{where} cannot be reached: {fault.message}. Check synthesize.base_url and that the server runs, or "
            "set synthesize.teacher to offline."
        )
    return f"{where} stopped answering: {fault.message}. {kept}"


def _classified_status(error: openai.APIStatusError, api_key: str) -> Fault:
    status = error.status_code
    said = " ".join(error.message.removeprefix(f"Error code: {status} - ").split())
    if len(api_key) >= SHORTEST_KEY:
        said = said.replace(api_key, "(the key)")  # some servers repeat it, and messages end up in logs
    message = f"HTTP {status}: {said[:300]}"
    if error.code == "insufficient_quota":
        return Fault("stop", message, status=429)
    if status in (401, 402, 403, 404, 405):
        return Fault("stop", message, status=status)
    if status in (408, 409, 425, 429) or status >= 500:
        return Fault("again", message, status=status if status == 429 else 0, wait_s=_wait_s(error.response.headers))
    if error.param == "temperature" or re.search(r"support.{0,40}temperature|temperature.{0,40}support", said):
        return Fault("stop", message, status=status)
    return Fault("refused", message, status=status)


def _wait_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait, from either form of Retry-After (RFC 9110, 10.2.3)."""
    text = headers.get("retry-after", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        moment = email.utils.parsedate_tz(text)
        return None if moment is None else max(0.0, email.utils.mktime_tz(moment) - time.time())
