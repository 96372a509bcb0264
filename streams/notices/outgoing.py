"""Tells one target what it has not been told yet, and notes that it was.

What is noted as sent was taken by the target. Told but not yet noted, when the process dies in between or an answer is lost
on its way, it is told once more, under the same id: that is the one repeat there can be.
"""

from __future__ import annotations

import logging
from collections import Counter
from datetime import datetime, timedelta
from enum import Enum

from pipeline.config.settings import Settings
from pipeline.errors import MailtideError, NoticeError, SecretError
from pipeline.home import Home
from pipeline.store.rows import NoticeRow
from pipeline.times import utc_now
from streams.notices.finding import Untold, untold
from streams.notices.notice import Notice, hand_over
from streams.notices.wording import notice_of
from streams.owning.stores import OpenStore, opener
from streams.runs.lease import notice_lease

log = logging.getLogger(__name__)


class Told(Enum):
    """What became of one try."""

    NOTHING = "there was nothing to tell"
    SENT = "the target has one more"
    FAILED = "the target did not take it"


class Outgoing:
    """One target's notices. ``reading`` and ``writing`` give the store for moments, never while a target is spoken to."""

    def __init__(self, target: str, settings: Settings, reading: OpenStore, writing: OpenStore) -> None:
        self.target = target
        self.trouble: MailtideError | None = None
        self._settings = settings
        self._reading = reading
        self._writing = writing
        self._failures: Counter[str] = Counter()
        self._failing_since: dict[str, datetime] = {}

    def waits(self) -> int:
        """How many there are to tell."""
        with self._reading() as store:
            return len(untold(store, self._settings, self.target))

    def tell_next(self) -> Told:
        """Tells the one that failed least often, of these the oldest: one that is never taken holds up no other.

        ``trouble`` is why the target did not take it, None otherwise.
        """
        found = self._next()
        if found is None:
            return Told.NOTHING
        one, notice = found
        try:
            remark = hand_over(self._settings.notify.targets[self.target], notice)
        except (NoticeError, SecretError) as trouble:
            self.trouble = trouble
            self._failures[one.notice_id] += 1
            if self._is_old(one):
                log.warning("notice %s to %s is given up: %s", one.notice_id, self.target, trouble)
                self._note(one, "given_up", str(trouble))
            return Told.FAILED
        self.trouble = None
        log.info("notice %s is sent to %s%s", one.notice_id, self.target, f": {remark}" if remark else "")
        self._note(one, "sent", remark)
        return Told.SENT

    def _is_old(self, one: Untold) -> bool:
        """Whether it has failed for so long that it is given up. A window is dated by its mailbox's clock, perhaps that of
        an archive: it counts from the first failure here."""
        since = one.at
        if one.kind == "waiting":
            since = self._failing_since.setdefault(one.notice_id, utc_now())
        return utc_now() - since > timedelta(days=self._settings.notify.keep_days)

    def _next(self) -> tuple[Untold, Notice] | None:
        while True:
            with self._reading() as store:
                found = untold(store, self._settings, self.target)
                if not found:
                    return None
                one = min(found, key=lambda each: self._failures[each.notice_id])
                try:
                    notice = notice_of(store, self._settings, one)
                except (ValueError, LookupError) as error:
                    # What is stored has a shape that this version does not know: no reason to stop for others.
                    log.warning("notice %s to %s cannot be written", one.notice_id, self.target, exc_info=error)
                    notice, outcome, why = None, "given_up", type(error).__name__
                else:
                    outcome, why = "nothing", ""
            if notice is not None:
                return one, notice
            self._note(one, outcome, why)

    def _note(self, one: Untold, outcome: str, error: str) -> None:
        attempts = self._failures.pop(one.notice_id, 0) + (outcome == "sent")
        with self._writing() as store:
            store.append([NoticeRow(one.notice_id, self.target, outcome, attempts, error, utc_now())])


def send_waiting(home: Home, settings: Settings, open_store: OpenStore | None = None) -> list[str]:
    """Tells every target what waits for it; returns a line for each that did not take all.

    For a command that made news. What is not told now is told by the next such command, or by the daemon. Where
    another process tells a target, a daemon above all, it is left to it. A target is given up for now after two failures:
    one may be the notice's.
    """
    opening = open_store or opener(home, settings)
    troubles = []
    for name in settings.notify.targets:
        with notice_lease(home, name) as mine:
            if mine:
                outgoing = Outgoing(name, settings, opening, opening)
                failures = 0
                while failures < 2 and (told := outgoing.tell_next()) is not Told.NOTHING:
                    failures += told is Told.FAILED
                if outgoing.trouble is not None:
                    troubles.append(f"notices to {name} wait: {outgoing.trouble}")
    return troubles
