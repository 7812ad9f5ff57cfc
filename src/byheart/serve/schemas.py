"""The request of OpenAI's chat completions API, as byheart understands it.

Three kinds of parameters: those that are honoured; those that can have no effect on a bot that answers in the
manual's own words (accepted); and those that would change what the caller gets back (refused, by name).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

_NO_EFFECT = "accepted; has no effect, as answers are the manual's own words"
MetadataKey = Annotated[str, Field(max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
StopSequence = Annotated[str, Field(min_length=1, max_length=200)]


class TextPart(BaseModel):
    """A piece of a message. Only text is understood."""

    model_config = ConfigDict(strict=True, frozen=True)

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message of the conversation. Fields that byheart does not know are left alone: clients send replies back."""

    model_config = ConfigDict(strict=True, frozen=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    tool_calls: None = None
    function_call: None = None
    audio: None = None

    @property
    def text(self) -> str:
        """The message's text, its parts joined."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    """What a stream holds beside the answer."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    include_usage: bool | None = Field(None, description="send one more chunk, with the usage")
    include_obfuscation: bool | None = Field(None, description=_NO_EFFECT)


class ResponseFormat(BaseModel):
    """The form of the answer: Markdown text, always."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    type: Literal["text"]


class ChatRequest(BaseModel):
    """The body of POST /v1/chat/completions."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    # honoured
    messages: list[Message] = Field(
        min_length=1, description="the last user message is the question; system messages are accepted and not used"
    )
    model: str | None = Field(None, description="the name in /v1/models; may be left out, as there is one")
    stream: bool | None = Field(None, description="send the answer in pieces, as server-sent events")
    stream_options: StreamOptions | None = None
    stop: StopSequence | Annotated[list[StopSequence], Field(max_length=4)] | None = Field(
        None, description="the answer ends before the first of these"
    )
    max_tokens: int | None = Field(None, ge=1, description="longest answer, in words and punctuation marks")
    max_completion_tokens: int | None = Field(None, ge=1, description="the same; the newer name")

    # accepted, without effect
    temperature: float | None = Field(None, ge=0, le=2, description=_NO_EFFECT)
    top_p: float | None = Field(None, ge=0, le=1, description=_NO_EFFECT)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description=_NO_EFFECT)
    presence_penalty: float | None = Field(None, ge=-2, le=2, description=_NO_EFFECT)
    seed: int | None = Field(None, description=_NO_EFFECT)
    user: str | None = Field(None, max_length=512, description="kept with the exchange, which can be deleted by it")
    metadata: dict[MetadataKey, MetadataValue] | None = Field(
        None, max_length=16, description="`conversation_id` is kept with the exchange; other names have no effect"
    )
    store: bool | None = Field(None, description="false: do not keep this exchange, where the server keeps any")
    safety_identifier: str | None = Field(None, description=_NO_EFFECT)
    prompt_cache_key: str | None = Field(None, description=_NO_EFFECT)
    prompt_cache_retention: str | None = Field(None, description=_NO_EFFECT)
    reasoning_effort: str | None = Field(None, description=_NO_EFFECT)
    parallel_tool_calls: bool | None = Field(None, description=_NO_EFFECT)
    prediction: dict[str, Any] | None = Field(None, description=_NO_EFFECT)

    # refused, except for the value that asks for nothing
    service_tier: Literal["auto", "default"] | None = None
    verbosity: Literal["medium"] | None = None
    n: Literal[1] | None = None
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: Literal["none", "auto"] | None = None
    audio: None = None
    web_search_options: None = None

    @field_validator("stream_options")
    @classmethod
    def _only_in_a_stream(cls, value: StreamOptions | None, info: Any) -> StreamOptions | None:
        if value is not None and not info.data.get("stream"):
            raise ValueError("may only be set when stream is true")
        return value

    @property
    def stop_sequences(self) -> list[str]:
        """The stop sequences as a list."""
        return [self.stop] if isinstance(self.stop, str) else (self.stop or [])

    @property
    def token_limit(self) -> int | None:
        """The smaller of the two limits, where either is given."""
        limits = [limit for limit in (self.max_tokens, self.max_completion_tokens) if limit is not None]
        return min(limits, default=None)

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with a chunk that holds the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


# Parameters that ask for something else than one text from the manual.
REFUSED = frozenset(
    "service_tier verbosity n response_format modalities logprobs top_logprobs logit_bias tools tool_choice functions "
    "function_call audio web_search_options".split()
)


class Feedback(BaseModel):
    """The body of POST /v1/feedback: what a customer thinks of an answer."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    completion_id: str = Field(min_length=1, max_length=64, description="the `id` of the completion")
    verdict: Literal["up", "down"]
    reason: str | None = Field(None, max_length=200)
    comment: str | None = Field(None, max_length=4000)


class Kept(BaseModel):
    """The response of POST /v1/feedback."""

    object: Literal["feedback"] = "feedback"
    completion_id: str


class Deleted(BaseModel):
    """The response of DELETE /v1/conversations/{id}."""

    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: bool
    exchanges: int


class Usage(BaseModel):
    """Words and punctuation marks that came in (all messages) and went out."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CitedSection(BaseModel):
    """A section of the manual."""

    title: str
    heading: str
    url: str = Field(description="address with anchor; for a manual from files, the path relative to its folder")
    score: float


class SentenceReceipt(BaseModel):
    """A sentence that a model wrote, and the section of the manual that bears it out."""

    text: str
    url: str


class Sources(BaseModel):
    """What byheart says beside an answer."""

    citations: list[CitedSection]
    receipts: list[SentenceReceipt] = Field(
        description="of an answer that a model wrote: every sentence with its section; empty for the manual's own words"
    )
    abstained: bool = Field(description="the manual does not say; the citations are the nearest pages")
    confidence: float = Field(description="calibrated probability that the manual answers the question")
    intent: str = Field(description="the part of the manual that the question is about; empty where the bot tells none")
    escalate: bool = Field(description="offer a person: the manual does not help, or the customer asks for one")
    follow_ups: list[str] = Field(description="what may be asked next: other headings of the cited pages")


class AssistantMessage(BaseModel):
    """The answer, in Markdown."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: list[Any] = []


class Choice(BaseModel):
    """The one answer."""

    index: Literal[0] = 0
    message: AssistantMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """The response of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    byheart: Sources


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every error has this form, as OpenAI's."""

    error: ErrorDetail


class Model(BaseModel):
    """A model that this server answers with."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "byheart"


class ModelList(BaseModel):
    """The response of GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    """The response of GET /health: the process lives."""

    status: Literal["ok"] = "ok"
    model: str
    version: str
    sections: int


class Readiness(BaseModel):
    """The response of GET /ready: whether a question would be answered now, and what would keep it from that."""

    ready: bool
    engine: Literal["ok", "full", "unreachable"]
    storage: Literal["ok", "failing", "none"]
