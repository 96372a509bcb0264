"""Numbered items as records: what a feed hands on, and what parsers answer. Where an item stands is in the headers, so that
a damaged body still says whose it is; a raw mail is the record's value as it came.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt, TypeAdapter

from pipeline.domain import Arrival, DeadLetter, Item, Parsed, ParsedMail, Tick, TickKind
from pipeline.versions import PARSE_VERSION
from streams.bus.envelope import Record, RecordRefused
from streams.feeds.contract import Handed
from streams.mailpath.records import MAIL, Kind, Time, checked, extensions, kind_of, sealed

HANDED = frozenset({Kind.RECEIVED, Kind.UNREADABLE, Kind.MARKED})
ANSWERED = frozenset({Kind.PARSED, Kind.UNREADABLE, Kind.MARKED})


class Place(BaseModel):
    """The headers of every numbered item. ``time`` is when it was received or noted (naive UTC)."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    mailbox: str
    feed: str
    number: PositiveInt
    time: Time


class MailPlace(Place):
    """The headers of a mail, raw or parsed; ``cursor`` finds it again in its feed."""

    cursor: str


class RawPlace(MailPlace):
    """The headers of a raw mail; ``digest`` is the hex sha256 of its bytes."""

    digest: str


class ParsedPlace(MailPlace):
    """The headers of a parsed mail; ``parseversion`` is that of the parser, which a store has frozen."""

    parseversion: int


class DeadPlace(MailPlace):
    """The headers of a mail that could not be handled; its bytes, as far as there are any, are the value."""

    stage: str
    reason: str
    attempts: int


class MarkPlace(Place):
    """The headers of a mark, which has no data."""

    mark: TickKind


_PARSED_MAIL: TypeAdapter[ParsedMail] = TypeAdapter(ParsedMail)


def handed_record(item: Handed) -> Record:
    """What a feed hands on. The key of a mail is its digest, so that parsing spreads."""
    if isinstance(item, Arrival):
        place = _place(item, cursor=item.cursor, digest=item.digest)
        return sealed(Kind.RECEIVED, _id("message.received", item), item.digest, item.raw, item.received_at, MAIL, **place)
    if isinstance(item, Tick):
        return _mark(item, key=item.feed)
    return _dead(item, key=item.feed)


def handed_of(record: Record) -> Handed:
    """What a feed handed on, from a record whose value is in place; raises ``RecordRefused``."""
    kind = kind_of(record, HANDED)
    if kind is not Kind.RECEIVED:
        return _mark_of(record) if kind is Kind.MARKED else _dead_of(record)
    place = raw_place(record)
    return Arrival(place.mailbox, place.feed, place.number, place.cursor, place.time, place.digest, record.value)


def answer_record(item: Item) -> Record:
    """What a parser answers, under the key of its mailbox."""
    if isinstance(item, Parsed):
        place = _place(item, cursor=item.cursor, parseversion=str(PARSE_VERSION))
        value = _PARSED_MAIL.dump_json(item.mail)
        return sealed(Kind.PARSED, _id("message.parsed", item), item.mailbox, value, item.received_at, **place)
    return _mark(item, key=item.mailbox) if isinstance(item, Tick) else _dead(item, key=item.mailbox)


def answer_of(record: Record) -> Item:
    """What a parser answered, from a record whose value is in place; raises ``RecordRefused``, also for one of a parser
    of another version than the one that the store has frozen."""
    kind = kind_of(record, ANSWERED)
    if kind is not Kind.PARSED:
        return _mark_of(record) if kind is Kind.MARKED else _dead_of(record)
    place = checked(ParsedPlace.model_validate, extensions(record), "headers")
    if place.parseversion != PARSE_VERSION:
        raise RecordRefused(
            f"it was parsed by version {place.parseversion} and this store takes {PARSE_VERSION}: "
            "use one version of mailtide for parsers and assigner"
        )
    mail = checked(_PARSED_MAIL.validate_json, record.value, "data")
    return Parsed(place.mailbox, place.feed, place.number, place.cursor, place.time, mail)


def raw_place(record: Record) -> RawPlace:
    """The headers of a raw mail; raises ``RecordRefused``."""
    return checked(RawPlace.model_validate, extensions(record), "headers")


def unreadable(record: Record, stage: str, reason: str) -> DeadLetter:
    """The dead letter in the place of a mail whose data cannot be had; raises ``RecordRefused`` where the headers do
    not say which mail it was."""
    place = checked(MailPlace.model_validate, extensions(record), "headers")
    return DeadLetter(place.mailbox, place.feed, place.number, place.cursor, place.time, stage, reason, 1, b"")


def _mark(tick: Tick, key: str) -> Record:
    place = _place(tick, mark=tick.kind.value)
    return sealed(Kind.MARKED, _id("mark.noted", tick), key, b"", tick.at, **place)


def _mark_of(record: Record) -> Tick:
    place = checked(MarkPlace.model_validate, extensions(record), "headers")
    return Tick(place.mailbox, place.feed, place.number, place.mark, place.time)


def _dead(item: DeadLetter, key: str) -> Record:
    place = _place(item, cursor=item.cursor, stage=item.stage, reason=item.reason, attempts=str(item.attempts))
    return sealed(Kind.UNREADABLE, _id("message.unreadable", item), key, item.raw, item.received_at, MAIL, **place)


def _dead_of(record: Record) -> DeadLetter:
    place = checked(DeadPlace.model_validate, extensions(record), "headers")
    return DeadLetter(
        place.mailbox,
        place.feed,
        place.number,
        place.cursor,
        place.time,
        place.stage,
        place.reason,
        place.attempts,
        record.value,
    )


def _place(item: Item | Arrival, **more: str) -> dict[str, Any]:
    return {"mailbox": item.mailbox, "feed": item.feed, "number": str(item.number), **more}


def _id(what: str, item: Item | Arrival) -> str:
    return f"{what}/{item.feed}/{item.number}"
