"""The role ``assign``: takes what parsers answered into the store, each feed strictly in order.

Where reading goes on is a row in the transaction of the rows that were read, so that a crash can never part the two. The
assigner is in no group: its partitions are given to it by name, and stay its own.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.config.bus_settings import BusSettings
from pipeline.config.settings import Settings
from pipeline.domain import Item
from pipeline.errors import BusError, StoreHeldError
from pipeline.events import Topic
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import FeedRow, OwnedPartitionRow, SourceOffsetRow
from pipeline.times import utc_now
from streams.bus.connection import client_options, ended, started
from streams.bus.deadletters import Origin, dead_record
from streams.bus.envelope import Record, RecordRefused, headers_of
from streams.bus.topics import check_topics, dead_letter_name, message_bytes, topic_name
from streams.mailpath.claim_checks import ClaimChecks, ClaimMissing
from streams.mailpath.following import Follower
from streams.mailpath.messages import ANSWERED, answer_of, unreadable
from streams.mailpath.notices import Announcement, Progress, announcement_of, progress_record
from streams.mailpath.outlet import Outlet, partition_of
from streams.mailpath.ownership import Ownership, alone
from streams.mailpath.records import Kind, kind_of
from streams.mailpath.sorting import Sorting
from streams.owning.batch import Taken
from streams.owning.ingest import BATCH_BYTES, choose_clock
from streams.owning.owner import Owner

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

log = logging.getLogger(__name__)

CONSUMER = "assign"
STAGE = "claim check"
BATCH_MAILS = 1_000
LINGER_COMMITS = 4.0
LINGER_SECONDS = 0.75
"""While more keeps coming, what is ready waits as long as the last commits took, times the former, at most the latter: a
commit costs much whatever it holds, and should not be most of the work."""
QUIET_SECONDS, LONGEST_QUIET_SECONDS = 0.05, 0.25
"""When nothing came for the former, what is ready is taken; on a machine so busy that commits take longer than that, when
nothing came for as long as they take, at most the latter."""
IDLE_MS = 500
HELD_SECONDS = 1.0
ACCEPTED = ANSWERED | {Kind.ANNOUNCED}

OpenOwner = Callable[[], AbstractContextManager[tuple[Store, Owner]]]
"""Gives the store and its owner to this thread alone, for a moment."""
OnTaken = Callable[[str, Taken], None]
"""Called with a mailbox and what became of a batch of its mail, once that is durable."""


def run(
    home: Home,
    settings: Settings,
    open_owner: OpenOwner,
    stop: threading.Event,
    *,
    on_taken: OnTaken = lambda mailbox, taken: None,
) -> None:
    """Takes mail of the partitions in ``bus.assign``, or of all, until ``stop`` is set.

    Raises ``BusError`` when the broker cannot be used or partitions belong to another home, else as the owner does.
    """
    with alone(home):
        asyncio.run(_Assigning(home, settings, open_owner, stop, on_taken).run())


class _Assigning:
    def __init__(
        self, home: Home, settings: Settings, open_owner: OpenOwner, stop: threading.Event, on_taken: OnTaken
    ) -> None:
        self._home = home
        self._settings = settings
        self._bus = settings.bus
        self._open_owner = open_owner
        self._stop = stop
        self._on_taken = on_taken
        self._claims = ClaimChecks(home, self._bus.claim_check)
        self._source = topic_name(self._bus, Topic.MESSAGE_PARSED)
        self._progress = topic_name(self._bus, Topic.PROGRESS)
        self._dead = dead_letter_name(self._bus, Topic.MESSAGE_PARSED)
        self._sorting = Sorting()
        self._cluster = ""
        self._partitions = 0
        self._mine: tuple[int, ...] = ()
        self._outlet: Outlet

    async def run(self) -> None:
        from aiokafka import AIOKafkaConsumer

        await check_topics(self._bus)
        self._cluster = await cluster_of(self._bus)
        self._outlet = await Outlet.opened(self._bus, linger=0.005)
        consumer = AIOKafkaConsumer(
            **client_options(self._bus),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=message_bytes(self._bus),
        )
        try:
            await started(consumer, self._bus)
            self._partitions = await self._outlet.partitions(self._source)
            self._mine = self._bus.assign or tuple(range(self._partitions))
            self._agree_with_store()
            log_of_claims = await Follower.opened(self._bus, self._progress, self._mine)
            try:
                ownership = Ownership(self._home, self._source, self._progress, self._mine, log_of_claims)
                await ownership.claim(self._outlet)
                self._note_in_store(ownership.store)
                await self._begin(consumer)
                await self._until_stop(self._work(consumer), ownership.watch())
            finally:
                await log_of_claims.close()
        finally:
            await ended(consumer)
            await self._outlet.close()

    async def _until_stop(self, *works: Coroutine[Any, Any, None]) -> None:
        """Returns when the first of them does, or raises what it raises."""
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _agree_with_store(self) -> None:
        """A store's partitions are its own for good, and their number may not change: mailboxes would move."""
        missing = [number for number in self._mine if not 0 <= number < self._partitions]
        if missing:
            raise BusError(
                f"{self._source} has {self._partitions} partitions, and none is numbered {missing[0]}",
                hint="correct bus.assign",
            )
        known = self._owned()
        numbers = sorted(row.partition for row in known)
        if known and numbers != sorted(self._mine):
            raise BusError(
                f"this home assigns the partitions {_listed(numbers)} of {self._source}, and bus.assign names "
                f"{_listed(sorted(self._mine))}",
                hint="set bus.assign back, or make another home for the other partitions",
            )
        if known and known[0].partitions != self._partitions:
            raise BusError(
                f"{self._source} had {known[0].partitions} partitions when this home began, and has {self._partitions} now",
                hint="its mailboxes belong to other partitions now: use another bus.prefix",
            )

    def _note_in_store(self, store_name: str) -> None:
        if not self._owned():
            now = utc_now()
            with self._opened() as (store, _):
                store.append(
                    OwnedPartitionRow(self._cluster, self._source, number, self._partitions, store_name, now)
                    for number in self._mine
                )

    def _owned(self) -> list[OwnedPartitionRow]:
        with self._opened() as (store, _):
            return store.fetch(OwnedPartitionRow, "cluster = ? AND topic = ?", [self._cluster, self._source])

    async def _begin(self, consumer: AIOKafkaConsumer) -> None:
        """Writes the shards that a crash left undone, finds where reading goes on, and tells every feed how far it is."""
        from aiokafka import TopicPartition

        parts = {number: TopicPartition(self._source, number) for number in self._mine}
        consumer.assign(list(parts.values()))
        firsts = await consumer.beginning_offsets(list(parts.values()))
        ends = await consumer.end_offsets(list(parts.values()))
        with self._opened() as (store, owner):
            rows = store.fetch(SourceOffsetRow, "cluster = ? AND topic = ?", [self._cluster, self._source])
            feeds = store.fetch(FeedRow)
            for mailbox in sorted({row.mailbox for row in feeds}):
                owner.seal(mailbox)
            told = [
                Progress(mailbox=row.mailbox, feed=row.feed, last_number=owner.last_taken(row.mailbox, row.feed))
                for row in feeds
            ]
        stored = {row.partition: row.next_offset for row in rows}
        for number, part in parts.items():
            offset = stored.get(number, firsts[part])
            if not firsts[part] <= offset <= ends[part]:
                log.warning(
                    "%s/%d was read up to %d, which it no longer holds; it is read anew", self._source, number, offset
                )
                offset = firsts[part]
            consumer.seek(part, offset)
            self._sorting.start(number, offset)
        for progress in told:
            self._sorting.add_feed(progress.mailbox, progress.feed, progress.last_number)
            await self._tell(progress)

    async def _work(self, consumer: AIOKafkaConsumer) -> None:
        """Reads, and takes what is ready when there is enough of it, when it has waited, or when nothing else comes."""
        loop = asyncio.get_running_loop()
        since: float | None = None
        linger, quiet = 0.0, QUIET_SECONDS
        while not self._stop.is_set():
            batches = await consumer.getmany(
                timeout_ms=int(1_000 * quiet) if self._sorting.ready else IDLE_MS, max_records=BATCH_MAILS
            )
            for part, records in batches.items():
                for each in records:
                    await self._read(part.partition, each)
            if not self._sorting.ready:
                since = None
                continue
            since = loop.time() if since is None else since
            enough = self._sorting.ready >= BATCH_MAILS or self._sorting.ready_bytes >= BATCH_BYTES
            if enough or not batches or loop.time() - since >= linger:
                began = loop.time()
                await self._take()
                took = loop.time() - began
                linger = min(LINGER_COMMITS * took, LINGER_SECONDS)
                quiet = min(max(QUIET_SECONDS, took), LONGEST_QUIET_SECONDS)
                since = None

    async def _read(self, partition: int, each: Any) -> None:
        """One record: an item for its feed's order, feeds announced, or something to set aside."""
        record = Record(each.key or b"", each.value or b"", headers_of(each.headers))
        self._sorting.begin(partition, each.offset)
        try:
            if kind_of(record, ACCEPTED) is Kind.ANNOUNCED:
                await self._announced(announcement_of(record), partition)
                self._sorting.finish(partition, each.offset)
                return
            item = self._item(record)
            self._check_place(item.mailbox, partition)
            if not self._sorting.knows(item.mailbox, item.feed):
                raise RecordRefused(f"it is of the feed {item.feed}, which was not announced")
        except RecordRefused as error:
            log.warning("a record of %s was set aside: %s", self._source, error.message)
            at = Origin(each.timestamp, self._source, partition, each.offset)
            await self._outlet.add(self._dead, partition, dead_record(record, CONSUMER, 1, error.message, at))
            await self._outlet.flush()
            self._sorting.finish(partition, each.offset)
            return
        self._sorting.add(item, partition, each.offset, len(record.value))

    def _item(self, record: Record) -> Item:
        try:
            return answer_of(self._claims.redeemed(record))
        except ClaimMissing as error:
            return unreadable(record, STAGE, error.message)

    def _check_place(self, mailbox: str, partition: int) -> None:
        if partition_of(mailbox, self._partitions) != partition:
            raise RecordRefused(f"it is of the mailbox {mailbox}, which does not belong in partition {partition}")

    async def _announced(self, announcement: Announcement, partition: int) -> None:
        """Registers a mailbox and its feeds, and answers how far each is."""
        mailbox = announcement.mailbox
        self._check_place(mailbox, partition)
        now = utc_now()
        with self._opened() as (_, owner):
            owner.register(
                mailbox,
                choose_clock(owner, self._settings, mailbox, None),
                [FeedRow(mailbox, feed.name, feed.kind, feed.source, now) for feed in announcement.feeds],
            )
            owner.seal(mailbox)
            last = {feed.name: owner.last_taken(mailbox, feed.name) for feed in announcement.feeds}
        for feed, number in last.items():
            self._sorting.add_feed(mailbox, feed, number)
            await self._tell(Progress(mailbox=mailbox, feed=feed, last_number=number))

    async def _take(self) -> None:
        """Commits what is ready, mailbox by mailbox, and tells the feeds."""
        while (found := self._sorting.take()) is not None:
            mailbox, ready, restart = found
            row = SourceOffsetRow(self._cluster, self._source, ready.partition, restart, utc_now())
            with self._opened() as (_, owner):
                taken = owner.take(mailbox, ready.items, [row])
            self._on_taken(mailbox, taken)
            last = {item.feed: item.number for item in ready.items}
            for feed, number in last.items():
                await self._tell(Progress(mailbox=mailbox, feed=feed, last_number=number))

    async def _tell(self, progress: Progress) -> None:
        partition = partition_of(progress.mailbox, self._partitions)
        if partition in self._mine:
            await self._outlet.add(self._progress, partition, progress_record(progress, utc_now()))

    @contextmanager
    def _opened(self) -> Iterator[tuple[Store, Owner]]:
        """The store, as soon as no command has it."""
        with ExitStack() as stack:
            while True:
                try:
                    given = stack.enter_context(self._open_owner())
                    break
                except StoreHeldError:
                    if self._stop.wait(HELD_SECONDS):
                        raise
            yield given


async def cluster_of(settings: BusSettings) -> str:
    """The name that a Kafka cluster gives itself: offsets mean something only there."""
    from aiokafka.admin import AIOKafkaAdminClient

    admin = await started(AIOKafkaAdminClient(**client_options(settings)), settings)
    try:
        return str((await admin.describe_cluster())["cluster_id"])
    finally:
        await ended(admin)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
