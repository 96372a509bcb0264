"""A real mail server as a feed: every mail under one number, whatever happens to the connection, the folder or the mail."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from pipeline.arrival.people import PeopleKey
from pipeline.config.configuration import load
from pipeline.config.feed_settings import ImapFeedSettings
from pipeline.domain import Arrival, Clock, DeadLetter, Tick, TickKind
from pipeline.errors import FeedError, SourceAway
from pipeline.home import Home
from pipeline.store.rows import FeedRow
from pipeline.times import utc_now
from streams.feeds import imap_session
from streams.feeds.contract import Handed
from streams.feeds.imap import imap_feeds
from streams.homes import make_home
from streams.owning.owner import Owner
from streams.owning.stores import opener
from streams.parsers.pool import parsed
from tests.conftest import REPOSITORY
from tests.support.archives import mail
from tests.support.dovecot import Dovecot, dovecot
from tests.support.imap_feeds import LIMIT_S, arrivals, crlf, feed, raws, shape, waiting

NOON = datetime(2024, 5, 1, 12)
USERS = {f"user{number}": f"secret of user{number}" for number in range(60)}
_users = iter(USERS)


@pytest.fixture(scope="module")
def server() -> Iterator[Dovecot]:
    with dovecot(USERS) as running:
        yield running


@pytest.fixture
def user(server: Dovecot) -> str:
    """An account that no other test has."""
    return next(_users)


# What is handed on


def test_a_first_pass_gives_every_mail_with_what_travels_with_it_and_a_tick(
    server: Dovecot, user: str, tmp_path: Path
) -> None:
    server.deliver(user, [mail(1), mail(2)], at=datetime(2019, 3, 4, 5, 6, 7))
    source = feed(tmp_path, server.settings(user), now=lambda: NOON)
    first, second, tick = source.items(0)
    assert isinstance(first, Arrival) and isinstance(second, Arrival)
    assert first.raw == crlf(mail(1))
    assert first.digest == hashlib.sha256(crlf(mail(1))).hexdigest()
    assert first.received_at == datetime(2019, 3, 4, 5, 6, 7)
    assert (first.mailbox, first.feed, first.number, second.number) == ("main", source.name, 1, 2)
    assert [item.cursor.split(":")[1] for item in (first, second)] == ["1", "2"]
    assert tick == Tick("main", source.name, 3, TickKind.CAUGHT_UP, NOON)
    source.close()


def test_nothing_new_is_nothing_and_new_mail_ends_with_a_tick(server: Dovecot, user: str, tmp_path: Path) -> None:
    server.deliver(user, [mail(1)])
    source = feed(tmp_path, server.settings(user))
    assert shape(list(source.items(0))) == [("Arrival", 1), ("Tick", 2)]
    assert list(source.items(2)) == []
    server.deliver(user, [mail(2)])
    more = list(source.items(2))
    assert shape(more) == [("Arrival", 3), ("Tick", 4)]
    assert raws(more) == [crlf(mail(2))]
    source.close()
    assert list(feed(tmp_path, server.settings(user)).items(4)) == []


def test_an_empty_folder_is_caught_up(server: Dovecot, user: str, tmp_path: Path) -> None:
    source = feed(tmp_path, server.settings(user))
    assert shape(list(source.items(0))) == [("Tick", 1)]
    assert list(source.items(1)) == []


def test_every_folder_is_a_feed_of_its_own(server: Dovecot, user: str, tmp_path: Path) -> None:
    folders = ("INBOX", "Archive/2024", "Entwürfe & Co")
    with server.connection(user) as client:
        for number, folder in enumerate(folders):
            if folder != "INBOX":
                client.create_folder(folder)
            client.append(folder, mail(number), msg_time=NOON)
    feeds = imap_feeds(Home(tmp_path / "home"), "main", server.settings(user, *folders, "INBOX"))
    assert len({source.name for source in feeds}) == len(feeds) == 3
    for number, source in enumerate(feeds):
        assert raws(list(source.items(0))) == [crlf(mail(number))]
        source.close()
    assert feeds[1].name.startswith("main.localhost-") and feeds[1].name.isascii()
    assert feeds[1].source == f"imaps://{user}@localhost:{server.port}/Archive/2024"


def test_a_name_does_not_depend_on_how_the_server_is_reached(tmp_path: Path) -> None:
    settings = {"kind": "imap", "host": "mail.example.org", "user": "ann", "secret": {"env": "X"}}
    names = {
        feed(tmp_path, ImapFeedSettings.model_validate({**settings, **change})).name
        for change in ({}, {"port": 143, "security": "starttls"}, {"host": "MAIL.example.org"}, {"poll": 5})
    }
    assert len(names) == 1
    assert names != {feed(tmp_path, ImapFeedSettings.model_validate({**settings, "user": "bob"})).name}


def test_nothing_on_the_server_changes(server: Dovecot, user: str, tmp_path: Path) -> None:
    marks = [(), (rb"\Seen",), (rb"\Flagged", rb"\Answered"), (b"$Work", rb"\Deleted")]
    with server.connection(user) as client:
        for number, mark in enumerate(marks):
            client.append("INBOX", mail(number), mark)
    server.deliver(user, [mail(9)])
    files = sorted(path.name for path in server.maildir(user).glob("new/*"))

    def flags() -> dict[int, set[bytes]]:
        with server.connection(user) as client:
            client.select_folder("INBOX", readonly=True)
            return {uid: set(each) - {rb"\Recent"} for uid, each in client.get_flags(client.search()).items()}

    before = flags()
    assert len(before) == 5 and {rb"\Seen"} in before.values()
    source = feed(tmp_path, server.settings(user))
    assert len(raws(list(source.items(0)))) == 5
    assert len(raws(list(source.items(2)))) == 3
    source.wait(0.1, threading.Event())
    source.close()
    assert flags() == before
    assert sorted(path.name for path in server.maildir(user).glob("new/*")) == files


def test_a_mail_without_a_date_of_arrival_takes_the_newest_received(server: Dovecot, user: str, tmp_path: Path) -> None:
    received = b"Received: from a by b; Mon, 4 Mar 2019 05:06:07 +0200\n" + mail(1)
    server.deliver(user, [received, mail(2)], at=datetime(1970, 1, 1))
    first, second, _ = feed(tmp_path, server.settings(user), now=lambda: NOON).items(0)
    assert isinstance(first, Arrival) and isinstance(second, Arrival)
    assert (first.received_at, second.received_at) == (datetime(2019, 3, 4, 3, 6, 7), NOON)


# Waiting


@pytest.mark.parametrize("period", [600.0, 0.05])
def test_idle_tells_of_new_mail_also_after_it_was_asked_for_again(
    server: Dovecot, user: str, tmp_path: Path, period: float
) -> None:
    source = feed(tmp_path, server.settings(user), idle_period=period)
    taken = len(list(source.items(0)))
    for number in range(3):
        source.wait(0.3, threading.Event())
        thread, raised = waiting(source, threading.Event())
        server.deliver(user, [mail(number)])
        thread.join(LIMIT_S)
        assert not thread.is_alive() and not raised
        found = list(source.items(taken))
        assert raws(found) == [crlf(mail(number))]
        taken += len(found)
    source.close()


def test_mail_that_comes_between_a_pass_and_the_wait_is_not_waited_for(server: Dovecot, user: str, tmp_path: Path) -> None:
    source = feed(tmp_path, server.settings(user))
    taken = len(list(source.items(0)))
    server.deliver(user, [mail(1)])
    thread, raised = waiting(source, threading.Event())
    thread.join(LIMIT_S)
    assert not thread.is_alive() and not raised
    assert raws(list(source.items(taken))) == [crlf(mail(1))]
    source.close()


def test_mail_that_comes_during_a_pass_belongs_to_it(server: Dovecot, user: str, tmp_path: Path) -> None:
    server.deliver(user, [mail(1)])
    source = feed(tmp_path, server.settings(user))
    found: list[Handed] = []
    for item in source.items(0):
        found.append(item)
        if len(found) < 4:
            server.deliver(user, [mail(1 + len(found))])
    assert raws(found) == [crlf(mail(number)) for number in (1, 2, 3, 4)]
    assert shape(found)[-1] == ("Tick", 5)
    source.close()


def test_polling_is_for_servers_and_people_that_want_no_idle(server: Dovecot, user: str, tmp_path: Path) -> None:
    source = feed(tmp_path, server.settings(user, idle=False, poll=0.01))
    taken = len(list(source.items(0)))
    server.deliver(user, [mail(1)])
    thread, _ = waiting(source, threading.Event())
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert raws(list(source.items(taken))) == [crlf(mail(1))]
    source.close()


@pytest.mark.parametrize("idle", [True, False])
def test_a_wait_ends_when_it_is_told_to(server: Dovecot, user: str, tmp_path: Path, idle: bool) -> None:
    source = feed(tmp_path, server.settings(user, idle=idle, poll=10 * LIMIT_S))
    taken = len(list(source.items(0)))
    stop = threading.Event()
    thread, raised = waiting(source, stop)
    stop.set()
    thread.join(LIMIT_S)
    assert not thread.is_alive() and not raised
    source.wait(10 * LIMIT_S, stop)
    assert list(source.items(taken)) == []
    source.close()


def test_closing_from_elsewhere_ends_a_wait(server: Dovecot, user: str, tmp_path: Path) -> None:
    source = feed(tmp_path, server.settings(user))
    taken = len(list(source.items(0)))
    thread, raised = waiting(source, threading.Event())
    while thread.is_alive():
        source.close()
        thread.join(0.1)
    assert all(isinstance(error, SourceAway) for error in raised)
    server.deliver(user, [mail(1)])
    assert raws(list(source.items(taken))) == [crlf(mail(1))]
    source.close()


# Going on


def test_what_was_numbered_and_not_taken_is_handed_on_again(server: Dovecot, user: str, tmp_path: Path) -> None:
    mails = [mail(number) for number in range(6)]
    server.deliver(user, mails)
    source = feed(tmp_path, server.settings(user))
    begun = source.items(0)
    two = [next(begun), next(begun)]
    begun.close()  # type: ignore[attr-defined]
    whole = two + list(source.items(2))
    assert raws(whole) == [crlf(each) for each in mails]
    assert [item.number for item in whole] == list(range(1, 8))
    for after in range(8):
        assert list(feed(tmp_path, server.settings(user)).items(after)) == whole[after:]


def test_a_kill_between_number_and_taking_costs_nothing(server: Dovecot, user: str, tmp_path: Path) -> None:
    server.deliver(user, [mail(number) for number in range(5)])
    settings = server.settings(user)
    program = """
