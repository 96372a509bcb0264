"""Dead letters through the command line: listed, shown safely, and replayed as new arrivals, each once."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.settings import Settings
from pipeline.domain import Arrival, Clock
from pipeline.events import Event, Topic
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import DeadLetterRow, FeedRow
from streams.bus.contract import Subscription
from streams.bus.embedded import EmbeddedBus
from streams.feeds.maildir import MaildirFeed
from streams.feeds.mbox import MboxFeed
from streams.feeds.replay import ReplayFeed
from streams.owning.owner import Owner
from streams.parsers.pool import parsed
from tests.conftest import REPOSITORY
from tests.support.archives import mail, mboxrd
from tests.support.maildirs import Maildir
from tests.support.program import ENVIRONMENT, Completed, complaint, mailtide, make, run

AT = datetime(2026, 5, 4, 3, 2, 1)
LIMIT = 1_000
NASTY = "\x1b]0;owned\x07 \u202edesrever\r\nand \x9b31m\n"
LONG = mail(1, NASTY + "x" * 4_000)
SLOW = mail(9, "On Monday, Ann wrote:\n> a\nb\n" * 40_000)


@contextmanager
def opened(home: Home) -> Iterator[tuple[Store, Owner]]:
    with Store.open(home, None, None) as store:
        yield store, Owner(store, home, Settings(), lambda: AT)


def take(home: Home, feed: MboxFeed | MaildirFeed) -> None:
    with opened(home) as (_store, owner):
        owner.register("main", Clock.ARRIVAL, [FeedRow("main", feed.name, feed.kind, feed.source, AT)])
        items = feed.items(owner.last_taken("main", feed.name))
        owner.take("main", [parsed(item) if isinstance(item, Arrival) else item for item in items])


def refuse(event: Event) -> None:
    raise ValueError("this consumer wants none")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with three dead letters: a mail above the limit, one that vanished, and an event that was refused."""
    folder = tmp_path_factory.mktemp("template")
    home = Home(make(folder / "home"))
    archive = folder / "archive.mbox"
    archive.write_bytes(mboxrd([mail(0), LONG, mail(2)]))
    take(home, MboxFeed(home, "main", archive, "main.archive", settle=0, max_mail=LIMIT))
    maildir = Maildir(folder / "Maildir")
    feed = MaildirFeed(home, "main", maildir.path, "main.maildir")
    base = maildir.deliver(3)
    next(feed.items(0))
    maildir.where(base).unlink()
    take(home, feed)
    bus = EmbeddedBus(lambda: Store.open(home, None, None), lambda: AT)
    bus.subscribe(Subscription("trainer", Topic.WINDOW_CLOSED, refuse, max_attempts=1))
    bus.publish([Event(id="window.closed/main/0", type=Topic.WINDOW_CLOSED, time=AT, key="main", data='{"n": 1}')])
    bus.deliver()
    return home


LONG_ID = "main.archive/2"
GONE_ID = "main.maildir/1"
EVENT_ID = "window.closed/main/0@trainer#1"


@pytest.fixture
def home(template: Home, tmp_path: Path) -> Home:
    shutil.copytree(template.root, tmp_path / "home")
    return Home(tmp_path / "home")


def listed(home: Home) -> dict[str, dict[str, Any]]:
    done = run(home.root, "deadletters", "list", "--json")
    assert done.returncode == 0, done.stderr
    return {each["id"]: each for each in json.loads(done.stdout)}


def outcomes(done: Completed) -> dict[str, str]:
    assert done.stderr == ""
    return {each["id"]: each["outcome"] for each in json.loads(done.stdout)}


def messages(home: Home) -> list[tuple[Any, ...]]:
    with Store.open(home, None, None) as store:
        return store.query("SELECT message_key, received_at FROM messages ORDER BY arrival_ordinal")


def test_all_are_listed_with_their_reason(home: Home) -> None:
    found = listed(home)
    assert found.keys() == {LONG_ID, GONE_ID, EVENT_ID}
    assert {each["replayed"] for each in found.values()} == {""}
    assert found[LONG_ID]["stage"] == "feed" and "above the limit" in found[LONG_ID]["reason"]
    assert "deleted or moved away" in found[GONE_ID]["reason"]
    assert (found[EVENT_ID]["stage"], found[EVENT_ID]["feed"]) == ("trainer", Topic.WINDOW_CLOSED.value)


def test_a_mail_is_shown_without_letting_it_command_the_terminal(home: Home) -> None:
    done = run(home.root, "deadletters", "show", LONG_ID)
    assert done.returncode == 0, done.stderr
    assert "archive.mbox" in done.stdout and "above the limit" in done.stdout and f"{LIMIT:,} bytes" in done.stdout
    assert "Subject: Mail 1" in done.stdout and r"\x1b]0;owned\x07 \u202edesrever" in done.stdout
    assert not set(done.stdout) & set("\x1b\x07\x9b\u202e\r")
    assert max(map(len, done.stdout.splitlines())) < 300


