"""A thread that follows the registry: what is promoted is loaded and served, what it replaces drains and leaves.

It acts on changes alone. Whoever moves an alias by hand keeps it until the registry's champion changes again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from pipeline.config.settings import Settings
from pipeline.errors import MailtideError, StoreHeldError
from pipeline.home import Home
from pipeline.runs.requests import AdapterRef, BaseRef
from pipeline.store import Store
from retrain.serving.asked import EngineStopped
from streams.server.deck import CANDIDATE, CHAMPION, LOADING, Deck
from streams.server.errors import ApiError
from streams.server.offers import Offers, offers
from streams.server.storeroom import Storeroom

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often it looks whether the store's files have changed."""

LONGEST_PAUSE_SECONDS = 60.0
"""How long it leaves what cannot be loaded alone, at most, before it tries again."""

NO_MODEL = "there is no model yet: the first run makes it (`mailtide retrain --confirm`)"

ERASED = (
    "the model is gone, as it had learned from mail that was erased; "
    "the next run makes another (`mailtide retrain --confirm`), which is then served"
)

OTHER_BASE = "the champion stands on another base, which is being loaded"

LOADING_RETRY_SECONDS, NO_MODEL_RETRY_SECONDS = 2.0, 30.0

Signature = tuple[tuple[int, int], ...]


class Following:
    """``open_model`` loads a base into the deck, ``close_model`` takes it out, saying why. A fault is told in ``/ready``
    and tried again."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        mailbox: str,
        storeroom: Storeroom,
        deck: Deck,
        open_model: Callable[[BaseRef], None],
        close_model: Callable[[str], None],
    ) -> None:
        self._home = home
        self._settings = settings
        self._mailbox = mailbox
        self._storeroom = storeroom
        self._deck = deck
        self._open_model = open_model
        self._close_model = close_model
        self._without = NO_MODEL
        self._stop = threading.Event()
        self._seen: Signature | None = None
        self._taken: dict[str, str | None] = {}
        self._pause = 0.0
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)

    def start(self) -> None:
        """Begins with a first look."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, which may be busy for a little longer."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
                self._pause = 0.0
            except StoreHeldError:
                self._seen = None
            except (MailtideError, ApiError) as error:
                self._fault(error.message)
            except Exception as error:
                log.exception("following the registry failed")
                self._fault(f"following the registry failed ({type(error).__name__}); the server's log says where")
            self._stop.wait(LOOK_SECONDS + self._pause)

    def look(self) -> None:
        """One look, and what follows from it. Raises what keeps the registry from being followed."""
        signature = _signature(self._home)
        unchanged = signature == self._seen and not self._deck.broken
        if (unchanged or self._deck.set_aside) and not self._is_erased(self._deck.base):
            return
        with self._storeroom.reading() as store:
            found = self._offers(store)
        if self._take(found):
            self._seen = signature

    def _offers(self, store: Store) -> Offers:
        return offers(store, self._home, self._settings, self._mailbox)

    def _take(self, found: Offers) -> bool:
        """Serves what is offered; False where that has to wait for the model."""
        self._leave(found.base)
        if found.base is None:
            self._deck.note(self._without, retry_after=NO_MODEL_RETRY_SECONDS)
            return True
        if self._deck.base is None or self._deck.broken:
            self._deck.note(LOADING, retry_after=LOADING_RETRY_SECONDS)
            self._open_model(found.base)
            if self._deck.base is None:
                return False
            log.info("base %s is in memory", found.base.base_id)
        self._serve(CHAMPION, found.champion)
        self._deck.note("")
        if self._settings.serve.candidate and found.candidate is not None:
            self._serve(CANDIDATE, found.candidate)
        self._let_go(found)
        return True

    def _leave(self, wanted: BaseRef | None) -> None:
        """Lets go of a base that is not the one to be served any more."""
        base = self._deck.base
        if base is None or (base == wanted and not self._is_erased(base)):
            return
        if wanted is None or self._is_erased(base):
            self._without = ERASED
            log.warning("%s", ERASED)
            self._close_model(ERASED)
        else:
            log.info("%s: %s instead of %s", OTHER_BASE, wanted.base_id, base.base_id)
            self._close_model(OTHER_BASE)
        self._taken.clear()

    def _is_erased(self, base: BaseRef | None) -> bool:
        """Whether a base that this home had made is gone from it, as mail that it had read was erased."""
        return base is not None and base.kind == "builtin" and not (self._home.root / base.path).is_dir()

    def _serve(self, alias: str, ref: AdapterRef | None) -> None:
        wanted = ref.adapter_id if ref is not None else None
        if alias in self._taken and self._taken[alias] == wanted:
            return
        seconds = self._deck.load(ref, make_room=True) if ref is not None else 0.0
        self._deck.point(alias, wanted)
        before = self._taken.get(alias)
        self._taken[alias] = wanted
        log.info("%s is %s, loaded in %.2f s", alias, wanted or "the bare base", seconds)
        if before is not None and before not in self._deck.aliases.values():
            self._drain(before)

    def _let_go(self, found: Offers) -> None:
        for adapter_id in found.withdrawn.intersection(self._deck.adapters):
            for alias, stands_for in self._deck.aliases.items():
                if stands_for == adapter_id:
                    self._deck.point(alias, self._taken[CHAMPION])
            self._drain(adapter_id)

    def _drain(self, adapter_id: str) -> None:
        """Unloads an adapter once nobody uses it, in a thread of its own: the next promotion does not wait for that."""

        def unload() -> None:
            try:
                seconds = self._deck.unload(adapter_id)
            except (ApiError, EngineStopped) as error:
                log.info("adapter %s stays in memory: %s", adapter_id, error)
            else:
                log.info("adapter %s was drained and unloaded in %.2f s", adapter_id, seconds)

        threading.Thread(target=unload, name=f"drain-{adapter_id}", daemon=True).start()

    def _fault(self, said: str) -> None:
        log.warning("%s", said)
        self._deck.note(said)
        self._seen = None
        self._pause = min(max(2.0, 2 * self._pause), LONGEST_PAUSE_SECONDS)


def _signature(home: Home) -> Signature:
    """Size and time of the store's files, looked at before it is opened: who reads it keeps others out meanwhile."""
    files: list[Path] = [home.store, home.store.with_name(home.store.name + ".wal")]
    stats = [file.stat() if file.exists() else None for file in files]
    return tuple((stat.st_size, stat.st_mtime_ns) if stat else (0, 0) for stat in stats)
