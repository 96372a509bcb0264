"""One subscription on a broker: a member of its consumer group that reads ahead, and never stops polling.

Everything here runs in the bus's own event loop. The handlers do not: one may take hours in its thread, while this member
goes on polling with full partitions paused, and so keeps its place in the group.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.config.bus_settings import BusSettings
from pipeline.errors import BusError
from pipeline.events import Event, Topic
from streams.bus.connection import REQUEST_SECONDS, client_options, ended, started
from streams.bus.contract import Subscription
from streams.bus.deadletters import Origin, origin_of, replayed_to
from streams.bus.envelope import Record, RecordRefused, event_of, headers_of
from streams.bus.offsets import Offsets
from streams.bus.progress import Progress
from streams.bus.topics import dead_letter_name, topic_name

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord, TopicPartition

log = logging.getLogger(__name__)

READ_AHEAD = 500
"""Unfinished records held per partition at most, before it is paused."""
AHEAD = 3_000
"""How far beyond the lowest unfinished offset a partition is read at most."""
REMEMBERED = 10_000
"""Records per partition among which an id that comes again is a repeat."""
POLL_SECONDS = 0.5
CROWDED, CROWDED_SECONDS = 8, 60.0
"""Losing all partitions so often within so long tells a member with an instance name that another has the same."""


@dataclass(frozen=True, slots=True)
class Membership:
    """How a group knows that a member lives. ``instance`` names a member across restarts: it then takes its partitions
    up again at once, without a wait for the session of the process that died. It must be the only one of that name."""

    instance: str = ""
    session_seconds: float = 10.0
    max_poll_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Pending:
    """An event to be handed over, or (``event`` is None) a record that cannot be, and why not in ``fault``."""

    partition: TopicPartition
    offset: int
    record: Record
    origin: Origin
    event: Event | None
    fault: str = ""


@dataclass(slots=True)
class _Partition:
    """What is known of a partition while it is assigned. ``unfinished`` is in order of offsets."""

    progress: Progress
    position: int
    unfinished: dict[int, Pending] = field(default_factory=dict)
    ids: dict[str, None] = field(default_factory=dict)

    @property
    def lowest(self) -> int:
        return next(iter(self.unfinished), self.position)

    @property
    def full(self) -> bool:
        return len(self.unfinished) >= READ_AHEAD or self.position - self.lowest >= AHEAD

    def repeats(self, id_: str) -> bool:
        """Whether the id was read before; it is remembered from now on."""
        if id_ in self.ids:
            return True
        self.ids[id_] = None
        if len(self.ids) > REMEMBERED:
            del self.ids[next(iter(self.ids))]
        return False


def group_name(settings: BusSettings, consumer: str, topic: Topic) -> str:
    """The consumer group of a subscription."""
    return f"{settings.prefix}{consumer}.{topic}"


class Intake:
    """Reads a topic, and the replays among its dead letters, for one consumer."""

    def __init__(self, subscription: Subscription, settings: BusSettings, membership: Membership, offsets: Offsets) -> None:
        self.subscription = subscription
        self.failure: BaseException | None = None
        self._settings = settings
        self._membership = membership
        self._offsets = offsets
        self._topic = topic_name(settings, subscription.topic)
        self._replays = dead_letter_name(settings, subscription.topic)
        self._group = group_name(settings, subscription.consumer, subscription.topic)
        self._consumer: Any = None
        self._pump: asyncio.Task[None] | None = None
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._left: dict[TopicPartition, Progress] = {}
        self._queues: dict[str, deque[Pending]] = {}
        self._unreadable: deque[Pending] = deque()
        self._moved = asyncio.Event()
        self._placed = False
        self._losses: deque[float] = deque(maxlen=CROWDED)

    async def start(self) -> None:
        """Joins the group; returns when it has its partitions, which may be none. Raises ``BusError``."""
        from aiokafka import AIOKafkaConsumer
        from aiokafka.coordinator.assignors.range import RangePartitionAssignor

        milliseconds = int(self._membership.session_seconds * 1000)
        instance = self._membership.instance
        self._consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            group_id=self._group,
            group_instance_id=f"{instance}.{self._group}" if instance else None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # A topic and its dead letters are cut into the same partitions, so that one member has both of a mailbox.
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=milliseconds,
            heartbeat_interval_ms=milliseconds // 4,
            max_poll_interval_ms=int(self._membership.max_poll_seconds * 1000),
        )
        self._consumer.subscribe([self._topic, self._replays], listener=_listener(self))
        await started(self._consumer, self._settings)
        self._pump = asyncio.create_task(self._poll())
        await self._until(lambda: self._placed)

    async def close(self) -> None:
        """Leaves the group, or with an instance name keeps its place there for the next of that name."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        if self._consumer is not None:
            await ended(self._consumer)

    async def caught_up(self) -> None:
        """Returns when all that was published so far is read, as far as there is room; raises ``BusError``."""
        await self._until(lambda: self._placed)
        ends = await self._offsets.ends(list(self._partitions))

        def read(partition: TopicPartition, end: int) -> bool:
            known = self._partitions.get(partition)
            return known is None or known.position >= end or known.full

        await self._until(lambda: all(read(partition, end) for partition, end in ends.items()))

    def due(self) -> tuple[int, Pending] | None:
        """The event that was refused least often, of these the oldest, with how often it was; None when none is held.

        Of each key only the first unfinished event is due.
        """
        heads = (queue[0] for queue in self._queues.values())
        rated = ((self._partitions[head.partition].progress.refusals(head.offset), head) for head in heads)
        return min(rated, key=lambda rating: (rating[0], rating[1].origin), default=None)

    def unreadable(self) -> Pending | None:
        """A record that no handler can be given, to be set aside."""
        return self._unreadable[0] if self._unreadable else None

    def refused(self, pending: Pending) -> int:
        """Counts a refusal, and says how many there are now."""
        known = self._partitions.get(pending.partition)
        return 1 if known is None else known.progress.refuse(pending.offset)

    def finished(self, pending: Pending) -> None:
        """The event is done or set aside. Noted also when its partition has gone to another member: it may come back."""
        known = self._partitions.get(pending.partition)
        if known is None:
            self._left.setdefault(pending.partition, Progress(0)).finish(pending.offset)
            return
        known.progress.finish(pending.offset)
        # After a rebalance this is another object for the same record.
        if (held := known.unfinished.pop(pending.offset, None)) is not None:
            self._dequeue(held)
        known.progress.advance(known.lowest)
        if not known.full:
            self._consumer.resume(pending.partition)

    async def commit(self, partition: TopicPartition) -> None:
        """Writes down how far the partition is. Left out when another member has it by now: then that one says."""
        from aiokafka.errors import CommitFailedError, IllegalStateError
        from aiokafka.structs import OffsetAndMetadata

        known = self._partitions.get(partition)
        if known is None:
            return
        at = OffsetAndMetadata(known.progress.start, known.progress.marks)
        try:
            await self._consumer.commit({partition: at})
        except (CommitFailedError, IllegalStateError):
            log.info("%s gives up partition %s of %s: its group is shared out anew", self._group, *reversed(partition))

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Takes partitions up where the group left them."""
        if partitions:
            await self._take_up(partitions)
        self._placed = True
        self._moved.set()

    async def _take_up(self, partitions: Collection[TopicPartition]) -> None:
        committed = await self._offsets.committed(self._group, partitions)
        beginnings = await self._offsets.beginnings(partitions)
        for partition in partitions:
            offset, marks = committed.get(partition, (-1, ""))
            progress = Progress(max(offset, beginnings[partition]), marks if offset >= beginnings[partition] else "")
            if (left := self._left.pop(partition, None)) is not None:
                progress.learn(left)
            # Read once more what lies just before, for its ids alone, so that repeats are known after a restart too.
            before = REMEMBERED if partition.topic == self._topic else 0
            position = max(progress.start - before, beginnings[partition])
            self._partitions[partition] = _Partition(progress, position)
            self._consumer.seek(partition, position)

    def revoked(self) -> None:
        """All partitions go, perhaps to another member; what is known of them is kept in case they come back."""
        if self._partitions and self._membership.instance:
            self._losses.append(time.monotonic())
            if len(self._losses) == CROWDED and self._losses[-1] - self._losses[0] < CROWDED_SECONDS:
                self.failed(
                    BusError(
                        f"another process takes its turn as {self._membership.instance} in the group {self._group}",
                        hint="end one of the two: each would be given the other's events",
                    )
                )
        self._left |= {partition: known.progress for partition, known in self._partitions.items()}
        self._partitions.clear()
        self._queues.clear()
        self._unreadable.clear()
        self._placed = False

    def failed(self, error: BaseException) -> None:
        """Nothing more can be read: the bus closes this intake, and tries with another."""
        self.failure = error
        self._moved.set()

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Waits until ``reached`` or failed; raises ``BusError`` when nothing at all happens for long."""
        while self.failure is None and not reached():
            self._moved.clear()
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    await self._moved.wait()
            except TimeoutError:
                raise BusError(f"nothing can be read from {self._topic} just now", hint="try again") from None

    async def _poll(self) -> None:
        try:
            while True:
                batches = await self._consumer.getmany(timeout_ms=int(POLL_SECONDS * 1000), max_records=READ_AHEAD)
                for partition, batch in batches.items():
                    self._take(partition, batch)
                self._moved.set()
        except Exception as error:
            self.failed(error)

    def _take(self, partition: TopicPartition, batch: Iterable[ConsumerRecord[bytes, bytes]]) -> None:
        known = self._partitions.get(partition)
        if known is None:  # read before it was taken up where it had been left
            return
        for each in batch:
            if each.offset < known.position:
                continue
            known.position = each.offset + 1
            record = Record(each.key or b"", each.value or b"", headers_of(each.headers))
            pending = self._pending(known, partition, each, record)
            if pending is not None:
                known.unfinished[each.offset] = pending
                queue = self._unreadable if pending.event is None else self._queues.setdefault(pending.event.key, deque())
                queue.append(pending)
        known.progress.advance(known.lowest)
        if known.full:
            self._consumer.pause(partition)

    def _pending(
        self, known: _Partition, partition: TopicPartition, each: ConsumerRecord[bytes, bytes], record: Record
    ) -> Pending | None:
        """What is to be done about a record; None when nothing is."""
        if partition.topic == self._replays:
            if known.progress.finished(each.offset) or not replayed_to(record, self.subscription.consumer):
                return None
            origin = origin_of(record)
        else:
            if known.repeats(record.header("ce_id") or str(each.offset)) or known.progress.finished(each.offset):
                return None
            origin = Origin(each.timestamp, self._topic, each.partition, each.offset)
        try:
            event, fault = event_of(record, self.subscription.topic), ""
        except RecordRefused as refusal:
            event, fault = None, str(refusal)
        return Pending(partition, each.offset, record, origin, event, fault)

    def _dequeue(self, pending: Pending) -> None:
        if pending.event is None:
            self._unreadable.remove(pending)
            return
        queue = self._queues[pending.event.key]
        queue.remove(pending)
        if not queue:
            del self._queues[pending.event.key]


def _listener(intake: Intake) -> Any:
    """Tells the intake what the group decides. The library asks for a class of its own, which is not imported before."""
    from aiokafka import ConsumerRebalanceListener

    class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
        async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
            intake.revoked()

        async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
            try:
                await intake.assigned(assigned)
            except Exception as error:  # the library would only log it
                intake.failed(error)

    return Listener()
