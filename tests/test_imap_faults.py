"""A mail server, a wire and a program that fail anywhere: every mail is still handed on, and numbered once. Where none can
be, it is said why, and no secret with it."""

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
from tests.support.imap_feeds import LIMIT_S, crlf, feed, raws, shape, waiting
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


@pytest.fixture
def lone() -> Iterator[Dovecot]:
    """A server that a test may stop."""
    with dovecot({"ann": "secret of ann"}) as running:
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


# A server that is away, or lets nobody in


def test_a_connection_cut_in_a_pass_costs_nothing(server: Dovecot, user: str, tmp_path: Path) -> None:
    mails = [mail(number) for number in range(600)]
    server.deliver(user, mails)
    source = feed(tmp_path, server.settings(user))
    found: list[Handed] = []
    with pytest.raises(SourceAway, match="it is tried again"):
        for item in source.items(0):
            found.append(item)
            if len(found) == 1:
                assert server.cut(user) >= 1
    assert 0 < len(found) < 600
    found += source.items(len(found))
    assert raws(found) == [crlf(each) for each in mails]
    assert [item.number for item in found] == list(range(1, 602))
    source.close()


def test_a_server_that_is_stopped_and_started(lone: Dovecot, tmp_path: Path) -> None:
    lone.deliver("ann", [mail(1)])
    source = feed(tmp_path, lone.settings("ann"))
    assert len(list(source.items(0))) == 2
    thread, raised = waiting(source, threading.Event())
    lone.stop()
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert len(raised) <= 1 and all(isinstance(error, SourceAway) for error in raised)
    for attempt in (lambda: list(source.items(2)), lambda: source.wait(1.0, threading.Event())):
        with pytest.raises(SourceAway, match="cannot be reached"):
            attempt()
    lone.deliver("ann", [mail(2)])
    lone.start()
    assert raws(list(source.items(2))) == [crlf(mail(2))]
    source.close()


def test_a_connection_that_ended_unasked_is_replaced_without_a_word(server: Dovecot, user: str, tmp_path: Path) -> None:
    source = feed(tmp_path, server.settings(user))
    assert shape(list(source.items(0))) == [("Tick", 1)]
    assert server.cut(user) >= 1
    server.deliver(user, [mail(1)])
    assert raws(list(source.items(1))) == [crlf(mail(1))]
    source.close()


def refused(source: ImapFeed) -> str:
    with pytest.raises(FeedError) as caught:
        list(source.items(0))
    assert not isinstance(caught.value, SourceAway), caught.value
    return str(caught.value)


def test_a_wrong_password_says_whose_and_where_it_comes_from(
    server: Dovecot, user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANN_PASSWORD", "wrong horse")
    said = refused(feed(tmp_path, server.settings(user, secret={"env": "ANN_PASSWORD"})))
    assert f"IMAP server localhost:{server.port} refuses the password of {user}" in said
    assert "AUTHENTICATIONFAILED" in said and "environment variable ANN_PASSWORD" in said
    assert "wrong horse" not in said
    monkeypatch.delenv("ANN_PASSWORD")
    assert "ANN_PASSWORD is not set" in refused(feed(tmp_path, server.settings(user, secret={"env": "ANN_PASSWORD"})))


def test_a_command_that_has_no_secret_now_may_have_one_later(server: Dovecot, user: str, tmp_path: Path) -> None:
    source = feed(tmp_path, server.settings(user, secret={"command": f"cat {tmp_path / 'password'}"}))
    with pytest.raises(SourceAway, match="the command cat failed with exit code 1"):
        list(source.items(0))
    (tmp_path / "password").write_text(USERS[user])
    assert shape(list(source.items(0))) == [("Tick", 1)]
    source.close()


def test_an_unknown_folder_names_some_that_exist(server: Dovecot, user: str, tmp_path: Path) -> None:
    with server.connection(user) as client:
        client.create_folder("Archive")
    said = refused(feed(tmp_path, server.settings(user), "Arhcive"))
    assert f"{user} has no folder Arhcive" in said and "there are: Archive, INBOX" in said


def test_a_certificate_that_nobody_vouches_for(server: Dovecot, user: str, tmp_path: Path) -> None:
    said = refused(feed(tmp_path, server.settings(user, ca_file=None)))
    assert "is not trusted: self-signed certificate" in said and "set ca_file" in said
    missing = tmp_path / "missing.pem"
    assert f"no certificates can be read from {missing}" in refused(
        feed(tmp_path, server.settings(user, ca_file=str(missing)))
    )


def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    with dovecot({"ann": "secret"}, host="mail.example.org") as other:
        said = refused(feed(tmp_path, other.settings("ann")))
    assert "not valid for 'localhost'" in said and "set host to a name that the certificate has" in said


def test_starttls_verifies_as_tls_does(server: Dovecot, user: str, tmp_path: Path) -> None:
    server.deliver(user, [mail(1)])
    settings = server.settings(user, port=server.plain_port, security="starttls")
    source = feed(tmp_path, settings)
    assert raws(list(source.items(0))) == [crlf(mail(1))]
    source.close()
    assert "is not trusted" in refused(feed(tmp_path, settings.model_copy(update={"ca_file": None})))


def test_a_port_that_does_not_speak_tls(server: Dovecot, user: str, tmp_path: Path) -> None:
    said = refused(feed(tmp_path, server.settings(user, port=server.plain_port)))
    assert "does not speak TLS" in said and "143 for starttls" in said


def test_an_open_connection_only_to_this_machine(server: Dovecot, user: str, tmp_path: Path) -> None:
    source = feed(tmp_path, server.settings(user, host="127.0.0.1", port=server.plain_port, security="none"))
    assert shape(list(source.items(0))) == [("Tick", 1)]
    source.close()
    with pytest.raises(ValueError, match=r"password to mail\.example\.org in the open"):
        server.settings(user, host="mail.example.org", security="none")


def test_a_token_logs_in_and_an_expired_one_heals_by_its_command(server: Dovecot, user: str, tmp_path: Path) -> None:
    server.deliver(user, [mail(1)])
    token = tmp_path / "token"
    token.write_text(server.token(user))
    source = feed(tmp_path, server.settings(user, auth="xoauth2", secret={"command": f"cat {token}"}))
    assert len(list(source.items(0))) == 2
    token.write_text(server.token(user, seconds=-30))
    source.close()
    said = refused(source)
    assert f"refuses the token of {user}" in said and "comes from the command cat" in said
    assert token.read_text() not in said
    token.write_text(server.token(user))
    server.deliver(user, [mail(2)])
    assert raws(list(source.items(2))) == [crlf(mail(2))]
    source.close()


def test_a_server_that_is_not_there(tmp_path: Path, server: Dovecot, user: str) -> None:
    with pytest.raises(
        SourceAway, match=r"IMAP server localhost:1 cannot be reached: Connection refused; .*check host and port"
    ):
        list(feed(tmp_path, server.settings(user, port=1)).items(0))
    with pytest.raises(SourceAway, match="cannot be reached"):
        list(feed(tmp_path, server.settings(user, host="no-such-host.invalid")).items(0))
