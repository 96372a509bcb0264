"""What every endpoint of a server has at hand."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.settings import Settings
from pipeline.home import Home
from streams.server.deck import Deck
from streams.server.mailsearch import MailSearch
from streams.server.storeroom import Storeroom
from streams.server.switchboard import Switchboard


@dataclass(frozen=True, slots=True)
class ServerContext:
    """One server: its home, the mailbox that it serves, the store for moments, the adapters in memory, the search.

    All of it may be used from any thread; ``storeroom`` and ``search`` wait for files, so endpoints that use them are plain
    functions, or call them in a thread.
    """

    home: Home
    settings: Settings
    mailbox: str
    storeroom: Storeroom
    deck: Deck
    search: MailSearch
    switchboard: Switchboard