import os, signal, sys
from pathlib import Path
from pipeline.config.feed_settings import ImapFeedSettings
from tests.support.imap_feeds import feed
for item in feed(Path(sys.argv[1]), ImapFeedSettings.model_validate_json(sys.argv[2])).items(0):
    print(item.number, flush=True)
    if item.number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), settings.model_dump_json()],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["1", "2", "3"]), done.stderr
    rest = list(feed(tmp_path, settings).items(2))
    assert shape(rest) == [("Arrival", 3), ("Arrival", 4), ("Arrival", 5), ("Tick", 6)]
    assert raws(rest) == [crlf(mail(number)) for number in (2, 3, 4)]


def test_a_mail_deleted_while_nobody_read_leaves_a_mark_under_its_number(
    server: Dovecot, user: str, tmp_path: Path
) -> None:
    server.deliver(user, [mail(number) for number in range(5)], at=NOON)
    source = feed(tmp_path, server.settings(user))
    assert len(list(source.items(0))) == 6
    with server.connection(user, "INBOX") as client:
        client.delete_messages([1, 4])
        client.expunge()
    rest = list(source.items(2))
    assert shape(rest) == [("Arrival", 3), ("DeadLetter", 4), ("Arrival", 5), ("Tick", 6)]
    gone = rest[1]
    assert isinstance(gone, DeadLetter)
    assert (gone.stage, gone.raw, gone.received_at) == ("feed", b"", NOON)
    assert "gone from INBOX" in gone.reason
    assert list(source.items(6)) == []
    source.close()


