"""``/api/windows``: the training windows of the mailbox."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from streams.server.context import ServerContext
from streams.server.documents import answer
from streams.server.errors import ERRORS
from streams.server.newest import Limit, newest


class WindowShown(BaseModel):
    """As `mailtide windows --json` shows it; what its closing settles is null while it is open. Times are UTC."""

    window_idx: int
    opened_at: datetime
    closed_at: datetime | None
    reason: str | None
    n_messages: int
    n_chunks: int | None


def router(context: ServerContext) -> APIRouter:
    """What `mailtide windows` tells."""
    routes = APIRouter(prefix="/api", tags=["training"], responses=ERRORS)

    @routes.get("/windows", response_model=list[WindowShown])
    def list_windows(limit: Limit = 100) -> Any:
        """The training windows, the newest last."""
        with context.storeroom.reading() as store:
            return answer(newest(store, "windows", WindowShown, context.mailbox, "window_idx DESC", limit))

    return routes
