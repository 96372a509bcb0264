"""The application: every family of endpoints, behind one gatekeeper."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer

from pipeline.installing import DISTRIBUTION
from streams.server import adapters, admin, chat, completions, events, feedback, health, metrics, models, training, windows
from streams.server.context import ServerContext
from streams.server.gatekeeping import Gatekeeper
from streams.server.handlers import add_handlers
from streams.server.tokens import Tokens

FAMILIES = (models, chat, completions, feedback, training, windows, events, adapters, admin)
"""Modules with ``router(context) -> APIRouter``, in the order of the OpenAPI description."""

DESCRIPTION = """The model of one mailbox by OpenAI's API, and how it is trained and served.

A request names its model: an alias (`champion`, `candidate`), or the id of an adapter or of the base that is in memory.
What a request asks for and this server does not know is refused by name, never ignored. Every answer that is no success
is `{"error": {"message", "type", "param", "code"}}`. Times are UTC."""

TAGS = {
    "health": "For what starts servers and sends them requests; without a token.",
    "models": "Which names a request may use.",
    "completions": "Answers, whole or as a stream of events.",
    "feedback": "What people say of an answer.",
    "training": "Where the mailbox stands, what the next run would do, starting it, and what became of each.",
    "registry": "The adapters, and why each is served or not.",
    "serving": "What is in memory and which name stands for it; for deploy targets. The registry is followed anyway.",
    "metrics": "Figures for Prometheus.",
}

TOKEN = HTTPBearer(auto_error=False, description="a line of `server.token` in the home")
"""For the description alone: the gatekeeper checks it, before a body is read."""


def build_app(context: ServerContext, tokens: Tokens) -> FastAPI:
    """The application of one server. Its pages of documentation would fetch scripts from elsewhere, so there are none; the
    description itself is at ``/openapi.json``."""
    app = FastAPI(
        title="mailtide",
        version=version(DISTRIBUTION),
        description=DESCRIPTION,
        openapi_tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    add_handlers(app)
    asked_for = [Depends(TOKEN)] if tokens.needed else []
    app.include_router(health.router(context))
    for family in FAMILIES:
        app.include_router(family.router(context), dependencies=asked_for)
    figures = metrics.ServerFigures(context)
    app.include_router(metrics.router(figures), dependencies=asked_for)
    app.add_middleware(Gatekeeper, settings=context.settings.serve, tokens=tokens)
    app.add_middleware(metrics.Measuring, figures=figures)
    return app
