"""The training API: what the commands say, as JSON; runs started once; and news for as long as somebody listens."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks
from starlette.testclient import TestClient

from pipeline.config.configuration import read_home
from pipeline.config.settings import CostSettings, Settings
from pipeline.home import Home
from pipeline.store.rows import MailboxRow
from pipeline.times import utc_now
from registry.byhand import reject
from streams.demo.mailbox import write_mailbox
from streams.owning.stores import opener
from streams.runs.progress import PROGRESS, published
from streams.runs.runner import Step
from streams.runs.withdrawal import running
from streams.server.news import noted
from tests.support.apis import application, client, listening, token
from tests.support.daemons import TINY, daemon, make_home, stop, until
from tests.support.finished import Finished
from tests.support.lineage import MAILBOX
from tests.support.program import run

SETTINGS = Settings(cost=CostSettings(per_hour=4.0))
PATIENCE = 240.0
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]
WINDOWS = {"bootstrap": 60, "count": 40, "age": None}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A promoted run and a rejected one; the store is closed."""
    made = Finished.at(tmp_path_factory.mktemp("runs") / "home", SETTINGS)
    made.now = utc_now() - timedelta(days=2)
    made.store.append([MailboxRow(MAILBOX, "arrival", made.now)])
    made.step()
    made.step(new=+0.6)
    made.store.close()
    return made


@pytest.fixture(scope="module")
def api(runs: Finished) -> Iterator[TestClient]:
    with client(runs.home, SETTINGS) as made:
        yield made


def adapters(runs: Finished) -> list[str]:
    return [name for name in runs.skill if name != runs.base]


def test_everything_is_under_the_token(api: TestClient) -> None:
    for path in ("status", "plan", "runs", "runs/x", "windows", "adapters", "adapters/x", "adapters/x/explain", "events"):
        assert api.get(f"/api/{path}", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert api.post("/api/runs", json={}, headers={"Authorization": ""}).status_code == 401


def test_lists_say_what_the_commands_say(runs: Finished, api: TestClient) -> None:
    first, second = adapters(runs)
    listed = api.get("/api/runs").json()
    shown = {row["run_id"]: row for row in json.loads(run(runs.home.root, "runs", "--json").stdout)}
    assert [row["status"] for row in listed] == ["promoted", "rejected"]
    for row in listed:
        assert {name: row[name] for name in ("windows", "adapter_id", "steps", "tokens", "finished_at")} == {
            name: shown[row["run_id"]][name] for name in ("windows", "adapter_id", "steps", "tokens", "finished_at")
        }
    assert [row["adapter_id"] for row in api.get("/api/adapters").json()] == [first, second]
    assert [row["adapter_id"] for row in api.get("/api/adapters?limit=1").json()] == [second]
    assert [row["window_idx"] for row in api.get("/api/windows").json()] == []
    status = api.get("/api/status").json()
    assert (status["mailbox"]["champion"], status["run"], status["spent"]["cost"]) == (first, None, 4.0)


def test_one_run_and_one_adapter_are_told_with_their_reasons(runs: Finished, api: TestClient) -> None:
    first, second = adapters(runs)
    (one, _) = api.get("/api/runs").json()
    report = api.get(f"/api/runs/{one['run_id']}").json()
    assert report == json.loads(run(runs.home.root, "runs", "show", one["run_id"], "--json").stdout)
    assert (report["outcome"], report["adapter_id"], report["cost"]) == ("promoted", first, 2.0)
    adapter = api.get(f"/api/adapters/{second}").json()
    assert [entry["event"] for entry in adapter["journal"]] == ["registered", "evaluated", "rejected"]
    told = api.get(f"/api/adapters/{second}/explain").json()
    assert told == json.loads(run(runs.home.root, "registry", "explain", second, "--json").stdout)
    for path, code in (("runs/nothing", "run_not_found"), ("adapters/x/explain", "adapter_not_found")):
        refused = api.get(f"/api/{path}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, code)
    assert api.get("/api/runs?limit=0").status_code == 400
    assert api.post("/api/runs", json={"first": 3, "last": 1}).status_code == 400


def test_without_confirm_only_the_plan_is_answered(runs: Finished, api: TestClient) -> None:
    planned, asked = api.get("/api/plan").json(), api.post("/api/runs", json={})
    assert asked.status_code == 200
    assert asked.json()["plan"] == planned["plan"] is not None
    assert planned["spent"]["cost"] == 4.0
    assert len(api.get("/api/runs").json()) == 2


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "", "application/json"])
def test_a_body_that_is_no_json_object_is_told_what_it_should_be(api: TestClient, kind: str) -> None:
    body = b"[]" if kind.endswith("json") else b"confirm=true"
    refused = api.post("/api/runs", content=body, headers={"Content-Type": kind})
    said = "the body must be a JSON object, sent with `Content-Type: application/json`"
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, said)


