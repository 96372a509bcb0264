"""Whether mail went through unharmed: the home that was struck beside one that read the same sources in peace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from pipeline.domain import Split
from pipeline.events import Topic
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import OutboxRow, RequestRow, ShardRow, ThreadRow
from tests.chaos.ordeal import Mails
from tests.chaos.watching import VERDICTS
from tests.support.dump import rows_of, shards_of
from tests.support.leaks import find_leaks

OF_RUNS = frozenset(
    (
        "requests",
        "run_events",
        "run_results",
        "metric_rows",
        "loss_rows",
        "reply_rows",
        "written_rows",
        "question_rows",
        "trained_rows",
        "adapter_rows",
        "journal_rows",
    )
)
"""Tables about runs: which closings wait together for one run depends on how long the run before it takes, and it may be
killed. They are checked by rules (:func:`faults_of_runs`), and their contents by repeating each run in peace."""

TIMED = ("number", "ordinal")
"""Each pass over a source ends with a mark that takes a number, and there are more passes when more is killed; the places
of events in the outbox follow from when runs were asked for."""

SHOWN = 5

Tables = Mapping[str, Sequence[tuple[Any, ...]]]


def faults_of_mail(home: Home, post: Sequence[Mails]) -> list[str]:
    """Mail that is not stored exactly once, stands in a wrong split, is out of order, or was set aside."""
    faults: list[str] = []
    with Store.open(home, None, None) as store:
        for mails in post:
            mailbox = mails.source.mailbox
            stored = list(store.all_messages(mailbox))
            times = Counter(message.message_key for message in stored)
            keys = [mail.key for mail in mails.mails if mail.key]
            faults += _told(f"{mailbox}: lost", [key for key in keys if not times[key]])
            faults += _told(f"{mailbox}: stored more than once", [key for key, count in times.items() if count > 1])
            ordinals = [message.arrival_ordinal for message in stored]
            if sorted(ordinals) != list(range(len(stored))):
                faults.append(f"{mailbox}: arrival ordinals are not 0 to {len(stored) - 1}")
            splits = {row.thread_id: Split(row.split) for row in store.fetch(ThreadRow, "mailbox = ?", [mailbox])}
            leaks = find_leaks(stored, splits.__getitem__)
            faults += _told(f"{mailbox}: in a wrong split", [f"{leak.message_key} {leak.reason}" for leak in leaks])
            behind = store.query(
                """
                SELECT message_key FROM (
                    SELECT message_key, number <= lag(number) OVER (ORDER BY arrival_ordinal) AS behind
                    FROM message_rows WHERE mailbox = ?
                ) WHERE behind
                """,
                [mailbox],
            )
            faults += _told(f"{mailbox}: out of the order of its feed", [key for (key,) in behind])
        aside = store.query("SELECT mailbox || ' ' || stage || ': ' || reason FROM dead_letter_rows")
        faults += _told("set aside", [told for (told,) in aside])
    return faults


def faults_of_runs(home: Home) -> list[str]:
    """Closings without exactly one event, or that no run or more than one was started for; runs without exactly one
    verdict; two runs of a mailbox at once."""
    with Store.open(home, None, None) as store:
        shards = store.fetch(ShardRow)
        requests = store.fetch(RequestRow, order='"at"')
        events = [row.event_id for row in store.fetch(OutboxRow)]
        decided = store.query(f'SELECT run_id, status, "at" FROM run_events WHERE status IN ({VERDICTS})')
    asked = [f"run.requested/{row.mailbox}/{row.run_id}" for row in requests]
    learned = {f"window.closed/{row.mailbox}/{window}" for row in requests for window in row.windows}
    ended = {run_id: at for run_id, _, at in decided}
    faults = [
        *_told("closings without exactly one event", _unlike([row.event_id for row in shards], events, "window.closed/")),
        *_told("closings without a run", sorted({row.event_id for row in shards} - learned)),
        *_told("runs without exactly one request", _unlike(asked, events, "run.requested/")),
        *_told("runs without exactly one verdict", _unlike([row.run_id for row in requests], [row[0] for row in decided])),
        *_told("runs that failed", [run_id for run_id, status, _ in decided if status == "failed"]),
    ]
    for mailbox in sorted({row.mailbox for row in requests}):
        mine = [row for row in requests if row.mailbox == mailbox]
        known: set[int] = set()
        for row in mine:
            if known >= set(row.windows):
                faults.append(f"{mailbox}: run {row.run_id} was asked for without a new closing")
            known |= set(row.windows)
        for before, after in pairwise(mine):
            if before.run_id not in ended or ended[before.run_id] > after.at:
                faults.append(f"{mailbox}: run {after.run_id} was asked for before {before.run_id} was decided")
    return faults


def differences(struck: Home, peaceful: Home) -> list[str]:
    """Where the tables and files of two homes differ that follow from the mail."""
    faults: list[str] = []
    mine, other = _tables(struck), _tables(peaceful)
    for table in sorted(mine.keys() | other.keys()):
        faults += _rows_that_differ(table, mine.get(table, ()), other.get(table, ()))
    files, wanted = shards_of(struck), shards_of(peaceful)
    different = sorted(name for name in files.keys() | wanted.keys() if files.get(name) != wanted.get(name))
    return [*faults, *_told("shards that differ", different)]


def _tables(home: Home) -> Tables:
    tables: dict[str, Sequence[tuple[Any, ...]]] = {
        name: rows
        for name, rows in rows_of(home, without=TIMED).items()
        if name.partition(".")[2] not in OF_RUNS and name != "store.outbox"
    }
    with Store.open(home, None, None) as store:
        closings = store.fetch(OutboxRow, "topic = ?", [Topic.WINDOW_CLOSED.value], "event_id")
    return {**tables, "store.outbox, closings": [(row.event_id, row.key, row.data) for row in closings]}


def _rows_that_differ(table: str, mine: Sequence[tuple[Any, ...]], other: Sequence[tuple[Any, ...]]) -> list[str]:
    more, less = Counter(map(repr, mine)), Counter(map(repr, other))
    return [
        *_told(f"{table}: rows that the undisturbed run does not have", sorted((more - less).elements())),
        *_told(f"{table}: rows that only the undisturbed run has", sorted((less - more).elements())),
    ]


def _unlike(wanted: Sequence[str], found: Sequence[str], kind: str = "") -> list[str]:
    """What is wanted and not found exactly once, or found and not wanted."""
    times = Counter(one for one in found if one.startswith(kind))
    return sorted(one for one in {*wanted, *times} if times[one] != wanted.count(one))


def _told(what: str, cases: Sequence[str]) -> list[str]:
    if not cases:
        return []
    more = f" and {len(cases) - SHOWN} more" if len(cases) > SHOWN else ""
    return [f"{what} ({len(cases)}): {'; '.join(cases[:SHOWN])}{more}"]
