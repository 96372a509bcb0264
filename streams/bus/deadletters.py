"""What consumers set aside on a broker: records of the topic ``NAME.dlq``, with why, and records that ask for a replay.

A dead letter is the record that was refused, byte for byte, with headers that say which consumer refused it, how often,
why, and where it came from. A replay is one more record of the same topic, for that consumer alone: it is the mark that
the dead letter is settled and the event to be handled again, in one, so that a crash can never leave only half of it.
Those who read mail look at no replays: theirs go back to the topic that they came from, and are settled after that.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pipeline.config.bus_settings import BusSettings
from pipeline.errors import BusError
from pipeline.events import PAYLOADS, Event, Topic
from streams.bus.connection import REQUEST_SECONDS, client_options, ended, started
from streams.bus.contract import Dead
from streams.bus.envelope import Record, RecordRefused, event_of, headers_of
from streams.bus.topics import dead_letter_name

REASON, ATTEMPTS, CONSUMER = "mailtide-reason", "mailtide-attempts", "mailtide-consumer"
ORIGIN, PUBLISHED = "mailtide-origin", "mailtide-published"
REPLAY = "mailtide-replay-for"
OURS = frozenset({REASON, ATTEMPTS, CONSUMER, ORIGIN, PUBLISHED, REPLAY})


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where a record stands: ``published`` is when it was, in milliseconds since 1970."""

    published: int
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What the contract tells of a dead letter, the record itself, and where that stood."""

    dead: Dead
    topic: Topic
    record: Record
    origin: Origin
    partition: int
    """Of the topic of dead letters."""
    replayed: bool = False
    """Whether somebody asked for it again; what came of that is not on the topic."""


def dead_record(record: Record, consumer: str, attempts: int, reason: str, origin: Origin) -> Record:
    """The record to publish on the topic of dead letters."""
    told = {
        REASON: reason,
        ATTEMPTS: str(attempts),
        CONSUMER: consumer,
        ORIGIN: str(origin),
        PUBLISHED: str(origin.published),
    }
    return replace(record, headers=_others(record) + _encoded(told))


def replay_record(letter: DeadLetter) -> Record:
    """The record that settles a dead letter and hands its event to its consumer again."""
    told = {REPLAY: letter.dead.consumer, ORIGIN: str(letter.origin), PUBLISHED: str(letter.origin.published)}
    return replace(letter.record, headers=_others(letter.record) + _encoded(told))


def original_record(letter: DeadLetter) -> Record:
    """The record as it was when it was refused."""
    return replace(letter.record, headers=_others(letter.record))


def replayed_to(record: Record, consumer: str) -> bool:
    """Whether a record of a topic of dead letters is for that consumer to handle."""
    return record.header(REPLAY) == consumer


async def dead_letters(settings: BusSettings) -> list[DeadLetter]:
    """What consumers set aside of every topic, in the order of publication; of an event that a consumer refused again
    after a replay, the last dead letter.

    Raises ``BusError`` when the broker cannot be read.
    """
    from aiokafka import AIOKafkaConsumer
    from aiokafka.errors import KafkaError

    names = {dead_letter_name(settings, topic): topic for topic in Topic}
    # Without a group it is given every partition.
    consumer = await started(AIOKafkaConsumer(*names, **client_options(settings), auto_offset_reset="earliest"), settings)
    letters: dict[tuple[Topic, str, str], DeadLetter] = {}
    try:
        partitions = consumer.assignment()
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        waiting = {partition for partition in partitions if await consumer.position(partition) < ends[partition]}
        while waiting:
            batches = await consumer.getmany(*waiting, timeout_ms=int(REQUEST_SECONDS * 1000))
            if not batches:
                raise BusError(f"the broker at {settings.brokers} does not give the dead letters out", hint="try again")
            for partition, batch in batches.items():
                for each in batch:
                    record = Record(each.key or b"", each.value or b"", headers_of(each.headers))
                    _fold(
                        letters,
                        record,
                        names[partition.topic],
                        Origin(each.timestamp, partition.topic, partition.partition, each.offset),
                    )
            waiting = {partition for partition in waiting if await consumer.position(partition) < ends[partition]}
    except KafkaError as error:
        raise BusError(f"the broker at {settings.brokers} refuses: {error}", hint="check what its user may do") from error
    finally:
        await ended(consumer)
    return sorted(letters.values(), key=lambda letter: (letter.origin, letter.dead.consumer))


def _fold(letters: dict[tuple[Topic, str, str], DeadLetter], record: Record, topic: Topic, at: Origin) -> None:
    """One more record of a topic of dead letters: a later one of the same event and consumer takes the former's place."""
    origin = origin_of(record)
    event = _event(record, topic, origin)
    if (settled := record.header(REPLAY)) is not None:
        if (letter := letters.get((topic, event.id, settled))) is not None:
            letters[(topic, event.id, settled)] = replace(letter, replayed=True)
    elif (consumer := record.header(CONSUMER)) is not None:
        dead = Dead(
            event=event,
            consumer=consumer,
            attempts=_number(record.header(ATTEMPTS)),
            error=record.header(REASON) or "",
            at=_moment(at.published),
        )
        letters[(topic, event.id, consumer)] = DeadLetter(dead, topic, record, origin, at.partition)


def _event(record: Record, topic: Topic, origin: Origin) -> Event:
    """The event of a dead letter. Mail, and what could not be read, is put as one, named after its place where it is not
    ours: others number theirs as they like."""
    if topic in PAYLOADS:
        with suppress(RecordRefused):
            return event_of(record, topic)
    source = record.header("ce_source") or "unknown"
    ours = source.split("/")[0] == "mailtide"
    return Event(
        id=(record.header("ce_id") if ours else None) or str(origin),
        source=source,
        type=topic,
        time=_moment(origin.published),
        key=record.key.decode(errors="replace"),
        data=record.value.decode(errors="replace"),
    )


def origin_of(record: Record) -> Origin:
    """Where the record of a dead letter, or of its replay, first stood."""
    topic, _, place = (record.header(ORIGIN) or "unknown/0/0").partition("/")
    partition, _, offset = place.partition("/")
    return Origin(_number(record.header(PUBLISHED)), topic, _number(partition), _number(offset))


def _others(record: Record) -> tuple[tuple[str, bytes], ...]:
    return tuple(header for header in record.headers if header[0] not in OURS)


def _encoded(headers: Mapping[str, str]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, text.encode()) for name, text in headers.items())


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).replace(tzinfo=None)
