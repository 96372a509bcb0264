"""The application: every family of endpoints, behind one gatekeeper."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI

from streams.requirements import DISTRIBUTION
from streams.server import admin, chat, completions, feedback, health, metrics, models, training
from streams.server.context import ServerContext
from streams.server.errors import add_handlers
from streams.server.gatekeeping import Gatekeeper
from streams.server.tokens import Tokens

FAMILIES = (health, models, chat, completions, feedback, training, admin)
"""Modules with ``router(context) -> APIRouter``, in the order of the OpenAPI description."""


def build_app(context: ServerContext, tokens: Tokens) -> FastAPI:
    """The application of one server. Its pages of documentation would fetch scripts from elsewhere, so there are none; the
    description itself is at ``/openapi.json``."""
    app = FastAPI(title="mailtide", version=version(DISTRIBUTION), docs_url=None, redoc_url=None)
    add_handlers(app)
    for family in FAMILIES:
        app.include_router(family.router(context))
    figures = metrics.ServerFigures(context)
    app.include_router(metrics.router(figures))
    app.add_middleware(Gatekeeper, settings=context.settings.serve, tokens=tokens)
    app.add_middleware(metrics.Measuring, figures=figures)
    return app
