"""A Maildir as a feed: every mail once, whatever other programs do to its name while it is read."""

from __future__ import annotations

import hashlib
import json
import mailbox
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.domain import Arrival, DeadLetter, Tick, TickKind
from pipeline.errors import FeedError, SourceAway
from pipeline.home import Home
from streams.demo.mailbox import write_mailbox
from streams.feeds.contract import Handed
from streams.feeds.handing import BATCH_MAILS
from streams.feeds.listing import PAGE, base_name, delivered
from streams.feeds.maildir import MaildirFeed
from streams.feeds.opening import folders_left_out
from tests.conftest import REPOSITORY
from tests.support.archives import mail
from tests.support.dump import rows_of, shards_of
from tests.support.kills import run_killed
from tests.support.maildirs import FIRST, Maildir
from tests.support.program import complaint, make, run
from tests.support.program import mailtide as program_line

LONG = 600.0
"""Seconds that no test waits: who returns sooner was woken."""


@pytest.fixture
def maildir(tmp_path: Path) -> Maildir:
    return Maildir(tmp_path / "Maildir")


@pytest.fixture
def feed(tmp_path: Path, maildir: Maildir) -> MaildirFeed:
    return MaildirFeed(Home(tmp_path / "home"), "main", maildir.path, poll=LONG)


def arrivals(items: list[Handed]) -> list[Arrival]:
    return [item for item in items if isinstance(item, Arrival)]


def cursors(items: list[Handed]) -> list[str]:
    return [item.cursor for item in arrivals(items)]


# Names


@pytest.mark.parametrize(
    ("name", "base"),
    [
        (b"1204680122.M1P2.host", "1204680122.M1P2.host"),
        (b"1204680122.M1P2.host:2,", "1204680122.M1P2.host"),
        (b"1204680122.M1P2.host:2,FRSab", "1204680122.M1P2.host"),
        (b"1204680122.M1P2.host;2,S", "1204680122.M1P2.host"),
        (b"1204680122.M1P2.host!2,S", "1204680122.M1P2.host"),
        (b"1204680122.M1P2.host,S=1000,W=1030:2,S", "1204680122.M1P2.host,S=1000,W=1030"),
        (b"1204680122.1_2.host,U=7:2,S", "1204680122.1_2.host"),
        (b"1204680122_0.3.host,U=12,FMD5=7e33:2,", "1204680122_0.3.host,FMD5=7e33"),
        (b"no time;2,x", "no time"),
        (b":2,S", ":2,S"),
        (b"caf\xe9:2,S", "caf\\xe9"),
    ],
)
def test_a_mail_is_known_by_what_no_program_changes(name: bytes, base: str) -> None:
    assert base_name(name) == base


@pytest.mark.parametrize(
    ("name", "at"),
    [
        (b"1204680122.M123456P2.host", 1204680122_123456),
        (b"1204680122.M7P2V0I1.host:2,S", 1204680122_000007),
        (b"1204680122.P1Q2M99.host", 1204680122_000099),
        (b"1204680122.27c448.mail", 1204680122_000000),
        (b"1204680122_0.3.host,U=12", 1204680122_000000),
        (b"120468012.x", None),
        (b"99999999999.x", None),
        (b"1204680122", None),
        (b"msg.1204680122.x", None),
    ],
)
def test_the_time_of_delivery_in_a_name(name: bytes, at: int | None) -> None:
    assert delivered(name) == at


# A pass


def test_mails_come_in_the_order_of_delivery_and_tmp_is_not_looked_at(maildir: Maildir, feed: MaildirFeed) -> None:
    late, early, middle = maildir.deliver(3), maildir.deliver(1, to="cur"), maildir.deliver(2)
    untimed = maildir.deliver(4, name="named-by-hand")
    (maildir.path / "tmp" / f"{FIRST}.M0P1.host").write_bytes(mail(9))
    (maildir.path / "new" / ".hidden").write_bytes(mail(9))
    (maildir.path / "new" / "folder").mkdir()
    items = list(feed.items(0))
    assert cursors(items) == [early, middle, late, untimed]
    assert [item.number for item in items] == [1, 2, 3, 4, 5]
    assert [item.raw for item in arrivals(items)] == [mail(number) for number in (1, 2, 3, 4)]
    first = arrivals(items)[0]
    assert first.received_at == datetime.fromtimestamp(FIRST + 1, UTC).replace(tzinfo=None)
    assert (first.mailbox, first.feed, first.digest) == ("main", feed.name, hashlib.sha256(mail(1)).hexdigest())
    assert isinstance(items[-1], Tick) and items[-1].kind is TickKind.CAUGHT_UP


