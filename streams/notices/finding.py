"""What a target has still to be told: what the store's journal, outbox and dead letters hold since it is a target, less
what is noted as told. Nothing is queued anywhere else, so no crash can lose a notice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.config.settings import Settings
from pipeline.events import Topic
from pipeline.store import Store
from pipeline.store.rows import JournalRow, NoticeRow, NoticeTargetRow, OutboxRow

OF_RUNS = (Topic.RUN_REQUESTED.value, Topic.RUN_FINISHED.value, Topic.ADAPTER_PROMOTED.value)

# Of the windows that closed only the newest of a mailbox is news: it tells of the others.
UNTOLD = """
    WITH happened AS (
        SELECT CASE event WHEN 'evaluated' THEN 'regressed' ELSE event END AS kind, mailbox, ordinal::VARCHAR AS what,
               adapter_id AS subject, "at", 1 AS source, ordinal
        FROM journal_rows WHERE ordinal > ?
        UNION ALL
        SELECT 'waiting', key, split_part(event_id, '/', 3), split_part(event_id, '/', 3), "at", 2, ordinal
        FROM outbox WHERE topic = 'mail.window.closed.v1' AND ordinal > ? AND ?
        QUALIFY row_number() OVER (PARTITION BY key ORDER BY ordinal DESC) = 1
        UNION ALL
        SELECT 'stuck', mailbox, cursor || '@' || stage, cursor || '@' || stage, min("at"), 3, 0
        FROM dead_letter_rows WHERE feed IN (?, ?, ?) AND "at" >= ? GROUP BY mailbox, cursor, stage
    )
    SELECT kind || '/' || mailbox || '/' || what AS notice_id, kind, mailbox, subject, "at"
    FROM happened
    WHERE list_contains(?, kind) AND notice_id NOT IN (SELECT notice_id FROM notice_rows WHERE target = ?)
    ORDER BY source, ordinal, notice_id
"""


@dataclass(frozen=True, slots=True)
class Untold:
    """Something that happened. ``subject`` is the adapter, the window, or the event and the consumer that set it aside."""

    notice_id: str
    kind: str
    mailbox: str
    subject: str
    at: datetime


def watch(store: Store, settings: Settings, now: datetime) -> None:
    """Notes which targets there are: each is told of what happens from the first time that this is called with it."""
    known = {row.target for row in store.fetch(NoticeTargetRow)}
    new = [name for name in settings.notify.targets if name not in known]
    if new:
        journal, outbox = store.next_ordinal(JournalRow) - 1, store.next_ordinal(OutboxRow) - 1
        store.append([NoticeTargetRow(name, journal, outbox, now) for name in new])


def untold(store: Store, settings: Settings, target: str) -> list[Untold]:
    """What ``target`` has not been told of what it wants to know, in the order in which it happened: verdicts first, then
    windows, then what is stuck. Some of it may turn out to be no news."""
    rows = store.fetch(NoticeTargetRow, "target = ?", [target])
    if not rows:
        return []
    since, wanted = rows[0], list(settings.notify.targets[target].events)
    asked = [since.journal_after, since.outbox_after, not settings.auto_retrain, *OF_RUNS, since.at, wanted, target]
    return [Untold(*row) for row in store.query(UNTOLD, asked)]


@dataclass(frozen=True, slots=True)
class Account:
    """A notice and what became of it: ``sent``, ``given_up``, or ``waits`` (``at`` is when it happened, then)."""

    target: str
    notice_id: str
    outcome: str
    at: datetime
    attempts: int
    trouble: str


def history(store: Store, settings: Settings, last: int) -> list[Account]:
    """Of every target the ``last`` notices that were told or given up, then what waits for it."""
    found = []
    for target in settings.notify.targets:
        rows = store.fetch(NoticeRow, "target = ? AND outcome <> 'nothing'", [target])
        found += [Account(target, row.notice_id, row.outcome, row.at, row.attempts, row.error) for row in rows[-last:]]
        found += [Account(target, one.notice_id, "waits", one.at, 0, "") for one in untold(store, settings, target)]
    return found
