"""The client: many calls at once, each answered, given up as a record, or reason to stop.

Faults that pass (429, 5xx, cut lines, timeouts) are tried again with back-off. A call that cannot be answered comes
back as `Failed`; only what stops every call (key, address, model, budget, an outage) raises TeacherError.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import json
import random
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, Self

import openai

from byheart.errors import TeacherError
from byheart.llm.base import Answer, Call, Failed, Message, read_answer
from byheart.llm.cache import CallCache
from byheart.llm.faults import Fault, UnreadableError, classified, way_out
from byheart.progress import Notify, Progress
from byheart.records import stable_id

FIRST_WAIT_S = 0.5  # doubled with every try
LONGEST_WAIT_S = 60.0
LONGEST_RETRY_AFTER_S = 600.0  # a server that asks for more is not coming back within this run
TRIES_TO_REACH = 3  # a wrong address should be known within seconds, not after the whole back-off
LOST_IN_A_ROW = 3  # one page that always fails is a record; three calls lost with none answered between is an outage
READABLE_TRIES = 3  # a reply that is not the JSON asked for is asked again, with the fault shown to the model
FORMATS = ("json_schema", "json_object", "plain")  # ways to ask for JSON, from the strictest to what all servers take


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """The clock that the client waits by."""

    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    random: random.Random = dataclasses.field(default_factory=random.Random)


class OpenAIChatModel:
    """A model behind an OpenAI-compatible address. Open it with `async with`; it may be opened again later."""

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: str,
        key_origin: str,  # named in errors: "the environment variable OPENAI_API_KEY"
        cache: CallCache,
        notify: Notify,
        concurrency: int,
        timeout_s: float,
        max_retries: int,
        max_calls: int,  # 0: no limit
        timing: Timing | None = None,
    ) -> None:
        self.name = model
        self._base_url = _checked(base_url)
        self._api_key = api_key
        self._key_origin = key_origin
        self._cache = cache
        self._notify = notify
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._max_calls = max_calls
        self._timing = timing or Timing()
        self._format = 0  # index in FORMATS: the strictest that the server was not found to refuse
        self._seeded = True  # until the server refuses a seed
        self._spent = 0  # calls sent in this run that may be billed
        self._answered = False  # by the server in this run, or by the cache
        self._lost = 0  # calls given up since the last answer
        self._resume_at = 0.0  # no call before this time of the clock: the server asked for a pause
        self._stopped: TeacherError | None = None  # what stops one call stops them all

    async def __aenter__(self) -> Self:
        self._slots = asyncio.Semaphore(self._concurrency)
        self._client = openai.AsyncOpenAI(
            api_key=self._api_key,
            base_url=self._base_url,
            max_retries=0,  # tried again here, where the budget and the pause are known
            timeout=self._timeout_s,
            # A proxy to the world does not lead to a server on this machine.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not is_local(self._base_url)),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(self, call: Call, answer_type: type[Answer]) -> Answer | Failed:
        """Return the model's answer in the form wanted; asked again a few times where it cannot be read."""
        schema = answer_type.model_json_schema()
        async with self._slots:
            for _ in range(READABLE_TRIES):
                reply = await self._reply(call, schema)
                if isinstance(reply, Failed):
                    return reply
                answer = read_answer(reply, answer_type)
                if not isinstance(answer, Failed):
                    return answer
                complaint = f"{answer.evidence}\nThat cannot be used. Reply again, with the complete JSON object alone."
                again = (Message("assistant", reply[:2000] or "(nothing)"), Message("user", complaint))
                call = dataclasses.replace(call, messages=call.messages + again)
            return answer

    async def _reply(self, call: Call, schema: dict[str, Any]) -> str | Failed:
        key = stable_id(self._base_url, self.name, json.dumps([dataclasses.asdict(call), schema], sort_keys=True))
        cached = self._cache.get(key)
        if cached is not None:
            self._answered = True
            return cached
        reply = await self._in_some_format(call, schema)
        if not isinstance(reply, Failed):
            self._cache.put(key, model=self.name, reply=reply)
        return reply

    async def _in_some_format(self, call: Call, schema: dict[str, Any]) -> str | Failed:
        """Ask in the strictest format that the server takes; what it refused once is not tried again in this run."""
        chosen = self._format
        while True:
            reply = await self._persistently(call, schema, FORMATS[chosen])
            if isinstance(reply, str) and chosen > self._format:
                self._format = chosen
                message = f"{self._base_url} does not take {FORMATS[chosen - 1]}: asking for {FORMATS[chosen]} instead"
                self._notify(Progress("synthesizing", message=message))
            if not isinstance(reply, Fault):
                return reply
            if "seed" in reply.message.lower() and self._seeded:
                self._seeded = False
            elif chosen + 1 < len(FORMATS) and "context" not in reply.message.lower():
                chosen += 1
            else:  # the call is too long, or bad in a way that no format mends
                return Failed("the teacher's server refused the call", reply.message)

    async def _persistently(self, call: Call, schema: dict[str, Any], format_name: str) -> str | Failed | Fault:
        """Send until answered, refused, or out of tries."""
        tries = 0
        while True:
            await self._turn()
            self._spent += 1
            try:
                async with asyncio.timeout(self._timeout_s):  # the SDK's own limit starts anew with every byte
                    reply = await self._send(call, schema, format_name)
            except (openai.APIError, TimeoutError, UnreadableError) as error:
                fault = classified(error, timeout_s=self._timeout_s, api_key=self._api_key)
            else:
                self._answered, self._lost = True, 0
                return reply
            self._spent -= not fault.billed
            tries += 1
            if fault.action == "refused":
                return fault
            if fault.action == "stop":
                self._stop(fault)
            if self._is_lost(fault, tries):
                return Failed("the teacher's server did not answer", f"{fault.message} ({tries} tries)")
            await self._back_off(fault, tries)

    async def _turn(self) -> None:
        """Wait where the server asked for a pause. Raises TeacherError where no call may be sent any more."""
        while (pause_s := self._resume_at - self._timing.clock()) > 0:
            await self._timing.sleep(pause_s)
        if self._max_calls and self._spent >= self._max_calls and not self._stopped:
            self._stopped = TeacherError(
                f"This run has sent {self._spent} calls to {self.name}, and synthesize.max_calls is {self._max_calls}. "
                "What was answered is kept: run again to go on with as many, or set a higher limit."
            )
        if self._stopped:
            raise self._stopped

    async def _send(self, call: Call, schema: dict[str, Any], format_name: str) -> str:
        messages = [dataclasses.asdict(message) for message in call.messages]
        extra: dict[str, Any] = {"seed": call.seed} if self._seeded else {}
        if format_name == "json_schema":
            wanted = {"name": "answer", "schema": schema, "strict": True}
            extra["response_format"] = {"type": "json_schema", "json_schema": wanted}
        else:
            messages[-1]["content"] += f"\n\nReply with one JSON object of this JSON schema:\n{json.dumps(schema)}"
        if format_name == "json_object":
            extra["response_format"] = {"type": "json_object"}
        create: Any = self._client.chat.completions.create
        try:
            completion = await create(model=self.name, messages=messages, temperature=call.temperature, **extra)
        except ValueError as fault:
            raise UnreadableError(f"the reply is not JSON: {fault}") from fault
        try:
            text: str = completion.choices[0].message.content or ""
            return text.encode(errors="replace").decode()  # half a surrogate pair could not be kept
        except (AttributeError, IndexError, TypeError) as fault:  # the SDK hands on what is no completion as it came
            raise UnreadableError(f"the reply is not a chat completion: {str(completion)[:200]}") from fault

    def _is_lost(self, fault: Fault, tries: int) -> bool:
        """Return whether to give the call up. Raises TeacherError where others would be lost as well."""
        allowed = self._max_retries + 1
        if fault.unreachable and not self._answered:
            allowed = min(allowed, TRIES_TO_REACH)
        if tries < allowed and (fault.wait_s or 0.0) <= LONGEST_RETRY_AFTER_S:
            return False
        self._lost += 1
        if not self._answered or self._lost >= LOST_IN_A_ROW:
            self._stop(fault)
        return True

    async def _back_off(self, fault: Fault, tries: int) -> None:
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (tries - 1)) * self._timing.random.uniform(0.5, 1.0)
        if fault.wait_s is None:
            await self._timing.sleep(wait_s)
        else:  # a limit is the server's, not this call's: whoever asked next would only be refused as well
            self._resume_at = max(self._resume_at, self._timing.clock() + max(wait_s, fault.wait_s))

    def _stop(self, fault: Fault) -> NoReturn:
        self._stopped = self._stopped or TeacherError(
            way_out(
                fault,
                model=self.name,
                base_url=self._base_url,
                key_origin=self._key_origin,
                reached=self._answered,
            )
        )
        raise self._stopped


def is_local(base_url: str) -> bool:
    """Return whether an address is on this machine or in a private network, where servers mostly need no key."""
    host = urllib.parse.urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host.endswith((".localhost", ".local", ".internal")) or "." not in host


def _checked(base_url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise TeacherError(
            f"synthesize.base_url: {base_url!r} is no web address. Set one such as https://api.openai.com/v1 "
            "or http://127.0.0.1:8000/v1"
        )
    return base_url
