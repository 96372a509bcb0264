"""An mbox that grows, waited for and read on; and which feed reads what."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from pipeline.config.settings import MailboxSettings
from pipeline.domain import Arrival
from pipeline.errors import FeedError, SourceAway
from pipeline.home import Home
from streams.feeds.contract import Handed
from streams.feeds.maildir import MaildirFeed
from streams.feeds.mbox import MboxFeed
from streams.feeds.opening import archive_feed, live_feeds
from streams.feeds.tail import MboxTail
from streams.feeds.watching import Watch
from tests.support.archives import mail, mboxrd
from tests.support.maildirs import Maildir

LONG = 600.0
"""Seconds that no test waits: who returns sooner was woken."""


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "mail"
    folder.mkdir()
    return folder / "inbox"


@pytest.fixture
def tail(home: Home, inbox: Path) -> MboxTail:
    return MboxTail(home, "main", inbox, poll=LONG, settle=0)


def append(path: Path, *numbers: int) -> None:
    with path.open("ab") as file:
        file.write(mboxrd([mail(number) for number in numbers]))


def raws(items: list[Handed]) -> list[bytes]:
    return [item.raw for item in items if isinstance(item, Arrival)]


def waiting(tail: MboxTail | Watch) -> threading.Thread:
    thread = threading.Thread(target=tail.wait, args=(LONG, threading.Event()), daemon=True)
    thread.start()
    return thread


def test_what_is_appended_is_read_on(inbox: Path, tail: MboxTail) -> None:
    append(inbox, 1, 2)
    first = list(tail.items(0))
    assert raws(first) == [mail(1), mail(2)]
    last = first[-1].number
    assert list(tail.items(last)) == []
    append(inbox, 3)
    second = list(tail.items(last))
    assert raws(second) == [mail(3)]
    assert [item.number for item in (*first, *second)] == [1, 2, 3, 4, 5]
    # What was not taken is handed on again, though the file is as it was.
    assert raws(list(tail.items(1))) == [mail(2), mail(3)]


def test_a_pass_that_was_broken_off_is_made_again(inbox: Path, tail: MboxTail) -> None:
    append(inbox, 1, 2)
    first = next(tail.items(0))
    assert raws(list(tail.items(first.number))) == [mail(2)]


def test_an_import_and_the_tail_are_one_feed(home: Home, inbox: Path, tail: MboxTail) -> None:
    append(inbox, 1)
    imported = MboxFeed(home, "main", inbox, settle=0)
    last = list(imported.items(0))[-1].number
    append(inbox, 2)
    assert (tail.name, tail.kind, tail.source) == (imported.name, imported.kind, imported.source)
    assert raws(list(tail.items(last))) == [mail(2)]


def test_a_file_that_is_not_there_is_waited_for(inbox: Path, tail: MboxTail) -> None:
    with pytest.raises(SourceAway, match="inbox is not there; it is read once it is there"):
        list(tail.items(0))
    tail.wait(LONG, threading.Event())
    thread = waiting(tail)
    append(inbox, 1)
    thread.join(60)
    assert not thread.is_alive()
    assert raws(list(tail.items(0))) == [mail(1)]
    tail.close()


def test_growth_wakes_who_waits(inbox: Path, tail: MboxTail) -> None:
    append(inbox, 1)
    tail.wait(LONG, threading.Event())
    thread = waiting(tail)
    append(inbox, 2)
    thread.join(60)
    assert not thread.is_alive()
    tail.close()


def test_stop_ends_a_wait(inbox: Path, tail: MboxTail) -> None:
    append(inbox, 1)
    stop = threading.Event()
    tail.wait(LONG, stop)
    thread = threading.Thread(target=tail.wait, args=(LONG, stop), daemon=True)
    thread.start()
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    tail.close()


def test_without_its_folder_a_file_is_looked_for_every_so_often(home: Home, tmp_path: Path) -> None:
    tail = MboxTail(home, "main", tmp_path / "nowhere" / "inbox", poll=0.1)
    for _ in range(2):
        tail.wait(LONG, threading.Event())


def test_a_file_that_was_rotated_is_refused_until_it_is_back(inbox: Path, tail: MboxTail) -> None:
    append(inbox, 1)
    last = list(tail.items(0))[-1].number
    old = inbox.rename(inbox.with_name("inbox.1"))
    append(inbox, 2)
    for _ in range(2):
        with pytest.raises(
            FeedError, match="was replaced or rewritten since it was read: it begins with other mail"
        ) as said:
            list(tail.items(last))
        assert not isinstance(said.value, SourceAway)
    old.replace(inbox)
    append(inbox, 3)
    assert raws(list(tail.items(last))) == [mail(3)]


def test_only_what_matters_wakes(tmp_path: Path) -> None:
    seen = threading.Event()

    def matters(_kind: int, path: Path) -> bool:
        if path.name == "other":
            seen.set()
        return path.name == "mine"

    watch = Watch([tmp_path], LONG, matters)
    watch.wait(LONG, threading.Event())
    thread = waiting(watch)
    (tmp_path / "other").touch()
    assert seen.wait(60)
    assert thread.is_alive()
    (tmp_path / "mine").touch()
    thread.join(60)
    assert not thread.is_alive()
    watch.close()


# Which feed


def test_a_folder_is_a_maildir_and_a_file_an_mbox(home: Home, tmp_path: Path, inbox: Path) -> None:
    append(inbox, 1)
    maildir = Maildir(tmp_path / "Maildir")
    maildir.deliver(1)
    maildir.deliver(2, to="cur")
    feeds = [archive_feed(home, "main", path) for path in (inbox, maildir.path)]
    assert [type(feed) for feed in feeds] == [MboxFeed, MaildirFeed]
    assert [feed.size for feed in feeds] == [inbox.stat().st_size, len(mail(1)) + len(mail(2))]
    for feed in feeds:
        assert feed.position == 0
        for _ in range(2):
            list(feed.items(0))
            assert feed.position == feed.size
    for nothing in (tmp_path / "nowhere", tmp_path / "mail"):
        with pytest.raises(FeedError):
            archive_feed(home, "main", nothing)


def test_the_feeds_of_the_settings(home: Home, tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Maildir(tmp_path / "Maildir")
    settings = TypeAdapter(MailboxSettings).validate_python(
        {
            "feeds": [
                {"kind": "maildir", "path": "~/Maildir", "poll": 5},
                {"kind": "mbox", "path": str(inbox)},
                {"kind": "maildir", "path": f"{tmp_path}/Maildir{os.sep}"},
            ]
        }
    )
    feeds = live_feeds(home, "main", settings)
    assert [(feed.kind, feed.source) for feed in feeds] == [("maildir", str(tmp_path / "Maildir")), ("mbox", str(inbox))]
    assert len({feed.name for feed in feeds}) == 2 and all(feed.name.startswith("main.") for feed in feeds)
    assert not home.root.exists()
