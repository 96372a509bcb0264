"""Metrics, read by Prometheus' own parser: what they say is what the store says, and no label names anybody."""

from __future__ import annotations

import contextlib
import re
import socket
import urllib.request
from datetime import timedelta
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pipeline.arrival.people import PeopleKey
from pipeline.config.notice_settings import NotifySettings
from pipeline.config.settings import CostSettings, Settings
from pipeline.store import Store
from pipeline.store.rows import MailboxRow
from pipeline.times import utc_now
from pipeline.versions import VERSIONS
from registry.answer_ids import AnswerIds
from streams.notices.finding import watch
from tests.support.apis import client
from tests.support.daemons import daemon, make_home, stop, until
from tests.support.finished import Finished
from tests.support.lineage import MAILBOX
from tests.support.maildirs import Maildir
from tests.support.ports import free_ports
from tests.support.stored import store_mail

NAME = re.compile(r"(mailtide|process|gpu_train_cost)_[a-z0-9_]+\Z")


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(text: str, sample: str) -> dict[tuple[str, ...], float]:
    """A sample's figures by the values of its labels, in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == sample
    }


def require_conventions(text: str) -> None:
    found = families(text)
    assert len(found) > 25
    for name, family in found.items():
        assert NAME.match(name), name
        assert family.documentation, name
        assert len({sample.labels.get("adapter_id") for sample in family.samples}) <= 3, name
        for sample in family.samples:
            assert not any("@" in value or "/tmp" in value or " " in value for value in sample.labels.values()), sample
            if family.type == "counter":
                assert sample.name.endswith(("_total", "_created")), sample.name


def test_the_server_tells_what_the_store_holds_and_what_it_was_asked(tmp_path: Path) -> None:
    targets = {"targets": {"ops": {"kind": "command", "command": "cat"}}}
    settings = Settings(
        cost=CostSettings(per_hour=4.0, cap=50.0, currency="USD"), notify=NotifySettings.model_validate(targets)
    )
    runs = Finished.at(tmp_path / "home", settings)
    runs.now = utc_now() - timedelta(days=3)
    watch(runs.store, settings, runs.now)
    runs.store.append([MailboxRow(MAILBOX, "arrival", runs.now)])
    store_mail(runs.store, 0, "Private words of ann@home.example.")
    first, _, _ = runs.step()
    runs.step(new=+0.6)
    runs.store.close()
    home = runs.home
    answer = AnswerIds(PeopleKey.read(home.people_key), MAILBOX).issue("chatcmpl", first.adapter_id)
    with client(home, settings) as api:
        assert api.get("/metrics", headers={"Authorization": ""}).status_code == 401
        assert api.post("/v1/feedback", json={"id": answer, "rating": "down"}).status_code == 200
        assert api.get("/v1/nothing/ann@home.example").status_code == 404
        answered = api.get("/metrics")
        with Store.open(home, None, VERSIONS):
            held = api.get("/metrics").text
    assert answered.headers["content-type"].startswith("text/plain")
    text = answered.text
    require_conventions(text)
    assert values(text, "mailtide_store_readable") == {(): 1.0}
    assert values(text, "mailtide_messages_total") == {(MAILBOX, "train"): 1.0}
    assert values(text, "mailtide_runs_total") == {(MAILBOX, "promoted"): 1.0, (MAILBOX, "rejected"): 1.0}
    assert values(text, "mailtide_run_seconds_sum") == {(MAILBOX,): 3_600.0}
    assert values(text, "mailtide_run_seconds_bucket")[("1800.0", MAILBOX)] == 2.0
    assert values(text, "gpu_train_cost_usd_total") == {(): 4.0}
    assert values(text, "mailtide_train_cost_cap") == {(): 50.0}
    assert values(text, "mailtide_champion_info") == {(first.adapter_id, MAILBOX): 1.0}
    assert values(text, "mailtide_adapters") == {(MAILBOX, "champion"): 1.0, (MAILBOX, "rejected"): 1.0}
    assert values(text, "mailtide_feedback_answers") == {(MAILBOX, "down"): 1.0}
    assert values(text, "mailtide_champion_overruled_ratio") == {(MAILBOX,): 1.0}
    assert values(text, "mailtide_notices_waiting")[("ops",)] >= 2.0
    requests = values(text, "mailtide_http_requests_total")
    assert requests[("POST", "/v1/feedback", "200")] == 1.0
    assert requests[("GET", "none", "404")] == 1.0
    assert requests[("GET", "none", "401")] == 1.0
    assert "home.example" not in text and "Private" not in text
    assert values(held, "mailtide_store_readable") == {(): 0.0}
    assert values(held, "mailtide_server_ready") == {(): 0.0}


def test_the_daemon_answers_on_its_port_while_it_works(tmp_path: Path) -> None:
    inbox = Maildir(tmp_path / "inbox")
    for number in range(3):
        inbox.deliver(number)
    (port,) = free_ports(1)
    feed = {"kind": "maildir", "path": str(inbox.path), "poll": 1.0}
    home = make_home(tmp_path / "home", {"mailboxes": {"main": {"feeds": [feed]}}, "daemon": {"metrics_port": port}})

    def scraped() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            return str(answer.read().decode())

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    with daemon(home) as process:
        until(answers)
        until(lambda: sum(values(scraped(), "mailtide_messages_total").values()) == 3)
        until(lambda: values(scraped(), "mailtide_feeds") == {("waiting", "main"): 1.0})
        text = scraped()
        require_conventions(text)
        assert values(text, "mailtide_mails_read_total") == {("main",): 3.0}
        assert values(text, "mailtide_training_state") == {("idle",): 1.0}
        assert stop(process) == 0
