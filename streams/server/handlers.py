"""Turns what endpoints and the framework refuse into answers of one shape."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from pipeline.errors import MailtideError
from streams.server.errors import ApiError, error_body, of_ours
from streams.server.invalid import invalid_request

OF_THE_FRAMEWORK = {
    400: "the body cannot be read as JSON in UTF-8",
    404: "there is nothing at this path; /openapi.json lists what there is",
    405: "this path takes other methods: the header Allow names them",
}
"""What is said for a status that no endpoint of ours has given."""


def add_handlers(app: FastAPI) -> None:
    """What an endpoint refuses becomes an answer of this shape; what it did not foresee is the gatekeeper's."""

    async def http(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, ApiError):
            return error.response()
        assert isinstance(error, HTTPException)
        body = error_body(error.status_code, OF_THE_FRAMEWORK.get(error.status_code, str(error.detail)))
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
