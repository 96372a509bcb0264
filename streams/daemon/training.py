"""The daemon's retraining: claims what waits, when it is told to by itself, and carries out whatever was requested."""

from __future__ import annotations

import logging
import threading
import time

from pipeline.config.settings import Settings
from pipeline.errors import MailtideError
from pipeline.home import Home
from registry.named import mailboxes
from streams.bus.embedded import EmbeddedBus
from streams.claims import undecided
from streams.daemon.board import Board, TrainingState
from streams.daemon.claiming import Claiming
from streams.daemon.delivering import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from streams.held import HeldStore
from streams.retraining import Retraining
from streams.reviving import revive
from streams.runner import Runner, Step
from streams.telling import NowAndThen

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
"""How often power and load are looked at while training waits for them."""


class Training:
    """One thread. ``idle`` while there is nothing to do; ``fault`` is what a person must mend."""

    def __init__(self, home: Home, settings: Settings, held: HeldStore, board: Board, stop: threading.Event) -> None:
        self.idle = False
        self.fault: MailtideError | None = None
        self._home = home
        self._settings = settings
        self._held = held
        self._board = board
        self._stop = stop
        self._runner = Runner(home)
        self._pause = FIRST_PAUSE_SECONDS
        self._retry_at = 0.0
        self._now_and_then = NowAndThen(log)
        self._bus = EmbeddedBus(held.writing)
        self._claiming = Claiming(home, settings, held, board)
        self._retraining = Retraining(home, settings, held.writing, self._runner, self._bus, self._step)

    def run(self) -> None:
        """Until ``stop`` is set."""
        with self._runner:
            while not self._stop.is_set():
                self.idle = False
                # Cleared before looking, so that what is written meanwhile is looked at next time.
                self._held.changed.clear()
                if not self._claiming.claim() and not self._deliver():
                    self.idle = True
                    self._held.changed.wait(LOOK_SECONDS)

    def stop(self) -> None:
        """Ends a run in progress, from another thread; it goes on from its last checkpoint after a restart."""
        self._bus.stop()
        self._runner.stop()
        self._held.changed.set()

    def _deliver(self) -> bool:
        """Carries out what is pending; whether there was anything."""
        if self.fault is not None and time.monotonic() >= self._retry_at:
            self._revive()
        self._retraining.fault = None
        known = set(self._retraining.decisions)
        handed = self._bus.deliver()
        for run_id in self._retraining.decisions.keys() - known:
            decision = self._retraining.decisions[run_id]
            log.info("run %s %s: %s", run_id, decision.status, "; ".join(decision.reasons))
            self._board.decided()
        if handed:
            self._take_note(self._retraining.fault)
            self._held.announce()  # to the deployment: there may be a champion
        return handed > 0

    def _take_note(self, fault: MailtideError | None) -> None:
        self.fault = fault
        if fault is None:
            self._pause = FIRST_PAUSE_SECONDS
            self._board.training_is(TrainingState())
            return
        log.warning("the run cannot go on: %s", fault)
        self._board.training_is(TrainingState("stuck", text=str(fault)))
        self._retry_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _revive(self) -> None:
        with self._held.reading() as store:
            pending = [undecided(store, mailbox) for mailbox in mailboxes(store)]
        for request in pending:
            if request is not None:
                revive(self._bus, request)

    def _step(self, step: Step) -> None:
        self._board.training_is(TrainingState.of(step))
        self._now_and_then.hear(step)
