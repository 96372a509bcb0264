"""Notices: each told once to each target, whatever is down or dies meanwhile, and nothing of anybody's mail in them."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.configuration import load
from pipeline.config.notice_settings import MailTarget, NotifySettings, WebhookTarget
from pipeline.config.settings import Settings
from pipeline.errors import ConfigError, NoticeError, SecretError
from pipeline.events import Event, RunRequested, WindowClosed
from pipeline.store import Store
from pipeline.store.rows import ClosingRow, DeadLetterRow, MetricRow, NoticeRow, RunEventRow
from registry.byhand import promote, rollback
from registry.decide import fail_run
from streams.demo.mailbox import write_mailbox
from streams.notices.finding import history, untold, watch
from streams.notices.notice import Notice, hand_over
from streams.notices.outgoing import Outgoing, Told, send_waiting
from streams.notices.regressions import Figure, regressions
from streams.notices.wording import trial
from streams.runs.lease import notice_lease
from tests.conftest import REPOSITORY
from tests.support.certificates import Authority
from tests.support.daemons import make_home, rows
from tests.support.finished import SELECTED, Finished
from tests.support.lineage import MAILBOX
from tests.support.ports import free_ports
from tests.support.program import run as command
from tests.support.receivers import Posts, mail_server, webhook

REASON = "because Aunt Mildred wrote so"
"""What only stays in the journal."""


def with_targets(keep_days: float = 9_999.0, **targets: dict[str, Any]) -> Settings:
    return Settings(notify=NotifySettings.model_validate({"targets": targets, "keep_days": keep_days}))


def hook(port: int, **more: Any) -> dict[str, Any]:
    return {"kind": "webhook", "url": f"http://127.0.0.1:{port}/services/hook", **more}


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Finished]:
    made = Finished.at(tmp_path / "home", Settings())
    yield made
    made.store.close()


def outgoing(runs: Finished, settings: Settings, target: str = "ops") -> Outgoing:
    """The target's notices, from now on: it is watched for from here."""
    watch(runs.store, settings, runs.now)

    @contextmanager
    def opened() -> Iterator[Store]:
        yield runs.store

    return Outgoing(target, settings, opened, opened)


def tell_all(telling: Outgoing) -> None:
    while telling.tell_next() is not Told.NOTHING:
        assert telling.trouble is None


def kinds(telling: Outgoing, runs: Finished, settings: Settings) -> list[str]:
    return [one.kind for one in untold(runs.store, settings, telling.target)]


def test_every_verdict_is_told_once_with_its_figures_and_without_anybodys_words(runs: Finished, port: int) -> None:
    settings = with_targets(ops=hook(port))
    telling = outgoing(runs, settings)
    first, _, _ = runs.step()
    second, _, decision = runs.step(new=-0.2, old=+0.03)
    assert decision.status == "abstained"
    runs.step(new=+0.6)
    runs.close_window()
    failed = runs.request()
    fail_run(runs.store, failed, REASON, runs.now, "gate")
    promote(runs.store, runs.home, MAILBOX, second.adapter_id, REASON, "owner", runs.now)
    rollback(runs.store, runs.home, MAILBOX, None, REASON, "owner", runs.now)
    with webhook(port) as posts:
        tell_all(telling)
        tell_all(outgoing(runs, settings))
    titles = [text.splitlines()[0] for text in posts.accepted]
    assert [title.rpartition(" ")[2] for title in titles] == [
        "promoted",
        "abstained",
        "rejected",
        "failed",
        "promoted",
        "again",
    ]
    assert titles[0] == f"mailtide {MAILBOX}: {first.adapter_id} promoted"
    assert f"run {first.run_id} on window 0: 100 steps, 20,000 tokens, 0.50 h" in posts.accepted[0]
    assert "new: -0.2" in posts.accepted[0]
    assert "by hand" in posts.accepted[4]
    assert not any("Mildred" in text for text in posts.accepted)
    assert len({headers["Idempotency-Key"] for headers in posts.headers}) == len(titles)


def test_a_new_target_is_told_of_what_happens_from_now_on_and_only_of_what_it_wants(runs: Finished, port: int) -> None:
    runs.step()
    settings = with_targets(ops=hook(port, events=["abstained", "failed"]), all=hook(port))
    telling, other = outgoing(runs, settings), outgoing(runs, settings, "all")
    assert kinds(other, runs, settings) == []
    runs.step(new=-0.2)
    runs.step(new=-0.2, old=+0.03)
    assert kinds(telling, runs, settings) == ["abstained"]
    assert {"promoted", "abstained"} <= set(kinds(other, runs, settings))