def test_what_a_feed_hands_on_is_taken_marks_included(server: Dovecot, user: str, tmp_path: Path) -> None:
    home, configured = Home(tmp_path / "home"), load(None, environment={}, overrides=[])
    server.deliver(user, [mail(number) for number in range(4)])
    source = feed(tmp_path, server.settings(user))
    begun = source.items(0)
    assert next(begun).number == 1
    begun.close()  # type: ignore[attr-defined]
    with server.connection(user, "INBOX") as client:
        client.delete_messages([3])
        client.expunge()
    make_home(home, configured, PeopleKey(b"k" * 32))
    with opener(home, configured)() as store:
        owner = Owner(store, home, configured, utc_now)
        owner.register("main", Clock.ARRIVAL, [FeedRow("main", source.name, source.kind, source.source, NOON)])
        first = owner.take("main", [parsed(item) if isinstance(item, Arrival) else item for item in source.items(0)])
        assert (first.new, first.dead_letters) == (3, 1)
        assert owner.last_taken("main", source.name) == 5
        assert store.query("SELECT reason, cursor FROM dead_letters")[0][0].startswith("gone from INBOX")
        server.renumber(user, "INBOX", 4_000_000_001)
        again = owner.take("main", [parsed(item) if isinstance(item, Arrival) else item for item in source.items(5)])
        assert (again.new, again.duplicates) == (0, 3)
    source.close()


