"""Closes windows by time: looks every second whether a mailbox's window is old enough, or a cron moment has come."""

from __future__ import annotations

import logging
from types import TracebackType

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from streams.daemon.board import Board
from streams.daemon.intake import Intake
from streams.daemon.wording import closed_line

log = logging.getLogger(__name__)

EVERY_SECONDS = 1


class Clockwork:
    """A scheduler that runs within ``with``. A look that was missed, as by a sleeping laptop, is made up for once."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone="UTC",
        )

    def add(self, mailbox: str, intake: Intake) -> None:
        """Watches over the windows of a mailbox."""
        self._scheduler.add_job(self._look, "interval", seconds=EVERY_SECONDS, args=(mailbox, intake))

    def __enter__(self) -> Clockwork:
        self._scheduler.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._scheduler.shutdown(wait=True)

    def _look(self, mailbox: str, intake: Intake) -> None:
        taken = intake.close_due(mailbox)
        self._board.closed(len(taken.closed))
        if taken.closed:
            log.info("%s", closed_line(mailbox, taken.closed))
