"""The daemon's retraining: claims what waits, when it is told to by itself, and carries out whatever was requested."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial

from pipeline.errors import MailtideError, NothingToDo
from pipeline.home import Home
from pipeline.settings import Settings
from pipeline.store import Store
from pipeline.store.rows import MailboxRow
from streams.bus.embedded import EmbeddedBus
from streams.claims import ALL_WAITING, claim, undecided
from streams.daemon.board import Board, TrainingState
from streams.daemon.power import this_machine, why_wait
from streams.held import HeldStore
from streams.retraining import Retraining
from streams.runner import Runner, Step
from streams.sessions import revive
from streams.times import utc_now

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
"""How often power and load are looked at while training waits for them."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 3600.0
"""How long a run that a person must mend is left alone: first, and at most."""


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
        open_store = partial(held.writing, announce=False)
        self._bus = EmbeddedBus(open_store)
        self._retraining = Retraining(home, settings, open_store, self._runner, self._bus, self._step)

    def run(self) -> None:
        """Until ``stop`` is set."""
        with self._runner:
            while not self._stop.is_set():
                self.idle = False
                # Cleared before looking, so that what is written meanwhile is looked at next time.
                self._held.changed.clear()
                if not self._claim() and not self._deliver():
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
            pending = [undecided(store, mailbox) for mailbox in _mailboxes(store)]
        for request in pending:
            if request is not None:
                revive(self._bus, request)

    def _claim(self) -> bool:
        """By setting, and where power allows, asks for a run of each mailbox with something new; whether it asked."""
        if not self._settings.auto_retrain or self._waits_for_power():
            return False
        claimed = False
        with self._held.writing(announce=False) as store:
            for mailbox in _mailboxes(store):
                if undecided(store, mailbox) is not None:
                    continue
                try:
                    request = claim(store, self._home, self._settings, mailbox, ALL_WAITING, utc_now())
                except NothingToDo:
                    continue
                log.info("run %s of %s on windows %s", request.run_id, mailbox, ", ".join(map(str, request.new_windows)))
                claimed = True
        return claimed

    def _waits_for_power(self) -> bool:
        why = why_wait(self._settings.daemon, this_machine())
        if why:
            self._board.training_is(TrainingState("waiting", text=why))
        elif self._board.state.training.doing == "waiting":
            self._board.training_is(TrainingState())
        return bool(why)

    def _step(self, step: Step) -> None:
        self._board.training_is(TrainingState("training", step.run_id, step.stage, step.done, step.total, step.text))


def _mailboxes(store: Store) -> list[str]:
    return sorted(row.mailbox for row in store.fetch(MailboxRow))
