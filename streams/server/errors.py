"""What goes wrong, in the shape that OpenAI's clients read: ``{"error": {message, type, param, code}}``.

No error repeats what a request said: a prompt is mail, and answers end up in logs of programs that nobody thinks of.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import Send

from pipeline.errors import (
    ConfigError,
    MailtideError,
    NothingToDo,
    RegistryError,
    SourceAway,
    StoreHeldError,
    UsageError,
)

log = logging.getLogger(__name__)

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class ErrorDetail(BaseModel):
    """``message`` is for people; ``param`` names the field that is wrong; ``code`` is for programs."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorDetail


class ApiError(HTTPException):
    """An answer that is no success. ``retry_after`` is in seconds: when it may be worth another try."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if status == 413:
            headers["Connection"] = "close"  # what else of the body arrives is not read
        super().__init__(status, message, headers)
        self.message = message
        self.param = param
        self.code = code

    @property
    def body(self) -> ErrorBody:
        return error_body(self.status_code, self.message, self.param, self.code)

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body.model_dump(), self.status_code, self.headers)


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "a parameter is wrong or cannot be honoured",
        401: "no token, or a wrong one",
        404: "there is no such model",
        408: "the request took too long",
        413: "the request is too large",
        422: "not accepted",
        429: "too many requests",
        503: "busy, starting, stopping, or training: try again later",
    }.items()
}
"""What any endpoint may answer beside its own, for the OpenAPI description."""


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> ErrorBody:
    """An error by its HTTP status."""
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return ErrorBody(error=ErrorDetail(message=message, type=kind, param=param, code=code))


def of_ours(error: MailtideError) -> ApiError:
    """One of this program's errors as an answer: what a caller can mend is 4xx, what passes is 503."""
    if isinstance(error, StoreHeldError | SourceAway):
        return ApiError(503, str(error), code="store_busy", retry_after=2)
    if isinstance(error, UsageError | ConfigError):
        return ApiError(400, str(error))
    if isinstance(error, RegistryError | NothingToDo):
        return ApiError(409, str(error), code="conflict")
    return ApiError(503, str(error), code="unavailable", retry_after=10)


def add_handlers(app: FastAPI) -> None:
    """What an endpoint refuses becomes an answer of this shape; what it did not foresee is the gatekeeper's."""

    async def http(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, ApiError):
            return error.response()
        assert isinstance(error, HTTPException)
        body = error_body(error.status_code, str(error.detail))
        return JSONResponse(body.model_dump(), error.status_code, error.headers)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return invalid_request(error.errors()).response()

    async def ours(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, MailtideError)
        return of_ours(error).response()

    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(MailtideError, ours)


def invalid_request(problems: Sequence[Mapping[str, Any]]) -> ApiError:
    """Names the first field that is wrong and why; what the field held stays out of it."""
    first = problems[0] if problems else {"loc": (), "msg": "invalid"}
    path = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    name = ".".join(part for part in path if not part.startswith(("function-", "list[", "constrained-"))) or None
    said = str(first["msg"])
    if first.get("type") == "extra_forbidden":
        said = "this server does not know this parameter"
    elif first.get("type") == "json_invalid":
        name, said = None, "the body is not JSON"
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    return ApiError(400, f"{name}: {said}{more}" if name else said, param=name, code="invalid_value")


def note_failure(error: BaseException) -> None:
    """Logs where something failed, without its message, which may quote what was asked."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s in the server\n%s", type(error).__name__, frames)


async def refuse(send: Send, error: ApiError) -> None:
    """Answers with an error from below the endpoints, where there is no request object yet."""
    response = error.response()
    await send(
        {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers},
    )
    await send({"type": "http.response.body", "body": response.body})
