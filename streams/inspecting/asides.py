"""What was set aside: told, shown with all that is known of it, and replayed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from pipeline.config.settings import Settings
from pipeline.errors import NothingToDo, UsageError
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import DeadLetterRow, DeliveryRow, FeedRow, OutboxRow
from pipeline.times import utc_now
from streams.bus.embedded import EmbeddedBus
from streams.feeds.replay import EMPTY, ReplayFeed, feed_of, noted, raw_of
from streams.owning.ingest import close_if_due
from streams.owning.owner import Owner
from streams.parsers.pool import ParserPool

BATCH = 100
SHOWN_BYTES = 4_096
SHOWN_LINES = 30
SHOWN_WIDTH = 200

PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. ``replayed`` says what became of it since: empty while nobody asked for it again, ``pending``, a
    message's key (``new: KEY``, ``duplicate: KEY``), ``dead again: ID``, or ``done`` for an event."""

    id: str
    mailbox: str
    feed: str
    cursor: str
    stage: str
    reason: str
    attempts: int
    received_at: datetime
    at: datetime
    replayed: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A dead letter with what is kept of it: ``size`` bytes, of which ``beginning`` are the first lines, safe to print.
    ``source`` is where its feed reads from."""

    letter: Letter
    source: str
    sha256: str | None
    size: int
    beginning: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to: ``asked`` is False for a letter that was left as it was, and ``outcome`` says why."""

    id: str
    mailbox: str
    asked: bool
    outcome: str


def letters(store: Store, home: Home, mailbox: str | None = None) -> list[Letter]:
    """Dead letters in the order in which they were set aside, of one mailbox or of all."""
    rows = store.fetch(DeadLetterRow, "mailbox = coalesce(?, mailbox)", [mailbox], order='"at", id')
    fates = _fates(store, home, rows)
    return [_letter(row, fates.get((row.mailbox, row.id), "")) for row in rows]


def show(store: Store, home: Home, letter_id: str) -> Shown:
    """Everything known of one; raises ``UsageError`` for an unknown id."""
    row = _row(store, letter_id)
    raw = _raw(store, row) or b""
    feeds = store.fetch(FeedRow, "mailbox = ? AND feed = ?", [row.mailbox, row.feed])
    return Shown(
        letter=_letter(row, _fates(store, home, [row]).get((row.mailbox, row.id), "")),
        source=feeds[0].source if feeds else "",
        sha256=row.raw_sha,
        size=len(raw),
        beginning=beginning(raw),
    )


def known(store: Store, ids: Sequence[str]) -> frozenset[str]:
    """Those of the ids that are dead letters of the store."""
    marks = ", ".join("?" for _ in ids)
    return frozenset(row.id for row in store.fetch(DeadLetterRow, f"id IN ({marks})", list(ids))) if ids else frozenset()


def raw(store: Store, letter_id: str) -> bytes:
    """The bytes of a mail as they were set aside, or an event's data. Raises ``NothingToDo`` when none are kept."""
    row = _row(store, letter_id)
    found = _raw(store, row)
    if not found:
        why = row.reason if found == b"" else "its bytes were erased"
        raise NothingToDo(f"nothing is kept of {letter_id}: {why}", hint="its source may still have it")
    return found


def replay(store: Store, home: Home, settings: Settings, ids: Sequence[str]) -> tuple[Replayed, ...]:
    """Hands mails on as new arrivals of their mailboxes, and events to the consumer that refused them, in the order given.

    Mails are parsed in a process of their own, as they may be what a parser died of. What was replayed before, or has
    nothing to replay, is left alone and told so. Raises ``UsageError`` for an unknown id, before any effect.
    """
    rows = list({row.id: row for row in (_row(store, letter_id) for letter_id in ids)}.values())
    before = _fates(store, home, rows)
    left = {row.id: _refusal(store, row, before.get((row.mailbox, row.id), "")) for row in rows}
    asked = [row for row in rows if not left[row.id]]
    bus = EmbeddedBus(lambda: nullcontext(store))
    for row in asked:
        if row.raw_sha is None:
            bus.replay(row.cursor, row.stage)
    for mailbox in dict.fromkeys(row.mailbox for row in asked if row.raw_sha is not None):
        _take(store, home, settings, mailbox, [row for row in asked if row.mailbox == mailbox and row.raw_sha is not None])
    after = _fates(store, home, rows)
    return tuple(
        Replayed(row.id, row.mailbox, not left[row.id], left[row.id] or after.get((row.mailbox, row.id), PENDING))
        for row in rows
    )


def replay_all(store: Store, home: Home, settings: Settings, mailbox: str | None) -> tuple[Replayed, ...]:
    """Replays what has something to replay and was not replayed yet, of one mailbox or of all."""
    rows = store.fetch(DeadLetterRow, "mailbox = coalesce(?, mailbox)", [mailbox], order='"at", id')
    fates = _fates(store, home, rows)
    open_ones = [row.id for row in rows if not _refusal(store, row, fates.get((row.mailbox, row.id), ""))]
    return replay(store, home, settings, open_ones)


