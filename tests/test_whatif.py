"""What-if: the replay under a home's own settings is what the home holds, and under others what another home would hold."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.arrival.windows import due
from pipeline.config.configuration import load, read_home
from pipeline.config.settings import Settings, WindowSettings
from pipeline.domain import Clock, DeadLetter, Item, Parsed, Tick, TickKind
from pipeline.errors import UsageError
from pipeline.home import Home, private_dir
from pipeline.runs.plan import prepare_run
from pipeline.runs.requests import RunRequest, RunResult, RunSettings, ShardRef
from pipeline.runs.runfiles import write_exclusions
from pipeline.store import Store
from pipeline.store.rows import FeedRow, RequestRow, RunResultRow, ShardRow
from pipeline.versions import VERSIONS
from streams.demo.mailbox import write_mailbox
from streams.homes import make_home
from streams.owning.owner import Owner
from streams.runs.bases import base_of
from streams.whatif.comparison import Comparison, Outcome, compare
from streams.whatif.log import read_log
from streams.whatif.pace import Pace, measured_pace
from streams.whatif.policies import AS_SET, Policy, overrides, read_policies
from streams.whatif.windows import as_stored, replay
from tests.support.dump import rows_of, shards_of
from tests.support.finished import Finished
from tests.support.letters import PEOPLE, letter
from tests.support.lineage import MAILBOX, Lineage
from tests.support.program import complaint, make, run

COMMON = ("window.bootstrap=150", "window.age=null", "chunk.max_tokens=512", "train.epochs=2", "replay.ratio=0.4")
ONE, OTHER = "window.count=40", "window.count=25"


def compared(home: Home, *written: str) -> Comparison:
    policies = read_policies(
        read_home(home, environment={}), written, lambda given: read_home(home, environment={}, overrides=given)
    )
    with Store.open(home, None, None) as store:
        (mailbox,) = (row[0] for row in store.query("SELECT mailbox FROM mailbox_rows"))
        return compare(store, home, mailbox, policies, lambda done, text: None)


# Windows: the same machine over the same log


class Mailroom:
    """A store whose owner takes mail from two feeds, at times that the test sets."""

    def __init__(self, root: Path, policy: WindowSettings, clock: Clock) -> None:
        self.home, self.settings = Home(root), Settings(window=policy)
        make_home(self.home, self.settings, PEOPLE)
        self.store = Store.open(self.home, self.settings, VERSIONS)
        self.now = datetime(2024, 1, 1)
        self.clock = clock
        self.owner = Owner(self.store, self.home, self.settings, lambda: self.now)
        self.numbers: dict[str, int] = {}
        self.mails = 0
        self.owner.register("main", clock, [FeedRow("main", "a", "mbox", "a", self.now)])

    def number(self, feed: str) -> int:
        self.numbers[feed] = self.numbers.get(feed, 0) + 1
        return self.numbers[feed]

    def take(self, *items: Item) -> None:
        """As the program does: it looks at its clock, then takes what came."""
        kind = due(self.owner.window("main"), self.settings.window, self.clock, self.now)
        if kind is not None:
            self.owner.take("main", [Tick("main", "main.clock", self.number("main.clock"), kind, self.now)])
        self.owner.take("main", items)

    def mail(self, feed: str, date: datetime | None, again: int | None = None) -> Item:
        """A new mail, or one that was taken before."""
        self.mails += again is None
        name = f"{self.mails if again is None else again}@example.org"
        number = self.number(feed)
        sent = letter(name, date=date if again is None else self.now, text="word " * (1 + self.mails % 7))
        if again is not None and self.mails % 3 == 0:
            return DeadLetter("main", feed, number, f"{number}", self.now, "feed", "too long", 1, b"")
        return Parsed("main", feed, number, f"{number}", self.now, sent)

    def mark(self, kind: TickKind, feed: str) -> Item:
        return Tick("main", feed, self.number(feed), kind, self.now)


policies = st.builds(
    WindowSettings,
    bootstrap=st.integers(1, 12),
    count=st.none() | st.integers(1, 9),
    age=st.none() | st.floats(0.5, 20.0),
    cron=st.none() | st.just("0 6 * * 1"),
    tokens=st.none() | st.integers(3, 40),
)
deeds = st.lists(
    st.tuples(st.sampled_from(["mail", "mail", "again", "caught up", "close", "second feed"]), st.integers(0, 12)),
    min_size=8,
    max_size=30,
)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # making a failure smaller would take minutes
)
@given(policy=policies, clock=st.sampled_from(Clock), deeds=deeds, feed_b=st.booleans())
def test_the_log_under_its_own_policy_gives_the_stored_windows(
    tmp_path_factory: pytest.TempPathFactory, policy: WindowSettings, clock: Clock, deeds: list[Any], feed_b: bool
) -> None:
    room = Mailroom(tmp_path_factory.mktemp("room") / "home", policy, clock)
    feeds = ["a"]
    with room.store:
        for deed, size in deeds:
            room.now += timedelta(days=size, minutes=1)
            feed = feeds[size % len(feeds)]
            if deed == "mail":
                sent = [room.now - timedelta(days=(size * i) % 40) if i % 5 else None for i in range(1, size + 2)]
                room.take(*(room.mail(feed, date) for date in sent))
            elif deed == "again" and room.mails:
                room.take(room.mail(feed, None, again=1 + size % room.mails))
            elif deed == "caught up":
                room.take(room.mail(feed, room.now), room.mark(TickKind.CAUGHT_UP, feed))
            elif deed == "close":
                room.owner.take("main", [room.mark(TickKind.MANUAL, "main.clock")])
            elif deed == "second feed" and feed_b and len(feeds) == 1:
                feeds.append("b")
                room.owner.register("main", clock, [FeedRow("main", "b", "mbox", "b", room.now)])
        log = read_log(room.store, "main")
        assert len(log.mails) == room.store.scalar("SELECT count(*) FROM message_rows")
        replayed = replay(log, policy)
        assert [(one.closing.idx, one.closing.reason, one.closing.n_messages) for one in replayed.closed] == [
            (one.idx, one.reason, one.n_messages) for one in log.closed
        ]
        assert replayed.window_of(len(log.mails)) == [mail.window_idx for mail in log.mails]
        assert as_stored(log, replayed)


def test_another_bootstrap_waits_for_feeds_that_came_later(tmp_path: Path) -> None:
    room = Mailroom(tmp_path / "home", WindowSettings(bootstrap=3, count=2, age=None), Clock.ARRIVAL)
    with room.store:
        room.take(*(room.mail("a", room.now) for _ in range(4)), room.mark(TickKind.CAUGHT_UP, "a"))
        room.now += timedelta(days=1)
        room.owner.register("main", Clock.ARRIVAL, [FeedRow("main", "b", "mbox", "b", room.now)])
        room.now += timedelta(days=1)
        room.take(*(room.mail("b", room.now) for _ in range(3)), room.mark(TickKind.CAUGHT_UP, "b"))
        log = read_log(room.store, "main")
    found = replay(log, WindowSettings(bootstrap=5, count=2, age=None)).closed
    assert [(one.closing.reason, one.closing.n_messages) for one in found] == [("bootstrap", 7)]
    assert [closed.n_messages for closed in log.closed] == [4, 2]


# Whole homes: the same archive imported under one policy and asked about the other, and the other way round


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "demo.mbox"
    write_mailbox(path, seed=11, messages=420)
    return path


def imported(home: Path, archive: Path, *options: str, clock: str = "header") -> Home:
    done = run(make(home, *COMMON, *options), "import", str(archive), "--clock", clock)
    assert done.returncode == 0, done.stderr
    return Home(home)


@pytest.fixture(scope="module")
def one(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    return imported(tmp_path_factory.mktemp("one") / "home", archive, ONE)


@pytest.fixture(scope="module")
def other(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    return imported(tmp_path_factory.mktemp("other") / "home", archive, OTHER)


def without_name(outcome: Outcome) -> Outcome:
    return replace(outcome, policy="")


def test_a_policy_gives_what_a_home_with_those_settings_holds(one: Home, other: Home) -> None:
    here, there = compared(one, OTHER), compared(other, ONE)
    assert here.as_stored and there.as_stored
    assert here.cut_anew > 0
    assert compared(one, ONE).cut_anew == 0
    assert here.outcomes[0].windows == 1 + 270 // 40
    assert here.outcomes[1].windows == 1 + 270 // 25
    assert without_name(here.outcomes[0]) == without_name(there.outcomes[1])
    assert without_name(here.outcomes[1]) == without_name(there.outcomes[0])


def test_so_it_is_with_the_arrival_clock_and_two_imports(archive: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.mbox"
    write_mailbox(second, seed=12, messages=160)
    homes = []
    for name, option in (("one", ONE), ("other", OTHER)):
        home = imported(tmp_path / name, archive, option, clock="arrival")
        assert run(home.root, "import", str(second)).returncode == 0
        homes.append(home)

    def timeless(outcome: Outcome) -> list[Any]:
        return [replace(step, closed_at=datetime.min) for step in outcome.history]

    here, there = compared(homes[0], OTHER), compared(homes[1], ONE)
    assert here.as_stored and there.as_stored
    assert [step.reason for step in here.outcomes[1].history] == ["bootstrap", *["count"] * 6]
    assert timeless(here.outcomes[0]) == timeless(there.outcomes[1])
    assert timeless(here.outcomes[1]) == timeless(there.outcomes[0])


def test_runs_are_those_that_a_real_lineage_of_promoted_runs_takes(one: Home, tmp_path: Path) -> None:
    given = read_home(one, environment={})
    with Store.open(one, None, None) as store:
        shards = store.fetch(ShardRow, "", (), "window_idx")
        (mailbox,) = (row[0] for row in store.query("SELECT mailbox FROM mailbox_rows"))
    assert mailbox == MAILBOX
    lineage = Lineage(Home(tmp_path / "home"), run_settings(given))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "shards").symlink_to(one.root / "shards")
    expected = []
    for row in shards:
        lineage.shards.append(ShardRef(window_idx=row.window_idx, path=row.shard_path, sha256=row.shard_sha256))
        manifest, schedule = lineage.finish(lineage.request())
        expected.append((manifest, schedule))
    found = [step.run for step in compared(one, ONE).outcomes[0].history]
    assert len(found) == len(expected) > 5
    for simulated, (manifest, schedule) in zip(found, expected, strict=True):
        assert simulated is not None
        assert simulated.new_chunks == sum(role == "new" for role in manifest.table["role"].to_pylist())
        assert simulated.tokens == sum(schedule.table["n_tokens"].to_pylist())
        assert abs(simulated.steps - schedule.steps(1)) <= max(2, schedule.steps(1) // 10)
    assert any(simulated is not None and simulated.rehearsal_tokens for simulated in found)


def run_settings(given: Settings) -> RunSettings:
    return RunSettings(
        seed=given.seed,
        rolling=given.window.rolling,
        min_threads=given.gate.min_threads,
        replay=given.replay,
        model=given.model,
        train=given.train,
        eval=given.eval,
    )


def test_rehearsal_follows_the_policy(one: Home) -> None:
    some, none, more = compared(one, "replay.strategy=none", "replay.max_share=0.5 replay.ratio=1:1").outcomes
    assert none.rehearsal_share == 0 and none.reached == 0
    assert 0 < some.rehearsal_share <= 0.4 / 1.4
    assert some.rehearsal_share < more.rehearsal_share <= 0.5
    assert some.reached is not None and more.reached is not None and some.reached < more.reached
    assert none.steps < some.steps < more.steps
    assert (none.windows, none.thin) == (some.windows, some.thin)


def test_a_real_archive_is_replayed_as_it_is_stored(real_mail: Path, tmp_path: Path) -> None:
    with gzip.open(real_mail / "linux-mips-2006-2007.mbox.gz") as file:
        data = file.read(4_000_000)
    cut = tmp_path / "real.mbox"
    cut.write_bytes(data[: data.rindex(b"\n\nFrom ") + 1])
    home = imported(tmp_path / "home", cut, "window.count=50", "window.tokens=8000", clock="header")
    found = compared(home, "window.count=20 window.tokens=null")
    assert found.mails > 300
    assert found.as_stored
    assert {step.reason for step in found.outcomes[0].history} >= {"bootstrap", "tokens"}
    assert {step.reason for step in found.outcomes[1].history} == {"bootstrap", "count"}


def test_settings_that_changed_since_are_told(one: Home, tmp_path: Path) -> None:
    with Store.open(one, None, None) as store:
        log = read_log(store, MAILBOX)
    assert not as_stored(log, replay(log, WindowSettings(bootstrap=150, count=41, age=None)))
    assert not as_stored(
        replace(log, closed=log.closed[:-1]), replay(log, WindowSettings(bootstrap=150, count=40, age=None))
    )


# Time, the grammar, the command and the picture


def test_time_is_so_much_per_token_and_so_much_per_run(tmp_path: Path) -> None:
    done = Finished.at(tmp_path / "home")
    with done.store as store:
        done.close_window()
        assert measured_pace(store, done.home, done.settings, MAILBOX) is None
        draft = done.lineage.request()
        (shard,) = store.fetch(ShardRow)
        tokens = [
            finish(done, draft),
            finish(done, draft.model_copy(update={"base": base_of(store, done.home, Settings(), MAILBOX, shard)})),
        ]
        pace = measured_pace(store, done.home, done.settings, MAILBOX)
    assert pace == Pace(tokens_per_second=tokens[1] / 200.0, seconds_per_run=20.0, runs=1), "the other base does not count"
    assert pace.seconds(tokens[1] * 3, runs=4) == pytest.approx(680.0)


def finish(done: Finished, asked: RunRequest) -> int:
    """Notes a finished run; returns the tokens of its schedule."""
    folder = private_dir(done.home.run(asked.run_id))
    write_exclusions(folder / "exclusions.parquet", [])
    result = RunResult(
        run_id=asked.run_id,
        adapter_id=asked.adapter_id,
        adapter_sha256="0" * 64,
        checkpoint="step-000001",
        started_at=done.now,
        finished_at=done.now,
        steps=1,
        tokens=1,
        new_chunks=1,
        rehearsal_chunks=0,
        seconds={"base": 500.0, "data": 4.0, "train": 200.0, "evaluate": 16.0},
        environment={},
    )
    (folder / "result.json").write_text(result.model_dump_json())
    done.store.append(
        [
            RequestRow(asked.run_id, MAILBOX, asked.new_windows, None, asked.adapter_id, asked.model_dump_json(), done.now),
            RunResultRow(asked.run_id, done.now, done.now, 1, 1, 0.0),
        ]
    )
    return sum(prepare_run(done.home, asked, folder).schedule.table["n_tokens"].to_pylist())


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("window.count=200", ["window.count=200"]),
        ("window.count=200  replay.ratio=1:8", ["window.count=200", "replay.ratio=0.125"]),
        ("replay.ratio=3:4", ["replay.ratio=0.75"]),
        ("""window.cron="0 6 * * 1" window.count=null""", ["window.cron=0 6 * * 1", "window.count=null"]),
    ],
)
def test_a_policy_is_read(policy: str, expected: Sequence[str]) -> None:
    assert overrides(policy) == expected
    assert load(None, environment={}, overrides=expected) != Settings()


@pytest.mark.parametrize(
    "policy",
    ["", "window.count", 'window.cron="0 6', "chunk.size=3", "seed=4", "replay.ratio=1:0", "windows.count=1", "window=3"],
)
def test_what_is_no_policy_is_refused_with_the_next_step(policy: str) -> None:
    with pytest.raises(UsageError) as refused:
        overrides(policy)
    assert refused.value.hint


def test_the_first_row_is_the_settings_as_they_are() -> None:
    current = Settings(seed=5)
    (first, second) = read_policies(current, ["window.count=3"], lambda given: load(None, environment={}, overrides=given))
    assert first == Policy(AS_SET, current)
    assert second.settings.window.count == 3


def test_the_command_tells_and_changes_nothing(one: Home, tmp_path: Path) -> None:
    before = rows_of(one), shards_of(one)
    shown = run(one.root, "simulate", "--what-if", OTHER, "--what-if", "replay.ratio=1:8")
    assert shown.returncode == 0, shown.stderr
    assert "as set" in shown.stdout and OTHER in shown.stdout and "not known before the first run" in shown.stdout
    picture = tmp_path / "policies.png"
    told = run(one.root, "simulate", "--what-if", OTHER, "--json", "--plot", str(picture))
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert [outcome["policy"] for outcome in found["outcomes"]] == ["as set", OTHER]
    assert found["outcomes"][0]["ratios"]["steps"] == 1.0
    assert found["outcomes"][1]["ratios"]["runs"] == found["outcomes"][1]["runs"] / found["outcomes"][0]["runs"]
    assert len(found["outcomes"][1]["history"]) == found["outcomes"][1]["windows"]
    assert picture.stat().st_mode & 0o777 == 0o600
    assert (rows_of(one), shards_of(one)) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--what-if", "chunk.size=4"), "chunk.size"),
        (("--what-if", "window.count=-1"), "window.count"),
        (("--what-if", OTHER, "--mailbox", "nobody"), "nobody"),
        (("--what-if", OTHER, "--plot", "policies.doc"), "policies.doc"),
    ],
)
def test_the_command_refuses_in_one_line(one: Home, arguments: Sequence[str], named: str) -> None:
    refused = run(one.root, "simulate", *arguments)
    assert refused.returncode == 2
    assert named in complaint(refused)


def test_the_picture_shows_every_policy(one: Home, tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    from streams.whatif.picture import COLOURS, draw, require_drawing

    path = tmp_path / "policies.png"
    require_drawing(path)
    draw(compared(one, OTHER, "replay.strategy=none"), path)
    pixels = (image.imread(path)[:, :, :3] * 255).round().astype(int)
    for colour in COLOURS[:3]:
        wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (abs(pixels - wanted).max(axis=2) <= 2).sum() > 2_000, colour
