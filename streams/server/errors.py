"""What goes wrong, in the shape that OpenAI's clients read: ``{"error": {message, type, param, code}}``.

No error repeats what a request said: a prompt is mail, and answers end up in logs of programs that nobody thinks of.
"""

from __future__ import annotations

import logging
import math
import traceback
from typing import Any

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
        404: "there is no such model, adapter, run or answer",
        408: "the request took too long",
        413: "the request is too large",
        422: "not accepted",
        429: "too many requests",
        503: "busy, starting, stopping, or training: try again later",
    }.items()
}
"""What any endpoint may answer beside its own, for the OpenAPI description."""

NOT_NOW: dict[int | str, dict[str, Any]] = {409: {"model": ErrorBody, "description": "cannot be done as things stand"}}
"""What those may answer as well that change something or need a verdict."""


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