def test_a_receiver_that_is_down_is_told_when_it_is_back_and_once(runs: Finished, port: int) -> None:
    settings = with_targets(ops=hook(port))
    telling = outgoing(runs, settings)
    runs.step()
    assert telling.tell_next() is Told.FAILED
    assert telling.trouble is not None and "Connection refused" in str(telling.trouble)
    posts = Posts(port)
    posts.answers.extend([500, 307])
    with webhook(port, posts):
        assert telling.tell_next() is Told.FAILED
        assert "answers 500 Internal Server Error" in str(telling.trouble)
        assert telling.tell_next() is Told.FAILED
        assert "307" in str(telling.trouble)
        tell_all(telling)
    (told,) = [row for row in runs.store.fetch(NoticeRow) if row.outcome == "sent"]
    assert (len(posts.accepted), told.attempts) == (1, 4)
    assert len({headers["Idempotency-Key"] for headers in posts.headers}) == 1


def test_a_notice_that_is_never_taken_holds_up_no_other_and_is_given_up_in_the_end(runs: Finished, port: int) -> None:
    settings = with_targets(ops=hook(port, events=["promoted"]))
    telling = outgoing(runs, settings)
    runs.step()
    runs.step()
    posts = Posts(port)
    posts.answers.extend([400, 200, 400])
    with webhook(port, posts):
        assert [telling.tell_next() for _ in range(3)] == [Told.FAILED, Told.SENT, Told.FAILED]
        assert [row.outcome for row in runs.store.fetch(NoticeRow)] == ["sent"]
        # It happened more than seven days ago, and is tried once more all the same.
        posts.answers.append(400)
        later = outgoing(runs, with_targets(7.0, ops=hook(port, events=["promoted"])))
        assert [later.tell_next(), later.tell_next()] == [Told.FAILED, Told.NOTHING]
    assert [row.outcome for row in runs.store.fetch(NoticeRow)] == ["sent", "given_up"]


def test_what_cannot_be_put_into_words_is_given_up_and_the_rest_is_told(runs: Finished, port: int) -> None:
    settings = with_targets(ops=hook(port, events=["promoted"]))
    telling = outgoing(runs, settings)
    asked, _, _ = runs.step()
    newer = json.dumps({"verdict": {"outcome": "unknown to this version"}})
    runs.store.append([RunEventRow(asked.run_id, "promoted", newer, runs.now)])
    runs.step()
    with webhook(port) as posts:
        tell_all(telling)
    assert sorted(row.outcome for row in runs.store.fetch(NoticeRow)) == ["given_up", "sent"]
    assert len(posts.accepted) == 1


def test_windows_that_close_are_told_where_nobody_trains_by_itself(runs: Finished, port: int) -> None:
    settings = with_targets(ops=hook(port))
    telling = outgoing(runs, settings)

    def close(window: int) -> None:
        runs.close_window()
        payload = WindowClosed(
            mailbox=MAILBOX, window_idx=window, reason="count", n_messages=7, n_chunks=1, shard_path="", shard_sha256=""
        )
        closing = ClosingRow(MAILBOX, window, runs.now, runs.now, "count", 7, 70, 7 * window)
        runs.store.append([closing, *runs.store.outbox_rows([Event.of(payload, at=runs.now)])])

    close(0)
    close(1)
    assert kinds(telling, runs, settings) == ["waiting"]
    assert kinds(telling, runs, settings.model_copy(update={"auto_retrain": True})) == []
    with webhook(port) as posts:
        tell_all(telling)
        assert posts.accepted == [
            "mailtide main: window 1 closed, 2 wait for training\n14 mails\n"
            "see: mailtide plan main; do it: mailtide retrain main --confirm"
        ]
        close(2)
        runs.request()
        tell_all(telling)
    assert len(posts.texts) == 1, "what a run was asked for does not wait"


def test_what_a_consumer_set_aside_is_told_once_however_often_it_is_tried(runs: Finished, port: int) -> None:
    settings = with_targets(ops=hook(port))
    telling = outgoing(runs, settings)
    event = RunRequested(mailbox=MAILBOX, run_id="0123456789ab", windows=(0,)).event_id
    with webhook(port) as posts:
        for attempt in (1, 3):
            dead = f"{event}@trainer#{attempt}"
            topic = "retrain.run.requested.v1"
            row = DeadLetterRow(dead, MAILBOX, topic, event, runs.now, "trainer", REASON, attempt, None, runs.now)
            runs.store.append([row])
            tell_all(telling)
    assert [text.splitlines()[0] for text in posts.accepted] == ["mailtide main: 0123456789ab is stuck"]
    assert "Mildred" not in posts.accepted[0]


