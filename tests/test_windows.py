"""When windows open and close: each rule, and the invariants for any sequence of mails and ticks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.arrival.cron import next_moment
from pipeline.arrival.windows import Closing, OpenWindow, due, on_mail, on_tick
from pipeline.config.settings import WindowSettings
from pipeline.domain import Clock, Tick, TickKind

START = datetime(2024, 1, 1)
DAY = timedelta(days=1)
FEEDS = frozenset({"inbox", "sent"})
PLAIN = WindowSettings(bootstrap=3, count=None, age=None)


@dataclass
class Mailbox:
    """A window driven by mails and ticks; ``placed`` is the window of each mail, ``closings`` what closed, in order."""

    clock: Clock
    policy: WindowSettings
    window: OpenWindow = field(default_factory=OpenWindow)
    placed: list[int] = field(default_factory=list)
    closings: list[Closing] = field(default_factory=list)

    def mail(self, at: datetime = START, *, date: datetime | None = None, n_tokens: int = 1) -> int:
        done = on_mail(self.window, self.policy, self.clock, at=at, date=date, n_tokens=n_tokens)
        self.window = done.window
        self.placed.append(done.window_idx)
        self.closings += [one for one in (done.closed_before, done.closed_after) if one is not None]
        return done.window_idx

    def tick(self, kind: TickKind, at: datetime = START, feed: str = "clock", feeds: frozenset[str] = FEEDS) -> list[str]:
        done = on_tick(self.window, self.policy, self.clock, Tick("main", feed, 1, kind, at), feeds)
        self.window = done.window
        assert done.closed_after is None
        if done.closed_before is not None:
            self.closings.append(done.closed_before)
        return [done.closed_before.reason] if done.closed_before else []

    def caught_up(self, feed: str, at: datetime = START) -> list[str]:
        return self.tick(TickKind.CAUGHT_UP, at, feed)


def after_bootstrap(clock: Clock, policy: WindowSettings) -> Mailbox:
    box = Mailbox(clock, policy, OpenWindow(idx=1))
    if clock is Clock.HEADER:
        box.window = OpenWindow(idx=1, clock_at=START)
    return box


FAR = START + 10_000 * DAY

# Window 0


def test_the_bootstrap_takes_the_whole_first_import() -> None:
    box = Mailbox(Clock.ARRIVAL, WindowSettings(bootstrap=3, count=2, tokens=1, age=1))
    assert {box.mail(START + n * DAY) for n in range(10)} == {0}
    assert box.caught_up("inbox") == []
    assert box.caught_up("sent", START + 9 * DAY) == ["bootstrap"]
    assert box.closings == [Closing(0, START, START + 9 * DAY, "bootstrap", 10, 10)]
    assert box.mail(START + 9 * DAY) == 1


def test_a_bootstrap_with_too_few_mails_stays_open_for_a_later_tick() -> None:
    box = Mailbox(Clock.ARRIVAL, PLAIN)
    box.mail()
    box.mail()
    assert box.caught_up("inbox") + box.caught_up("sent") == []
    box.mail()
    assert box.window.idx == 0
    assert box.caught_up("inbox") == ["bootstrap"]


def test_nothing_but_close_closes_the_bootstrap_before() -> None:
    box = Mailbox(Clock.ARRIVAL, WindowSettings(bootstrap=9, age=1, cron="* * * * *"))
    box.mail()
    late = START + 100 * DAY
    assert due(box.window, box.policy, Clock.ARRIVAL, late) is None
    assert box.tick(TickKind.AGE, late) + box.tick(TickKind.CRON, late) == []
    assert box.tick(TickKind.MANUAL, late) == ["manual"]


def test_a_feed_added_later_is_waited_for() -> None:
    box = Mailbox(Clock.ARRIVAL, PLAIN)
    for _ in range(3):
        box.mail()
    assert box.caught_up("inbox") == []
    assert box.tick(TickKind.CAUGHT_UP, feed="sent", feeds=FEEDS | {"archive"}) == []
    assert box.tick(TickKind.CAUGHT_UP, feed="archive", feeds=FEEDS | {"archive"}) == ["bootstrap"]
    assert box.window.caught_up == ()


def test_under_the_header_clock_the_bootstrap_closes_at_its_number_of_mails() -> None:
    box = Mailbox(Clock.HEADER, PLAIN)
    assert [box.mail(FAR, date=START + n * DAY) for n in range(4)] == [0, 0, 0, 1]
    assert box.caught_up("inbox") == []
    assert box.closings == [Closing(0, START, START + 2 * DAY, "bootstrap", 3, 3)]


# Count, tokens, manual


@pytest.mark.parametrize("clock", list(Clock))
def test_count_closes_after_the_mail_that_reaches_it(clock: Clock) -> None:
    box = after_bootstrap(clock, WindowSettings(count=2, age=None))
    assert [box.mail(START, date=START) for _ in range(5)] == [1, 1, 2, 2, 3]
    assert [one.reason for one in box.closings] == ["count", "count"]


@pytest.mark.parametrize("clock", list(Clock))
def test_tokens_close_after_the_mail_that_reaches_them(clock: Clock) -> None:
    box = after_bootstrap(clock, WindowSettings(count=None, age=None, tokens=10))
    assert [box.mail(START, date=START, n_tokens=n) for n in (4, 5, 1, 10, 99)] == [1, 1, 1, 2, 3]
    assert [one.n_tokens for one in box.closings] == [10, 10, 99]


@pytest.mark.parametrize("clock", list(Clock))
def test_close_by_hand_closes_at_once_but_never_an_empty_window(clock: Clock) -> None:
    box = after_bootstrap(clock, PLAIN)
    assert box.tick(TickKind.MANUAL) == []
    box.mail(START, date=START)
    assert box.tick(TickKind.MANUAL, START + DAY) == ["manual"]
    assert box.tick(TickKind.MANUAL, START + DAY) == []
    assert box.closings[0].closed_at == (START + DAY if clock is Clock.ARRIVAL else START)


# Age and cron


def test_age_closes_by_tick_under_the_arrival_clock() -> None:
    box = after_bootstrap(Clock.ARRIVAL, WindowSettings(count=None, age=7))
    box.mail(START)
    assert box.mail(START + 30 * DAY) == 1  # no tick was noted, so it is not past any
    assert due(box.window, box.policy, Clock.ARRIVAL, START + 7 * DAY - timedelta(seconds=1)) is None
    assert due(box.window, box.policy, Clock.ARRIVAL, START + 7 * DAY) is TickKind.AGE
    assert box.tick(TickKind.AGE, START + 7 * DAY - timedelta(seconds=1)) == []
    assert box.tick(TickKind.AGE, START + 8 * DAY) == ["age"]
    assert due(box.window, box.policy, Clock.ARRIVAL, START + 99 * DAY) is None


def test_an_age_tick_noted_for_a_window_that_count_closed_spares_the_next() -> None:
    box = after_bootstrap(Clock.ARRIVAL, WindowSettings(count=2, age=7))
    box.mail(START)
    box.mail(START + 7 * DAY)
    box.mail(START + 7 * DAY)
    assert box.tick(TickKind.AGE, START + 7 * DAY) == []
    assert box.window.idx == 2


def test_age_closes_before_the_first_mail_past_it_under_the_header_clock() -> None:
    box = after_bootstrap(Clock.HEADER, WindowSettings(count=None, age=7))
    dates = [START, START + 6 * DAY, START + 7 * DAY, START + 13 * DAY, START + 14 * DAY]
    assert [box.mail(FAR, date=date) for date in dates] == [1, 1, 2, 2, 3]
    assert box.closings[0] == Closing(1, START, START + 7 * DAY, "age", 2, 2)
    assert box.tick(TickKind.AGE, FAR) == []
    assert due(box.window, box.policy, Clock.HEADER, FAR) is None


def test_cron_closes_at_the_first_moment_after_the_window_opened() -> None:
    mondays = WindowSettings(count=None, age=None, cron="0 3 * * 1")
    box = after_bootstrap(Clock.ARRIVAL, mondays)
    box.mail(datetime(2024, 1, 1, 3))  # a Monday: the moment itself is not after it
    assert due(box.window, mondays, Clock.ARRIVAL, datetime(2024, 1, 8, 2, 59)) is None
    assert due(box.window, mondays, Clock.ARRIVAL, datetime(2024, 1, 8, 3)) is TickKind.CRON
    assert box.tick(TickKind.CRON, datetime(2024, 1, 8, 3)) == ["cron"]
    header = after_bootstrap(Clock.HEADER, mondays)
    assert [header.mail(FAR, date=datetime(2024, 1, day, 4)) for day in (2, 7, 8, 14, 15)] == [1, 1, 2, 2, 3]


def test_of_age_and_cron_the_one_reached_first_is_named() -> None:
    both = WindowSettings(count=None, age=3, cron="0 0 * * 1")
    monday = after_bootstrap(Clock.HEADER, both)
    assert [monday.mail(FAR, date=datetime(2024, 1, day)) for day in (2, 12)] == [1, 2]
    saturday = after_bootstrap(Clock.HEADER, both)
    assert [saturday.mail(FAR, date=datetime(2024, 1, day)) for day in (6, 12)] == [1, 2]
    assert [monday.closings[0].reason, saturday.closings[0].reason] == ["age", "cron"]


@pytest.mark.parametrize("cron", ["@daily", "0 25 * * *", "0 0 30 2 *", "0 0 * * 1 30", "R R * * *", "often"])
def test_cron_expressions_without_moments_are_refused(cron: str) -> None:
    with pytest.raises(ValidationError, match="cron"):
        WindowSettings(cron=cron)


def test_months_and_days_by_name_are_cron() -> None:
    assert WindowSettings(cron="0 0 1 mar fri").cron == "0 0 1 mar fri"
    assert next_moment("*/15 * * * *", START) == START + timedelta(minutes=15)


# The header clock


def header_times(*dates: datetime | None, at: datetime = FAR) -> list[datetime | None]:
    """Where the clock stands after each mail."""
    box = Mailbox(Clock.HEADER, WindowSettings(bootstrap=1000))
    times = []
    for date in dates:
        box.mail(at, date=date)
        times.append(box.window.clock_at)
    return times


def test_it_follows_the_date_and_never_goes_back() -> None:
    assert header_times(START, START + 2 * DAY, START + DAY, None) == [START, *[START + 2 * DAY] * 3]


def test_it_never_passes_the_time_of_the_file() -> None:
    assert header_times(START, FAR, at=START + 5 * DAY) == [START, START + 5 * DAY]


def test_a_jump_is_taken_when_the_next_mail_jumps_too_at_the_lesser_date() -> None:
    near, far = START + 40 * DAY, START + 50 * DAY
    assert header_times(START, far, near) == [START, START, near]
    assert header_times(START, near, far) == [START, START, near]
    assert header_times(START, START + 30 * DAY - timedelta(seconds=1))[-1] == START + 30 * DAY - timedelta(seconds=1)
    assert header_times(START, START + 30 * DAY)[-1] == START


def test_of_two_jumps_the_farther_is_held_in_its_turn() -> None:
    dates = [START, START + 40 * DAY, START + 80 * DAY, START + 81 * DAY]
    assert header_times(*dates) == [START, START, START + 40 * DAY, START + 80 * DAY]


def test_a_single_wrong_date_moves_nothing() -> None:
    assert header_times(START, FAR, START + DAY, START + 2 * DAY)[1:] == [START, START + DAY, START + 2 * DAY]
    assert header_times(START, START + 40 * DAY, FAR, START + 41 * DAY)[-1] == START + 41 * DAY


def test_a_mail_without_a_date_says_nothing_of_a_jump() -> None:
    near = START + 40 * DAY
    assert header_times(START, near, None, near) == [START, START, START, near]


def test_mails_before_the_first_date_are_timed_by_their_file_until_one_comes() -> None:
    box = Mailbox(Clock.HEADER, WindowSettings(bootstrap=3))
    box.mail(FAR)
    assert box.window.opened_at == FAR
    box.mail(FAR, date=START)
    box.mail(FAR, date=START + DAY)
    assert box.closings == [Closing(0, START, START + DAY, "bootstrap", 3, 3)]


def test_the_clock_goes_on_over_closings() -> None:
    box = Mailbox(Clock.HEADER, WindowSettings(bootstrap=1, count=1))
    box.mail(FAR, date=START + 9 * DAY)
    box.mail(FAR, date=START)
    assert [(one.opened_at, one.closed_at) for one in box.closings] == [(START + 9 * DAY, START + 9 * DAY)] * 2


def test_a_clock_set_back_does_not_end_a_window_before_it_began() -> None:
    box = after_bootstrap(Clock.ARRIVAL, PLAIN)
    box.mail(START + DAY)
    box.tick(TickKind.MANUAL, START)
    assert box.closings == [Closing(1, START + DAY, START + DAY, "manual", 1, 1)]


# Any sequence

policies = st.builds(
    WindowSettings,
    bootstrap=st.integers(1, 6),
    count=st.none() | st.integers(1, 5),
    age=st.none() | st.sampled_from([0.5, 2.0, 40.0]),
    cron=st.none() | st.just("0 6 * * *"),
    tokens=st.none() | st.integers(1, 30),
)
moments = st.integers(0, 24 * 90).map(lambda hours: START + timedelta(hours=hours))
events = st.one_of(
    st.tuples(st.just("mail"), moments, st.none() | moments, st.integers(0, 12)),
    st.tuples(st.sampled_from(list(TickKind)), moments, st.sampled_from(["inbox", "sent", "clock"]), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(Clock)), policies, st.lists(events, max_size=40))
def test_windows_are_monotone_never_empty_and_gain_nothing_once_closed(
    clock: Clock, policy: WindowSettings, happened: list[tuple[str, datetime, datetime | str | None, int]]
) -> None:
    box = Mailbox(clock, policy)
    clocks: list[datetime] = []
    for what, at, detail, n_tokens in happened:
        if what == "mail":
            assert not isinstance(detail, str)
            closed = len(box.closings)
            assert box.mail(at, date=detail, n_tokens=n_tokens) >= closed
        else:
            box.tick(TickKind(what), at, str(detail))
        assert OpenWindow.from_json(box.window.to_json()) == box.window
        if clock is Clock.HEADER and box.window.clock_at is not None:
            clocks.append(box.window.clock_at)
    assert box.placed == sorted(box.placed)
    assert [one.idx for one in box.closings] == list(range(len(box.closings)))
    assert box.window.idx == len(box.closings)
    counts = {one.idx: one.n_messages for one in box.closings}
    assert all(counts.values())
    assert all(box.placed.count(idx) == n for idx, n in counts.items())
    assert box.window.n_messages == box.placed.count(box.window.idx)
    assert all(one.opened_at <= one.closed_at for one in box.closings)
    assert all(earlier <= later for earlier, later in pairwise(clocks))
    if policy.count is not None:
        assert all(one.n_messages <= policy.count for one in box.closings if one.idx)
