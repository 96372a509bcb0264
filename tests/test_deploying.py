"""Deployment: each target is healthy before its alias moves, turned back when it is not, retried when it is away, and what
was promoted reaches it once."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.config.configuration import write_home
from pipeline.config.settings import Settings
from pipeline.errors import DeployError
from pipeline.events import AdapterPromoted
from pipeline.home import Home, private_dir, sha256_folder, write_atomic
from pipeline.store import Store
from pipeline.store.rows import MailboxRow, MetricRow
from registry.byhand import rollback
from registry.deploy.calling import Caller
from registry.deploy.completions import measure
from registry.deploy.contract import Speed
from registry.deploy.converging import converge, retry_at
from registry.deploy.standing import Standing, folder, standing, want, wanted
from registry.deploy.targets import converge_all, targets
from registry.deploy.vllm import read_alias
from registry.signing import SigningKey, is_signed
from streams.bus.embedded import EmbeddedBus
from streams.cli.commands import cli
from streams.daemon.deploying import Deploying
from streams.deploying import deploy_pending
from streams.owning.held import HeldStore
from tests.support.daemons import until
from tests.support.finished import Finished
from tests.support.lineage import MAILBOX
from tests.support.ports import free_ports
from tests.support.vllm import FakeVllm, fake_vllm

AT = datetime(2026, 3, 1)
SECONDS = 120.0
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def vllm() -> Iterator[FakeVllm]:
    with fake_vllm() as server:
        yield server


def promotion(home: Home, adapter_id: str, ordinal: int, mailbox: str = MAILBOX) -> AdapterPromoted:
    """A promotion of an adapter that lies in the home."""
    kept = private_dir(home.adapter(adapter_id))
    write_atomic(kept / WEIGHTS, adapter_id.encode())
    path = kept.relative_to(home.root).as_posix()
    return AdapterPromoted(
        mailbox=mailbox, adapter_id=adapter_id, path=path, sha256=sha256_folder(kept), journal_ordinal=ordinal
    )


def settings_with(**deploy: Any) -> Settings:
    return Settings.model_validate({"deploy": deploy})


def serve(home: Home, settings: Settings, adapter_id: str, ordinal: int, at: datetime = AT) -> dict[str, Standing]:
    """Wants an adapter and tries once; how each target stands."""
    want(home, promotion(home, adapter_id, ordinal))
    return again(home, settings, at)


def again(home: Home, settings: Settings, at: datetime = AT) -> dict[str, Standing]:
    found = converge_all(home, targets(home, settings, lambda place: f"secret of {place.env}"), lambda: at)
    return {one.target: one for one in found}


def served(vllm: FakeVllm) -> list[str]:
    return sorted(name.removeprefix("mailtide-") for name in vllm.loaded)


def alias(home: Home) -> str | None:
    found = read_alias(home, MAILBOX)
    return found.adapter_id if found else None


def test_vllm_gets_an_adapter_under_a_name_of_its_own_and_the_former_one_drains(home: Home, vllm: FakeVllm) -> None:
    settings = settings_with(vllm={"url": vllm.url, "drain": 30})
    first = serve(home, settings, "a1", 3)["vllm"]
    assert (first.adapter_id, first.trouble, first.leftovers, alias(home)) == ("a1", "", (), "a1")
    assert vllm.loaded == {"mailtide-a1": str(home.adapter("a1"))}
    assert first.speed is not None and first.speed.tokens == 8 and first.speed.tokens_per_second > 0
    second = serve(home, settings, "a2", 6)["vllm"]
    assert (second.adapter_id, alias(home), served(vllm)) == ("a2", "a2", ["a1", "a2"])
    assert again(home, settings, AT + timedelta(seconds=29))["vllm"].leftovers
    assert not again(home, settings, AT + timedelta(seconds=30))["vllm"].leftovers
    assert served(vllm) == ["a2"]
    assert vllm.calls == [("load", "mailtide-a1"), ("load", "mailtide-a2"), ("unload", "mailtide-a1")]


def test_what_was_deployed_is_not_deployed_again_and_an_older_promotion_never(home: Home, vllm: FakeVllm) -> None:
    settings = settings_with(vllm={"url": vllm.url, "drain": 0})
    serve(home, settings, "a2", 6)
    calls = list(vllm.calls)
    assert again(home, settings)["vllm"].adapter_id == "a2"
    assert not want(home, promotion(home, "a2", 6))
    assert serve(home, settings, "a1", 3)["vllm"].adapter_id == "a2"
    assert vllm.calls == calls
    assert serve(home, settings, "a1", 9)["vllm"].adapter_id == "a1"


def forgets(vllm: FakeVllm) -> None:
    vllm.faults.forgets = True


def mute(vllm: FakeVllm) -> None:
    vllm.faults.mute = True


def impostor(vllm: FakeVllm) -> None:
    vllm.faults.impostor = True


def drops(vllm: FakeVllm) -> None:
    vllm.faults.drops = True


def refuses(vllm: FakeVllm) -> None:
    vllm.faults.refuses = True


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (forgets, "does not list it"),
        (mute, "an empty answer"),
        (impostor, "an answer of 'base'"),
        (drops, "does not list mailtide-a2 any more"),
        (refuses, "No adapter found"),
    ],
)
def test_a_target_that_lies_about_its_health_keeps_the_former_adapter(
    home: Home, vllm: FakeVllm, fault: Callable[[FakeVllm], None], why: str
) -> None:
    settings = settings_with(vllm={"url": vllm.url, "drain": 0})
    serve(home, settings, "a1", 3)
    fault(vllm)
    found = serve(home, settings, "a2", 6)["vllm"]
    assert (found.adapter_id, found.ordinal, found.tries, alias(home)) == ("a1", 3, 1, "a1")
    assert why in found.trouble
    assert (found.doubtful, found.leftovers, served(vllm)) == (False, (), ["a1"])
    vllm.faults = type(vllm.faults)()
    assert again(home, settings)["vllm"].adapter_id == alias(home) == "a2"
    assert served(vllm) == ["a2"]


def test_what_cannot_be_unloaded_is_unloaded_later_and_spoils_nothing(home: Home, vllm: FakeVllm) -> None:
    settings = settings_with(vllm={"url": vllm.url, "drain": 0})
    serve(home, settings, "a1", 3)
    vllm.faults.keeps = True
    found = serve(home, settings, "a2", 6)["vllm"]
    assert (found.adapter_id, found.trouble, len(found.leftovers)) == ("a2", "", 1)
    vllm.faults.keeps = False
    assert not again(home, settings)["vllm"].leftovers
    assert served(vllm) == ["a2"]


def test_one_that_is_away_stops_no_other_and_is_served_when_it_is_back(home: Home, vllm: FakeVllm) -> None:
    (port,) = free_ports(1)
    settings = settings_with(vllm={"url": vllm.url}, webhook={"url": f"http://127.0.0.1:{port}/hook"})
    found = serve(home, settings, "a1", 3)
    assert {name: one.adapter_id for name, one in found.items()} == {"symlink": "a1", "vllm": "a1", "webhook": None}
    assert "cannot be reached" in found["webhook"].trouble
    tries = [again(home, settings)["webhook"] for _ in range(3)]
    pauses = [(moment - AT).total_seconds() for one in tries if (moment := retry_at(one)) is not None]
    assert pauses == [2.0, 4.0, 8.0]
    with receiver(port) as seen:
        assert again(home, settings)["webhook"].trouble == ""
        again(home, settings)
    assert [post.headers["webhook-id"] for post in seen.posts] == [f"adapter.promoted/{MAILBOX}/3"]


def test_a_missing_or_changed_adapter_is_shown_to_no_target(home: Home, vllm: FakeVllm) -> None:
    settings = settings_with(vllm={"url": vllm.url})
    serve(home, settings, "a1", 3)
    want(home, promotion(home, "a2", 6))
    (home.adapter("a2") / WEIGHTS).write_bytes(b"other weights")
    for one in again(home, settings).values():
        assert one.adapter_id == "a1" and "was changed since a2 was promoted" in one.trouble
    assert vllm.calls == [("load", "mailtide-a1")]


@pytest.mark.parametrize("step", ["load", "check", "flip", "confirm", "unload", "speed"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_death_at_any_step_is_mended_by_the_next_life(home: Home, vllm: FakeVllm, step: str, moment: str) -> None:
    settings = settings_with(symlink=False, vllm={"url": vllm.url, "drain": 0})
    serve(home, settings, "a1", 3)
    (target,) = targets(home, settings, lambda place: "")
    method = getattr(target, step)

    def dies(*arguments: Any) -> Any:
        if moment == "after":
            method(*arguments)
        raise KeyboardInterrupt

    setattr(target, step, dies)
    with pytest.raises(KeyboardInterrupt):
        converge(home, target, promotion(home, "a2", 6), lambda: AT)
    assert alias(home) in ("a1", "a2")
    assert f"mailtide-{alias(home)}" in vllm.loaded, "whoever asks is answered"
    assert serve(home, settings, "a2", 6)["vllm"].adapter_id == alias(home) == "a2"
    assert served(vllm) == ["a2"]


@pytest.mark.parametrize("died_after", ["load", "flip", "confirm"])
def test_an_alias_that_a_former_life_moved_is_turned_back_when_the_adapter_turns_out_ill(
    home: Home, vllm: FakeVllm, died_after: str
) -> None:
    settings = settings_with(symlink=False, vllm={"url": vllm.url, "drain": 0})
    serve(home, settings, "a1", 3)
    (target,) = targets(home, settings, lambda place: "")
    method = getattr(target, died_after)

    def dies(*arguments: Any) -> None:
        method(*arguments)
        raise KeyboardInterrupt

    setattr(target, died_after, dies)
    with pytest.raises(KeyboardInterrupt):
        converge(home, target, promotion(home, "a2", 6), lambda: AT)
    vllm.faults.mute = True
    found = serve(home, settings, "a2", 6)["vllm"]
    assert (found.adapter_id, alias(home), found.doubtful, served(vllm)) == ("a1", "a1", False, ["a1"])


def test_a_speed_that_cannot_be_measured_is_no_reason_to_turn_back(home: Home, vllm: FakeVllm) -> None:
    (target,) = targets(home, settings_with(symlink=False, vllm={"url": vllm.url}), lambda place: "")

    def fails(promoted: AdapterPromoted) -> Speed:
        raise DeployError("it was too slow to wait for")

    target.speed = fails  # type: ignore[method-assign, assignment]
    found = converge(home, target, promotion(home, "a1", 3), lambda: AT)
    assert (found.adapter_id, found.trouble, found.speed) == ("a1", "", None)


def test_many_threads_deploy_once(home: Home, vllm: FakeVllm) -> None:
    settings = settings_with(symlink=False, vllm={"url": vllm.url, "drain": 0})
    want(home, promotion(home, "a1", 3))
    threads = [threading.Thread(target=again, args=(home, settings)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert vllm.calls == [("load", "mailtide-a1")]


def test_a_key_is_shown_to_vllm_and_is_in_no_message(home: Home) -> None:
    with fake_vllm(key="secret of KEY") as vllm:
        place = {"env": "KEY"}
        assert serve(home, settings_with(vllm={"url": vllm.url, "secret": place}), "a1", 3)["vllm"].trouble == ""
        vllm.key = "another"
        trouble = serve(home, settings_with(vllm={"url": vllm.url, "secret": place}), "a2", 6)["vllm"].trouble
    assert "401" in trouble and "secret of KEY" not in trouble


def test_targets_of_one_mailbox_leave_the_others_alone(home: Home, vllm: FakeVllm) -> None:
    want(home, promotion(home, "b1", 2, mailbox="work"))
    serve(home, settings_with(vllm={"url": vllm.url, "mailbox": MAILBOX}), "a1", 3)
    assert (served(vllm), {one.mailbox for one in wanted(home)}) == (["a1"], {MAILBOX, "work"})


def test_a_damaged_note_is_named_and_the_other_targets_go_on(home: Home, vllm: FakeVllm) -> None:
    settings = settings_with(vllm={"url": vllm.url})
    serve(home, settings, "a1", 3)
    write_atomic(folder(home, "symlink") / f"{MAILBOX}.json", b"{")
    want(home, promotion(home, "a2", 6))
    with pytest.raises(DeployError, match=r"symlink/main\.json cannot be read .*; remove it"):
        again(home, settings)
    assert standing(home, "vllm", MAILBOX).adapter_id == "a2"


def test_a_disk_in_the_way_of_one_target_is_its_trouble_alone(home: Home, vllm: FakeVllm) -> None:
    settings = settings_with(vllm={"url": vllm.url})
    write_atomic(home.champion_link(MAILBOX).parent, b"no folder")
    found = serve(home, settings, "a1", 3)
    assert (found["vllm"].adapter_id, found["symlink"].adapter_id) == ("a1", None)
    assert "Not a directory" in found["symlink"].trouble
    write_atomic(folder(home, "webhook"), b"no folder")
    with pytest.raises(DeployError, match=r"how webhook stands cannot be noted: .*Not a directory"):
        serve(home, settings_with(vllm={"url": vllm.url}, webhook={"url": vllm.url}), "a2", 6)
    assert standing(home, "vllm", MAILBOX).adapter_id == "a2"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "file:///etc/passwd", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        settings_with(vllm={"url": url})


def test_a_secret_without_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="of no use without"):
        settings_with(webhook={"secret": {"env": "X"}})


class Endless(BaseHTTPRequestHandler):
    """Answers for as long as somebody reads: to one path a byte at a time, to others lines."""

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"x" if self.path == "/bytes" else b"data: {}\n")


def test_a_server_whose_answer_never_ends_is_given_up() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        caller = Caller(f"http://127.0.0.1:{server.server_port}", 0.1)
        try:
            with pytest.raises(DeployError, match=r"its answer takes longer than 0.1 s"):
                caller.json("POST", "/bytes", {})
            with pytest.raises(DeployError, match=r"its answer takes longer than 0.1 s"):
                measure(caller, "m")
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Post:
    headers: dict[str, str]
    body: bytes


@dataclass
class Received:
    posts: list[Post] = field(default_factory=list)


@contextmanager
def receiver(port: int) -> Iterator[Received]:
    """A receiver of web hooks on loopback."""
    seen = Received()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.posts.append(Post({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_web_hook_is_signed_by_the_home_and_by_the_shared_secret_and_holds_no_mail(home: Home) -> None:
    (port,) = free_ports(1)
    with receiver(port) as seen:
        hook = {"url": f"http://127.0.0.1:{port}/hook", "secret": {"env": "SHARED"}}
        assert serve(home, settings_with(webhook=hook), "a1", 3)["webhook"].trouble == ""
    (post,) = seen.posts
    told = json.loads(post.body)
    assert told == {
        "type": "adapter.promoted",
        "mailbox": MAILBOX,
        "adapter_id": "a1",
        "journal_ordinal": 3,
        "sha256": sha256_folder(home.adapter("a1")),
    }
    signed = b".".join((post.headers["webhook-id"].encode(), post.headers["webhook-timestamp"].encode(), post.body))
    own, shared = post.headers["webhook-signature"].split()
    assert is_signed(signed, SigningKey.of(home).public, base64.b64decode(own.removeprefix("v1a,")).hex())
    mac = hmac.new(b"secret of SHARED", signed, hashlib.sha256).digest()
    assert shared == "v1," + base64.b64encode(mac).decode()


def command(runs: Finished, *arguments: str) -> Result:
    runs.store.append([MailboxRow(MAILBOX, "arrival", runs.now)])
    runs.store.close()
    return CliRunner().invoke(
        cli, ["--home", str(runs.home.root), *arguments], catch_exceptions=False, standalone_mode=False
    )


def test_a_rollback_reaches_every_target_at_once_and_status_and_doctor_tell_of_one_that_is_away(
    tmp_path: Path, vllm: FakeVllm
) -> None:
    (port,) = free_ports(1)
    settings = settings_with(vllm={"url": vllm.url}, webhook={"url": f"http://127.0.0.1:{port}/hook"})
    runs = Finished.at(tmp_path / "home", settings)
    write_home(runs.home, settings)
    first, second = (runs.step()[0].adapter_id for _ in range(2))
    done = command(runs, "deploy")
    assert done.return_value == 1, "one target is away"
    assert alias(runs.home) == second and runs.home.champion_link(MAILBOX).resolve().name == second
    assert vllm.calls == [("load", f"mailtide-{second}")], "what was superseded meanwhile is not deployed"
    runner = CliRunner()
    told = runner.invoke(cli, ["--home", str(runs.home.root), "registry", "rollback", "--reason", "it was rude"])
    assert told.exit_code == 0 and f"webhook of {MAILBOX} serves nothing" in told.stderr
    assert alias(runs.home) == first and runs.home.champion_link(MAILBOX).resolve().name == first
    status = runner.invoke(cli, ["--home", str(runs.home.root), "status"], catch_exceptions=False)
    assert "webhook   serves nothing: " in status.stdout
    found = json.loads(runner.invoke(cli, ["--home", str(runs.home.root), "status", "--json"]).stdout)["deployments"]
    assert {one["target"]: one["adapter_id"] for one in found} == {"symlink": first, "vllm": first, "webhook": None}
    doctor = runner.invoke(cli, ["--home", str(runs.home.root), "doctor"], catch_exceptions=False)
    assert "deploy webhook" in doctor.stdout
    write_home(runs.home, settings_with(vllm={"url": vllm.url}, server={"url": f"http://127.0.0.1:{port}"}))
    status = runner.invoke(cli, ["--home", str(runs.home.root), "status"], catch_exceptions=False)
    assert "server    serves nothing: nothing was deployed to it yet" in status.stdout
    write_home(runs.home, settings)
    with receiver(port) as seen:
        assert runner.invoke(cli, ["--home", str(runs.home.root), "deploy"], standalone_mode=False).return_value == 0
    assert [json.loads(post.body)["adapter_id"] for post in seen.posts] == [first]


def test_speeds_become_metrics_once_a_promotion(tmp_path: Path, vllm: FakeVllm) -> None:
    settings = settings_with(vllm={"url": vllm.url})
    runs = Finished.at(tmp_path / "home", settings)
    asked, _, _ = runs.step()
    runs.store.close()
    for _ in range(2):
        deploy_pending(runs.home, settings)
    opened = Store.open(runs.home, None, None)
    rows = opened.fetch(MetricRow, "metric LIKE 'deploy.%'")
    assert {(row.adapter_id, row.run_id, row.metric, row.n) for row in rows} == {
        (asked.adapter_id, asked.run_id, f"deploy.vllm.{name}", 8) for name in ("first_token_seconds", "tokens_per_second")
    }
    assert len(rows) == 2 and len({row.checkpoint for row in rows}) == 1
    opened.close()


def test_promotions_at_once_leave_every_target_at_the_newest(home: Home, vllm: FakeVllm) -> None:
    settings = settings_with(vllm={"url": vllm.url, "drain": 0})
    several = [promotion(home, f"a{place}", 3 * place) for place in range(1, 7)]

    def bring(promoted: AdapterPromoted) -> None:
        want(home, promoted)
        again(home, settings)

    threads = [threading.Thread(target=bring, args=(one,)) for one in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alias(home) == home.champion_link(MAILBOX).resolve().name == "a6"
    assert again(home, settings)["vllm"].leftovers == ()
    assert served(vllm) == ["a6"]


def recorded(home: Home) -> bool:
    """Whether the speed of what vLLM serves is a row of the store."""
    speed = standing(home, "vllm", MAILBOX).speed
    return speed is not None and speed.recorded


@contextmanager
def daemons_deployment(runs: Finished, held: HeldStore) -> Iterator[Deploying]:
    """The daemon's thread for deployment, beside those that write to the store."""
    stop = threading.Event()
    bus = EmbeddedBus(held.writing)
    deploying = Deploying(runs.home, runs.settings, bus, held.writing, stop, news=held.listener())
    thread = threading.Thread(target=deploying.run, daemon=True)
    thread.start()
    try:
        yield deploying
    finally:
        stop.set()
        deploying.stop()
        thread.join()


