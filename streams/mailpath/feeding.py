"""The role ``feed``: hands the mail of its feeds on to Kafka, no more at a time than their owner keeps up with.

Where a feed goes on is not noted here: its owner tells what it has taken, and what was noted after that is handed on again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from functools import partial
from typing import TypeVar

from pipeline.config.bus_settings import BusSettings
from pipeline.domain import Arrival
from pipeline.errors import FeedError, SecretError
from pipeline.events import Topic
from pipeline.home import Home
from pipeline.times import utc_now
from streams.bus.envelope import Record
from streams.bus.topics import check_topics, topic_name
from streams.feeds.backoff import delays
from streams.feeds.contract import Handed, LiveFeed
from streams.mailpath.claim_checks import ClaimChecks
from streams.mailpath.following import Follower
from streams.mailpath.in_flight import InFlight
from streams.mailpath.messages import handed_record
from streams.mailpath.notices import AnnouncedFeed, Announcement, announcement_record, progress_of
from streams.mailpath.outlet import Outlet, partition_of
from streams.mailpath.pulling import pull

log = logging.getLogger(__name__)

LINGER_SECONDS = 0.01
WAIT_SECONDS = 300.0
STOP_LOOK_SECONDS = 0.2
SWEEP_SECONDS = 86_400.0
STOP_SECONDS = 5.0
"""How long a source that is being read may take to come back when the role stops."""

T = TypeVar("T")

OnState = Callable[[str, str, str], None]
"""Called with a feed, what it is doing (reading, waiting or away), and why it is away."""


def run(
    home: Home,
    settings: BusSettings,
    feeds: Mapping[str, Sequence[LiveFeed]],
    stop: threading.Event,
    *,
    once: bool = False,
    on_state: OnState = lambda feed, doing, trouble: None,
) -> None:
    """Hands on the mail of ``feeds``, by mailbox, until ``stop`` is set.

    With ``once``, each feed is read to its end; returns when all its mail is taken. Then a feed that fails ends it with its
    error; without, it is told once and tried again later. Raises ``BusError`` when the broker cannot be used, or there is
    no room for a large mail.
    """
    asyncio.run(_Feeding(home, settings, feeds, stop, once, on_state).run())


class _Way:
    """A feed, how far it is, and the thread that reads it. ``wake`` ends its waiting; ``again`` asks for a new pass, after
    the number that was taken last."""

    def __init__(self, mailbox: str, feed: LiveFeed, most: int) -> None:
        self.mailbox = mailbox
        self.feed = feed
        self.numbers = InFlight(most)
        self.after = 0
        self.wake = threading.Event()
        self.again = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=feed.name)
        self._last: Future[object] | None = None

    async def call(self, act: Callable[[], T]) -> T:
        """``act`` in the feed's thread."""
        future = self._thread.submit(act)
        self._last = future  # type: ignore[assignment]
        return await asyncio.wrap_future(future)

    def start_again(self) -> None:
        self.again = True
        self.wake.set()

    def close(self) -> None:
        """Ends the feed; a source that does not come back is left to the end of the process."""
        self.wake.set()
        if self._last is not None:
            wait_for([self._last], STOP_SECONDS)
        self._thread.shutdown(wait=False, cancel_futures=True)
        self.feed.close()


