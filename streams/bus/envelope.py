"""Events as Kafka records: CloudEvents 1.0 in binary mode. The data are the value, everything about them is headers.

The record's key is the event's, so that one mailbox's events stay in one partition, in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from pipeline.errors import BusError
from pipeline.events import Event, Topic

SPECVERSION = "1.0"
JSON = "application/json"
VERSION = re.compile(r"\.v(\d+)$")

Headers = tuple[tuple[str, bytes], ...]


class RecordRefused(BusError):
    """A record that no handler can be given: it is not ours, damaged, or of a version that this one does not know.

    Trying again cannot help, so a consumer sets it aside at once; after an update a replay may find it readable.
    """


@dataclass(frozen=True, slots=True)
class Record:
    """What a topic holds of one event."""

    key: bytes
    value: bytes
    headers: Headers

    def header(self, name: str) -> str | None:
        """The text of a header, the last of that name; None when there is none."""
        for given, value in reversed(self.headers):
            if given == name:
                return value.decode("utf-8", errors="replace")
        return None


def record_of(event: Event) -> Record:
    headers = {
        "ce_specversion": SPECVERSION,
        "ce_id": event.id,
        "ce_source": event.source,
        "ce_type": event.type.value,
        "ce_time": event.time.isoformat() + "Z",
        "content-type": JSON,
    }
    return Record(event.key.encode(), event.data.encode(), tuple((name, text.encode()) for name, text in headers.items()))


def event_of(record: Record, topic: Topic) -> Event:
    """The event of a record read from ``topic``, its data checked against the topic's model; raises ``RecordRefused``."""
    specversion = record.header("ce_specversion")
    if specversion is None:
        raise RecordRefused("it is no event of mailtide: it has no CloudEvents headers")
    if specversion != SPECVERSION:
        raise RecordRefused(f"it is of CloudEvents {specversion}, and {SPECVERSION} is what is read here")
    wanted = ("ce_id", "ce_source", "ce_type", "ce_time")
    found = {name: record.header(name) for name in wanted}
    if missing := [name for name, text in found.items() if not text]:
        raise RecordRefused(f"it is no event of mailtide: it has no header {', '.join(missing)}")
    if found["ce_type"] != topic.value:
        raise RecordRefused(_of_other_type(str(found["ce_type"]), topic))
    content = (record.header("content-type") or JSON).partition(";")[0].strip().lower()
    if content != JSON:
        raise RecordRefused(f"its data are {content}, not {JSON}")
    try:
        event = Event(
            id=str(found["ce_id"]),
            source=str(found["ce_source"]),
            type=topic,
            time=_time(str(found["ce_time"])),
            key=record.key.decode(),
            data=record.value.decode(),
        )
        event.payload()
    except ValidationError as error:
        # What a field holds may be somebody's mail: its name and what is wrong with it must do.
        told = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'data'}: {each['msg']}" for each in error.errors())
        raise RecordRefused(f"its data are not those of {topic}: {told}") from None
    except ValueError as error:
        raise RecordRefused(f"it cannot be read: {error}") from None
    return event


def headers_of(given: Iterable[tuple[str, bytes | None]]) -> Headers:
    """Headers as a consumer hands them over, with those that hold nothing as empty ones."""
    return tuple((name, value or b"") for name, value in given)


def _of_other_type(type_: str, topic: Topic) -> str:
    named, known = VERSION.search(type_), VERSION.search(topic.value)
    if named and known and type_[: named.start()] == topic.value[: known.start()] and int(named[1]) > int(known[1]):
        return f"it is of a newer version, {type_}, and this mailtide knows {topic}: update mailtide, then replay it"
    return f"it is of type {type_}, which does not belong on {topic}"


def _time(text: str) -> datetime:
    """RFC 3339 as naive UTC; a time without a zone is UTC."""
    time = datetime.fromisoformat(text)
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
