"""The owner's part in retraining when others train: asks for runs by setting, and decides on those that finished."""

from __future__ import annotations

import logging
import threading
import time

from pipeline.config.settings import Settings
from pipeline.home import Home
from registry.named import mailboxes
from streams.bus.contract import Bus
from streams.daemon.board import Board
from streams.daemon.claiming import Claiming
from streams.daemon.delivering import Delivering, patient
from streams.owning.held import HeldStore
from streams.runs.claims import undecided
from streams.runs.retraining import Judge, subscribe_judgement

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often the broker is asked for finished runs; what is announced here is looked at at once."""
CLAIM_SECONDS = 30.0
"""How often it is looked for something to ask for when nobody announces anything: power and load change by themselves."""


class Judging:
    """One thread of the process that holds the store."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        held: HeldStore,
        bus: Bus,
        claiming: Claiming,
        board: Board,
        stop: threading.Event,
    ) -> None:
        self._held = held
        self._bus = bus
        self._claiming = claiming
        self._board = board
        self._stop = stop
        self._judge = Judge(home, settings, held.writing)
        subscribe_judgement(bus, patient(self._judge.decide, board, stop))
        self._delivering = Delivering("the registry", bus, stop)
        self._idle = threading.Event()

    def is_idle(self) -> bool:
        """Whether there is nothing to ask for and nothing undecided."""
        return self._idle.is_set() and not self._held.changed.is_set()

    def run(self) -> None:
        """Until the stop is set."""
        look_at, busy = 0.0, False
        while not self._stop.is_set():
            claimed = False
            if self._held.changed.is_set() or time.monotonic() >= look_at:
                # Cleared before looking, so that what is written meanwhile is looked at next time.
                self._held.changed.clear()
                claimed = self._claiming.claim()
                look_at, busy = time.monotonic() + CLAIM_SECONDS, self._undecided()
            known = set(self._judge.decisions)
            handed = self._delivering.once()
            for run_id in self._judge.decisions.keys() - known:
                decision = self._judge.decisions[run_id]
                log.info("run %s %s: %s", run_id, decision.status, "; ".join(decision.reasons))
                self._board.decided()
            if claimed or handed:
                self._held.announce()  # to the relay; and after a verdict something may wait
            else:
                if not busy:
                    self._idle.set()
                self._held.changed.wait(LOOK_SECONDS)
                self._idle.clear()

    def stop(self) -> None:
        """Wakes it once the stop is set, from another thread."""
        self._bus.stop()
        self._held.changed.set()

    def _undecided(self) -> bool:
        with self._held.reading() as store:
            return any(undecided(store, mailbox) is not None for mailbox in mailboxes(store))
