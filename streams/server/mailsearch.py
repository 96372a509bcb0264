"""The mails that fit a question, found as `mailtide ask` finds them."""

from __future__ import annotations

import threading

from pipeline.config.settings import Settings
from pipeline.home import Home
from registry.answer import Answer, answer
from registry.finding import Search, chosen_engine
from streams.answering import search_of
from streams.server.storeroom import Storeroom


class MailSearch:
    """Search over one mailbox; what it needs is loaded once, when the settings first mean it."""

    def __init__(self, home: Home, settings: Settings, mailbox: str, storeroom: Storeroom) -> None:
        self._home = home
        self._settings = settings
        self._mailbox = mailbox
        self._storeroom = storeroom
        self._search: Search | None = None
        self._lock = threading.Lock()

    def find(self, question: str, k: int) -> Answer:
        """The ``k`` mails that fit best, each with its best passage. Raises ``StoreHeldError`` while a command writes."""
        with self._lock:
            search = self._ready()
            with self._storeroom.reading() as store:
                return answer(store, self._home, self._mailbox, question, k, search)

    def _ready(self) -> Search:
        """Vectors may come to be there while the server runs."""
        engine = chosen_engine(self._settings.index, self._home, self._mailbox)
        if self._search is None or self._search.engine != engine:
            self._search = search_of(self._home, self._settings, self._mailbox)
        return self._search
