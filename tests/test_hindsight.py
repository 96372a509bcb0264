"""Another policy over a real history: what it would have decided, who would have served, and from where on nobody knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.config.settings import CostSettings, GateSettings, Settings
from pipeline.errors import ConfigError, NothingToDo
from pipeline.store.rows import JournalRow, MailboxRow, RunEventRow
from registry.byhand import promote, reject, rollback
from registry.decide import fail_run
from registry.decided import decided
from registry.explain import explain
from registry.hindsight import Hindsight, hindsight, tally
from registry.policies import read_policy
from registry.verify import recorded, verify
from streams.cli.commands import cli
from tests.conftest import REPOSITORY
from tests.support.finished import Finished
from tests.support.lineage import MAILBOX

POLICIES = REPOSITORY / "configs" / "policies"
STRICT = GateSettings(max_loss=0.001)
"""Under which hardly any harm to old windows is allowed, so that a second run abstains."""
WIDTH = 120


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Finished]:
    made = Finished.at(tmp_path / "home")
    yield made
    made.store.close()


def under(runs: Finished, gate: GateSettings) -> Hindsight:
    return hindsight(runs.store, runs.home, MAILBOX, "asked", gate)


def test_the_policy_that_decided_decides_the_same_again(runs: Finished) -> None:
    for new, old in [(-0.2, 0.0), (-0.2, 0.0), (-0.2, 0.2), (-0.1, 0.025), (0.2, 0.0), (-0.1, -0.01)]:
        runs.step(new=new, old=old)
    found = under(runs, runs.settings.gate)
    assert {entry.then for entry in found.entries} == {"promoted", "rejected", "abstained"}
    assert [entry.under for entry in found.entries] == [entry.then for entry in found.entries]
    assert [entry.served for entry in found.entries] == [entry.served_then for entry in found.entries]
    assert not any(entry.changed_by or entry.diverged or entry.note for entry in found.entries)
    assert tally(found.verdicts) == {"verdicts": 6, "same": 6, "changed": 0, "unreadable": 0, "diverged": 0}
    assert found.diverges_at is None


def test_what_spoke_against_a_run_is_held_against_the_other_policys_limits(tmp_path: Path) -> None:
    runs = Finished.at(tmp_path / "home", Settings(cost=CostSettings(per_hour=2.0)))
    runs.close_window()
    asked = runs.request()
    result = runs.finish(asked, new=-0.2)
    evidence = runs.home.run(asked.run_id) / "eval_results.json"
    left = {"name": "safety", "figure": 0.01, "low": 0.001, "high": 0.04, "n": 200}
    evidence.write_text(json.dumps({**json.loads(evidence.read_text()), "gate_evidence": [left]}))
    decision = runs.decide(asked, result)
    assert (decision.status, decision.reasons[0][:7]) == ("rejected", "safety:")
    for limits, outcome, changed in [
        ({}, "rejected", ()),
        ({"safety": 0.05}, "promoted", ("safety",)),
        ({"safety": None, "cost": 5}, "promoted", ("safety", "cost")),
        ({"safety": None, "cost": 0.5}, "rejected", ("safety", "cost")),
    ]:
        (entry,) = under(runs, GateSettings.model_validate({"limits": limits})).entries
        assert (entry.under, entry.changed_by) == (outcome, changed), limits
    told = explain(runs.store, runs.home, decided(runs.store, runs.home, asked), runs.settings.gate)
    assert told.differences == ()
    assert verify(runs.home, asked.run_id, recorded(runs.store, asked.run_id)) == []
    evidence.write_text(evidence.read_text().replace("0.001", "0.000"))
    told = explain(runs.store, runs.home, decided(runs.store, runs.home, asked), runs.settings.gate)
    assert told.differences == ("safety",)
    runs.store.close()


def test_from_the_first_other_champion_on_history_is_marked_as_another(runs: Finished) -> None:
    first, second, third = (runs.step()[0] for _ in range(3))
    found = under(runs, STRICT)
    assert [entry.under for entry in found.entries] == ["promoted", "abstained", "abstained"]
    assert [entry.changed_by for entry in found.entries[:2]] == [(), ("old",)]
    assert [entry.diverged for entry in found.entries] == [False, False, True]
    assert [entry.served for entry in found.entries] == [first.adapter_id] * 3
    assert [entry.served_then for entry in found.entries] == [first.adapter_id, second.adapter_id, third.adapter_id]
    note = f"it continues {second.adapter_id} and challenges it, which would not have served then"
    assert found.entries[2].note == note
    assert found.diverges_at == found.entries[2]
    assert tally(found.verdicts) == {"verdicts": 3, "same": 1, "changed": 1, "unreadable": 0, "diverged": 1}


def test_a_policy_that_would_have_promoted_what_was_not(runs: Finished) -> None:
    runs.step()
    second, _, decision = runs.step(new=-0.2, old=0.2)
    assert decision.status == "rejected"
    runs.step()
    found = under(runs, GateSettings(max_loss=0.5))
    assert (found.entries[1].under, found.entries[1].served) == ("promoted", second.adapter_id)
    assert found.entries[2].diverged and found.entries[2].served == second.adapter_id
    assert found.entries[2].served_then != second.adapter_id


def test_hands_decide_alike_under_any_policy(runs: Finished) -> None:
    first, _, _ = runs.step()
    second, _, _ = runs.step(old=0.2)
    promote(runs.store, runs.home, MAILBOX, second.adapter_id, "I read it", "ann", runs.now)
    rollback(runs.store, runs.home, MAILBOX, first.adapter_id, "back", "ann", runs.now)
    third, _, _ = runs.step(new=-0.1, old=0.025)
    reject(runs.store, MAILBOX, third.adapter_id, "no", "ben", runs.now)
    found = under(runs, STRICT)
    assert [entry.then for entry in found.entries] == [
        "promoted",
        "rejected",
        "by hand",
        "by hand",
        "abstained",
        "by hand",
    ]
    assert [entry.served for entry in found.entries[2:4]] == [second.adapter_id, first.adapter_id]
    assert [entry.note for entry in found.entries if entry.run_id is None] == ["I read it", "back", "no"]
    assert not any(entry.diverged for entry in found.entries)
    assert tally(found.verdicts)["verdicts"] == 3


def test_a_return_to_what_would_never_have_served_is_told(runs: Finished) -> None:
    first = runs.step()[0]
    second = runs.step()[0]
    third = runs.step()[0]
    rollback(runs.store, runs.home, MAILBOX, second.adapter_id, "back", "ann", runs.now)
    found = under(runs, STRICT)
    assert [entry.adapter_id for entry in found.entries][2:] == [third.adapter_id, second.adapter_id]
    assert found.entries[3].note == "nobody could have returned to it: it would never have served"
    assert (found.entries[3].diverged, found.entries[3].served) == (True, first.adapter_id)
    assert found.diverges_at == found.entries[2]


def test_a_failed_run_stays_failed_and_is_no_verdict(runs: Finished) -> None:
    runs.step()
    runs.close_window()
    asked = runs.request()
    fail_run(runs.store, asked, "the disk was full", runs.now, "gate")
    found = under(runs, STRICT)
    assert (found.entries[1].then, found.entries[1].under, found.entries[1].diverged) == ("failed", "failed", False)
    assert tally(found.verdicts)["verdicts"] == 1


def test_what_cannot_be_read_is_told_and_promotes_nobody(runs: Finished) -> None:
    first, _, _ = runs.step()
    second, _, _ = runs.step()
    (runs.home.run(second.run_id) / "losses.parquet").unlink()
    entry = under(runs, runs.settings.gate).entries[1]
    assert (entry.then, entry.under, entry.served) == ("promoted", None, first.adapter_id)
    assert "the evidence cannot be read" in entry.note and "losses.parquet" in entry.note


def test_nothing_is_written_and_nothing_is_no_history(runs: Finished) -> None:
    with pytest.raises(NothingToDo, match="no run of main has been decided yet"):
        under(runs, STRICT)
    runs.step()
    before = runs.store.fetch(JournalRow), runs.store.fetch(RunEventRow)
    under(runs, STRICT)
    assert (runs.store.fetch(JournalRow), runs.store.fetch(RunEventRow)) == before


def test_the_shipped_policies_are_policies_and_the_default_is_the_default() -> None:
    found = {path.stem: read_policy(path) for path in POLICIES.glob("*.yaml")}
    assert set(found) == {"default", "lenient", "strict"}
    assert found["default"].gate == GateSettings()
    for name in found:
        written = (POLICIES / f"{name}.yaml").read_text()
        assert all(f"  {field}:" in written for field in GateSettings.model_fields), name
    by_strength = [found[name].gate for name in ("strict", "default", "lenient")]
    for field in ("max_loss", "max_drift"):
        assert [getattr(gate, field) for gate in by_strength] == sorted(getattr(gate, field) for gate in by_strength)
    assert [gate.confidence for gate in by_strength] == sorted((g.confidence for g in by_strength), reverse=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gate: {max_loss: 0.1}\nseed: 3\n", "seed is no part of a policy"),
        ("{}\n", "holds no gate: group"),
        ("gate: {max_lose: 0.1}\n", "max_lose"),
        ("gate: {confidence: 2}\n", "confidence"),
        ("gate: [\n", "policy.yaml"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_policy(path)


def test_what_a_policy_leaves_out_has_its_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILTIDE_GATE__MAX_DRIFT", "0.5")
    path = tmp_path / "mine.yaml"
    path.write_text("gate: {max_loss: 0.1}\n")
    policy = read_policy(path)
    assert (policy.name, policy.gate) == ("mine", GateSettings(max_loss=0.1))


def test_the_command_puts_both_histories_side_by_side(runs: Finished) -> None:
    for _ in range(3):
        runs.step()
    runs.store.append([MailboxRow(MAILBOX, "arrival", runs.now)])
    runs.store.close()
    asked = ["--home", str(runs.home.root), "registry", "what-if", str(POLICIES / "strict.yaml")]
    done = CliRunner().invoke(cli, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    head = next(line for line in done.stdout.splitlines() if line.startswith(" decided"))
    assert "under strict" in head and len(head.rstrip()) <= WIDTH
    table = [line for line in done.stdout.splitlines() if line.startswith(" 2026-")]
    assert len(table) == 3 and max(len(line.rstrip()) for line in table) <= WIDTH
    assert "3 verdicts: " in done.stdout
    document = json.loads(CliRunner().invoke(cli, [*asked, "--json"]).stdout)
    assert (document["policy"], document["gate"]["max_loss"]) == ("strict", 0.015)
    assert document["tally"]["verdicts"] == len(document["entries"]) == 3