def test_a_figure_that_regresses_is_told_after_the_verdict(runs: Finished, port: int) -> None:
    settings = with_targets(ops=hook(port, events=["regressed"]))
    telling = outgoing(runs, settings)
    for place, loss in enumerate((4.00, 4.02, 3.98, 4.01, 3.99, 4.00, 4.50)):
        asked, _, _ = runs.step()
        metric = MetricRow(
            asked.run_id, asked.adapter_id, SELECTED, "val", None, None, "nats_per_token", loss, 99, loss - 0.1, loss + 0.1
        )
        runs.store.append([metric])
        with webhook(port) as posts:
            tell_all(telling)
        assert len(posts.accepted) == (place == 6)
    assert posts.accepted[0].splitlines()[:2] == [
        f"mailtide main: {asked.adapter_id} is worse than the last 5 runs",
        "nats_per_token on val: 4.5000 (4.4000 to 4.6000); median 4.0000, worst 4.0200",
    ]


def loss(value: float, low: float | None = None, high: float | None = None) -> Figure:
    return Figure("nats_per_token", "val", value, low, high)


@pytest.mark.parametrize(
    ("figure", "earlier", "told"),
    [
        (loss(4.5, 4.3, 4.7), [4.0, 4.1, 4.2, 4.0, 4.1], True),
        (loss(4.5, 4.0, 5.0), [4.0, 4.1, 4.2, 4.0, 4.1], False),  # its own bounds reach their median
        (loss(4.15, 4.12, 4.2), [4.0, 4.1, 4.2, 4.0, 4.1], False),  # one of them was worse
        (loss(4.5, 4.3, 4.7), [4.0, 4.1, 4.2, 4.0], False),  # too few of them
        (loss(4.5, 4.3, 4.7), [9.0, 4.0, 4.1, 4.2, 4.0, 4.1], True),  # only the last five count
        (loss(4.3), [4.0, 4.1, 4.2, 4.0, 4.1], False),  # no bounds: within what they differ by
        (loss(4.5), [4.0, 4.1, 4.2, 4.0, 4.1], True),
        (Figure("mrr", "val", 0.2, 0.1, 0.3), [0.5, 0.6, 0.5, 0.4, 0.5], True),
        (Figure("mrr", "val", 0.9, 0.8, 1.0), [0.5, 0.6, 0.5, 0.4, 0.5], False),
        (Figure("rag_f1@3", "val", 0.0, None, None), [0.3, 0.2, 0.3, 0.3, 0.3], True),
        (Figure("rag_f1@3", "val", 0.0, None, None), [0.3, 0.3, 0.3, 0.3, 0.3], False),  # one that never moved
        (Figure("reply_loss_retrieved@3", "test", 6.5, 6.4, 6.6), [6.0, 6.1, 6.0, 6.1, 6.0], True),
        (Figure("rag_gain_random@3", "test", 0.1, 0.0, 0.2), [0.5, 0.6, 0.5, 0.4, 0.5], False),  # a control
        (Figure("colour", "val", 0.9, 0.8, 1.0), [0.5, 0.6, 0.5, 0.4, 0.5], False),
    ],
)
def test_worse_means_worse_than_each_of_five_and_clearly_so(figure: Figure, earlier: list[float], told: bool) -> None:
    found = regressions([figure], [{figure.name: value} for value in earlier])
    assert bool(found) is told


def mail_target(port: int, authority: Authority, **more: Any) -> MailTarget:
    values = {
        "kind": "mail",
        "host": "127.0.0.1",
        "port": port,
        "ca_file": str(authority.file),
        "user": "notices",
        "secret": {"env": "NOTICE_PASSWORD"},
        "sender": "mailtide@home.example",
        "to": ["me@home.example", "you@home.example"],
    }
    return MailTarget.model_validate({**values, **more})


