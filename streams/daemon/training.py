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
from streams.daemon.board import Board, TrainingState
from streams.daemon.claiming import Claiming
from streams.daemon.delivering import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from streams.owning.held import HeldStore
from streams.runs.claims import undecided
from streams.runs.retraining import Retraining
from streams.runs.reviving import revive
from streams.runs.runner import Runner, Step
from streams.runs.telling import NowAndThen

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
"""How often power and load are looked at while training waits for them."""


class Training:
    """One thread. ``idle`` while there is nothing to do."""

    def __init__(self, home: Home, settings: Settings, held: HeldStore, board: Board, stop: threading.Event) -> None:
        self.idle = False
        self._home = home
        self._settings = settings
        self._held = held
        self._board = board
        self._stop = stop
        self._runner = Runner(home)
        self._pause = FIRST_PAUSE_SECONDS
        self._retry_at: float | None = 0.0
        """When runs that were set aside are taken up again; at first those that an earlier life left."""
        self._now_and_then = NowAndThen(log)
        self._bus = EmbeddedBus(held.writing)
        self._claiming = Claiming(home, settings, held, board)
        self._retraining = Retraining(home, settings, held.writing, self._runner, self._bus, self._step)

    @property
    def fault(self) -> MailtideError | None:
        """What a person must mend before a run can go on."""
        return next(iter(self._retraining.faults.values()), None)

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
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._retry_at = None
            self._revive()
        known, before = set(self._retraining.decisions), dict(self._retraining.faults)
        handed = self._bus.deliver()
        for run_id in self._retraining.decisions.keys() - known:
            decision = self._retraining.decisions[run_id]
            log.info("run %s %s: %s", run_id, decision.status, "; ".join(decision.reasons))
            self._board.decided()
        if handed:
            self._take_note([fault for name, fault in self._retraining.faults.items() if fault is not before.get(name)])
            self._held.announce()  # to the deployment: there may be a champion
        return handed > 0

    def _take_note(self, new: list[MailtideError]) -> None:
        """Tells what stands in the way, and when it is tried again; ``new`` are the faults that were not told yet."""
        for fault in new:
            log.warning("the run cannot go on: %s", fault)
        if self.fault is None:
            self._pause, self._retry_at = FIRST_PAUSE_SECONDS, None
            self._board.training_is(TrainingState())
            return
        self._board.training_is(TrainingState("stuck", text=str(self.fault)))
        if new:
            self._retry_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _revive(self) -> None:
        """Takes up what was set aside. A run that was decided meanwhile, as by `forget`, is no fault any more."""
        with self._held.reading() as store:
            pending = {mailbox: undecided(store, mailbox) for mailbox in mailboxes(store)}
        for mailbox, request in pending.items():
            if request is not None:
                revive(self._bus, request)
            elif self._retraining.faults.pop(mailbox, None) is not None:
                self._take_note([])

    def _step(self, step: Step) -> None:
        self._board.training_is(TrainingState.of(step))
        self._now_and_then.hear(step)