def _take(store: Store, home: Home, settings: Settings, mailbox: str, rows: Sequence[DeadLetterRow]) -> None:
    owner = Owner(store, home, settings, utc_now)
    clock = owner.clock(mailbox)
    if clock is None:
        raise UsageError(f"mailbox {mailbox} has taken no mail yet", hint="import into it first")
    owner.seal(mailbox)
    close_if_due(owner, home, settings, mailbox, clock)
    feed = ReplayFeed(store, home, mailbox)
    last = owner.last_taken(mailbox, feed.name)
    feed.note(rows, floor=last)
    guarded = settings.parse.model_copy(update={"processes": max(1, settings.parse.processes)})
    with ParserPool(guarded) as pool:
        answers = pool.answers(feed.items(last))
        while batch := list(islice(answers, BATCH)):
            owner.take(mailbox, batch)


def _row(store: Store, letter_id: str) -> DeadLetterRow:
    rows = store.fetch(DeadLetterRow, "id = ?", [letter_id])
    if not rows:
        raise UsageError(f"there is no dead letter {letter_id!r}", hint="see `mailtide deadletters list`")
    return rows[0]


def _letter(row: DeadLetterRow, fate: str) -> Letter:
    return Letter(
        row.id, row.mailbox, row.feed, row.cursor, row.stage, row.reason, row.attempts, row.received_at, row.at, fate
    )


def _refusal(store: Store, row: DeadLetterRow, fate: str) -> str:
    """Why a letter is not replayed; empty when it may be, or when a crash left its replay half done."""
    if fate and (fate != PENDING or row.raw_sha is None):
        return f"replayed already ({fate})"
    if row.raw_sha == EMPTY:
        return f"cannot be replayed: {row.reason}"
    if row.raw_sha is not None and not store.scalar("SELECT count(*) FROM bodies.raws WHERE sha256 = ?", [row.raw_sha]):
        return "cannot be replayed: its bytes were erased"
    return ""


def _raw(store: Store, row: DeadLetterRow) -> bytes | None:
    """What is kept: a mail's bytes, or an event's data; None when it was erased."""
    if row.raw_sha == EMPTY:
        return b""
    if row.raw_sha is not None:
        return raw_of(store, row.raw_sha)
    events = store.fetch(OutboxRow, "event_id = ?", [row.cursor])
    return events[0].data.encode() if events else None


def _fates(store: Store, home: Home, rows: Sequence[DeadLetterRow]) -> dict[tuple[str, str], str]:
    """What became of letters that were replayed, by mailbox and id."""
    fates = dict(_event_fates(store, [row for row in rows if row.raw_sha is None]))
    for mailbox in {row.mailbox for row in rows if row.raw_sha is not None}:
        fates.update(_mail_fates(store, home, mailbox))
    return fates


def _mail_fates(store: Store, home: Home, mailbox: str) -> Iterator[tuple[tuple[str, str], str]]:
    feed = feed_of(mailbox)
    numbers = noted(home, mailbox)
    if not numbers:
        return
    messages = dict(
        store.query("SELECT number, message_key FROM message_rows WHERE mailbox = ? AND feed = ?", [mailbox, feed])
    )
    duplicates = dict(
        store.query('SELECT "cursor", message_key FROM duplicates WHERE mailbox = ? AND feed = ?', [mailbox, feed])
    )
    dead = {row.id for row in store.fetch(DeadLetterRow, "mailbox = ? AND feed = ?", [mailbox, feed])}
    for letter_id, number in numbers.items():
        again = f"{feed}/{number}"
        if number in messages:
            fate = f"new: {messages[number]}"
        elif letter_id in duplicates:
            fate = f"duplicate: {duplicates[letter_id]}"
        elif again in dead:
            fate = f"dead again: {again}"
        else:
            fate = PENDING
        yield (mailbox, letter_id), fate


def _event_fates(store: Store, rows: Iterable[DeadLetterRow]) -> Iterator[tuple[tuple[str, str], str]]:
    for row in rows:
        later = store.fetch(
            DeliveryRow,
            "event_id = ? AND consumer = ? AND attempt > ?",
            [row.cursor, row.stage, int(row.id.rpartition("#")[2])],
            order="attempt",
        )
        if later:
            last = later[-1]
            again = f"dead again: {row.cursor}@{row.stage}#{last.attempt}"
            fate = {"done": "done", "dead": again}.get(last.outcome, PENDING)
            yield (row.mailbox, row.id), fate


def beginning(kept: bytes) -> tuple[str, ...]:
    """The first lines, with whatever could command a terminal or hide text written out."""
    text = kept[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    lines = text.replace("\r\n", "\n").split("\n")[:SHOWN_LINES]
    return tuple(printable(line[:SHOWN_WIDTH]) for line in lines)


def printable(text: str) -> str:
    """Text as it may be printed: control, format and unassigned characters as escapes."""
    return "".join(each if each.isprintable() or each == "\t" else each.encode("unicode_escape").decode() for each in text)
