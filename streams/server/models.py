"""``GET /v1/models``: the names that a request may use."""

from __future__ import annotations

import time

from fastapi import APIRouter

from streams.server.context import ServerContext
from streams.server.errors import ERRORS, ApiError
from streams.server.wire import Model, ModelList


def router(context: ServerContext) -> APIRouter:
    """Aliases, the bare base, adapters in memory."""
    routes = APIRouter(prefix="/v1", tags=["models"], responses=ERRORS)
    started = int(time.time())

    def served() -> dict[str, Model]:
        standing = context.deck.standing()
        if not standing.ready or standing.base is None:
            return {}
        roots = {alias: adapter or standing.base for alias, adapter in standing.aliases.items()}
        roots |= {name: name for name in (standing.base, *standing.adapters)}
        return {name: Model(id=name, created=started, root=root) for name, root in roots.items()}

    @routes.get("/models")
    def list_models() -> ModelList:
        """The aliases, the base and the adapters that are in memory."""
        return ModelList(data=list(served().values()))

    @routes.get("/models/{model}")
    def show_model(model: str) -> Model:
        """One of them, by its name."""
        found = served().get(model)
        if found is None:
            raise ApiError(404, "there is no such model here", param="model", code="model_not_found")
        return found

    return routes
