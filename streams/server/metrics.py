"""``GET /metrics``: the home's figures and the server's own, for Prometheus. It asks for the token, as everything does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streams.prometheus.families import counter, gauge
from streams.prometheus.of_home import HomeCollector
from streams.server.context import ServerContext
from streams.server.errors import ERRORS

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"})
NO_ROUTE = "none"
"""Of requests that were refused before they came to an endpoint, or ask for what is not there."""


class ServerFigures:
    """What is counted as requests come and go."""

    def __init__(self, context: ServerContext) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(HomeCollector(context.home, context.settings, context.storeroom.reading))
        self.registry.register(_Deck(context))
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "mailtide_http_requests",
            "Requests answered; the status 0 is a caller that left before.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.under_way = Gauge("mailtide_http_requests_in_progress", "Requests under way.", registry=self.registry)
        self.seconds = Histogram(
            "mailtide_http_request_seconds",
            "From a request's head to the last byte of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first_byte = Histogram(
            "mailtide_http_first_byte_seconds",
            "To the first byte of the answer: of one that is streamed, its first token.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )


class Measuring:
    """ASGI middleware around all others."""

    def __init__(self, app: ASGIApp, figures: ServerFigures) -> None:
        self._app = app
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, first = 0, 0.0
        begun = time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status, first
            if message["type"] == "http.response.start":
                status, first = int(message["status"]), time.perf_counter() - begun
            await send(message)

        try:
            with self._figures.under_way.track_inprogress():
                await self._app(scope, receive, sending)
        finally:
            # The pattern of the route, never the path: what callers make up must not become labels.
            route = str(getattr(scope.get("route"), "path", NO_ROUTE))
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._figures.requests.labels(route, method, status).inc()
            self._figures.seconds.labels(route).observe(time.perf_counter() - begun)
            if status:
                self._figures.first_byte.labels(route).observe(first)


class _Deck(Collector):
    """What is served, and how busy the engine is."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        standing, load = self._context.deck.standing(), self._context.deck.load_now
        yield gauge("server_ready", "Whether requests are answered.", (), [(int(standing.ready),)])
        names = [(alias, adapter or standing.base or NO_ROUTE, 1) for alias, adapter in standing.aliases.items()]
        yield gauge("server_alias_info", "What each alias stands for.", ("alias", "model"), names)
        yield gauge("server_adapters_loaded", "Adapters in memory.", (), [(len(standing.adapters),)])
        if load is not None:
            yield gauge("server_answers_in_progress", "Answers being written.", (), [(load.writing,)])
            yield gauge("server_answers_waiting", "Answers that wait for a place.", (), [(load.waiting,)])
            yield counter("server_tokens", "Tokens written since the model was loaded.", (), [(load.tokens,)])


def router(figures: ServerFigures) -> APIRouter:
    """The one endpoint."""
    routes = APIRouter(tags=["metrics"], responses=ERRORS)
    shown: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

    @routes.get("/metrics", response_class=Response, responses=shown)
    def read_metrics(request: Request) -> Response:
        """Figures of the home and of this server, in Prometheus' text format or OpenMetrics, as `Accept` asks."""
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(figures.registry), media_type=kind)

    return routes