def test_what_is_not_there_is_told_in_the_same_shape(api: TestClient) -> None:
    for method, path, status, says in (("GET", "/docs", 404, "/openapi.json"), ("PUT", "/api/plan", 405, "Allow")):
        refused = api.request(method, path)
        assert refused.status_code == status
        assert says in refused.json()["error"]["message"]


def test_the_description_says_what_each_path_is_for_and_that_it_wants_a_token(api: TestClient) -> None:
    told = api.get("/openapi.json").json()
    operations = [(path, found) for path, kinds in told["paths"].items() for found in kinds.values()]
    named = {tag["name"] for tag in told["tags"]}
    assert len(operations) > 20
    assert len({found["operationId"] for _, found in operations}) == len(operations)
    for path, found in operations:
        assert set(found["tags"]) <= named
        assert found["description"].endswith(".")
        assert bool(found.get("security")) == (path not in ("/health", "/ready"))


def test_what_the_command_refuses_is_refused_and_nothing_is_claimed(runs: Finished) -> None:
    capped = SETTINGS.model_copy(update={"cost": CostSettings(per_hour=4.0, cap=0.5)})
    with client(runs.home, capped) as api:
        refused = api.post("/api/runs", json={"confirm": True})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "run_refused")
        assert "cost.cap allows 0.50" in refused.json()["error"]["message"]
        nothing = api.post("/api/runs", json={"confirm": True, "first": 70})
        assert nothing.status_code == 409
        assert len(api.get("/api/runs").json()) == 2


