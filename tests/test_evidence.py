"""Evidence: the right pairs on the right windows, exclusions and the choosing half left out, nothing guessed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import RegistryError, RunError
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import read_losses, write_losses
from pipeline.sampling.halves import selects
from registry.evidence import gather
from tests.support.finished import BASE, Finished


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Finished]:
    made = Finished.at(tmp_path / "home")
    yield made
    made.store.close()


def losses_of(runs: Finished, asked: RunRequest) -> Path:
    return runs.home.run(asked.run_id) / "losses.parquet"


def test_the_first_run_is_compared_with_the_base_on_its_new_windows(runs: Finished) -> None:
    runs.close_window(val=5)
    runs.close_window(val=3)
    asked = runs.request()
    seen = gather(runs.home, asked, runs.finish(asked, new=-0.25), None)
    assert (seen.challenger, seen.champion, seen.champion_now) == (asked.adapter_id, BASE, BASE)
    assert (seen.old, seen.drift, seen.new.reference) == (None, None, BASE)
    assert (len(seen.new.threads), seen.new.n_threads, seen.new.unpaired) == (16, 8, 0)
    assert set(seen.new.threads) == {f"val0-{i}" for i in range(5)} | {f"val1-{i}" for i in range(3)}
    assert sum(seen.new.differences) / sum(seen.new.tokens) == pytest.approx(-0.25, abs=0.02)


def test_old_windows_are_those_of_the_champion_and_the_best_is_asked_about_drift(runs: Finished) -> None:
    first_asked, first, _ = runs.step(new=-0.3)
    best = runs.lineage.parent
    second_asked, _, decision = runs.step(new=-0.2, old=0.005)
    assert decision.status == "promoted"
    runs.close_window(val=4)
    asked = runs.request(best=best)
    seen = gather(runs.home, asked, runs.finish(asked, new=-0.1, old=0.01), second_asked.adapter_id)
    assert seen.champion == seen.champion_now == second_asked.adapter_id
    assert seen.old is not None and seen.drift is not None
    assert {thread.partition("-")[0] for thread in seen.new.threads} == {"val2"}
    assert {thread.partition("-")[0] for thread in seen.old.threads} == {"val0", "val1"}
    assert seen.drift.reference == first.adapter_id == first_asked.adapter_id
    assert seen.drift.threads, "the best adapter was scored on window 0"


def test_excluded_threads_and_chunks_are_no_evidence(runs: Finished) -> None:
    runs.close_window(val=6)
    runs.lineage.excluded += [("val0-0", None, "bridge"), ("val0-1", "val0-1:w0:1", "near duplicate")]
    asked = runs.request()
    seen = gather(runs.home, asked, runs.finish(asked, new=-0.2), None)
    assert len(seen.new.threads) == 6 * 2 - 3
    assert "val0-0" not in seen.new.threads
    assert seen.new.threads.count("val0-1") == 1


def test_once_val_is_large_only_the_half_that_did_not_choose_judges(runs: Finished) -> None:
    runs.close_window(val=39)
    asked = runs.request()
    seen = gather(runs.home, asked, runs.finish(asked, new=-0.2), None)
    assert seen.new.n_threads == 39
    runs.close_window(val=1)
    asked = runs.request()
    seen = gather(runs.home, asked, runs.finish(asked, new=-0.2), None)
    assert 5 < seen.new.n_threads < 35
    assert not any(selects(thread) for thread in seen.new.threads)


def test_a_reference_without_a_loss_or_with_another_measure_is_unpaired(runs: Finished) -> None:
    runs.close_window(val=6)
    asked = runs.request()
    result = runs.finish(asked, new=-0.2)
    losses = read_losses(losses_of(runs, asked))
    of_base = [loss for loss in losses if loss.adapter_id == BASE and loss.split == "val"]
    others = [loss for loss in losses if loss not in of_base]
    changed = [replace(of_base[0], eval_version=2), replace(of_base[1], n_bytes=7), *of_base[3:]]
    write_losses(losses_of(runs, asked), [*others, *changed])
    seen = gather(runs.home, asked, result, None)
    assert (len(seen.new.threads), seen.new.unpaired) == (9, 3)


def test_of_several_checkpoints_of_the_champion_the_one_that_serves_counts(runs: Finished) -> None:
    first, result, _ = runs.step(new=-0.3)
    runs.close_window()
    asked = runs.request()
    later = runs.finish(asked, new=-0.2)
    checkpoints = {loss.checkpoint for loss in read_losses(runs.home.run(asked.run_id) / "known_losses.parquet")}
    assert len(checkpoints) == 3, "the base's, and two of the champion"
    seen = gather(runs.home, asked, later, first.adapter_id)
    assert seen.old is not None
    assert sum(seen.old.differences) / sum(seen.old.tokens) == pytest.approx(0.0, abs=0.02)
    (runs.home.run(first.run_id) / "result.json").unlink()
    with pytest.raises(RegistryError, match="losses at several checkpoints"):
        gather(runs.home, asked, later, result.adapter_id)


def test_a_run_without_losses_of_its_own_is_refused(runs: Finished) -> None:
    runs.close_window()
    asked = runs.request()
    result = runs.finish(asked, new=-0.2)
    losses = read_losses(losses_of(runs, asked))
    write_losses(losses_of(runs, asked), [loss for loss in losses if loss.checkpoint != result.checkpoint])
    with pytest.raises(RegistryError, match="left no loss of"):
        gather(runs.home, asked, result, None)
    losses_of(runs, asked).unlink()
    with pytest.raises(RunError, match=r"losses\.parquet"):
        gather(runs.home, asked, result, None)


def test_test_split_losses_never_reach_the_gate(runs: Finished) -> None:
    runs.close_window(val=6, test=20)
    asked = runs.request()
    seen = gather(runs.home, asked, runs.finish(asked, new=-0.2), None)
    assert {thread[:3] for thread in seen.new.threads} == {"val"}
