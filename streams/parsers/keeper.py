"""Keeps one parser process busy, starts another when it ends, and finds the mail that ends it.

What a process had not answered when it ended is tried again mail by mail, each alone in a process. So no mail is blamed for
its neighbours, and the one that is to blame cannot hold up the rest.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from pipeline.arrival.threads import Incoming
from pipeline.domain import ParsedMail
from pipeline.errors import MailtideError
from streams.parsers.frames import Orders, Refused
from streams.parsers.identified import answer
from streams.parsers.jobs import BATCH_MAILS, Job, JobQueue, QueueClosed, set_aside
from streams.parsers.link import ParserGone, ParserLink

ATTEMPTS = 3
"""How many processes may end with a mail before it is set aside: one in company, where another mail may be the cause, and
two alone, as something else (a person, the system short of memory) may have ended one."""

STARTS = 3
START_SECONDS = 60.0


class Keeper:
    """A thread with a parser process, which is started with the first mail."""

    def __init__(self, jobs: JobQueue, orders: Orders, seconds: float) -> None:
        self._jobs = jobs
        self._orders = orders
        self._seconds = seconds
        self._link: ParserLink | None = None
        self._ending = threading.Event()
        self._linking = threading.Lock()
        self._under_way: deque[Job] = deque()
        self._suspects: deque[Job] = deque()
        # A daemon, so that a program which ends without closing its pool does end: the process goes with it.
        self._thread = threading.Thread(target=self._keep, name="parser", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        link = self._link
        return None if link is None else link.pid

    def close(self) -> None:
        """Ends process and thread, whatever they are at; unanswered mails are cancelled. The queue must be closed."""
        with self._linking:
            self._ending.set()
            if self._link is not None:
                self._link.kill()
        self._thread.join()

    def _keep(self) -> None:
        try:
            while True:
                self._step()
        except QueueClosed:
            pass
        except Exception as error:  # whatever it is, nobody may wait for ever for what this thread will not answer
            self._jobs.fail(error)
            for job in (*self._under_way, *self._suspects):
                job.fail(error)
        finally:
            for job in (*self._under_way, *self._suspects):
                job.answer.cancel()
            with self._linking:
                if self._link is not None:
                    self._link.close()
                    self._link = None

    def _step(self) -> None:
        """Hands on what the process should have next, and takes what it has done."""
        batch = self._next_batch()
        self._under_way.extend(batch)
        try:
            link = self._link or self._started()
            if batch:
                link.send([job.arrival.raw for job in batch])
            answers = link.receive(self._seconds) if self._under_way else []
        except ParserGone as gone:
            self._link = None
            self._retry(str(gone))
            return
        for found in answers:
            self._answer(self._under_way.popleft(), found)

    def _next_batch(self) -> Sequence[Job]:
        """Suspects go alone. Else there is always half a batch waiting in the pipe, so that the process need not."""
        if self._suspects:
            return [] if self._under_way else [self._suspects.popleft()]
        if len(self._under_way) > BATCH_MAILS // 2 or any(job.attempts for job in self._under_way):
            return []
        return self._jobs.take(wait=not self._under_way)

    def _retry(self, reason: str) -> None:
        """Every unanswered mail becomes a suspect; one that was alone and has been tried often enough is set aside."""
        if self._ending.is_set():
            raise QueueClosed
        alone = len(self._under_way) == 1
        while self._under_way:
            job = self._under_way.pop()
            job.attempts += 1
            if alone and job.attempts >= ATTEMPTS:
                job.resolve(set_aside(job.arrival, reason, job.attempts))
            else:
                self._suspects.appendleft(job)

    def _answer(self, job: Job, found: ParsedMail | Incoming | Refused) -> None:
        if isinstance(found, Refused):
            job.resolve(set_aside(job.arrival, found.reason, job.attempts + 1))
        else:
            job.resolve(answer(job.arrival, found))

    def _started(self) -> ParserLink:
        """A process that is ready. Raises ``MailtideError`` when none gets there: that is no mail's fault."""
        failure = ""
        for _ in range(STARTS):
            link = ParserLink(self._orders)
            with self._linking:
                self._link = link
                if self._ending.is_set():
                    raise QueueClosed
            try:
                link.receive(START_SECONDS)
                return link
            except ParserGone as gone:
                failure = str(gone)
                self._link = None
                if self._ending.is_set():
                    raise QueueClosed from None
        raise MailtideError(
            f"no parser process can be started: {failure}",
            hint="raise parse.memory_mb if it is too low, or set parse.processes to 0",
        )
