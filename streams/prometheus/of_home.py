"""What a home's store and files say, as metric families: the same for daemon and server; and what a daemon
says of itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.config.notice_settings import NotifySettings
from pipeline.config.settings import CostSettings, Settings
from pipeline.errors import MailtideError
from pipeline.home import Home
from pipeline.installing import DISTRIBUTION
from pipeline.store import Store
from pipeline.times import utc_now
from registry.feedback import override_share, standing
from registry.indexes import behind
from registry.spending import spending
from streams.daemon.board import DaemonState
from streams.inspecting.standing import MailboxStanding, deployments, standings
from streams.mailpath.relaying import NOT_RELAYED
from streams.notices.finding import untold
from streams.owning.stores import OpenStore
from streams.prometheus.families import counter, gauge, histogram

RUN_SECONDS = (30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 4 * 3_600.0, 12 * 3_600.0)
PENDING = """
    SELECT count(*), min(o."at") FROM outbox o
    WHERE o.topic IN ('retrain.run.requested.v1', 'retrain.run.finished.v1') AND NOT EXISTS (
        SELECT 1 FROM deliveries d WHERE d.event_id = o.event_id AND d.outcome IN ('done', 'dead')
    )
"""
"""What the bus inside a process has still to hand over; what is replayed after it was set aside is not seen here."""

UNRELAYED = f"""
    SELECT count(*), min("at") FILTER (topic <> 'mail.window.closed.v1') FROM outbox WHERE {NOT_RELAYED}
"""
"""With a broker: what it has not got yet. A window is dated by its mailbox's clock, which may be that of an archive."""


class HomeCollector(Collector):
    """Looks at each scrape. While a command has the store for itself only ``mailtide_store_readable`` 0 is told."""

    def __init__(self, home: Home, settings: Settings, reading: OpenStore) -> None:
        self._home = home
        self._settings = settings
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        try:
            with self._reading() as store:
                found = [*_of_store(store, self._home, self._settings, utc_now())]
        except MailtideError:
            found = []
        yield gauge("store_readable", "Whether the store could be read for this.", (), [(1 if found else 0,)])
        yield from found
        free = shutil.disk_usage(self._home.root).free
        yield gauge("home_free_bytes", "Free on the disk of the home.", (), [(free,)])
        yield gauge("build_info", "The version that runs.", ("version",), [(version(DISTRIBUTION), 1)])
        targets = deployments(self._home, self._settings)
        serving = [(one.mailbox, one.target, 0 if one.trouble else 1) for one in targets]
        meaning = "Whether the last deployment to a target went well."
        yield gauge("deployment_ok", meaning, ("mailbox", "target"), serving)


def _of_store(store: Store, home: Home, settings: Settings, now: datetime) -> Iterator[Metric]:
    found = standings(store)
    yield from _of_mail(store, found)
    yield from _of_runs(store, found)
    yield from _of_cost(store, settings.cost, now)
    yield from _of_answers(store, home, found)
    yield from _of_events(store, settings, now)
    yield from _of_notices(store, settings, settings.notify)


def _of_mail(store: Store, found: Sequence[MailboxStanding]) -> Iterator[Metric]:
    box = ("mailbox",)
    by_split = store.query("SELECT mailbox, split, count(*) FROM message_rows GROUP BY ALL ORDER BY ALL")
    yield counter("messages", "Mails taken, by split.", ("mailbox", "split"), by_split)
    repeated = store.query("SELECT mailbox, count(*) FROM duplicate_rows GROUP BY ALL ORDER BY ALL")
    yield counter("duplicates", "Mails that came again.", box, repeated)
    dead = store.query("SELECT mailbox, stage, count(*) FROM dead_letter_rows GROUP BY ALL ORDER BY ALL")
    yield counter("dead_letters", "Mails and events set aside.", ("mailbox", "stage"), dead)
    newest = [(one.mailbox, one.newest) for one in found]
    yield gauge("newest_message_timestamp_seconds", "When the newest mail was received.", box, newest)
    closed = [(one.mailbox, one.windows_closed) for one in found]
    yield counter("windows_closed", "Training windows closed.", box, closed)
    waiting = [(one.mailbox, one.waiting) for one in found]
    yield gauge("windows_waiting", "Closed windows that the champion's lineage has not learned.", box, waiting)
    yield gauge(
        "open_window_messages", "Mails in the open window.", box, [(one.mailbox, one.open_messages) for one in found]
    )


