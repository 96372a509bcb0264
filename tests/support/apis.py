"""The real application of a server over a home, without a model in memory, for the endpoints that need none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.testclient import TestClient

from pipeline.home import Home
from pipeline.settings import Settings
from streams.server.app import build_app
from streams.server.context import ServerContext
from streams.server.deck import Deck
from streams.server.mailsearch import MailSearch
from streams.server.storeroom import Storeroom
from streams.server.switchboard import Switchboard
from streams.server.tokens import tokens_of


@contextmanager
def client(home: Home, settings: Settings, mailbox: str = "main") -> Iterator[TestClient]:
    """A client that shows the home's token."""
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
    app = build_app(context, tokens_of(home, settings.serve))
    headers = {}
    if settings.serve.token == "required":
        headers["Authorization"] = f"Bearer {home.server_token.read_text().split()[0]}"
    with TestClient(app, headers=headers, raise_server_exceptions=False) as made:
        yield made
