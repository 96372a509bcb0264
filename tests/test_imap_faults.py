"""A mail server, a wire and a program that fail anywhere: every mail is still handed on, and numbered once."""

from __future__ import annotations

import base64
import imaplib
import logging
import random
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.domain import Arrival, DeadLetter
from pipeline.errors import FeedError, SourceAway
from pipeline.home import Home
from streams.feeds.contract import Handed
from streams.feeds.imap import ImapFeed
from streams.feeds.numbering import Numbering
from tests.support.archives import mail
from tests.support.dovecot import Dovecot, dovecot
from tests.support.imap_feeds import crlf, feed, raws
from tests.support.relay import Relay, relay

USERS = {f"user{number}": f"secret-of-user{number}" for number in range(60)}
_users = iter(USERS)


@pytest.fixture(scope="module")
def server() -> Iterator[Dovecot]:
    with dovecot(USERS) as running:
        yield running


@pytest.fixture
def user(server: Dovecot) -> str:
    return next(_users)


@pytest.fixture
def wire(server: Dovecot) -> Iterator[Relay]:
    with relay(server.plain_port) as running:
        yield running


def through(wire: Relay, server: Dovecot, user: str, root: Path, **other: object) -> ImapFeed:
    settings = server.settings(user, host="127.0.0.1", port=wire.port, security="none", **other)
    return feed(root, settings)


def test_wherever_the_wire_is_cut_nothing_is_lost_and_nothing_numbered_twice(
    server: Dovecot, user: str, wire: Relay, tmp_path: Path
) -> None:
    mails = [mail(number) for number in range(8)]
    server.deliver(user, mails)
    whole = through(wire, server, user, tmp_path / "whole")
    assert len(list(whole.items(0))) == 9
    whole.close()
    length = wire.passed
    assert length > 2_000
    cuts = 0
    for limit in random.Random(1).sample(range(1, length), 40):
        root = tmp_path / str(limit)
        source = through(wire, server, user, root)
        wire.limit = limit
        found: list[Handed] = []
        with pytest.raises(SourceAway):
            found.extend(source.items(0))
        cuts += 1
        wire.limit = None
        found = found + list(source.items(len(found)))
        source.close()
        assert raws(found) == [crlf(each) for each in mails]
        assert [item.number for item in found] == list(range(1, 10))
        noted_once(root, source)
    assert cuts == 40


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_server_that_falls_silent_is_given_up(
    server: Dovecot, user: str, wire: Relay, tmp_path: Path, share: float
) -> None:
    server.deliver(user, [mail(1)])
    source = through(wire, server, user, tmp_path / "whole")
    assert len(list(source.items(0))) == 2
    source.close()
    limit = int(share * wire.passed)
    wire.hold, wire.limit = True, limit
    silent = through(wire, server, user, tmp_path / "home", timeout=0.3)
    with pytest.raises(SourceAway, match=r"did not answer .*for 0\.3 seconds"):
        list(silent.items(0))
    wire.limit = None
    source = through(wire, server, user, tmp_path / "home")
    assert raws(list(source.items(0))) == [crlf(mail(1))]
    source.close()


def noted_once(root: Path, source: ImapFeed) -> None:
    """No mail of the server has two numbers, and no number is missing."""
    with Numbering(Home(root / "home"), source.name) as numbering:
        notes = list(numbering.after(0))
    assert [noted.number for noted in notes] == list(range(1, len(notes) + 1))
    cursors = Counter(noted.note.cursor for noted in notes if noted.note.digest)
    assert cursors and set(cursors.values()) == {1}


class Taker:
    """Takes numbers in order, as the owner does, and remembers which mails came."""

    def __init__(self) -> None:
        self.taken = 0
        self.mails: Counter[bytes] = Counter()
        self.gone: set[str] = set()

    def take(self, item: Handed) -> None:
        assert item.number == self.taken + 1
        self.taken = item.number
        if isinstance(item, Arrival):
            self.mails[item.raw] += 1
        elif isinstance(item, DeadLetter):
            self.gone.add(item.cursor)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_numbers_are_contiguous_and_every_mail_comes(
    server: Dovecot, user: str, wire: Relay, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    taker = Taker()
    source = through(wire, server, user, tmp_path)
    delivered: set[bytes] = set()
    deleted: set[bytes] = set()
    epochs = 1

    def deliver() -> None:
        new = [mail(len(delivered) + index) for index in range(rng.randint(1, 4))]
        server.deliver(user, new)
        delivered.update(map(crlf, new))

    def delete() -> None:
        with server.connection(user, "INBOX") as client:
            uids = client.search()
            victims = rng.sample(uids, min(len(uids), 2))
            deleted.update(each[b"BODY[]"] for each in client.fetch(victims, ["BODY.PEEK[]"]).values())
            client.delete_messages(victims)
            client.expunge()

    def renumber() -> None:
        nonlocal epochs
        epochs += 1
        server.renumber(user, "INBOX", 2_000_000_000 + epochs)

    def read() -> None:
        """Up to the end, or to a cut, or as far as it pleased; what was taken is all that is known of it."""
        wire.limit = rng.choice([None, None, rng.randint(500, 6_000)])
        most = rng.choice([1, 3, 1_000])
        try:
            for item, _ in zip(source.items(taker.taken), range(most), strict=False):
                taker.take(item)
        except SourceAway:
            pass
        wire.limit = None

    def restart() -> None:
        nonlocal source
        source.close()
        source = through(wire, server, user, tmp_path)

    deliver()
    for _ in range(25):
        rng.choices([deliver, delete, read, restart, renumber], weights=[6, 2, 8, 3, 1])[0]()
    wire.limit = None
    for item in source.items(taker.taken):
        taker.take(item)
    source.close()
    assert set(taker.mails) >= delivered - deleted
    assert set(taker.mails) <= delivered
    assert max(taker.mails.values()) <= epochs
    noted_once(tmp_path, source)


# Secrets


@pytest.mark.parametrize("auth", ["password", "xoauth2"])
def test_no_secret_is_ever_told(
    server: Dovecot,
    user: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    auth: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(imaplib, "Debug", 5)
    place = server.secret_file(user)
    good = server.token(user) if auth == "xoauth2" else USERS[user]
    bad = server.token(user, seconds=-30) if auth == "xoauth2" else "the-old-secret-of-ann"
    told: list[str] = []
    for secret in (good, bad):
        source = feed(tmp_path, server.settings(user, auth=auth))
        place.write_text(secret)
        try:
            list(source.items(0))
            source.wait(0.01, threading.Event())
            told.append(repr(source))
        except FeedError as error:
            chain = traceback.TracebackException.from_exception(error, capture_locals=True)
            told += [repr(error), repr(error.args), "".join(traceback.format_exception(error))]
            while chain is not None:
                told += [str(frame.locals) for frame in chain.stack if "test_imap" not in frame.filename]
                chain = chain.__cause__ or chain.__context__  # type: ignore[assignment]
        source.close()
    assert len(told) > 4, "the second login must fail"
    output = capfd.readouterr()
    everything = "\n".join([*told, caplog.text, output.out, output.err])
    assert "CAPABILITY" in everything, "imaplib tells nothing: this test sees nothing"
    for secret in (good, bad):
        prefix = f"user={user}\1auth=Bearer " if auth == "xoauth2" else f"\0{user}\0"
        sent = base64.b64encode(f"{prefix}{secret}".encode()).decode()
        assert secret not in everything
        assert sent[len(prefix) * 4 // 3 + 4 :][:12] not in everything