def _of_runs(store: Store, found: Sequence[MailboxStanding]) -> Iterator[Metric]:
    box = ("mailbox",)
    verdicts = store.query(
        """
        SELECT q.mailbox, e.status, count(*) FROM run_events e JOIN requests q USING (run_id)
        WHERE e.status IN ('promoted', 'rejected', 'abstained', 'failed') GROUP BY ALL ORDER BY ALL
        """
    )
    yield counter("runs", "Runs decided, by verdict of the gate.", ("mailbox", "verdict"), verdicts)
    took = store.query(
        "SELECT q.mailbox, epoch(r.finished_at - r.started_at) FROM run_results r JOIN requests q USING (run_id)"
    )
    yield histogram("run_seconds", "Wall time of runs that finished.", box, RUN_SECONDS, took)
    undecided = [(one.mailbox, 0 if one.pending_run is None else 1) for one in found]
    yield gauge("runs_undecided", "Runs that were asked for and have no verdict yet.", box, undecided)
    adapters = store.query("SELECT mailbox, status, count(*) FROM adapters GROUP BY ALL ORDER BY ALL")
    yield gauge("adapters", "Adapters, by where they stand.", ("mailbox", "status"), adapters)
    champions = [(one.mailbox, one.champion, 1) for one in found if one.champion is not None]
    yield gauge("champion_info", "The adapter that is champion.", ("mailbox", "adapter_id"), champions)
    since = [(one.mailbox, one.promoted_at) for one in found]
    yield gauge("champion_promoted_timestamp_seconds", "When the champion was promoted first.", box, since)


def _of_cost(store: Store, cost: CostSettings, now: datetime) -> Iterator[Metric]:
    spent = spending(store, cost, now)
    ever = CounterMetricFamily(f"gpu_train_cost_{cost.currency.lower()}", "What training has cost, in cost.currency.")
    ever.add_metric([], spent.cost_ever)
    yield ever
    yield gauge("train_cost_30_days", "What training has cost in 30 days, in cost.currency.", (), [(spent.cost,)])
    yield gauge("train_cost_cap", "What it may cost in 30 days (cost.cap).", (), [(spent.cap,)])


def _of_answers(store: Store, home: Home, found: Sequence[MailboxStanding]) -> Iterator[Metric]:
    rows = standing(store)
    said: dict[tuple[str, str], int] = {}
    for row in rows:
        said[row.mailbox, row.rating] = said.get((row.mailbox, row.rating), 0) + 1
    meaning = "Answers by the feedback that counts."
    yield gauge("feedback_answers", meaning, ("mailbox", "rating"), [(*key, count) for key, count in sorted(said.items())])
    shares = [(one.mailbox, override_share([row for row in rows if row.adapter_id == one.champion])) for one in found]
    overruled = [(mailbox, share.value) for mailbox, share in shares if share is not None]
    yield gauge("champion_overruled_ratio", "Share of the champion's rated answers overruled.", ("mailbox",), overruled)
    late = [(one.mailbox, index, mails) for one in found for index, mails in behind(store, home, one.mailbox).items()]
    yield gauge("index_behind_messages", "Mails that a search index lacks.", ("mailbox", "index"), late)


def _of_events(store: Store, settings: Settings, now: datetime) -> Iterator[Metric]:
    query = PENDING if settings.bus.kind == "embedded" else UNRELAYED
    count, oldest = store.query(query)[0]
    yield gauge("outbox_pending_events", "Events that wait to be handed over.", (), [(count,)])
    age = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
    yield gauge("outbox_oldest_pending_seconds", "Age of the oldest of them.", (), [(age,)])


def _of_notices(store: Store, settings: Settings, notify: NotifySettings) -> Iterator[Metric]:
    done = store.query(
        "SELECT target, outcome, count(*) FROM notice_rows WHERE outcome <> 'nothing' GROUP BY ALL ORDER BY ALL"
    )
    yield counter("notices", "Notices sent or given up.", ("target", "outcome"), done)
    waiting = [(name, len(untold(store, settings, name))) for name in notify.targets]
    yield gauge("notices_waiting", "Notices that a target has not taken yet.", ("target",), waiting)


class DaemonCollector(Collector):
    """How a daemon's parts are doing, by its board."""

    def __init__(self, state: Callable[[], DaemonState]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        yield from _of_daemon(self._state())


def _of_daemon(state: DaemonState) -> Iterator[Metric]:
    yield gauge("daemon_started_timestamp_seconds", "When the daemon started.", (), [(state.started_at,)])
    feeds: dict[tuple[str, str], int] = {}
    for feed in state.feeds:
        feeds[feed.mailbox, feed.doing] = feeds.get((feed.mailbox, feed.doing), 0) + 1
    listed: list[tuple[Any, ...]] = [(*key, count) for key, count in sorted(feeds.items())]
    yield gauge("feeds", "Feeds, by what they are doing; away is not being reached.", ("mailbox", "doing"), listed)
    read: dict[str, int] = {}
    for feed in state.feeds:
        read[feed.mailbox] = read.get(feed.mailbox, 0) + feed.read
    yield counter("mails_read", "Mails read by feeds since the start, repeats too.", ("mailbox",), read.items())
    training = state.training
    yield gauge("training_state", "What the training does.", ("doing",), [(training.doing, 1)])
    share = training.done / training.total if training.total else 0.0
    yield gauge("training_stage_ratio", "How far the present stage of a run is.", (), [(share,)])