def test_what_is_kept_comes_out_as_it_was(home: Home) -> None:
    command = mailtide(home.root, "deadletters", "show", "--raw", LONG_ID)
    done = subprocess.run(command, capture_output=True, check=False, env=ENVIRONMENT, cwd=REPOSITORY, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == LONG[:LIMIT]
    event = run(home.root, "deadletters", "show", "--raw", EVENT_ID)
    assert event.stdout == '{"n": 1}'
    gone = run(home.root, "deadletters", "show", "--raw", GONE_ID)
    assert gone.returncode == 3 and "nothing is kept of main.maildir/1: the mail was deleted" in complaint(gone)


def test_a_mail_is_replayed_once_and_arrives_when_it_did(home: Home) -> None:
    before = messages(home)
    first = run(home.root, "deadletters", "replay", LONG_ID, LONG_ID, "--json")
    assert first.returncode == 0, first.stderr
    assert outcomes(first) == {LONG_ID: "new: 1@example.org"}
    assert messages(home) == [*before, ("1@example.org", datetime(2015, 5, 22, 13, 38, 22))]
    assert listed(home)[LONG_ID]["replayed"] == "new: 1@example.org"
    second = run(home.root, "deadletters", "replay", LONG_ID, "--json")
    assert second.returncode == 3
    assert outcomes(second) == {LONG_ID: "replayed already (new: 1@example.org)"}
    assert len(messages(home)) == len(before) + 1


def test_all_takes_what_can_be_replayed(home: Home) -> None:
    done = run(home.root, "deadletters", "replay", "--all", "--mailbox", "main", "--json")
    assert outcomes(done) == {LONG_ID: "new: 1@example.org", EVENT_ID: "pending"}
    again = run(home.root, "deadletters", "replay", "--all")
    assert again.returncode == 3 and "there is nothing to replay" in complaint(again)


def test_a_mail_without_bytes_cannot_be_replayed(home: Home) -> None:
    done = run(home.root, "deadletters", "replay", GONE_ID)
    assert done.returncode == 3
    assert "cannot be replayed: the mail was deleted or moved away" in done.stdout
    assert listed(home)[GONE_ID]["replayed"] == ""


def test_an_event_goes_to_its_consumer_again(home: Home) -> None:
    done = run(home.root, "deadletters", "replay", EVENT_ID, "--json")
    assert outcomes(done) == {EVENT_ID: "pending"}
    seen: list[str] = []
    bus = EmbeddedBus(lambda: Store.open(home, None, None), lambda: AT)
    bus.subscribe(Subscription("trainer", Topic.WINDOW_CLOSED, lambda event: seen.append(event.id)))
    bus.deliver()
    assert seen == ["window.closed/main/0"]
    assert listed(home)[EVENT_ID]["replayed"] == "done"
    again = run(home.root, "deadletters", "replay", EVENT_ID, "--json")
    assert (again.returncode, outcomes(again)) == (3, {EVENT_ID: "replayed already (done)"})


def test_a_replayed_event_that_is_refused_again_is_a_dead_letter_of_its_own(home: Home) -> None:
    run(home.root, "deadletters", "replay", EVENT_ID)
    bus = EmbeddedBus(lambda: Store.open(home, None, None), lambda: AT)
    bus.subscribe(Subscription("trainer", Topic.WINDOW_CLOSED, refuse, max_attempts=1))
    bus.deliver()
    second = "window.closed/main/0@trainer#3"
    found = listed(home)
    assert (found[EVENT_ID]["replayed"], found[second]["replayed"]) == (f"dead again: {second}", "")
    assert outcomes(run(home.root, "deadletters", "replay", second, "--json")) == {second: "pending"}


def test_a_replay_that_was_cut_short_is_finished_once(home: Home) -> None:
    with opened(home) as (store, owner):
        (row,) = store.fetch(DeadLetterRow, "id = ?", [LONG_ID])
        feed = ReplayFeed(store, home, "main")
        feed.note([row], floor=owner.last_taken("main", feed.name))
    assert listed(home)[LONG_ID]["replayed"] == "pending"
    for code, outcome in ((0, "new: 1@example.org"), (3, "replayed already (new: 1@example.org)")):
        done = run(home.root, "deadletters", "replay", LONG_ID, "--json")
        assert (done.returncode, outcomes(done)) == (code, {LONG_ID: outcome})


def test_a_mail_that_is_here_meanwhile_is_a_duplicate(home: Home, tmp_path: Path) -> None:
    archive = tmp_path / "again.mbox"
    archive.write_bytes(mboxrd([LONG]))
    assert run(home.root, "import", str(archive)).returncode == 0
    done = run(home.root, "deadletters", "replay", LONG_ID, "--json")
    assert outcomes(done) == {LONG_ID: "duplicate: 1@example.org"}
    assert listed(home)[LONG_ID]["replayed"] == "duplicate: 1@example.org"


def test_a_mail_that_still_cannot_be_parsed_is_set_aside_again(home: Home, tmp_path: Path) -> None:
    archive = tmp_path / "slow.mbox"
    archive.write_bytes(mboxrd([SLOW]))
    take(home, MboxFeed(home, "main", archive, "main.slow", settle=0, max_mail=1 << 20))
    settings = home.config.read_text()
    home.config.write_text("parse:\n  seconds: 0.005\n")
    done = run(home.root, "deadletters", "replay", "main.slow/1", "--json")
    again = "main.replay/1"
    assert outcomes(done) == {"main.slow/1": f"dead again: {again}"}
    assert (listed(home)[again]["stage"], listed(home)[again]["cursor"]) == ("parse", "main.slow/1")
    home.config.write_text(settings)
    assert outcomes(run(home.root, "deadletters", "replay", again, "--json")) == {again: "new: 9@example.org"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("replay",), "name dead letters, or say --all"),
        (("replay", "x/1", "--all"), "name dead letters, or say --all"),
        (("replay", "x/1", "--mailbox", "main"), "--mailbox goes with --all"),
        (("replay", LONG_ID, "x/1"), "there is no dead letter 'x/1'"),
        (("replay", "--all", "--mailbox", "nobody"), "there is no mailbox 'nobody'"),
        (("show", "x/1"), "there is no dead letter 'x/1'"),
    ],
)
def test_wrong_use_has_no_effect(home: Home, arguments: tuple[str, ...], says: str) -> None:
    before = messages(home)
    done = run(home.root, "deadletters", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in complaint(done)
    assert messages(home) == before
    assert listed(home)[LONG_ID]["replayed"] == ""
