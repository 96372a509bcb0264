"""The owner takes numbers in order, once, and what it stores does not depend on how the items were batched."""

from __future__ import annotations

import itertools
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.arrival.people import PeopleKey
from pipeline.arrival.splits import split_of
from pipeline.config.configuration import load
from pipeline.domain import Arrival, Clock, Item, Parsed, Tick, TickKind
from pipeline.errors import StoreError
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import ClosingRow, FeedRow, MessageRow
from streams.demo.mailbox import write_mailbox
from streams.feeds.mbox import MboxFeed
from streams.homes import make_home
from streams.owning.owner import Owner
from streams.owning.stores import opener
from streams.parsers.pool import parsed
from tests.support.dump import rows_of, shards_of
from tests.support.leaks import find_leaks

NOW = datetime(2026, 1, 5, 12)
SETTINGS = load(
    None,
    environment={},
    overrides=["seed=11", "split.train=0.5", "split.val=0.4", "window.bootstrap=40", "window.count=25", "window.age=null"],
)


def generated(folder: Path) -> list[Item]:
    archive = folder / "demo.mbox"
    write_mailbox(archive, seed=11, messages=200)
    feed = MboxFeed(Home(folder / "reader"), "main", archive, feed="main.archive")
    return [parsed(item) if isinstance(item, Arrival) else item for item in feed.items(after=0)]


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    found = generated(tmp_path_factory.mktemp("generated"))
    assert len(found) > 200
    return found


def fresh(folder: Path) -> Home:
    home = Home(folder / "home")
    make_home(home, SETTINGS, PeopleKey(b"k" * 32))
    return home


def started(store: Store, home: Home, clock: Clock = Clock.HEADER) -> Owner:
    owner = Owner(store, home, SETTINGS, lambda: NOW)
    owner.register("main", clock, [FeedRow("main", "main.archive", "mbox", "archive", NOW)])
    return owner


@pytest.fixture(scope="module")
def whole(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = fresh(tmp_path_factory.mktemp("whole"))
    with opener(home, SETTINGS)() as store:
        taken = started(store, home).take("main", items)
        assert taken.closed == list(range(len(taken.closed)))
        assert len(taken.closed) > 5
    return home


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 200), max_size=6), again=st.integers(0, 40))
def test_rows_do_not_depend_on_batches_repeats_or_restarts(
    items: list[Item], whole: Home, cuts: list[int], again: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = fresh(Path(folder))
        bounds = sorted({0, *cuts, len(items)})
        for begin, end in itertools.pairwise(bounds):
            with opener(home, SETTINGS)() as store:  # a new owner each time: nothing lives on but the store
                started(store, home).take("main", items[max(0, begin - again) : end])
        assert rows_of(home) == rows_of(whole)
        assert shards_of(home) == shards_of(whole)


def test_no_message_refers_across_splits(whole: Home) -> None:
    with opener(whole, SETTINGS)() as store:
        messages = store.fetch(MessageRow)
    assert len(messages) > 150
    assert find_leaks(messages, lambda thread: split_of(SETTINGS.seed, thread, SETTINGS.split)) == []


def test_a_missing_number_is_refused_and_nothing_is_taken(items: list[Item], tmp_path: Path) -> None:
    home = fresh(tmp_path)
    with opener(home, SETTINGS)() as store:
        owner = started(store, home)
        owner.take("main", items[:10])
        before = store.fetch(MessageRow)
        with pytest.raises(StoreError, match="number 12 came after 10"):
            owner.take("main", [items[11]])
        assert store.fetch(MessageRow) == before
        assert owner.take("main", items[10:12]).new + len(before) == len(store.fetch(MessageRow))


def test_a_window_never_gains_mail_after_it_closed(items: list[Item], tmp_path: Path) -> None:
    home = fresh(tmp_path)
    with opener(home, SETTINGS)() as store:
        owner = started(store, home, Clock.ARRIVAL)
        owner.take("main", items[:30])
        closed = owner.take("main", [Tick("main", "main.clock", 1, TickKind.MANUAL, NOW)])
        assert closed.closed == [0]
        owner.take("main", items[30:])
        counts = dict(store.query("SELECT window_idx, count(*) FROM messages GROUP BY window_idx"))
        closings = dict(store.query("SELECT window_idx, n_messages FROM windows WHERE closed_at IS NOT NULL"))
        assert closings[0] == counts[0] <= 30
        assert {idx: counts[idx] for idx in closings} == closings
        order = store.query("SELECT window_idx FROM message_rows ORDER BY arrival_ordinal")
        assert order == sorted(order)


def test_a_clock_that_jumps_loses_and_reorders_nothing(items: list[Item], tmp_path: Path) -> None:
    """By days, forth and back, between batches; windows close by count and by age."""
    by_age = SETTINGS.model_copy(update={"window": SETTINGS.window.model_copy(update={"age": 7.0})})
    home = fresh(tmp_path)
    now = NOW
    with opener(home, SETTINGS)() as store:
        owner = Owner(store, home, by_age, lambda: now)
        owner.register("main", Clock.ARRIVAL, [FeedRow("main", "main.archive", "mbox", "archive", NOW)])
        for at, days in zip(range(0, len(items), 50), (3_000, -4_000, 1, -1, 400), strict=False):
            owner.take("main", items[at : at + 50])
            if at == 0:
                owner.take("main", [Tick("main", "main.clock", 1, TickKind.MANUAL, NOW)])
            now += timedelta(days=days)
        mails = store.fetch(MessageRow, order="arrival_ordinal")
        closings = store.fetch(ClosingRow, order="window_idx")
    assert [mail.number for mail in mails] == sorted(mail.number for mail in mails)
    assert len(mails) == len({item.mail.message_id for item in items if isinstance(item, Parsed)})
    windows = [mail.window_idx for mail in mails]
    assert windows == sorted(windows)
    assert [closing.window_idx for closing in closings] == list(range(len(closings)))
    assert all(closing.opened_at <= closing.closed_at for closing in closings)
    assert len(closings) >= 3
