"""Decisions: recorded as a whole, once, with everything that the run measured; by hand too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipeline.config.settings import CostSettings, Settings
from pipeline.errors import RegistryError, RunError, StoreError
from pipeline.events import AdapterPromoted, Event, Topic
from pipeline.home import Home, sha256_file
from pipeline.runs.runfiles import read_losses, write_losses
from pipeline.store import Store
from pipeline.store.rows import (
    AdapterRow,
    JournalRow,
    LossRow,
    MetricRow,
    OutboxRow,
    Row,
    RunEventRow,
    RunResultRow,
    TrainedRow,
)
from registry.byhand import promote, reject, rollback
from registry.decide import decide_run, decision_of, fail_run, journal, recorded_receipt
from registry.gate import Outcome, Ruling
from registry.journal import Happening, Status, append_event
from registry.verify import recorded, verify
from tests.support.finished import START, Finished, flip_a_byte
from tests.support.lineage import MAILBOX


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Finished]:
    made = Finished.at(tmp_path / "home", Settings(cost=CostSettings(per_hour=2.0)))
    yield made
    made.store.close()


def promoted_events(store: Store) -> list[AdapterPromoted]:
    rows = store.fetch(OutboxRow, "topic = ?", [Topic.ADAPTER_PROMOTED.value], "ordinal")
    return [AdapterPromoted.model_validate_json(row.data) for row in rows]


def test_a_better_adapter_becomes_champion_and_everything_is_recorded(runs: Finished) -> None:
    asked, result, decision = runs.step(new=-0.2)
    assert (decision.status, decision.adapter_id) == ("promoted", asked.adapter_id)
    assert decision.verdict is not None and decision.verdict.outcome is Outcome.PROMOTED
    store = runs.store
    assert journal(store).champion(MAILBOX) == asked.adapter_id
    assert [row.event for row in store.fetch(JournalRow, order="ordinal")] == ["registered", "evaluated", "promoted"]
    (adapter,) = store.fetch(AdapterRow)
    assert (adapter.sha256, adapter.parent_adapter, adapter.base_id) == (result.adapter_sha256, None, "base")
    assert store.fetch(RunResultRow)[0].cost == pytest.approx(1.0)
    (metric,) = store.fetch(MetricRow)
    assert (metric.metric, metric.value, metric.ci_low, metric.window_to) == ("loss", 4.2, 4.1, 0)
    assert len(store.fetch(LossRow)) == len(read_losses(runs.home.run(asked.run_id) / "losses.parquet"))
    trained = store.fetch(TrainedRow)
    assert {row.chunk_id for row in trained} == {id_ for id_, chunk in runs.chunks.items() if chunk.split == "train"}
    assert {row.role for row in trained} == {"new"}
    (event,) = promoted_events(store)
    assert (event.adapter_id, event.sha256, event.journal_ordinal) == (asked.adapter_id, result.adapter_sha256, 3)
    assert (runs.home.root / event.path).is_dir()
    assert recorded_receipt(store, asked.run_id) == sha256_file(runs.home.run(asked.run_id) / "receipt.json")
    assert store.query("SELECT status FROM runs WHERE run_id = ?", [asked.run_id]) == [("promoted",)]
    assert store.query("SELECT status FROM adapters") == [("champion",)]


def test_a_second_run_is_compared_with_the_champion_on_old_windows_too(runs: Finished) -> None:
    first, _, _ = runs.step(new=-0.3)
    second, _, decision = runs.step(new=-0.2, old=-0.01)
    assert decision.status == "promoted"
    assert decision.verdict is not None
    figures = {rule.name: rule for rule in decision.verdict.rules}
    assert figures["new"].figure == pytest.approx(-0.2, abs=0.02)
    assert figures["old"].figure == pytest.approx(-0.01, abs=0.02)
    assert (figures["new"].n_threads, figures["old"].n_threads) == (8, 8)
    assert f"against {first.adapter_id}" in figures["old"].sentence
    state = journal(runs.store)
    assert state.champion(MAILBOX) == second.adapter_id
    assert state.adapter(first.adapter_id).status is Status.SUPERSEDED
    assert {row.role for row in runs.store.fetch(TrainedRow)} == {"new", "rehearsal"}


@pytest.mark.parametrize(
    ("new", "old", "status", "standing"),
    [
        (-0.2, +0.2, "rejected", Status.REJECTED),
        (+0.2, 0.0, "rejected", Status.REJECTED),
        (-0.2, +0.03, "abstained", Status.CANDIDATE),
    ],
)
def test_others_leave_the_champion_where_it_is(
    runs: Finished, new: float, old: float, status: str, standing: Status
) -> None:
    first, _, _ = runs.step()
    second, _, decision = runs.step(new=new, old=old)
    assert decision.status == status
    assert decision.reasons
    state = journal(runs.store)
    assert state.champion(MAILBOX) == first.adapter_id
    assert state.adapter(second.adapter_id).status is standing
    assert len(promoted_events(runs.store)) == 1


def everything(store: Store) -> dict[str, list[Row]]:
    kinds: tuple[type[Row], ...] = (
        AdapterRow,
        JournalRow,
        LossRow,
        MetricRow,
        OutboxRow,
        RunEventRow,
        RunResultRow,
        TrainedRow,
    )
    return {kind.TABLE: list(store.fetch(kind)) for kind in kinds}


def test_deciding_again_is_no_second_decision(runs: Finished) -> None:
    asked, result, decision = runs.step()
    before = everything(runs.store)
    receipt = (runs.home.run(asked.run_id) / "receipt.json").read_bytes()
    later = runs.now.replace(year=2027)
    again = decide_run(runs.store, runs.home, asked, result, runs.settings, later, "gate")
    assert again == decision
    assert fail_run(runs.store, asked, "too late", later, "gate") == decision
    assert everything(runs.store) == before
    assert (runs.home.run(asked.run_id) / "receipt.json").read_bytes() == receipt


def test_a_crash_at_the_commit_leaves_nothing_and_the_next_try_everything(
    runs: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.close_window()
    asked = runs.request()
    result = runs.finish(asked, new=-0.2)
    before = everything(runs.store)

    def crash(rows: Sequence[Row]) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(runs.store, "append", crash)
        with pytest.raises(StoreError):
            runs.decide(asked, result)
    assert everything(runs.store) == before
    assert decision_of(runs.store, asked) is None
    assert runs.decide(asked, result).status == "promoted"
    assert recorded_receipt(runs.store, asked.run_id) == sha256_file(runs.home.run(asked.run_id) / "receipt.json")


def test_losses_are_stored_once_however_often_they_are_computed(runs: Finished) -> None:
    first, _, _ = runs.step()
    runs.close_window()
    asked = runs.request()
    result = runs.finish(asked, new=-0.2)
    path = runs.home.run(asked.run_id) / "losses.parquet"
    old = [loss for loss in read_losses(runs.home.run(first.run_id) / "losses.parquet")]
    write_losses(path, [*read_losses(path), *old, *old])
    runs.decide(asked, result)
    keys = [(row.adapter_id, row.checkpoint, row.chunk_id) for row in runs.store.fetch(LossRow)]
    assert len(keys) == len(set(keys))


def test_what_is_not_whole_is_not_decided(runs: Finished) -> None:
    runs.close_window()
    asked = runs.request()
    result = runs.finish(asked, new=-0.2)
    weights = runs.home.adapter(asked.adapter_id) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    flip_a_byte(weights)
    with pytest.raises(RegistryError, match="is not what run"):
        runs.decide(asked, result)
    weights.write_bytes(whole)
    (runs.home.run(asked.run_id) / "eval_results.json").write_text('{"version": 1}')
    with pytest.raises(RunError, match=r"eval_results\.json cannot be read"):
        runs.decide(asked, result)
    assert not runs.store.fetch(JournalRow)


def test_a_failed_run_is_decided_and_its_adapter_never_serves(runs: Finished) -> None:
    runs.close_window()
    asked = runs.request()
    decision = fail_run(runs.store, asked, "out of memory", START, "gate")
    assert (decision.status, decision.reasons) == ("failed", ("out of memory",))
    assert decision_of(runs.store, asked) == decision
    assert runs.store.query("SELECT status FROM runs") == [("failed",)]
    with pytest.raises(RegistryError, match="is failed and cannot be promoted"):
        promote(runs.store, runs.home, MAILBOX, asked.adapter_id, "", "owner", START)


def test_another_champion_than_the_requests_is_abstained_from(runs: Finished) -> None:
    first, _, _ = runs.step()
    second, _, _ = runs.step()
    runs.close_window()
    asked = runs.request()
    result = runs.finish(asked, new=-0.2)
    rollback(runs.store, runs.home, MAILBOX, None, "it was rude", "owner", runs.now)
    decision = runs.decide(asked, result)
    assert decision.status == "abstained"
    assert decision.reasons == (f"measured against {second.adapter_id}, but the champion is now {first.adapter_id}",)


def test_what_continues_a_tainted_adapter_is_not_promoted(runs: Finished) -> None:
    first, _, _ = runs.step()
    runs.close_window()
    asked = runs.request()
    result = runs.finish(asked, new=-0.2)
    runs.store.append(
        [
            append_event(
                journal(runs.store),
                mailbox=MAILBOX,
                adapter_id=first.adapter_id,
                event=Happening.TAINTED,
                reason="a mail was erased",
                actor="owner",
                at=runs.now,
            )
        ]
    )
    decision = runs.decide(asked, result)
    assert decision.status != "promoted"
    assert decision.verdict is not None
    (objection,) = [rule for rule in decision.verdict.rules if rule.name == "lineage"]
    assert objection.ruling is Ruling.FAIL
    assert first.adapter_id in objection.sentence


def test_by_hand_a_person_overrules_and_returns(runs: Finished) -> None:
    first, _, _ = runs.step()
    second, _, decision = runs.step(new=-0.2, old=+0.03)
    assert decision.status == "abstained"
    promote(runs.store, runs.home, MAILBOX, second.adapter_id, "I have read its answers", "owner", runs.now)
    assert journal(runs.store).champion(MAILBOX) == second.adapter_id
    entry = rollback(runs.store, runs.home, MAILBOX, None, "and changed my mind", "owner", runs.now)
    assert entry.adapter_id == first.adapter_id
    assert journal(runs.store).champion(MAILBOX) == first.adapter_id
    ordinals = [event.journal_ordinal for event in promoted_events(runs.store)]
    assert [event.adapter_id for event in promoted_events(runs.store)] == [
        first.adapter_id,
        second.adapter_id,
        first.adapter_id,
    ]
    assert ordinals == sorted(set(ordinals))
    with pytest.raises(RegistryError, match=f"rolled back to can be: {second.adapter_id}"):
        rollback(runs.store, runs.home, MAILBOX, first.adapter_id, "", "owner", runs.now)


def test_returning_twice_goes_further_back_and_never_to_what_was_left(runs: Finished) -> None:
    first, second, third = (runs.step()[0].adapter_id for _ in range(3))
    back = [rollback(runs.store, runs.home, MAILBOX, None, "worse", "owner", runs.now).adapter_id for _ in range(2)]
    assert back == [second, first]
    with pytest.raises(RegistryError, match=f"but those that were left; name one to have it back: {third}, {second}"):
        rollback(runs.store, runs.home, MAILBOX, None, "worse still", "owner", runs.now)
    assert rollback(runs.store, runs.home, MAILBOX, third, "it was not", "owner", runs.now).adapter_id == third
    assert journal(runs.store).before(MAILBOX) == (first,)


def test_by_hand_a_candidate_is_rejected_and_a_damaged_one_never_serves(runs: Finished) -> None:
    runs.step()
    second, _, _ = runs.step(new=-0.2, old=+0.03)
    flip_a_byte(runs.home.adapter(second.adapter_id) / "adapter_model.safetensors")
    before = len(runs.store.fetch(JournalRow))
    with pytest.raises(RegistryError, match="was changed, so"):
        promote(runs.store, runs.home, MAILBOX, second.adapter_id, "", "owner", runs.now)
    assert len(runs.store.fetch(JournalRow)) == before
    reject(runs.store, MAILBOX, second.adapter_id, "dull", "owner", runs.now)
    assert journal(runs.store).adapter(second.adapter_id).status is Status.REJECTED


def test_the_view_of_adapters_agrees_with_the_fold(runs: Finished) -> None:
    runs.step()
    runs.step()
    runs.step(new=-0.2, old=+0.2)
    runs.step(new=-0.2, old=+0.03)
    rollback(runs.store, runs.home, MAILBOX, None, "", "owner", runs.now)
    seen = dict(runs.store.query("SELECT adapter_id, status FROM adapters"))
    assert seen == {id_: state.status.value for id_, state in journal(runs.store).adapters.items()}
    assert sorted(seen.values()) == ["candidate", "champion", "rejected", "superseded"]


def test_the_detail_of_a_verdict_is_json_that_names_the_checkpoint(runs: Finished) -> None:
    asked, _, _ = runs.step()
    row = runs.store.fetch(RunEventRow, "run_id = ? AND status = 'promoted'", [asked.run_id])[0]
    detail = json.loads(row.detail)
    assert detail["checkpoint"] == "step-000100"
    assert detail["verdict"]["outcome"] == "promoted"


def test_the_event_is_read_back_as_it_was_written(runs: Finished) -> None:
    runs.step()
    (row,) = runs.store.fetch(OutboxRow, "topic = ?", [Topic.ADAPTER_PROMOTED.value])
    event = Event(id=row.event_id, type=Topic(row.topic), time=row.at, key=row.key, data=row.data)
    assert isinstance(event.payload(), AdapterPromoted)
    assert event.id == f"adapter.promoted/{MAILBOX}/3"


@pytest.mark.parametrize("lost", [1, 7, 300])
def test_of_a_torn_last_record_of_the_journal_nothing_is_left_and_the_run_is_decided_again(
    runs: Finished, tmp_path: Path, lost: int
) -> None:
    first, _, _ = runs.step()
    runs.store.query("CHECKPOINT")
    runs.close_window()
    asked = runs.request()
    result = runs.finish(asked, new=-0.2)
    runs.decide(asked, result)
    shutil.copytree(runs.home.root, tmp_path / "torn")
    (log,) = (tmp_path / "torn").glob("store.duckdb.wal")
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - lost)
    torn = Home(tmp_path / "torn")
    with Store.open(torn, None, None) as store:
        assert journal(store).champion(MAILBOX) == first.adapter_id
        assert asked.adapter_id not in journal(store).adapters
        assert decision_of(store, asked) is None
        assert decide_run(store, torn, asked, result, runs.settings, runs.now, "gate").status == "promoted"
        assert journal(store).champion(MAILBOX) == asked.adapter_id
        assert verify(torn, asked.run_id, recorded(store, asked.run_id)) == []
