"""The daemon's figures for Prometheus, on a port of loopback."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.home import Home
from pipeline.installing import install_hint
from streams.daemon.board import Board
from streams.owning.held import HeldStore

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


@contextmanager
def answering_prometheus(home: Home, settings: Settings, held: HeldStore, board: Board, port: int) -> Iterator[None]:
    """Answers ``/metrics`` within. No token is asked for: who is on this machine learns counts, and no mail.

    Raises ``UsageError`` where the package is missing or the port is taken.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise UsageError("daemon.metrics_port needs prometheus_client", hint=install_hint("serve"))
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

    from streams.prometheus.of_home import DaemonCollector, HomeCollector

    registry = CollectorRegistry()
    registry.register(HomeCollector(home, settings, held.reading))
    registry.register(DaemonCollector(lambda: board.state))
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, LOOPBACK, registry)
    except OSError as error:
        raise UsageError(
            f"metrics cannot be offered on {LOOPBACK}, port {port}: {error.strerror or error}",
            hint="set daemon.metrics_port to a free one",
        ) from error
    log.info("metrics at http://%s:%d/metrics", LOOPBACK, server.server_port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
