"""Embeddings: OpenAI's API for the vectors of the bot's encoder."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from byheart.serve.engine import count_tokens
from byheart.serve.faults import ApiError

MAX_TEXTS = 256
Text = Annotated[str, Field(min_length=1, max_length=32_000)]


class EmbeddingRequest(BaseModel):
    """The body of POST /v1/embeddings. Lists of token numbers are not taken: they are another tokenizer's."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)] = Field(
        description=f"a text, or up to {MAX_TEXTS}; the encoder reads the first 256 tokens of each"
    )
    model: str = Field(description="the name in /v1/models")
    encoding_format: Literal["float", "base64"] | None = Field(None, description="base64: of little-endian float32")
    dimensions: int | None = Field(None, ge=1, description="only the encoder's own number")
    user: str | None = Field(None, max_length=512, description="accepted; has no effect")

    @property
    def texts(self) -> list[str]:
        """The texts as a list."""
        return [self.input] if isinstance(self.input, str) else self.input


class Embedding(BaseModel):
    """One text's vector, of length 1."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Words and punctuation marks that came in."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """The response of POST /v1/embeddings."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


def embedding_list(request: EmbeddingRequest, vectors: Sequence[Sequence[float]], *, model: str) -> dict[str, Any]:
    """Return the response. Raises ApiError where the vectors have not the length asked for."""
    length = len(vectors[0])
    if request.dimensions not in (None, length):
        message = f"Unsupported: 'dimensions' is {length} with this model, not {request.dimensions}."
        raise ApiError(400, message, param="dimensions", code="unsupported_parameter")
    tokens = sum(count_tokens(text) for text in request.texts)
    as_text = request.encoding_format == "base64"
    return EmbeddingList(
        data=[
            Embedding(index=number, embedding=_packed(vector) if as_text else list(vector))
            for number, vector in enumerate(vectors)
        ],
        model=model,
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
    ).model_dump(mode="json")


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
