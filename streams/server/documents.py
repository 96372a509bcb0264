"""Values of ours as whole answers, the same that the commands print with ``--json``."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from streams.documents import plain


def answer(value: Any, status: int = 200) -> JSONResponse:
    """A value as a whole answer."""
    return JSONResponse(plain(value), status)
