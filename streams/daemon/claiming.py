"""Asks for a run of whatever waits, by setting, and only while power and load allow."""

from __future__ import annotations

import logging

from pipeline.config.settings import Settings
from pipeline.errors import NothingToDo, RunError
from pipeline.home import Home
from pipeline.ranges import ranges
from pipeline.store import Store
from pipeline.times import utc_now
from registry.named import mailboxes
from streams.daemon.board import Board, TrainingState
from streams.daemon.power import this_machine, why_wait
from streams.owning.held import HeldStore
from streams.runs.bases import ready_base
from streams.runs.budget import require_budget
from streams.runs.claims import NEWLY_CLOSED, NothingToLearn, claim, draft, undecided
from streams.runs.planning import require_room

log = logging.getLogger(__name__)


class Claiming:
    """The daemon's side of ``auto_retrain``."""

    def __init__(self, home: Home, settings: Settings, held: HeldStore, board: Board) -> None:
        self._home = home
        self._settings = settings
        self._held = held
        self._board = board
        self._refused: dict[str, str] = {}
        self._nothing: dict[str, str] = {}

    def claim(self) -> bool:
        """Asks for one run of each mailbox with a new closing and no run under way; whether it asked for any."""
        if not self._settings.auto_retrain or self._waits_for_power() or not self._has_base():
            return False
        claimed = False
        with self._held.writing() as store:
            for mailbox in mailboxes(store):
                if undecided(store, mailbox) is not None:
                    continue
                try:
                    if self._is_refused(store, mailbox):
                        continue
                    request = claim(store, self._home, self._settings, mailbox, NEWLY_CLOSED, utc_now())
                except NothingToDo:
                    continue
                log.info("run %s of %s on windows %s", request.run_id, mailbox, ranges(request.new_windows))
                claimed = True
        return claimed

    def _has_base(self) -> bool:
        """Whether the base can be told by its content, fetched first where that is allowed: before anybody has to wait for
        the store."""
        try:
            ready_base(self._home, self._settings, self._tell_reading)
        except RunError as refusal:
            self._refuse("", refusal)
            return False
        self._refused.pop("", None)
        return True

    def _tell_reading(self, done: int, total: int) -> None:
        self._board.training_is(TrainingState("waiting", text=f"reading the base model, {100 * done // (total or 1)} %"))

    def _is_refused(self, store: Store, mailbox: str) -> bool:
        """Whether a run would have nothing to learn, would not fit this device, has no base of use, or would pass the cap.
        That it has nothing is found out once. Raises ``NothingToDo`` where there is none to ask for."""
        try:
            request = draft(store, self._home, self._settings, mailbox, NEWLY_CLOSED)
            if self._nothing.get(mailbox) == request.run_id:
                return True
            require_room(store, self._home, self._settings, mailbox, NEWLY_CLOSED)
            require_budget(store, self._home, self._settings, mailbox, NEWLY_CLOSED, utc_now())
        except NothingToLearn as nothing:
            log.info("no run of %s yet: %s", mailbox, nothing.message)
            self._nothing[mailbox] = request.run_id
            return True
        except RunError as refusal:
            self._refuse(mailbox, refusal)
            return True
        self._refused.pop(mailbox, None)
        return False

    def _refuse(self, mailbox: str, why: RunError) -> None:
        """Says it once, and shows it for as long as it holds; of all mailboxes where none is named."""
        if self._refused.get(mailbox) != str(why):
            log.warning("no run of %s: %s", mailbox or "any mailbox", why)
        self._refused[mailbox] = str(why)
        self._board.training_is(TrainingState("waiting", text=str(why)))

    def _waits_for_power(self) -> bool:
        why = why_wait(self._settings.daemon, this_machine())
        if why:
            self._board.training_is(TrainingState("waiting", text=why))
        elif self._board.state.training.doing == "waiting":
            self._board.training_is(TrainingState())
        return bool(why)