class _Feeding:
    def __init__(
        self,
        home: Home,
        settings: BusSettings,
        feeds: Mapping[str, Sequence[LiveFeed]],
        stop: threading.Event,
        once: bool,
        on_state: OnState,
    ) -> None:
        self._settings = settings
        self._claims = ClaimChecks(home, settings.claim_check)
        self._topic = topic_name(settings, Topic.MESSAGE_RECEIVED)
        self._ways = {
            feed.name: _Way(mailbox, feed, settings.in_flight) for mailbox, mine in feeds.items() for feed in mine
        }
        self._stop = stop
        self._once = once
        self._on_state = on_state
        self._moved = asyncio.Condition()
        self._outlet: Outlet
        self._partitions: int

    async def run(self) -> None:
        await check_topics(self._settings)
        self._outlet = await Outlet.opened(self._settings, linger=LINGER_SECONDS)
        try:
            self._partitions = await self._outlet.partitions(self._topic)
            progress = topic_name(self._settings, Topic.PROGRESS)
            follower = await Follower.opened(self._settings, progress, range(await self._outlet.partitions(progress)))
            try:
                await self._work(follower)
            finally:
                await follower.close()
        finally:
            for way in self._ways.values():
                way.close()
            await self._outlet.close()

    async def _work(self, follower: Follower) -> None:
        await self._tell(await follower.rest())
        await self._announce()
        lives = {asyncio.create_task(self._live(way)) for way in self._ways.values()}
        stopped = asyncio.create_task(self._watch())
        beside = {stopped, asyncio.create_task(self._follow(follower)), asyncio.create_task(self._sweep())}
        pending = set(lives)
        try:
            while pending and not stopped.done():
                done, _ = await asyncio.wait(pending | beside, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                pending -= done
        finally:
            for way in self._ways.values():
                way.wake.set()
            for task in lives | beside:
                task.cancel()
            await asyncio.gather(*lives, *beside, return_exceptions=True)

    async def _announce(self) -> None:
        """Before any mail, so that the first window of a mailbox waits for all its feeds."""
        for mailbox in sorted({way.mailbox for way in self._ways.values()}):
            feeds = [way.feed for way in self._ways.values() if way.mailbox == mailbox]
            named = tuple(AnnouncedFeed(name=feed.name, kind=feed.kind, source=feed.source) for feed in feeds)
            record = announcement_record(Announcement(mailbox=mailbox, feeds=named), utc_now())
            await self._outlet.add(self._topic, partition_of(mailbox, self._partitions), record)

    async def _follow(self, follower: Follower) -> None:
        while True:
            await self._tell(await follower.more())

    async def _tell(self, records: Sequence[Record]) -> None:
        """What owners have taken."""
        for record in records:
            progress = progress_of(record)
            way = self._ways.get(progress.feed) if progress is not None else None
            if progress is None or way is None or way.mailbox != progress.mailbox:
                continue
            if way.numbers.take(progress.last_number, self._now()):
                log.warning("%s: its owner went back to number %d", way.feed.name, progress.last_number)
                way.start_again()
        await self._move()

    async def _sweep(self) -> None:
        """Removes the files that no record refers to any more, for as long as mail is fed."""
        while True:
            await asyncio.to_thread(self._claims.sweep, self._settings.retention_days)
            await asyncio.sleep(SWEEP_SECONDS)

    async def _watch(self) -> None:
        """Ends when ``stop`` is set; meanwhile looks for mail that got lost on its way."""
        while not self._stop.is_set():
            await asyncio.sleep(STOP_LOOK_SECONDS)
            overdue = [way for way in self._ways.values() if way.numbers.overdue(self._now())]
            for way in overdue:
                log.warning(
                    "%s: nothing was taken for long after number %d; handed on again", way.feed.name, way.numbers.taken
                )
                way.start_again()
            if overdue:
                await self._announce()
                await self._move()

    async def _live(self, way: _Way) -> None:
        """The life of one feed."""
        await self._until(lambda: way.numbers.known)
        way.after = way.numbers.taken
        waits = delays()
        trouble = ""
        while True:
            way.wake.clear()
            if way.again:
                way.again, way.after = False, way.numbers.taken
            self._on_state(way.feed.name, "reading", "")
            try:
                before = way.after
                await self._read(way)
                if way.after > before:
                    log.info("%s: handed on up to number %d", way.feed.source, way.after)
                if trouble:
                    log.info("%s answers again", way.feed.source)
                waits, trouble = delays(), ""
                self._on_state(way.feed.name, "waiting", "")
                if self._once:
                    await self._until(lambda: way.again or way.numbers.settled)
                    if not way.again:
                        return
                else:
                    await way.call(lambda: way.feed.wait(WAIT_SECONDS, way.wake))
            except (FeedError, SecretError) as error:
                if self._once:
                    raise
                if str(error) != trouble:
                    log.warning("%s: %s", way.feed.source, error)
                trouble = str(error)
                self._on_state(way.feed.name, "away", trouble)
                await way.call(partial(way.wake.wait, next(waits)))

    async def _read(self, way: _Way) -> None:
        """One pass. Raises what the feed raises, after what came before it."""
        items = await way.call(lambda: way.feed.items(way.after))
        try:
            while not way.again:
                pulled = await way.call(lambda: pull(items))
                for item in pulled.items:
                    await self._until(partial(_may_go, way, item.number))
                    if way.again:
                        return
                    await self._hand(way, item)
                if pulled.failure is not None:
                    raise pulled.failure
                if pulled.ended:
                    return
        finally:
            # A pass that is left alone would keep the feed's journal locked.
            if isinstance(items, Generator):
                await way.call(items.close)

    async def _hand(self, way: _Way, item: Handed) -> None:
        record = handed_record(item)
        if len(record.value) > self._settings.claim_check:
            record = await way.call(partial(self._claims.checked_in, record))
        key = item.digest if isinstance(item, Arrival) else item.mailbox
        way.numbers.hand(item.number, self._now())
        way.after = item.number
        await self._outlet.add(self._topic, partition_of(key, self._partitions), record)

    async def _until(self, so: Callable[[], bool]) -> None:
        if not so():
            async with self._moved:
                await self._moved.wait_for(so)

    async def _move(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _may_go(way: _Way, number: int) -> bool:
    return way.again or way.numbers.room_for(number)