def test_a_file_without_a_time_is_received_when_its_name_says(maildir: Maildir, feed: MaildirFeed) -> None:
    base = maildir.deliver(5)
    os.utime(maildir.where(base), (0, 0))
    assert arrivals(list(feed.items(0)))[0].received_at == datetime.fromtimestamp(FIRST + 5, UTC).replace(
        tzinfo=None, microsecond=5
    )


def test_nothing_is_handed_on_twice_under_another_name(maildir: Maildir, feed: MaildirFeed) -> None:
    one, two = maildir.deliver(1), maildir.deliver(2)
    last = list(feed.items(0))[-1].number
    maildir.flag(one)
    maildir.flag(two, "RS", uid=",U=7")
    assert list(feed.items(last)) == []
    three = maildir.deliver(3)
    again = list(feed.items(last))
    assert cursors(again) == [three]
    assert [item.number for item in again] == [4, 5]


def test_a_delivery_is_seen_in_a_folder_that_lay_still(maildir: Maildir, feed: MaildirFeed) -> None:
    maildir.deliver(1)
    maildir.age()
    last = list(feed.items(0))[-1].number
    assert list(feed.items(last)) == []
    maildir.age()
    new = maildir.deliver(2)
    assert cursors(list(feed.items(last))) == [new]
    assert cursors(list(feed.items(0))) == [maildir.deliver(1), new]


