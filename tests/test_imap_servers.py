"""Servers that differ from the one that the other tests have: each answer that a standard or a bad day allows."""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.feed_settings import ImapFeedSettings, SecretSettings
from pipeline.domain import Arrival, DeadLetter
from pipeline.errors import FeedError, SourceAway
from streams.feeds.imap import ImapFeed
from streams.feeds.imap_fetch import GIVEN_UP
from tests.support.imap_feeds import LIMIT_S, feed, raws, shape, waiting
from tests.support.scripted_imap import Answers, ScriptedImap, scripted_imap

RAW = b"Subject: one\r\n\r\nText.\r\n"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("IMAP_SECRET", "open-sesame")
    return "open-sesame"


def source_of(server: ScriptedImap, root: Path, **other: object) -> ImapFeed:
    settings: dict[str, object] = {
        "kind": "imap",
        "host": "127.0.0.1",
        "port": server.port,
        "user": "ann",
        "secret": SecretSettings(env="IMAP_SECRET"),
        "security": "none",
        "timeout": 30.0,
    }
    own: dict[str, Any] = {name: other.pop(name) for name in ("max_mail", "now") if name in other}
    return feed(root, ImapFeedSettings.model_validate({**settings, **other}), **own)


def says(**answers: list[str]) -> Answers:
    """Answers by the beginning of the command, with ``_`` for a space."""
    table = {begin.replace("_", " "): lines for begin, lines in answers.items()}
    return lambda command: next((lines for begin, lines in table.items() if command.startswith(begin)), [])


def failure(server: ScriptedImap, root: Path, **other: object) -> FeedError:
    with pytest.raises(FeedError) as caught:
        list(source_of(server, root, **other).items(0))
    return caught.value


def test_the_usual(tmp_path: Path) -> None:
    with scripted_imap(says()) as server:
        source = source_of(server, tmp_path)
        first, _ = source.items(0)
        assert isinstance(first, Arrival)
        assert (first.cursor, first.raw, first.received_at) == ("7:1", RAW, datetime(2024, 5, 1, 10))
        assert not [line for line in server.heard if line.startswith(("SELECT", "STORE", "UID STORE"))]
        assert "BODY.PEEK[]" in "".join(server.heard)


def test_a_server_that_does_not_tell_its_next_uid(tmp_path: Path) -> None:
    examined = ["* 1 EXISTS", "* OK [UIDVALIDITY 7] kept", "TAG OK [READ-ONLY] open"]
    with scripted_imap(says(EXAMINE=examined)) as server:
        source = source_of(server, tmp_path)
        assert raws(list(source.items(0))) == [RAW]
        assert list(source.items(2)) == []
        assert "UID SEARCH UID 2:*" in server.heard  # whose answer holds the last mail, UID 1


def test_a_server_that_keeps_no_uids(tmp_path: Path) -> None:
    with scripted_imap(says(EXAMINE=["* 1 EXISTS", "TAG OK [READ-ONLY] open"])) as server:
        assert "keeps no UIDs in INBOX" in str(failure(server, tmp_path))


@pytest.mark.parametrize(
    ("greeting", "kind"),
    [
        ("* BYE too many connections", SourceAway),
        ("* BYE [UNAVAILABLE] later", SourceAway),
        ("SSH-2.0-OpenSSH", SourceAway),
    ],
)
def test_a_greeting_that_sends_away(tmp_path: Path, greeting: str, kind: type[FeedError]) -> None:
    with scripted_imap(says(), greeting) as server:
        assert isinstance(failure(server, tmp_path), kind)


def test_a_refusal_that_may_pass_is_no_wrong_password(tmp_path: Path) -> None:
    with scripted_imap(says(AUTHENTICATE=["TAG NO [UNAVAILABLE] directory is down"])) as server:
        away = failure(server, tmp_path)
    assert isinstance(away, SourceAway) and "directory is down" in str(away)


def test_a_server_that_ends_the_connection_at_the_login(tmp_path: Path) -> None:
    with scripted_imap(lambda command: None if command.startswith("AUTHENTICATE") else []) as server:
        assert isinstance(failure(server, tmp_path), SourceAway)


def test_what_a_server_says_is_not_told_when_it_repeats_the_secret(tmp_path: Path, secret: str) -> None:
    answers = says(CAPABILITY=["* CAPABILITY IMAP4rev1", "TAG OK done"], LOGIN=[f'TAG BAD what is LOGIN "ann" "{secret}"'])
    with scripted_imap(answers) as server:
        refused = failure(server, tmp_path)
    assert not isinstance(refused, SourceAway)
    assert "refuses the password of ann;" in str(refused) and secret not in repr(refused)


def test_a_server_that_takes_no_passwords_in_the_open(tmp_path: Path) -> None:
    with scripted_imap(says(CAPABILITY=["* CAPABILITY IMAP4rev1 LOGINDISABLED", "TAG OK done"])) as server:
        assert "takes no passwords over this connection; set auth or security" in str(failure(server, tmp_path))
        assert "offers no STARTTLS; set security: tls" in str(failure(server, tmp_path, security="starttls"))


def test_a_plain_login_quotes_and_refuses_letters_that_it_cannot_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted_imap(says(CAPABILITY=["* CAPABILITY IMAP4rev1", "TAG OK done"])) as server:
        monkeypatch.setenv("IMAP_SECRET", 'a"b\\c')
        assert raws(list(source_of(server, tmp_path).items(0))) == [RAW]
        assert 'LOGIN ann "a\\"b\\\\c"' in server.heard
        monkeypatch.setenv("IMAP_SECRET", "pässwort")
        refused = failure(server, tmp_path)
        assert "no password with letters beyond ASCII" in str(refused) and "sswort" not in repr(refused)


