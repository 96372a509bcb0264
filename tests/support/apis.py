"""The real application of a server over a home, without a model in memory, for the endpoints that need none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from pipeline.config.settings import Settings
from pipeline.home import Home
from streams.server.app import build_app
from streams.server.context import ServerContext
from streams.server.deck import Deck
from streams.server.mailsearch import MailSearch
from streams.server.storeroom import Storeroom
from streams.server.switchboard import Switchboard
from streams.server.tokens import tokens_of
from tests.support.daemons import until
from tests.support.ports import free_ports


def application(home: Home, settings: Settings, mailbox: str) -> FastAPI:
    storeroom, switchboard = Storeroom(home, settings), Switchboard()
    context = ServerContext(
        home=home,
        settings=settings,
        mailbox=mailbox,
        storeroom=storeroom,
        deck=Deck(settings.serve, switchboard.deliver),
        search=MailSearch(home, settings, mailbox, storeroom),
        switchboard=switchboard,
    )
    return build_app(context, tokens_of(home, settings.serve))


def token(home: Home) -> dict[str, str]:
    """The header that lets a caller in."""
    return {"Authorization": f"Bearer {home.server_token.read_text().split()[0]}"}


@contextmanager
def client(home: Home, settings: Settings, mailbox: str = "main") -> Iterator[TestClient]:
    """A client that shows the home's token."""
    app = application(home, settings, mailbox)
    with TestClient(app, headers=token(home), raise_server_exceptions=False) as made:
        yield made


@contextmanager
def listening(home: Home, settings: Settings, mailbox: str = "main") -> Iterator[str]:
    """The application on a socket, for what goes on for as long as somebody listens; its address."""
    app = application(home, settings, mailbox)
    (port,) = free_ports(1)
    config = uvicorn.Config(app, "127.0.0.1", port, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