def test_mails_flagged_and_removed_while_they_are_read(maildir: Maildir, feed: MaildirFeed) -> None:
    count = PAGE + 2 * BATCH_MAILS
    bases = [maildir.deliver(number) for number in range(count)]
    pass_ = feed.items(0)
    begun = list(islice(pass_, BATCH_MAILS // 2))
    for base in bases:
        maildir.flag(base)
    removed = set(bases[BATCH_MAILS + 10 : BATCH_MAILS + 20])
    for base in removed:
        maildir.where(base).unlink()
    whole = [*begun, *pass_]
    assert cursors(whole) == [base for base in bases if base not in removed]
    assert [item.number for item in whole] == list(range(1, count - len(removed) + 2))
    assert list(feed.items(whole[-1].number)) == []


def test_nothing_in_the_folder_is_touched(maildir: Maildir, feed: MaildirFeed) -> None:
    maildir.deliver(1)
    maildir.deliver(2, to="cur")

    def state() -> dict[Path, tuple[int, int, int]]:
        found = sorted(maildir.path.rglob("*"))
        return {path: (s.st_ino, s.st_mode, s.st_mtime_ns) for path in found for s in [path.stat()]}

    before = state()
    list(feed.items(0))
    list(feed.items(0))
    assert len(before) == 5 and state() == before


def test_a_name_that_is_no_text(maildir: Maildir, feed: MaildirFeed) -> None:
    odd = os.fsencode(maildir.path / "new") + b"/1700000000.caf\xe9.host"
    Path(os.fsdecode(odd)).write_bytes(mail(1))
    assert cursors(list(feed.items(0))) == ["1700000000.caf\\xe9.host"]
    assert cursors(list(feed.items(0))) == ["1700000000.caf\\xe9.host"]


def test_a_mail_above_the_limit_becomes_a_dead_letter_with_its_beginning(tmp_path: Path, maildir: Maildir) -> None:
    raw = mail(1, "x" * 2_000)
    maildir.deliver(1, raw)
    small = maildir.deliver(2)
    feed = MaildirFeed(Home(tmp_path / "home"), "main", maildir.path, max_mail=1_000)
    for _ in range(2):  # as it is noted, and as it is found again
        dead, arrived, _tick = feed.items(0)
        assert isinstance(dead, DeadLetter) and isinstance(arrived, Arrival)
        assert (dead.stage, dead.raw, dead.number) == ("feed", raw[:1_000], 1)
        assert dead.reason == f"a mail of {len(raw)} bytes is above the limit of 1000; only its beginning is kept"
        assert arrived.cursor == small


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file here that opens and cannot be read")
def test_a_mail_that_cannot_be_read_does_not_hold_up_the_others(maildir: Maildir, feed: MaildirFeed) -> None:
    link = maildir.path / "new" / f"{FIRST}.M0P1.host"
    link.symlink_to("/proc/self/mem")
    others = [maildir.deliver(number) for number in (1, 2)]
    items: list[Handed] = []
    with pytest.raises(FeedError, match=r"M0P1\.host cannot be read: .*; let this user read it"):
        items.extend(feed.items(0))
    items = []
    try:
        for item in feed.items(0):
            items.append(item)
    except FeedError:
        pass
    assert cursors(items) == others
    link.unlink()
    link.write_bytes(mail(0))
    assert cursors(list(feed.items(2))) == [link.name]


def test_more_mail_than_memory_should_hold(maildir: Maildir, feed: MaildirFeed) -> None:
    count, body = 2_000, "x" * 20_000
    for number in range(count):
        maildir.deliver(number, mail(number, body))
    assert sum(1 for item in feed.items(0) if isinstance(item, Arrival)) == count


@pytest.mark.slow
def test_twenty_thousand_files_in_bounded_memory(maildir: Maildir, feed: MaildirFeed) -> None:
    count = 20_000
    for number in range(count):
        maildir.deliver(number)
    list(islice(feed.items(0), 1))  # what is loaded once does not count
    tracemalloc.start()
    try:
        assert sum(isinstance(item, Arrival) for item in feed.items(0)) == count
        assert list(feed.items(count + 1)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


# Folders that are no Maildir, or not there


def test_what_is_no_maildir_is_refused_with_the_next_step(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    (tmp_path / "file").touch()
    Maildir(tmp_path / "mail" / "INBOX")
    (tmp_path / "empty").mkdir()
    for name, says in {
        "nowhere": "there is no Maildir at .*nowhere; check the path",
        "file": "file is no folder, so no Maildir",
        "mail": "mail is a folder, but no Maildir; name one of the folders in it: INBOX",
        "empty": "empty is a folder, but no Maildir; a Maildir holds both new and cur",
    }.items():
        with pytest.raises(FeedError, match=says) as caught:
            list(MaildirFeed(home, "main", tmp_path / name).items(0))
        assert not isinstance(caught.value, SourceAway)


def test_a_folder_that_goes_and_comes_back(tmp_path: Path, maildir: Maildir, feed: MaildirFeed) -> None:
    base = maildir.deliver(1)
    begun = next(feed.items(0))
    away = maildir.path.rename(tmp_path / "away")
    # Gone with its folder is not gone: the number is filled when the folder is back.
    with pytest.raises(SourceAway, match="cannot be listed: No such file or directory; bring the folder back"):
        list(feed.items(0))
    away.rename(maildir.path)
    assert [item.number for item in feed.items(0)] == [1, 2]
    assert isinstance(begun, Arrival) and begun.cursor == base


def test_sub_folders_are_feeds_of_their_own(tmp_path: Path, maildir: Maildir, feed: MaildirFeed) -> None:
    sent = Maildir(maildir.path / ".Sent")
    maildir.deliver(1)
    other = sent.deliver(2)
    second = MaildirFeed(Home(tmp_path / "home"), "main", sent.path)
    assert len(arrivals(list(feed.items(0)))) == 1
    assert cursors(list(second.items(0))) == [other]
    assert feed.name.startswith("main.maildir-") and second.name.startswith("main.maildir.sent-")


# Crashes

READ = """
import os, signal, sys
from pathlib import Path
from pipeline.home import Home
from streams.feeds.maildir import MaildirFeed
for item in MaildirFeed(Home(Path(sys.argv[1])), "main", Path(sys.argv[2])).items(0):
    print(item.number, item.cursor, item.digest, flush=True)
    if item.number == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_between_noting_and_taking(tmp_path: Path, maildir: Maildir, feed: MaildirFeed) -> None:
    bases = [maildir.deliver(number) for number in range(2 * BATCH_MAILS)]
    program = [sys.executable, "-c", READ, str(tmp_path / "home"), str(maildir.path), "5"]
    killed = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    moved, gone, changed = bases[3], bases[4], bases[5]
    maildir.flag(moved, "FS")
    maildir.where(gone).unlink()
    maildir.where(changed).write_bytes(b"Subject: other\n\nother\n")
    early = maildir.deliver(-1)  # delivered before all others, it still comes after what has a number
    items = list(feed.items(3))
    assert [item.number for item in items] == list(range(4, len(bases) + 3))
    assert cursors(items) == [base for base in bases[3:BATCH_MAILS] if base not in (gone, changed)] + [
        early,
        *bases[BATCH_MAILS:],
    ]
    assert f"{items[0].number} {moved} {arrivals(items)[0].digest}" == killed.stdout.splitlines()[3]
    dead = [item for item in items if isinstance(item, DeadLetter)]
    assert [(item.cursor, item.stage, item.raw) for item in dead] == [
        (gone, "feed", b""),
        (changed, "feed", b"Subject: other\n\nother\n"),
    ]
    assert "deleted or moved away" in dead[0].reason and "changed" in dead[1].reason


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_an_import_that_is_killed_leaves_the_rows_of_one_that_is_not(tmp_path: Path, maildir: Maildir, seed: int) -> None:
    archive = tmp_path / "demo.mbox"
    write_mailbox(archive, seed=3, messages=400)
    with closing(mailbox.mbox(archive)) as mails:
        for number, each in enumerate(mails):
            maildir.deliver(number, each.as_bytes(), to="cur" if number % 3 else "new")
    options = ("window.bootstrap=60", "window.count=40", "window.age=null", "chunk.max_tokens=512")
    arguments = ("import", str(maildir.path), "--clock", "header")
    undisturbed = Home(make(tmp_path / "undisturbed", *options))
    done = run(undisturbed.root, *arguments)
    assert done.returncode == 0, done.stderr
    # A fast machine may be done before the first kill falls; sooner ones are then tried on a new home.
    for attempt in range(6):
        killed = Home(make(tmp_path / f"killed{attempt}", *options))
        command = program_line(killed.root, *arguments)
        delay = (0.3 / 2**attempt, 1.2 / 2**attempt)
        lives = run_killed(command, {"OMP_NUM_THREADS": "1"}, kills=5, seed=seed, delay=delay, limit=400, cwd=REPOSITORY)
        if lives.kills:
            break
    assert lives.kills > 0
    assert rows_of(killed) == rows_of(undisturbed)
    assert shards_of(killed) == shards_of(undisturbed) != {}


class Interleaved(RuleBasedStateMachine):
    """Deliveries, flags, moves and passes that end anywhere, in any order, with batches and pages of a few mails."""

    @initialize()
    def begin(self) -> None:
        self.small = pytest.MonkeyPatch()
        self.small.setattr("streams.feeds.maildir.BATCH_MAILS", 2)
        self.small.setattr("streams.feeds.listing.PAGE", 3)
        self.root = Path(tempfile.mkdtemp(prefix="mailtide-maildir-"))
        self.maildir = Maildir(self.root / "Maildir")
        self.delivered: list[str] = []
        self.numbers: dict[int, str] = {}
        self.taken = 0
        self.reopen()

    def teardown(self) -> None:
        self.small.undo()
        shutil.rmtree(self.root, ignore_errors=True)

    @rule()
    def reopen(self) -> None:
        self.feed = MaildirFeed(Home(self.root / "home"), "main", self.maildir.path)

    @rule(lates=st.lists(st.integers(0, 100), min_size=1, max_size=6), to=st.sampled_from(["new", "cur"]))
    def deliver(self, lates: list[int], to: str) -> None:
        for late in lates:
            number = len(self.delivered)
            base = f"{FIRST + late}.M{number}P7.host"
            self.delivered.append(self.maildir.deliver(number, to=to, name=base))

    @precondition(lambda self: self.delivered)
    @rule(which=st.integers(0), flags=st.sampled_from(["", "S", "FRS"]), uid=st.sampled_from(["", ",U=3", ",U=4"]))
    def flag(self, which: int, flags: str, uid: str) -> None:
        self.maildir.flag(self.delivered[which % len(self.delivered)], flags, uid)

    @rule()
    def lie_still(self) -> None:
        self.maildir.age()

    @rule(read=st.integers(0, 8), taken=st.integers(0, 8))
    def stopped_pass(self, read: int, taken: int) -> None:
        items = list(islice(self.feed.items(self.taken), read))
        self.see(items)
        if items:
            self.taken = items[: taken + 1][-1].number

    @rule(read=st.integers(0, 8), late=st.integers(0, 100), flags=st.sampled_from(["", "S"]))
    def disturbed_pass(self, read: int, late: int, flags: str) -> None:
        there = len(self.delivered)
        pass_ = self.feed.items(self.taken)
        items = list(islice(pass_, read))
        for base in self.delivered[::2]:
            self.maildir.flag(base, flags, ",U=9")
        self.deliver([late], "new")
        items.extend(pass_)
        self.see(items)
        self.taken = items[-1].number if items else self.taken
        assert {name for name in self.numbers.values() if name} >= set(self.delivered[:there])

    @rule()
    def whole_pass(self) -> None:
        items = list(self.feed.items(self.taken))
        self.see(items)
        self.taken = items[-1].number if items else self.taken
        assert sorted(name for name in self.numbers.values() if name) == sorted(self.delivered)

    def see(self, items: list[Handed]) -> None:
        assert [item.number for item in items] == list(range(self.taken + 1, self.taken + 1 + len(items)))
        for item in items:
            assert not isinstance(item, DeadLetter)
            name = item.cursor if isinstance(item, Arrival) else ""
            assert self.numbers.setdefault(item.number, name) == name

    @invariant()
    def each_once(self) -> None:
        named = [name for name in self.numbers.values() if name]
        assert len(named) == len(set(named))


TestInterleaved = Interleaved.TestCase
TestInterleaved.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


# Waiting


def waiting(feed: MaildirFeed, stop: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=feed.wait, args=(LONG, stop), daemon=True)
    thread.start()
    return thread


def test_a_delivery_wakes_who_waits(maildir: Maildir, feed: MaildirFeed) -> None:
    stop = threading.Event()
    feed.wait(LONG, stop)  # the first returns at once: mail may have come before anything was watched
    for number, to in enumerate(("new", "cur")):
        thread = waiting(feed, stop)
        base = maildir.deliver(number, to=to)
        thread.join(60)
        assert not thread.is_alive()
        assert base in cursors(list(feed.items(0)))
    feed.close()


def test_what_came_between_two_waits_is_told(maildir: Maildir, feed: MaildirFeed) -> None:
    feed.wait(LONG, threading.Event())
    maildir.deliver(1)
    feed.wait(LONG, threading.Event())
    feed.close()


def test_stop_ends_a_wait(feed: MaildirFeed) -> None:
    stop = threading.Event()
    feed.wait(LONG, stop)
    thread = waiting(feed, stop)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    feed.close()


def test_a_folder_that_was_replaced_is_watched_anew(tmp_path: Path, maildir: Maildir, feed: MaildirFeed) -> None:
    feed.wait(LONG, threading.Event())
    maildir.path.rename(tmp_path / "old")
    renewed = Maildir(maildir.path)
    feed.wait(LONG, threading.Event())
    thread = waiting(feed, threading.Event())
    renewed.deliver(1)
    thread.join(60)
    assert not thread.is_alive()
    feed.close()


WITHOUT_WATCHES = """
import logging, os, resource, sys, threading
from pathlib import Path
from pipeline.home import Home
from streams.feeds.maildir import MaildirFeed
from watchfiles._rust_notify import RustNotify
logging.basicConfig(format="%(message)s")
feed = MaildirFeed(Home(Path(sys.argv[1])), "main", Path(sys.argv[2]), poll=0.2)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
opened = []
try:
    while True:
        opened.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for _ in range(3):
    feed.wait(600, threading.Event())
print("looked again")
"""


def test_without_watches_the_folder_is_looked_at_every_so_often(tmp_path: Path, maildir: Maildir) -> None:
    program = [sys.executable, "-c", WITHOUT_WATCHES, str(tmp_path / "home"), str(maildir.path)]
    done = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "looked again\n", done.stderr
    assert done.stderr.count("looking every 0.2 s instead") == 1


def test_a_folder_that_is_away_is_waited_for_no_longer_than_poll(tmp_path: Path) -> None:
    feed = MaildirFeed(Home(tmp_path / "home"), "main", tmp_path / "nowhere", poll=0.1)
    feed.wait(LONG, threading.Event())
    feed.wait(LONG, threading.Event())


# Through the command line


def test_a_maildir_is_imported_as_an_mbox_is(tmp_path: Path, maildir: Maildir) -> None:
    for number in range(12):
        maildir.deliver(number, to="cur" if number % 2 else "new")
    home = make(tmp_path / "home")
    (tmp_path / "empty").mkdir()
    assert "no Maildir" in complaint(run(home, "import", str(tmp_path / "empty")))
    first = run(home, "import", str(maildir.path), "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["new"] == 12
    maildir.flag(maildir.deliver(12))
    again = json.loads(run(home, "import", str(maildir.path), "--json").stdout)
    assert (again["read"], again["new"]) == (1, 1)
    sent = Maildir(maildir.path / ".Sent")
    assert folders_left_out([maildir.path, sent.path]) == []
    told = run(home, "import", str(maildir.path)).stdout
    assert f"Left out: 1 folder inside (.Sent); name each by itself, like {sent.path}" in told
    assert ", newest 2023-11-14" in run(home, "status").stdout, "when they were delivered"
    replayed = make(tmp_path / "replayed")
    run(replayed, "import", str(maildir.path), "--clock", "header")
    assert ", newest 2015-05-22" in run(replayed, "status").stdout, "what their headers say"