def test_a_mail_server_gets_it_over_tls_with_the_password_and_a_name_that_a_repeat_keeps(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTICE_PASSWORD", "sesame")
    authority = Authority(tmp_path)
    notice = Notice(
        "promoted/main/3", "promoted", "main", datetime(2026, 3, 1, 12), "main: a1 promoted", ("new: -0.2", "ü")
    )
    with mail_server(port, authority.issue(tmp_path / "server"), "notices", "sesame") as letters:
        target = mail_target(port, authority)
        assert hand_over(target, notice) == ""
        letters.refused.add("you@home.example")
        assert hand_over(target, notice) == "1 of 2 addresses were refused"
        letters.refused.add("me@home.example")
        with pytest.raises(NoticeError, match=r"refuses every address \(550\)"):
            hand_over(target, notice)
        monkeypatch.setenv("NOTICE_PASSWORD", "open up")
        with pytest.raises(NoticeError, match="refuses the name or password") as told:
            hand_over(target, notice)
        assert "open up" not in str(told.value)
        with pytest.raises(NoticeError, match="certificate"):
            hand_over(target.model_copy(update={"ca_file": None}), notice)
    first, second = letters.mails
    assert letters.recipients == [["me@home.example", "you@home.example"], ["me@home.example"]]
    assert (first["Subject"], first["Auto-Submitted"]) == ("mailtide main: a1 promoted", "auto-generated")
    assert first["Message-ID"] == second["Message-ID"]
    payload = first.get_payload(decode=True)
    assert isinstance(payload, bytes) and payload.decode().splitlines() == ["main: a1 promoted", "new: -0.2", "ü"]
    with pytest.raises(NoticeError, match="Connection refused"):
        hand_over(target, notice)


def test_a_webhook_whose_address_is_a_secret_is_named_in_no_error(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    target = WebhookTarget.model_validate(
        {
            "kind": "webhook",
            "secret": {"env": "HOOK"},
            "token": {"env": "TOKEN"},
            "ca_file": str(authority.file),
        }
    )
    monkeypatch.setenv("TOKEN", "bearer-of-secrets")
    notice = trial("ops", datetime(2026, 3, 1))
    caplog.set_level(logging.DEBUG)
    told = []
    addresses = (f"https://127.0.0.1:{port}/T0/SECRET", "ftp://x.example/SECRET", "http://x.example/SECRET", "SECRET \x01")
    for address in addresses:
        monkeypatch.setenv("HOOK", address)
        with pytest.raises((NoticeError, SecretError)) as error:
            hand_over(target, notice)
        told.append(str(error.value))
    monkeypatch.setenv("HOOK", addresses[0])
    with webhook(port, certificate=authority.issue(tmp_path / "server")) as posts:
        hand_over(target, notice)
        with pytest.raises(NoticeError, match="certificate that does not hold"):
            hand_over(target.model_copy(update={"ca_file": None}), notice)
    assert posts.headers[0]["Authorization"] == "Bearer bearer-of-secrets"
    assert not any("SECRET" in each or "secrets" in each for each in [*told, caplog.text])


def test_a_command_gets_json_and_must_end_well_and_in_time(tmp_path: Path) -> None:
    out = tmp_path / "out.json"

    def target(program: str, *, timeout: float = 60.0) -> Any:
        words = shlex.join([sys.executable, "-c", program])
        settings = with_targets(ops={"kind": "command", "command": words, "timeout": timeout})
        return settings.notify.targets["ops"]

    notice = trial("ops", datetime(2026, 3, 1))
    keep = f"import os, sys; open({str(out)!r}, 'w').write(os.environ['MAILTIDE_NOTICE_ID'] + '\\n' + sys.stdin.read())"
    hand_over(target(keep), notice)
    named, document = out.read_text().splitlines()
    assert (named, json.loads(document)["title"]) == (notice.id, "test for ops")
    with pytest.raises(NoticeError, match="exit code 3") as told:
        hand_over(target("import sys; print('private'); sys.exit(3)"), notice)
    assert "private" not in str(told.value)
    with pytest.raises(NoticeError, match=r"did not end within 0\.2 seconds"):
        hand_over(target("import signal; signal.pause()", timeout=0.2), notice)
    with pytest.raises(NoticeError, match="cannot be run"):
        hand_over(target("").model_copy(update={"command": str(tmp_path / "none")}), notice)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ({"kind": "webhook"}, "exactly one of url and secret"),
        ({"kind": "webhook", "url": "http://hooks.example/x"}, "in the open"),
        ({"kind": "webhook", "url": "https://me:pw@hooks.example/x"}, "use token"),
        ({"kind": "mail", "host": "m.example", "sender": "a@b.example", "to": ["c"]}, "no address"),
        ({"kind": "mail", "host": "m.example", "security": "none", "sender": "a@b.example", "to": ["c@d.example"]}, "open"),
        ({"kind": "mail", "host": "m.example", "user": "u", "sender": "a@b.example", "to": ["c@d.example"]}, "together"),
        ({"kind": "command", "command": "x", "events": ["promotion"]}, "promoted"),
        ({"kind": "pigeon"}, "webhook"),
    ],
)
def test_what_cannot_work_is_refused_with_the_settings(target: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load(None, environment={}, overrides=[f"notify.targets.ops={json.dumps(target)}"])


DIES_ONCE = """
import os, signal, sys
log, marker = sys.argv[1:]
open(log, "a").write(os.environ["MAILTIDE_NOTICE_ID"] + "\\n")
if not os.path.exists(marker):
    open(marker, "w").close()
    os.kill(int(os.environ["SENDER"]), signal.SIGKILL)
"""
SENDS = """
import os, pathlib, sys
os.environ["SENDER"] = str(os.getpid())
from pipeline.config.configuration import read_home
from pipeline.home import Home
from streams.notices.outgoing import send_waiting
home = Home(pathlib.Path(sys.argv[1]))
sys.exit(len(send_waiting(home, read_home(home, environment={}))))
"""


def test_killed_between_sending_and_noting_it_is_told_once_more_under_the_same_id_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    log, marker = tmp_path / "told.log", tmp_path / "died"
    words = shlex.join([sys.executable, "-c", DIES_ONCE, str(log), str(marker)])
    settings = with_targets(ops={"kind": "command", "command": words, "timeout": 60.0})
    runs = Finished.at(tmp_path / "home", settings)
    watch(runs.store, settings, runs.now)
    runs.step()
    runs.step(new=+0.6)
    happened = [one.notice_id for one in untold(runs.store, settings, "ops") if one.kind != "regressed"]
    runs.store.close()
    runs.home.config.write_text(json.dumps(settings.model_dump(mode="json", exclude_defaults=True)))

    def send() -> int:
        done = subprocess.run(
            [sys.executable, "-c", SENDS, str(runs.home.root)], cwd=REPOSITORY, env={**os.environ}, check=False
        )
        return done.returncode

    assert [send(), send(), send()] == [-signal.SIGKILL, 0, 0]
    assert len(happened) == 2
    assert log.read_text().splitlines() == [happened[0], *happened]


def test_who_tells_a_target_is_alone_in_it(runs: Finished, port: int) -> None:
    settings = with_targets(ops=hook(port))
    outgoing(runs, settings)
    runs.step()

    @contextmanager
    def opened() -> Iterator[Store]:
        yield runs.store

    with webhook(port) as posts:
        with notice_lease(runs.home, "ops") as mine:
            assert mine
            assert send_waiting(runs.home, settings, opened) == []
            assert posts.texts == []
        assert send_waiting(runs.home, settings, opened) == []
    assert len(posts.accepted) == 1
    told = [one.outcome for one in history(runs.store, settings, 5)]
    assert told == ["sent"]


def test_the_commands_say_what_was_sent_and_what_waits(tmp_path: Path, port: int) -> None:
    settings = with_targets(ops=hook(port), home={"kind": "command", "command": "cat"})
    runs = Finished.at(tmp_path / "home", settings)
    watch(runs.store, settings, runs.now)
    runs.step()
    runs.store.close()
    home = runs.home.root
    runs.home.config.write_text(json.dumps(settings.model_dump(mode="json", exclude_defaults=True)))
    with webhook(port) as posts:
        done = command(home, "notify", "test", "--json")
        assert (done.returncode, [row["sent"] for row in json.loads(done.stdout)]) == (0, [True, True])
        assert posts.accepted == ["mailtide test for ops\nIt arrived."]
    failed = command(home, "notify", "test", "ops")
    assert (failed.returncode, "Connection refused" in failed.stdout) == (1, True)
    unknown = command(home, "notify", "test", "nobody")
    assert (unknown.returncode, "names: ops, home" in unknown.stderr) == (2, True)
    waiting = json.loads(command(home, "notify", "list", "--json").stdout)
    assert {(row["target"], row["outcome"]) for row in waiting} == {("ops", "waits"), ("home", "waits")}


def test_the_daemon_waits_for_no_target_and_tells_it_when_it_is_back(tmp_path: Path, port: int) -> None:
    archive = tmp_path / "archive.mbox"
    write_mailbox(archive, seed=5, messages=120)
    settings = {
        "window": {"bootstrap": 60, "count": 40, "age": None},
        "mailboxes": {"main": {"clock": "header", "feeds": [{"kind": "mbox", "path": str(archive)}]}},
        "notify": {"targets": {"ops": hook(port)}},
    }
    home = make_home(tmp_path / "home", settings)
    done = command(home.root, "run", "--until-idle")
    assert (done.returncode, "notices to ops wait" in done.stderr) == (0, True), done.stderr
    assert len(rows(home, "SELECT * FROM windows WHERE closed_at IS NOT NULL")) >= 1
    with webhook(port) as posts:
        for _ in range(2):
            assert command(home.root, "run", "--until-idle").returncode == 0
    assert len(posts.accepted) == 1
    assert "closed, " in posts.accepted[0]