def test_a_moved_mail_leaves_a_mark_and_is_read_where_it_went(server: Dovecot, user: str, tmp_path: Path) -> None:
    server.deliver(user, [mail(1), mail(2)])
    inbox, kept = imap_feeds(Home(tmp_path / "home"), "main", server.settings(user, "INBOX", "Kept"))
    with server.connection(user, "INBOX") as client:
        client.create_folder("Kept")
        assert len(list(inbox.items(0))) == 3
        client.move([2], "Kept")
    assert shape(list(inbox.items(0))) == [("Arrival", 1), ("DeadLetter", 2), ("Tick", 3)]
    assert raws(list(kept.items(0))) == [crlf(mail(2))]


def test_a_renumbered_folder_is_read_again_from_its_beginning(
    server: Dovecot, user: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.deliver(user, [mail(number) for number in range(3)])
    source = feed(tmp_path, server.settings(user))
    before = list(source.items(0))
    server.renumber(user, "INBOX", 4_000_000_000)
    after = list(source.items(1))
    assert shape(after) == [
        *[("DeadLetter", 2), ("DeadLetter", 3), ("Tick", 4)],
        *[("Arrival", 5), ("Arrival", 6), ("Arrival", 7), ("Tick", 8)],
    ]
    assert raws(after) == raws(before)
    assert [item.cursor for item in arrivals(after)] == [f"4000000000:{uid}" for uid in (1, 2, 3)]
    assert len([line for line in caplog.messages if "renumbered INBOX" in line]) == 1
    assert list(source.items(8)) == []
    source.close()


def test_a_folder_made_anew_is_another_folder(server: Dovecot, user: str, tmp_path: Path) -> None:
    with server.connection(user) as client:
        client.create_folder("Box")
        client.append("Box", mail(1))
        source = feed(tmp_path, server.settings(user), "Box")
        assert len(list(source.items(0))) == 2
        client.delete_folder("Box")
        with pytest.raises(FeedError, match="has no folder Box"):
            list(source.items(2))
        client.create_folder("Box")
        client.append("Box", mail(2))
    assert raws(list(source.items(2))) == [crlf(mail(2))]
    source.close()


@pytest.mark.parametrize("width", [1, 3, 7, 100])
def test_a_large_folder_is_searched_part_by_part(
    server: Dovecot, user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(imap_session, "SEARCHED", width)
    server.deliver(user, [mail(number) for number in range(20)])
    with server.connection(user, "INBOX") as client:
        client.delete_messages([1, 2, 9, 10, 11, 12, 13, 14, 20])
        client.expunge()
    source = feed(tmp_path, server.settings(user))
    found = list(source.items(0))
    assert [int(item.cursor.split(":")[1]) for item in arrivals(found)] == [3, 4, 5, 6, 7, 8, 15, 16, 17, 18, 19]
    server.deliver(user, [mail(20)])
    assert raws(list(source.items(len(found)))) == [crlf(mail(20))]
    source.close()


# Large ones


def test_a_mail_above_the_limit_is_set_aside_with_its_beginning(server: Dovecot, user: str, tmp_path: Path) -> None:
    huge = mail(2, "x" * 70 + "\n") + b"y" * 5_000 + b"\n"
    server.deliver(user, [mail(1), huge, mail(3)])
    source = feed(tmp_path, server.settings(user), max_mail=1_000)
    whole = list(source.items(0))
    assert shape(whole) == [("Arrival", 1), ("DeadLetter", 2), ("Arrival", 3), ("Tick", 4)]
    dead = whole[1]
    assert isinstance(dead, DeadLetter)
    assert dead.raw == crlf(huge)[:1_000]
    assert f"a mail of {len(crlf(huge))} bytes is above the limit of 1000" in dead.reason
    assert list(source.items(1)) == whole[1:]
    source.close()


def test_memory_is_bounded_by_the_largest_mail_that_is_taken(server: Dovecot, user: str, tmp_path: Path) -> None:
    lines = b"A line of text, about as long as people write them.\n" * 20_000
    server.deliver(user, [mail(number) + lines for number in range(30)])
    server.deliver(user, [mail(30) + lines * 40])
    source = feed(tmp_path, server.settings(user), max_mail=2 << 20)
    tracemalloc.start()
    try:
        seen = sum(len(item.raw) for item in source.items(0) if isinstance(item, Arrival | DeadLetter))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen > 30 << 20
    assert peak < 30 << 20
    source.close()
