"""What a record on the mail topics must be before its data is looked at: CloudEvents 1.0, binary mode, of a known kind.

A kind's name ends with its version. A change that older readers would misread is a new kind, and they set it aside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ValidationError

from streams.bus.envelope import JSON, SPECVERSION, VERSION, Record, RecordRefused

MAIL = "message/rfc822"
DATAREF = "ce_dataref"
"""CloudEvents' extension for data that lie elsewhere: the record's value is empty then."""

T = TypeVar("T")


class Kind(StrEnum):
    """``ce_type`` of the records: the first four are numbered within their feed, in one order."""

    RECEIVED = "mail.message.received.v1"
    PARSED = "mail.message.parsed.v1"
    UNREADABLE = "mail.message.unreadable.v1"
    MARKED = "mail.mark.noted.v1"
    ANNOUNCED = "mail.feeds.announced.v1"
    PROGRESS = "mail.progress.v1"
    OWNED = "mail.partition.owned.v1"


def naive_utc(time: datetime) -> datetime:
    """A time of any zone as naive UTC; one without a zone is UTC."""
    return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)


Time = Annotated[datetime, AfterValidator(naive_utc)]


def sealed(
    kind: Kind, event_id: str, key: str, value: bytes, time: datetime, content: str = JSON, **extensions: str
) -> Record:
    """A record with its CloudEvents headers; ``extensions`` are named without their ``ce_``."""
    return Record(
        key.encode(),
        value,
        (
            ("ce_specversion", SPECVERSION.encode()),
            ("ce_id", event_id.encode()),
            ("ce_source", b"mailtide"),
            ("ce_type", kind.value.encode()),
            ("ce_time", f"{time.isoformat()}Z".encode()),
            ("content-type", content.encode()),
            *((f"ce_{name}", text.encode()) for name, text in extensions.items()),
        ),
    )


def kind_of(record: Record, allowed: Set[Kind]) -> Kind:
    """The kind of a record; raises ``RecordRefused`` unless it is one of ``allowed``."""
    specversion = record.header("ce_specversion")
    if specversion is None:
        raise RecordRefused("it is no event of mailtide: it has no CloudEvents headers")
    if specversion != SPECVERSION:
        raise RecordRefused(f"it is of CloudEvents {specversion}, and {SPECVERSION} is what is read here")
    type_ = record.header("ce_type") or ""
    if type_ in allowed:
        return Kind(type_)
    raise RecordRefused(_unknown(type_, allowed))


def _unknown(type_: str, allowed: Set[Kind]) -> str:
    named = VERSION.search(type_)
    for known in sorted(allowed):
        version = VERSION.search(known.value)
        if (
            named
            and version
            and type_[: named.start()] == known.value[: version.start()]
            and int(named[1]) > int(version[1])
        ):
            return f"it is of a newer version, {type_}, and this mailtide knows {known}: update mailtide, then replay it"
    return f"it is of type {type_ or 'none'}, which does not belong here"


def extensions(record: Record) -> dict[str, str]:
    """The record's ``ce_`` headers without that prefix; raises ``RecordRefused`` where one is not UTF-8."""
    try:
        return {name[3:]: value.decode() for name, value in record.headers if name.startswith("ce_")}
    except UnicodeDecodeError:
        raise RecordRefused("it is no event of mailtide: a header is not UTF-8") from None


def checked(read: Callable[[Any], T], given: object, what: str) -> T:
    """``read(given)``, a pydantic validation; raises ``RecordRefused`` that names fields, never what they hold: that may be
    somebody's mail."""
    try:
        return read(given)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'data'}: {each['msg']}" for each in error.errors())
        raise RecordRefused(f"its {what} are not as they must be: {told}") from None


def with_headers(record: Record, added: Mapping[str, str]) -> Record:
    """The record with headers added."""
    return replace(record, headers=(*record.headers, *((name, text.encode()) for name, text in added.items())))
