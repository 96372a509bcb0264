"""What training costs: noted per run, summed over 30 days, shown, and held against a cap before anything is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.config.configuration import load
from pipeline.config.settings import CostSettings, Settings
from pipeline.errors import ConfigError, NothingToDo, RunError
from pipeline.runs.requests import BaseRef, RunResult
from pipeline.store.rows import JournalRow, MailboxRow, OutboxRow, RequestRow, RunEventRow
from pipeline.times import utc_now
from registry.records import price
from registry.spending import relief, spending
from streams.runs.budget import require_budget
from streams.runs.claims import ALL_WAITING
from tests.support.finished import Finished
from tests.support.lineage import MAILBOX
from tests.support.program import complaint, run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Finished]:
    """Runs whose planted base is the one that the next request stands on, so that it continues them."""
    made = Finished.at(tmp_path / "home", Settings(cost=CostSettings(per_hour=4.0)))
    planted = BaseRef(kind="builtin", base_id="base", path="bases/main/base")
    monkeypatch.setattr("streams.runs.claims.base_of", lambda *_: planted)
    yield made
    made.store.close()


def capped(cap: float) -> Settings:
    return Settings(cost=CostSettings(per_hour=4.0, cap=cap))


def test_thirty_days_are_summed_and_what_lies_further_back_is_not(runs: Finished) -> None:
    runs.step()
    first_end = runs.now - timedelta(minutes=30)
    runs.now += timedelta(days=20)
    runs.step()
    now = runs.now
    found = spending(runs.store, CostSettings(per_hour=9.0, cap=50.0), now)
    assert found.runs == 2
    assert found.hours == pytest.approx(1.0)
    assert found.cost == pytest.approx(4.0), "at the price of its day"
    later = spending(runs.store, CostSettings(), now + timedelta(days=15))
    assert (later.runs, later.cost, later.runs_ever, later.cost_ever) == (1, 2.0, 2, 4.0)
    assert relief(runs.store, 1.0, now) == first_end + timedelta(days=30)
    assert relief(runs.store, 4.1, now) is None


def test_each_gpu_of_a_run_is_paid_for(runs: Finished) -> None:
    _, result, _ = runs.step()
    cost = CostSettings(per_hour=4.0)

    def on(device: str, processes: int) -> RunResult:
        return result.model_copy(update={"environment": {"device": device, "processes": str(processes)}})

    assert [price(on("cpu", 4), cost), price(on("Some GPU", 1), cost), price(on("Some GPU", 4), cost)] == [2.0, 2.0, 8.0]


def test_a_run_that_would_pass_the_cap_is_refused_before_anything_is_asked_for(runs: Finished) -> None:
    runs.step()
    runs.close_window()
    before = [len(runs.store.fetch(table)) for table in (RequestRow, RunEventRow, JournalRow, OutboxRow)]

    def ask(settings: Settings) -> None:
        require_budget(runs.store, runs.home, settings, MAILBOX, ALL_WAITING, runs.now)

    ask(capped(1_000.0))
    ask(Settings(cost=CostSettings(per_hour=4.0)))
    with pytest.raises(
        RunError, match=r"last 30 days cost 2\.00 USD: cost\.cap allows 1\.50; raise cost\.cap, or wait until"
    ):
        ask(capped(1.5))
    # The cap is not used up, but this run, at the rate of the last, would do it.
    with pytest.raises(RunError, match=r"this one would take about \d+\.\d\d: cost\.cap allows 2\.01"):
        ask(capped(2.01))
    assert [len(runs.store.fetch(table)) for table in (RequestRow, RunEventRow, JournalRow, OutboxRow)] == before


def test_a_run_that_was_asked_for_goes_on_and_where_nothing_waits_nothing_is_refused(runs: Finished) -> None:
    runs.step()
    with pytest.raises(NothingToDo):
        require_budget(runs.store, runs.home, capped(100.0), MAILBOX, ALL_WAITING, runs.now)
    runs.close_window()
    runs.request()
    require_budget(runs.store, runs.home, capped(0.01), MAILBOX, ALL_WAITING, runs.now)


def test_a_cap_without_a_price_is_refused() -> None:
    with pytest.raises(ConfigError, match="cap needs per_hour"):
        load(None, environment={}, overrides=["cost.cap=5"])
    with pytest.raises(ConfigError, match=r"cost\.currency"):
        load(None, environment={}, overrides=["cost.currency=dollars"])


def test_commands_show_what_was_spent_and_refuse_with_the_setting(tmp_path: Path) -> None:
    runs = Finished.at(tmp_path / "home", Settings(cost=CostSettings(per_hour=4.0)))
    # As if it had run today: commands know no other time.
    runs.now = utc_now() - timedelta(hours=5)
    asked, _, _ = runs.step()
    runs.close_window()
    runs.store.append([MailboxRow(MAILBOX, "arrival", runs.now)])
    runs.store.close()
    runs.home.config.write_text(json.dumps({"cost": {"per_hour": 4.0, "cap": 1.5}}))
    home = runs.home.root
    assert "Training cost 2.00 USD in the last 30 days (1 run, 0.5 h), of 1.50 allowed" in run(home, "status").stdout
    assert json.loads(run(home, "plan", "--json").stdout)["spent"]["cost"] == pytest.approx(2.0)
    shown = run(home, "runs", "show", asked.run_id)
    assert "100 steps in 30 min, 2.00 USD" in shown.stdout, shown.stderr
    refused = run(home, "retrain", "--confirm")
    assert refused.returncode == 1
    assert "cost.cap allows 1.50" in complaint(refused)
    assert len(json.loads(run(home, "runs", "--json").stdout)) == 1
