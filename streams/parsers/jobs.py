"""The mails that wait for a parser process, and what becomes of each."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from pipeline.domain import Arrival, DeadLetter, Parsed

BATCH_MAILS = 64
BATCH_BYTES = 256 << 10


class QueueClosed(Exception):
    """Nothing is handed out any more."""


@dataclass(slots=True, eq=False)
class Job:
    """A mail on its way, and how many parser processes ended while it may have been the one being parsed."""

    arrival: Arrival
    answer: Future[Parsed | DeadLetter] = field(default_factory=Future)
    attempts: int = 0

    def resolve(self, answer: Parsed | DeadLetter) -> None:
        """Gives the answer, unless nobody waits for it any more."""
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Gives an error instead, which says nothing of the mail."""
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(error)


def set_aside(arrival: Arrival, reason: str, attempts: int) -> DeadLetter:
    """The mail as the dead letter of a parser."""
    return DeadLetter(
        mailbox=arrival.mailbox,
        feed=arrival.feed,
        number=arrival.number,
        cursor=arrival.cursor,
        received_at=arrival.received_at,
        stage="parse",
        reason=reason,
        attempts=attempts,
        raw=arrival.raw,
    )


class JobQueue:
    """Hands jobs to as many takers as there are parsers. May be used from any thread."""

    def __init__(self, takers: int) -> None:
        self._takers = takers
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._failure: Exception | None = None

    def put(self, job: Job) -> None:
        """Raises ``QueueClosed`` after ``close``, and the error that it was given after ``fail``."""
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise QueueClosed
            self._jobs.append(job)
            self._changed.notify()

    def take(self, *, wait: bool) -> list[Job]:
        """The next jobs, oldest first: enough to be worth their way, few enough that the other takers have some too.

        Without any, waits for one, or returns none. Raises ``QueueClosed`` after ``close``.
        """
        with self._changed:
            while wait and not self._jobs and not self._closed:
                self._changed.wait()
            if self._closed:
                raise QueueClosed
            share = min(BATCH_MAILS, -(-len(self._jobs) // (2 * self._takers)))
            taken: list[Job] = []
            size = 0
            while len(taken) < share and self._jobs and size < BATCH_BYTES:
                job = self._jobs.popleft()
                if not job.answer.cancelled():
                    taken.append(job)
                    size += len(job.arrival.raw)
            return taken

    def fail(self, error: Exception) -> None:
        """Gives up: what waits, and whatever is put from now on, fails with this error."""
        with self._changed:
            self._failure = error
            waiting, self._jobs = self._jobs, deque()
        for job in waiting:
            job.fail(error)

    def close(self) -> None:
        """Hands out nothing more; what waits is cancelled."""
        with self._changed:
            self._closed = True
            waiting, self._jobs = self._jobs, deque()
            self._changed.notify_all()
        for job in waiting:
            job.answer.cancel()
