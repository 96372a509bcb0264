"""The bus over a Kafka broker: the same promises as the embedded one, between processes and machines.

Clients live in an event loop in a thread of its own; handlers run in the thread that calls ``deliver``. An offset is
committed when its event is done or set aside, before the next is handed over.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, TypeVar

from pipeline.config.bus_settings import BusSettings
from pipeline.errors import MailtideError, UsageError
from pipeline.events import PAYLOADS, Event, Topic
from streams.bus.connection import REQUEST_SECONDS, client_options, ended, fault, started
from streams.bus.contract import Dead, Interrupted, Subscription
from streams.bus.deadletters import DeadLetter, dead_letters, dead_record, original_record, replay_record
from streams.bus.envelope import Record, record_of
from streams.bus.intake import Intake, Membership, Pending, group_name
from streams.bus.loop_thread import LoopThread
from streams.bus.offsets import Offsets
from streams.bus.topics import check_topics, dead_letter_name, message_bytes, topic_name

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
LAST_SECONDS = 5.0
"""How long what a handler did may take to be written down once the bus is to stop."""


class KafkaBus:
    """Keeps the contract of :class:`streams.bus.contract.Bus` on the broker of ``settings``.

    It connects when it is first used, and raises ``BusError`` when the broker cannot be reached or its topics will not do;
    the next call tries again. A ``with`` block ends it: without, its place in a group is held until the session expires.
    """

    def __init__(self, settings: BusSettings, membership: Membership | None = None) -> None:
        self._settings = settings
        self._membership = membership or Membership()
        self._subscriptions: dict[tuple[str, Topic], Subscription] = {}
        self._intakes: dict[tuple[str, Topic], Intake] = {}
        self._delivering = threading.Lock()
        self._stopped = threading.Event()
        self._loop = LoopThread("kafka bus")
        self._producer: Any = None
        self._offsets: Offsets | None = None
        self._checked = False
        self._connecting = asyncio.Lock()

    def __enter__(self) -> KafkaBus:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def subscribe(self, subscription: Subscription) -> None:
        name = (subscription.consumer, subscription.topic)
        if name in self._subscriptions:
            raise ValueError(f"{subscription.consumer} has subscribed to {subscription.topic} already")
        self._subscriptions[name] = subscription

    def publish(self, events: Sequence[Event]) -> None:
        """Raises ``BusError`` when the broker does not confirm in time: some may be there then, and publishing them again
        is safe."""
        if events:
            records = [(topic_name(self._settings, event.type), record_of(event), None) for event in events]
            self._loop.run(self._send(records))

    def deliver(self, limit: int | None = None) -> int:
        """As the contract says. Called while a delivery is under way, from a handler or another thread, it does nothing.

        Raises ``BusError`` when the broker cannot be reached; what handlers finished meanwhile is not forgotten.
        """
        if not self._delivering.acquire(blocking=False):
            return 0
        try:
            handed = 0
            while handed != limit and not self._stopped.is_set():
                job = self._loop.run(self._next(), give_up=self._stopped)
                if job is None:
                    break
                self._hand_over(*job)
                handed += 1
            return handed
        finally:
            self._delivering.release()

    def dead(self) -> list[Dead]:
        return [letter.dead for letter in self.letters() if not letter.replayed]

    def letters(self) -> list[DeadLetter]:
        """All dead letters of the broker's topics, mail's and replayed ones too, in the order of publication."""
        return self._loop.run(self._read_letters()) or []

    def replay(self, event_id: str, consumer: str) -> None:
        for letter in self.letters():
            if not letter.replayed and (letter.dead.event.id, letter.dead.consumer) == (event_id, consumer):
                self.replay_letter(letter)
                return
        raise UsageError(
            f"{consumer} has set aside no event {event_id}",
            hint="`mailtide deadletters list` shows what was set aside",
        )

    def replay_letter(self, letter: DeadLetter) -> None:
        """As ``replay``, for one that was read already; mail goes back to the topic that it came from."""
        if letter.topic not in PAYLOADS:
            source = topic_name(self._settings, letter.topic)
            self._loop.run(self._send([(source, original_record(letter), letter.origin.partition)]))
        aside = dead_letter_name(self._settings, letter.topic)
        self._loop.run(self._send([(aside, replay_record(letter), letter.partition)]))

    def attended(self, consumer: str, topic: Topic) -> bool:
        """Whether any process, on whatever machine, is subscribed as that consumer now. Raises ``BusError``."""
        return bool(self._loop.run(self._attended(group_name(self._settings, consumer, topic))))

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        """Leaves the groups and ends all connections; a bus that was closed is of no more use."""
        self._stopped.set()
        self._loop.run(self._disconnect())
        self._loop.end()

    def _hand_over(self, intake: Intake, pending: Pending, event: Event) -> None:
        subscription = intake.subscription
        try:
            subscription.handler(event)
        except Interrupted:
            self._stopped.set()
        except Exception as error:
            if not isinstance(error, MailtideError):
                log.warning("%s failed on %s", subscription.consumer, event.id, exc_info=error)
            self._write_down(self._refuse(intake, pending, f"{type(error).__name__}: {error}"))
        else:
            self._write_down(self._finish(intake, pending))

    def _write_down(self, work: Coroutine[Any, Any, bool]) -> None:
        if self._loop.run(work, give_up=self._stopped, patience=LAST_SECONDS) is None:
            log.warning("the broker at %s did not take down what was done last: it comes again", self._settings.brokers)

    # What follows runs in the loop's thread.

    async def _next(self) -> tuple[Intake, Pending, Event] | None:
        """The event to hand over now. Before a refused one is tried again, and before there is none, all is read that was
        published so far."""
        async with self._answering():
            intakes = await self._joined()
            due = _first(intakes)
            if due is None or due[0] > 0:
                await asyncio.gather(*(intake.caught_up() for intake in intakes))
                for intake in intakes:
                    while (unreadable := intake.unreadable()) is not None:
                        await self._set_aside(intake, unreadable, 1, f"RecordRefused: {unreadable.fault}")
                due = _first(intakes)
            for intake in intakes:
                if intake.failure is not None:
                    await self._drop(intake)
                    raise intake.failure
        if due is None:
            return None
        _, intake, pending = due
        assert pending.event is not None
        return intake, pending, pending.event

    async def _read_letters(self) -> list[DeadLetter]:
        async with self._connecting:
            await self._check()
        return await dead_letters(self._settings)

    async def _attended(self, group: str) -> bool:
        async with self._answering():
            return await (await self._opened_offsets()).members(group) > 0

    async def _finish(self, intake: Intake, pending: Pending) -> bool:
        async with self._answering():
            intake.finished(pending)
            await intake.commit(pending.partition)
        return True

    async def _refuse(self, intake: Intake, pending: Pending, reason: str) -> bool:
        async with self._answering():
            attempts = intake.refused(pending)
            if attempts >= intake.subscription.max_attempts:
                await self._set_aside(intake, pending, attempts, reason)
            else:
                await intake.commit(pending.partition)
        return True

    async def _set_aside(self, intake: Intake, pending: Pending, attempts: int, reason: str) -> None:
        consumer, topic = intake.subscription.consumer, intake.subscription.topic
        record = dead_record(pending.record, consumer, attempts, reason, pending.origin)
        await self._send([(dead_letter_name(self._settings, topic), record, pending.partition.partition)])
        log.warning("%s has set %s aside after %d attempts: %s", consumer, _named(pending), attempts, reason)
        intake.finished(pending)
        await intake.commit(pending.partition)

    async def _joined(self) -> list[Intake]:
        """The intakes of all subscriptions, started where they were not yet."""
        offsets = await self._opened_offsets()
        async with self._connecting:
            missing = [name for name in self._subscriptions if name not in self._intakes]
            joined = await asyncio.gather(*(self._join(name, offsets) for name in missing), return_exceptions=True)
            for error in joined:
                if error is not None:
                    raise error
            return list(self._intakes.values())

    async def _opened_offsets(self) -> Offsets:
        async with self._connecting:
            await self._check()
            if self._offsets is None:
                self._offsets = await Offsets.opened(self._settings)
            return self._offsets

    async def _join(self, name: tuple[str, Topic], offsets: Offsets) -> None:
        intake = Intake(self._subscriptions[name], self._settings, self._membership, offsets)
        try:
            await intake.start()
        except BaseException:
            await intake.close()
            raise
        self._intakes[name] = intake

    async def _drop(self, intake: Intake) -> None:
        del self._intakes[(intake.subscription.consumer, intake.subscription.topic)]
        await intake.close()

    async def _check(self) -> None:
        if not self._checked:
            await check_topics(self._settings)
            self._checked = True

    async def _send(self, records: Sequence[tuple[str, Record, int | None]]) -> None:
        """Publishes (topic, record, partition or as the key says) and waits until the broker has them for good."""
        async with self._answering():
            producer = await self._started_producer()
            try:
                sent = [
                    await producer.send(topic, record.value, key=record.key, headers=list(record.headers), partition=part)
                    for topic, record, part in records
                ]
                await asyncio.gather(*sent)
            except Exception:
                # After a gap in its sequence an idempotent producer refuses all that follows: the next call gets another.
                self._producer = None
                await ended(producer)
                raise

    async def _started_producer(self) -> Any:
        from aiokafka import AIOKafkaProducer

        async with self._connecting:
            await self._check()
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **client_options(self._settings),
                    enable_idempotence=True,
                    acks="all",
                    max_request_size=message_bytes(self._settings),
                )
                self._producer = await started(producer, self._settings)
            return self._producer

    async def _disconnect(self) -> None:
        ending = [intake.close() for intake in self._intakes.values()]
        if self._producer is not None:
            ending.append(ended(self._producer))
        if self._offsets is not None:
            ending.append(self._offsets.close())
        await asyncio.gather(*ending)

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        """Errors of the library, and a broker that says nothing, as a ``BusError`` that says why."""
        from aiokafka.errors import KafkaError

        try:
            async with asyncio.timeout(2 * REQUEST_SECONDS):
                yield
        except (KafkaError, TimeoutError) as error:
            raise await fault(self._settings, error) from error


def _first(intakes: Sequence[Intake]) -> tuple[int, Intake, Pending] | None:
    """The event refused least often, of these the one published first, with how often it was refused."""
    due = [(found[0], intake, found[1]) for intake in intakes if (found := intake.due()) is not None]
    return min(due, key=lambda each: (each[0], each[2].origin), default=None)


def _named(pending: Pending) -> str:
    return pending.event.id if pending.event is not None else f"record {pending.origin}"
