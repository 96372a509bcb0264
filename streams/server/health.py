"""``/health`` and ``/ready``: for what starts servers and sends them requests. Neither needs a token."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse

from streams.server.context import ServerContext
from streams.server.errors import ERRORS
from streams.server.gatekeeping import HOLDER


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


class Ready(BaseModel):
    """``aliases``: what each name stands for, null for the bare base; ``adapters``: those in memory, with the requests that
    use each now; ``reason``: why nothing is served, or what is amiss. Without a token only ``ready`` is told."""

    ready: bool
    mailbox: str | None = None
    base: str | None = None
    aliases: dict[str, str | None] | None = None
    adapters: dict[str, int] | None = None
    device: str | None = None
    reason: str | None = None


def router(context: ServerContext) -> APIRouter:
    """Liveness and readiness."""
    routes = APIRouter(tags=["health"], responses={503: ERRORS[503]})
    open_to_all = context.settings.serve.token == "none"

    @routes.get("/health")
    async def check_health() -> Health:
        """Whether the process lives."""
        return Health()

    @routes.get("/ready", response_model=Ready, responses={503: {"model": Ready, "description": "not now"}})
    def check_readiness(request: Request) -> Any:
        """Whether requests are answered, and by what."""
        standing = context.deck.standing()
        told = Ready(ready=standing.ready)
        if open_to_all or request.scope.get(HOLDER):
            told = Ready(
                ready=standing.ready,
                mailbox=context.mailbox,
                base=standing.base,
                aliases=standing.aliases,
                adapters=standing.adapters,
                device=standing.device,
                reason=standing.reason or None,
            )
        return JSONResponse(told.model_dump(), 200 if standing.ready else 503)

    return routes