def test_a_folder_that_exists_and_is_refused(tmp_path: Path) -> None:
    answers = says(EXAMINE=["TAG NO not today"], LIST=['* LIST () "/" INBOX', "TAG OK done"])
    with scripted_imap(answers) as server:
        assert "does not open INBOX: " in (said := str(failure(server, tmp_path))) and "not today" in said
    with scripted_imap(says(EXAMINE=["TAG NO [INUSE] locked"])) as server:
        assert isinstance(failure(server, tmp_path), SourceAway)


def test_a_mail_that_the_server_refuses_to_give_is_set_aside(tmp_path: Path) -> None:
    answers = says(**{"UID_FETCH_1_(BODY": ["TAG NO cannot read the file"]})
    with scripted_imap(answers) as server:
        dead, _ = source_of(server, tmp_path).items(0)
    assert isinstance(dead, DeadLetter)
    assert (dead.raw, dead.reason) == (b"", "the server does not give it: fetch failed: cannot read the file")


def test_a_mail_that_goes_while_it_is_fetched_is_skipped(tmp_path: Path) -> None:
    answers = says(**{"UID_FETCH_1_(BODY": ["TAG NO it is gone"], "UID_SEARCH_UID_1": []})
    gone = says(**{"UID_FETCH_1_(BODY": ["TAG NO it is gone"], "UID_SEARCH_UID_1": ["* SEARCH", "TAG OK done"]})
    searched: list[str] = []

    def answer(command: str) -> list[str] | None:
        searched.extend([command] if command.startswith("UID SEARCH") else [])
        return gone(command) if len(searched) > 1 else answers(command)

    with scripted_imap(answer) as server:
        assert shape(list(source_of(server, tmp_path).items(0))) == [("Tick", 1)]


def test_a_mail_that_ends_every_connection_does_not_stop_those_behind_it_for_ever(tmp_path: Path) -> None:
    with scripted_imap(lambda command: None if command.startswith("UID FETCH 1 (BODY") else []) as server:
        source = source_of(server, tmp_path)
        for _ in range(GIVEN_UP):
            with pytest.raises(SourceAway):
                list(source.items(0))
        dead, _ = source.items(0)
    assert isinstance(dead, DeadLetter) and f"ended the connection {GIVEN_UP} times" in dead.reason


def test_a_mail_longer_than_its_server_said(tmp_path: Path) -> None:
    with scripted_imap(says(**{"UID_FETCH_1_(RFC822.SIZE": ["* 1 FETCH (UID 1 RFC822.SIZE 3)", "TAG OK done"]})) as server:
        noon = datetime(2024, 5, 1, 12)
        dead, _ = source_of(server, tmp_path, max_mail=10, now=lambda: noon).items(0)
    assert isinstance(dead, DeadLetter)
    assert (dead.raw, dead.received_at) == (RAW[:10], noon)
    assert f"a mail of {len(RAW)} bytes is above the limit of 10" in dead.reason


@pytest.mark.parametrize("answer", ["* 1 FETCH (UID x BODY[] {3}\r\nabc)", "* 1 FETCH (UID 1 BODY[] NIL))", "* 1 FETCH ("])
def test_a_mail_that_comes_as_no_imap_is_set_aside(tmp_path: Path, answer: str) -> None:
    with scripted_imap(says(**{"UID_FETCH_1_(BODY": [answer, "TAG OK done"]})) as server:
        dead, _ = source_of(server, tmp_path).items(0)
    assert isinstance(dead, DeadLetter) and "the server does not give it" in dead.reason


@pytest.mark.parametrize("answer", ["* 1 FETCH (UID 1 RFC822.SIZE many)", "* 1 FETCH ("])
def test_sizes_that_are_no_imap_stop_the_feed(tmp_path: Path, answer: str) -> None:
    with scripted_imap(says(**{"UID_FETCH_1_(RFC822.SIZE": [answer, "TAG OK done"]})) as server:
        assert not isinstance(failure(server, tmp_path), SourceAway)


def test_news_before_idle_has_begun_is_heard(tmp_path: Path) -> None:
    with scripted_imap(says(IDLE=["* 2 EXISTS", "+ idling"])) as server:
        source = source_of(server, tmp_path)
        list(source.items(0))
        thread, raised = waiting(source, threading.Event())
        thread.join(LIMIT_S)
        assert not thread.is_alive() and not raised
        assert list(source.items(2)) == []


def test_news_in_one_packet_with_the_beginning_of_idle_are_heard(tmp_path: Path) -> None:
    with scripted_imap(says(IDLE=["+ idling", "* 2 EXISTS"])) as server:
        source = source_of(server, tmp_path)
        list(source.items(0))
        thread, raised = waiting(source, threading.Event())
        thread.join(LIMIT_S)
        assert not thread.is_alive() and not raised
    source.close()


def test_a_server_that_promises_idle_and_refuses_it_is_polled(tmp_path: Path) -> None:
    with scripted_imap(says(IDLE=["TAG NO not for you"])) as server:
        source = source_of(server, tmp_path, poll=0.01, timeout=1.0)
        for _ in range(4):
            list(source.items(2))
            source.wait(1.0, threading.Event())
        assert sum(line == "IDLE" for line in server.heard) == 2
        source.close()


def test_the_connection_that_idle_waits_on_ends(tmp_path: Path) -> None:
    with scripted_imap(says(IDLE=["+ idling", "* BYE going down"])) as server:
        source = source_of(server, tmp_path)
        list(source.items(0))
        thread, raised = waiting(source, threading.Event())
        server.close()
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert [type(error) for error in raised] == [SourceAway]