def test_no_request_makes_an_endpoint_fail_or_answer_otherwise_than_described(runs: Finished) -> None:
    app = application(runs.home, SETTINGS, MAILBOX)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=token(runs.home))
    checked = []
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]
        path = operation.path
        if not path.startswith(("/api/runs", "/api/status", "/api/plan", "/api/w", "/v1/feedback", "/metrics")):
            continue

        @given(case=operation.as_strategy())
        @settings(max_examples=5, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        def check(case: Any) -> None:
            if isinstance(case.body, dict):
                case.body.pop("confirm", None)
            case.call_and_validate(headers=token(runs.home), checks=CHECKS)

        check()
        checked.append(path)
    assert len(checked) == 8, checked


class Listener:
    """The events of a server, one after the other."""

    def __init__(self, address: str, home: Home, after: int | None = None) -> None:
        request = urllib.request.Request(f"{address}/api/events", headers=token(home))
        if after is not None:
            request.add_header("Last-Event-ID", str(after))
        self._answer = urllib.request.urlopen(request, timeout=120)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.close()

    def __iter__(self) -> Iterator[tuple[str, Any, str]]:
        """Kind, data and id; comments are left out."""
        fields: dict[str, str] = {}
        for line in self._answer:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if not name and "event" in fields:
                yield fields["event"], json.loads(fields["data"]), fields.get("id", "")
                fields = {}
            elif name:
                fields[name] = value


def test_a_run_is_told_by_whoever_carries_it_out_for_as_long_as_it_does(tmp_path: Path) -> None:
    home = Home(tmp_path)
    asked = {"run_id": "0a", "doing": "requested"}
    assert noted(home, "0a") == asked
    heard: list[Step] = []
    steps = [Step("0a", "base", done, 40, "loss") for done in (1, 2)]
    steps.append(Step("0a", "train", 30, 100, "epoch 1", 4.7, 250.0, 140.0))
    with running(home, "0a"):
        assert noted(home, "0a") == asked
        with published(home, "0a", heard.append) as hear:
            told = []
            for step in steps:
                hear(step)
                told.append(noted(home, "0a"))
        assert noted(home, "0a") == asked
    assert heard == steps
    assert [(one["doing"], one["stage"], one["done"]) for one in told[:2]] == [("training", "base", 1)] * 2, "now and then"
    assert (told[2]["stage"], told[2]["done"], told[2]["total"], told[2]["text"]) == ("train", 30, 100, "epoch 1")
    assert told[2]["figures"] == {"loss": 4.7, "tokens_per_second": 250.0, "seconds_left": 140.0}
    (home.run("0a") / PROGRESS).write_bytes(json.dumps(asdict(steps[0])).encode())
    assert noted(home, "0a") == asked, "of a process that was killed"


def test_decisions_come_as_they_fall_and_those_that_were_missed(tmp_path: Path) -> None:
    made = Finished.at(tmp_path / "home", SETTINGS)
    made.step()
    second, _, _ = made.step(new=-0.2, old=+0.03)
    made.store.close()
    with listening(made.home, SETTINGS) as address:
        with Listener(address, made.home, after=4) as missed:
            news = iter(missed)
            kind, entry, number = next(news)
            assert (kind, entry["event"], number) == ("decision", "evaluated", "5")
            kind, entry, number = next(news)
            assert (entry["adapter_id"], entry["event"], number) == (second.adapter_id, "abstained", "6")
        with Listener(address, made.home) as live:
            with opener(made.home, SETTINGS)() as store:
                reject(store, MAILBOX, second.adapter_id, "dull", "owner", utc_now())
            kind, entry, number = next(iter(live))
            assert (kind, entry["event"], entry["reason"], number) == ("decision", "rejected", "dull", "7")


@pytest.mark.timeout(900)
def test_a_run_is_started_once_and_followed_to_its_verdict(tmp_path: Path) -> None:
    archive = tmp_path / "archive.mbox"
    write_mailbox(archive, seed=3, messages=110)
    home = make_home(tmp_path / "home", {"window": WINDOWS, "model": TINY, "train": {"epochs": 1, "threads": 1}})
    assert run(home.root, "import", str(archive), "--clock", "header").returncode == 0
    with listening(home, read_home(home, environment={})) as address, Listener(address, home) as news:

        def ask(path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
            data = None if body is None else json.dumps(body).encode()
            headers = {**token(home), "Content-Type": "application/json"}
            try:
                with urllib.request.urlopen(
                    urllib.request.Request(f"{address}{path}", data, headers), timeout=60
                ) as answer:
                    return answer.status, json.loads(answer.read())
            except urllib.error.HTTPError as refused:
                return refused.code, json.loads(refused.read())

        status, started = ask("/api/runs", {"confirm": True})
        assert status == 202
        status, refused = ask("/api/runs", {"confirm": True})
        assert (status, refused["error"]["code"]) == (409, "run_under_way")
        assert started["run_id"] in refused["error"]["message"]
        seen = []
        for kind, told, _ in news:
            seen.append((kind, told))
            if kind == "decision" and told["event"] in ("promoted", "rejected", "abstained", "failed"):
                break
        stages = {told["doing"] for kind, told in seen if kind == "progress" and told is not None}
        assert stages and stages <= {"requested", "training"}
        assert {told["run_id"] for kind, told in seen if kind == "progress" and told is not None} == {started["run_id"]}
        until(lambda: ask(f"/api/runs/{started['run_id']}")[1].get("outcome"), PATIENCE)
        report = ask(f"/api/runs/{started['run_id']}")[1]
        assert (report["outcome"], report["steps"] > 0) == (seen[-1][1]["event"], True)
        assert ask("/api/status")[1]["trouble"] is None


@pytest.mark.timeout(900)
def test_where_a_daemon_trains_it_is_asked_to(tmp_path: Path) -> None:
    archive = tmp_path / "archive.mbox"
    write_mailbox(archive, seed=3, messages=110)
    feed = {"kind": "mbox", "path": str(archive)}
    home = make_home(
        tmp_path / "home",
        {
            "window": WINDOWS,
            "model": TINY,
            "train": {"epochs": 1, "threads": 1},
            "mailboxes": {"main": {"clock": "header", "feeds": [feed]}},
        },
    )
    with daemon(home) as process, client(home, read_home(home, environment={})) as api:
        until(lambda: (api.get("/api/status").json()["mailbox"] or {}).get("windows_closed"), PATIENCE)
        assert api.get("/api/status").json()["daemon"]["training"]["doing"] == "idle"
        started = api.post("/api/runs", json={"confirm": True})
        assert started.status_code == 202
        assert api.post("/api/runs", json={"confirm": True}).status_code == 409
        until(lambda: api.get("/api/status").json()["daemon"]["training"]["doing"] == "training", PATIENCE)
        assert api.get("/api/status").json()["run"]["run_id"] == started.json()["run_id"]
        assert stop(process, 60) == 0