def test_the_daemon_deploys_what_is_promoted_while_it_runs_and_goes_on_trying(tmp_path: Path, vllm: FakeVllm) -> None:
    runs = Finished.at(tmp_path / "home", settings_with(vllm={"url": vllm.url}))
    first, second = (runs.step()[0].adapter_id for _ in range(2))
    held = HeldStore(runs.store)
    with daemons_deployment(runs, held) as deploying:
        until(lambda: recorded(runs.home), SECONDS)
        assert alias(runs.home) == second
        assert runs.home.champion_link(MAILBOX).resolve().name == second
        vllm.faults.mute = True
        with held.writing() as store:
            rollback(store, runs.home, MAILBOX, None, "it was rude", "owner", runs.now)
        held.announce()
        until(lambda: standing(runs.home, "vllm", MAILBOX).tries > 1, SECONDS)
        assert alias(runs.home) == second and runs.home.champion_link(MAILBOX).resolve().name == first
        assert deploying.part().trouble() is None
        vllm.faults.mute = False
        until(lambda: alias(runs.home) == first and recorded(runs.home), SECONDS)
        until(deploying.part().idle, SECONDS)
    with held.reading() as store:
        assert len(store.fetch(MetricRow, "metric LIKE 'deploy.%'")) == 4
    held.close()
