"""``GET /api/events``: news of runs and decisions, for as long as somebody listens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header
from starlette.responses import StreamingResponse

from streams.server.context import ServerContext
from streams.server.errors import ERRORS
from streams.server.news import News


def router(context: ServerContext) -> APIRouter:
    """The one endpoint."""
    routes = APIRouter(prefix="/api", tags=["training"], responses=ERRORS)
    stream = {"text/event-stream": {"schema": {"type": "string"}}}

    @routes.get(
        "/events",
        response_class=StreamingResponse,
        responses={200: {"content": stream, "description": "events, without end"}},
    )
    def listen_to_events(last_event_id: Annotated[int | None, Header(ge=0, le=2**53)] = None) -> StreamingResponse:
        """The progress of runs (`progress`) and every decision (`decision`, with its number in the journal as id) from now
        on, or after `Last-Event-ID`, as server-sent events, for as long as the caller listens."""
        after = last_event_id
        if after is None:
            with context.storeroom.reading() as store:
                after = int(store.scalar("SELECT coalesce(max(ordinal), 0) FROM journal_rows"))
        news = News(context, after)
        return StreamingResponse(news.events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    return routes
