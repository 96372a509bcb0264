"""What a deploy target asks of a server: load an adapter, let a name stand for it, unload one."""

from __future__ import annotations

import logging
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from streams.server.context import ServerContext
from streams.server.errors import ERRORS, NOT_NOW
from streams.server.offers import offer_of
from streams.server.wire import Wire

log = logging.getLogger(__name__)


class AdapterAsked(Wire):
    adapter_id: str = Field(min_length=1, max_length=200)


class AliasAsked(Wire):
    """`adapter_id` null is the bare base."""

    adapter_id: str | None = Field(max_length=200)


class Done(BaseModel):
    """What was done, and how long it took."""

    adapter_id: str | None
    seconds: float


def router(context: ServerContext) -> APIRouter:
    """Changes of what is served. The registry's champion is followed anyway; these are for those who deploy in steps."""
    routes = APIRouter(prefix="/api", tags=["serving"], responses={**ERRORS, **NOT_NOW})

    @routes.post("/adapters/load")
    def load_adapter(asked: AdapterAsked) -> Done:
        """Load an adapter of this mailbox under its own id, and have it answer once. 422 when it does not fit."""
        with context.storeroom.reading() as store:
            offer = offer_of(store, context.home, context.mailbox, asked.adapter_id)
        seconds = context.deck.load(offer)
        log.info("adapter %s loaded in %.2f s, as asked", asked.adapter_id, seconds)
        return Done(adapter_id=asked.adapter_id, seconds=seconds)

    @routes.post("/adapters/unload")
    def unload_adapter(asked: AdapterAsked) -> Done:
        """Wait until no request uses an adapter, and give its memory back."""
        seconds = context.deck.unload(asked.adapter_id)
        log.info("adapter %s unloaded, as asked", asked.adapter_id)
        return Done(adapter_id=asked.adapter_id, seconds=seconds)

    @routes.post("/aliases/{alias}")
    def point_alias(alias: Literal["champion", "candidate"], asked: AliasAsked) -> Done:
        """Let an alias stand for an adapter in memory from the next request on; running answers go on as they began."""
        context.deck.point(alias, asked.adapter_id)
        log.info("%s is %s, as asked", alias, asked.adapter_id or "the bare base")
        return Done(adapter_id=asked.adapter_id, seconds=0.0)

    return routes
