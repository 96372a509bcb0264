"""Whether the model is in memory, and where: a run in the same home may need the device (``serve.while_training``)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pipeline.config.settings import Settings
from pipeline.errors import MailtideError
from pipeline.home import Home
from pipeline.runs.requests import BaseRef
from streams.runs.lease import device_for_serving, training_wants_it
from streams.server.deck import LOADING, Deck

if TYPE_CHECKING:
    from retrain.serving.engine import Engine

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
TRAINING = "a run is being trained, and the device is its own meanwhile (serve.while_training)"
TRAINING_RETRY_SECONDS = 30.0

MakeEngine = Callable[[BaseRef, str], "Engine"]
"""An engine, not started yet, for a base on a device (as in ``serve.device``)."""


class Turns:
    """Opens the deck's model, moves it out of a run's way, and brings it back."""

    def __init__(self, home: Home, settings: Settings, deck: Deck, make_engine: MakeEngine) -> None:
        self._home = home
        self._serve = settings.serve
        self._deck = deck
        self._make_engine = make_engine
        self._lock = threading.RLock()
        self._device = ExitStack()
        self._base: BaseRef | None = None
        self._aside = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="turns", daemon=True)

    def start(self) -> None:
        """Begins to look whether a run wants the device, where it would be given up."""
        if self._serve.while_training != "beside":
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and lets go of the device, unless it is just being moved: then the process does at its end."""
        self._stop.set()
        if self._lock.acquire(timeout=LOOK_SECONDS):
            self._device.close()
            self._lock.release()

    def open_model(self, base: BaseRef) -> None:
        """Brings a base into memory, now or as soon as no run has the device for itself. Raises ``RunError`` when it cannot
        be loaded."""
        with self._lock:
            if self._serve.while_training == "beside":
                self._deck.open(base, lambda: self._make_engine(base, self._serve.device))
                return
            self._base = base
            self._look()

    def close_model(self, reason: str) -> None:
        """Takes the base out of memory for good, after the running answers."""
        with self._lock:
            self._base, self._aside = None, False
            self._deck.empty(reason, wait=self._serve.seconds)
            self._device.close()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                with self._lock:
                    if self._base is not None:
                        self._look()
            except MailtideError as error:
                log.warning("%s", error)
                self._deck.note(str(error))

    def _look(self) -> None:
        """Takes the device, or gives it up, as a run wants it."""
        assert self._base is not None
        wanted = training_wants_it(self._home)
        if wanted and not self._aside:
            self._give_up(self._base)
        elif not wanted and (self._aside or self._deck.standing().device is None):
            self._take(self._base)

    def _give_up(self, base: BaseRef) -> None:
        log.info("a run wants the device")
        self._deck.close(TRAINING, wait=self._serve.seconds, retry_after=TRAINING_RETRY_SECONDS)
        self._device.close()
        self._aside = True
        if self._serve.while_training == "cpu":
            self._deck.open(base, lambda: self._make_engine(base, "cpu"))

    def _take(self, base: BaseRef) -> None:
        if not self._device.enter_context(device_for_serving(self._home)):
            self._device.close()
            return
        if self._aside:
            log.info("the run has ended, and the device is the server's again")
            self._deck.close(LOADING, wait=self._serve.seconds)
        self._deck.open(base, lambda: self._make_engine(base, self._serve.device))
        self._aside = False
