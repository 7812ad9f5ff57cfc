"""Errors in the form of OpenAI's API: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from byheart.serve.schemas import REFUSED

FAILED = "Something went wrong while answering. Please try again."  # the reason is in the log


class ApiError(Exception):
    """A request that gets no answer: the HTTP status, and what the caller should change."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body = error_body(status, message, param=param, code=code)


def error_body(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return the body of an error response."""
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def answer_errors(app: FastAPI) -> None:
    """Make the app answer every error in OpenAI's form."""

    async def on_api_error(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return JSONResponse(error.body, error.status, error.headers)

    async def on_invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return JSONResponse(describe_invalid(error.errors()), 400)

    async def on_http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        messages = {
            404: f"There is nothing at {request.url.path}. The API is at /v1/chat/completions, its guide at /docs.",
            405: f"{request.url.path} does not take {request.method}.",
        }
        body = error_body(error.status_code, messages.get(error.status_code, str(error.detail)))
        return JSONResponse(body, error.status_code, error.headers)

    async def on_fault(_request: Request, _error: Exception) -> JSONResponse:
        return JSONResponse(error_body(500, FAILED), 500)  # the server logs the error itself

    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_fault)


def describe_invalid(faults: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the error body for a request that does not fit the schema: its first parameter at fault."""
    first = faults[0]["loc"][1:2]
    # a value that fits none of several types has a fault for each: the one deepest inside says most
    fault = max((item for item in faults if item["loc"][1:2] == first), key=lambda item: len(item["loc"]))
    param = _parameter_name(fault["loc"][1:])
    top = str(first[0]) if first else None
    if top is None:
        return error_body(400, "The request's body must be a JSON object.")
    if top in REFUSED:
        message = f"Unsupported: '{param}' with this value. This bot gives one text from its manual; leave it out."
        return error_body(400, message, param=top, code="unsupported_parameter")
    if fault["type"] == "extra_forbidden":
        return error_body(
            400, f"Unrecognized request argument supplied: {param}", param=param, code="unknown_parameter"
        )
    if fault["type"] == "missing":
        message = f"Missing required parameter: '{param}'."
        return error_body(400, message, param=param, code="missing_required_parameter")
    message = f"Invalid value for '{param}': {_plain(str(fault['msg']))}."
    return error_body(400, message, param=param, code="invalid_value")


def _parameter_name(location: Sequence[str | int]) -> str:
    """Write ("messages", 0, "content", "list[TextPart]", 1, "type") as messages[0].content[1].type."""
    name = ""
    for item in location:
        if isinstance(item, int):
            name += f"[{item}]"
        elif item.isidentifier() and item != "str":  # the rest are pydantic's names for the types of a union
            name += f".{item}" if name else item
        elif not name:
            name = item[:100]
    return name


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ").strip().rstrip(".")
