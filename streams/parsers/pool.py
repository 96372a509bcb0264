"""Parses mail in any number of processes, with the answers in order, and no mail that could stop those behind it.

Without processes mail is parsed here, at no cost and with no guard. With them, a mail that ends a parser process, or needs
more memory or time than it may, is tried again alone and then becomes a dead letter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from types import TracebackType

from pipeline.arrival.threads import Incoming
from pipeline.config.bus_settings import ParseSettings
from pipeline.domain import Arrival, DeadLetter, Item, Parsed, ParsedMail, Tick
from pipeline.parsing.mail import parse_mail
from streams.feeds.contract import Handed
from streams.parsers.frames import Orders
from streams.parsers.identified import answer
from streams.parsers.jobs import Job, JobQueue
from streams.parsers.keeper import Keeper

AHEAD_MAILS = 4_000
AHEAD_BYTES = 32 << 20
PATIENCE_SECONDS = 0.02

Read = Callable[[bytes], ParsedMail | Incoming]


def parsed(arrival: Arrival) -> Parsed:
    """A parser's answer to a raw mail. Parsing never fails, so there is always one."""
    return answer(arrival, parse_mail(arrival.raw))


class ParserPool:
    """``settings.processes`` parser processes, started with the first mails, each with a thread that keeps it busy.

    May be used from any thread. Raises ``MailtideError``, here or from the futures, when no process can be started.
    """

    def __init__(self, settings: ParseSettings, read: Read = parse_mail) -> None:
        """``read`` is what the processes do with a mail: parsing, or more (:class:`streams.parsers.identified.Identify`).

        Without processes mail is parsed and no more, as nothing would be gained.
        """
        orders = Orders(read, settings.memory_mb << 20, min(PATIENCE_SECONDS, settings.seconds / 4))
        self._jobs = JobQueue(settings.processes)
        self._keepers = [Keeper(self._jobs, orders, settings.seconds) for _ in range(settings.processes)]

    def __enter__(self) -> ParserPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that run at the moment."""
        return tuple(pid for keeper in self._keepers if (pid := keeper.pid) is not None)

    def submit(self, arrival: Arrival) -> Future[Parsed | DeadLetter]:
        """The answer to a mail, once there is one. A future that is cancelled takes its mail back, unless it is under way.

        Nothing bounds what waits here: that is for the caller.
        """
        return self._begun(arrival).answer

    def answers(self, handed: Iterable[Handed]) -> Generator[Item, None, None]:
        """Answers to what a feed hands on, in its order; ticks and dead letters pass in their places.

        ``handed`` is read in the caller's thread, and at most 4,000 items or 32 MB ahead of what the caller has taken.
        When it fails, what it gave before is answered first. Abandoned, it takes back what it has not begun.
        """
        if not self._keepers:
            yield from (parsed(item) if isinstance(item, Arrival) else item for item in handed)
            return
        ahead: deque[Job | Tick | DeadLetter] = deque()
        size = 0
        failure: Exception | None = None
        source = iter(handed)
        ended = False
        try:
            while ahead or not ended:
                try:
                    item = None if ended else next(source, None)
                except Exception as error:
                    failure, item = error, None
                if item is None:
                    ended = True
                else:
                    ahead.append(self._begun(item) if isinstance(item, Arrival) else item)
                    size += _weight(ahead[-1])
                while ahead and (ended or size >= AHEAD_BYTES or len(ahead) >= AHEAD_MAILS or _is_there(ahead[0])):
                    first = ahead.popleft()
                    size -= _weight(first)
                    yield first.answer.result() if isinstance(first, Job) else first
            if failure is not None:
                raise failure
        finally:
            for one in ahead:
                if isinstance(one, Job):
                    one.answer.cancel()

    def close(self) -> None:
        """Ends the processes at once, whatever they are at; what is not answered is cancelled."""
        self._jobs.close()
        for keeper in self._keepers:
            keeper.close()

    def _begun(self, arrival: Arrival) -> Job:
        job = Job(arrival)
        if self._keepers:
            self._jobs.put(job)
        else:
            job.resolve(parsed(arrival))
        return job


def _is_there(item: Job | Tick | DeadLetter) -> bool:
    return not isinstance(item, Job) or item.answer.done()


def _weight(item: Job | Tick | DeadLetter) -> int:
    """Bytes that an item holds while it waits."""
    if isinstance(item, Tick):
        return 0
    return len(item.arrival.raw if isinstance(item, Job) else item.raw)
