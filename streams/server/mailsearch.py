"""The mails that fit a question, found as `mailtide ask` finds them."""

from __future__ import annotations

import threading

from pipeline.config.settings import Settings
from pipeline.home import Home
from registry.answer import Answer, answer
from registry.finding import chosen_engine
from retrain.search.embedder import Embedder, load_embedder
from streams.server.storeroom import Storeroom


class MailSearch:
    """Search over one mailbox; an embedding model is loaded once, when the settings first need one."""

    def __init__(self, home: Home, settings: Settings, mailbox: str, storeroom: Storeroom) -> None:
        self._home = home
        self._settings = settings
        self._mailbox = mailbox
        self._storeroom = storeroom
        self._embedder: Embedder | None = None
        self._lock = threading.Lock()

    def find(self, question: str, k: int) -> Answer:
        """The ``k`` mails that fit best, each with its best passage. Raises ``StoreHeldError`` while a command writes."""
        with self._lock:
            engine = chosen_engine(self._settings.index, self._home, self._mailbox)
            if engine != "bm25" and self._embedder is None:
                self._embedder = load_embedder(self._settings.index.model)
            with self._storeroom.reading() as store:
                return answer(store, self._home, self._mailbox, question, k, engine=engine, embedder=self._embedder)
