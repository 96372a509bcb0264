"""Values of ours as JSON, the same that the commands print with ``--json``."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

from streams.cli.output import plain


def document(value: Any) -> Any:
    """A value as JSON holds it; a figure that is not finite is null."""
    return _finite(plain(value.model_dump() if isinstance(value, BaseModel) else value))


def answer(value: Any, status: int = 200) -> JSONResponse:
    """A document as a whole answer."""
    return JSONResponse(document(value), status)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
