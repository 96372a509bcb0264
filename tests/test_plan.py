"""Plans tell what the run then does; preparing a run writes it down once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.settings import CostSettings, ReplaySettings, TrainSettings
from pipeline.domain import Bucket, Role, Split
from pipeline.errors import NothingToDo, RunError, ShardError
from pipeline.runs.plan import EXCLUSIONS, MANIFEST, SCHEDULE, plan_run, prepare_run
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import Exclusions, write_exclusions
from pipeline.sampling.coverage import Reach
from tests.support.lineage import MAILBOX, Lineage, make_chunk, run_settings

NOTHING = Exclusions(frozenset(), frozenset())


def second_run(root: Path) -> tuple[Lineage, RunRequest]:
    """A lineage that trained eight chunks of window 0, and the request for window 1."""
    replay = ReplaySettings(ratio=0.25, max_share=0.2)
    lineage = Lineage.at(root, run_settings(replay=replay, train=TrainSettings(epochs=3, batch_tokens=400, accumulation=2)))
    lineage.close(
        [make_chunk(f"t{place}", 0, sender=f"s{place % 3}") for place in range(8)] + [make_chunk("v", 0, split=Split.VAL)]
    )
    lineage.finish(lineage.request())
    lineage.close([make_chunk("n1", 1, 0, tokens=200), make_chunk("n1", 1, 1, tokens=600), make_chunk("n2", 1, tokens=400)])
    return lineage, lineage.request()


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_plan_writes_nothing_and_is_what_the_run_does(tmp_path: Path) -> None:
    lineage, asked = second_run(tmp_path)
    before = tree(tmp_path)
    plan = plan_run(lineage.home, asked, NOTHING)
    assert tree(tmp_path) == before

    assert (plan.run_id, plan.mailbox, plan.windows) == (asked.run_id, MAILBOX, (1,))
    assert plan.new == Reach(chunks=3, threads=2, senders=1)
    assert plan.candidates == Reach(chunks=8, threads=8, senders=3)
    assert plan.rehearsal == Reach(chunks=8, threads=8, senders=3)
    assert plan.tokens_per_epoch == (1500, 1500, 1500)
    assert plan.tokens == 4500
    assert plan.rehearsal_share == pytest.approx(0.2)
    assert dict(plan.buckets) == {Bucket.SHORT: 5, Bucket.MEDIUM: 1, Bucket.LONG: 0, Bucket.VERYLONG: 0}
    assert (plan.seconds, plan.cost) == (None, None)
    assert (plan.longest_chunk, plan.largest_batch) == (600, 600)

    manifest, schedule = lineage.prepare(asked)
    assert (plan.batches, plan.steps) == (schedule.n_batches, schedule.steps(2))
    assert plan.new.chunks == manifest.of(Role.NEW).num_rows
    assert plan.tokens == sum(schedule.tokens(role) for role in Role)


def test_time_and_cost_follow_from_a_measured_rate(tmp_path: Path) -> None:
    lineage, asked = second_run(tmp_path)
    plan = plan_run(lineage.home, asked, NOTHING, tokens_per_second=10.0, cost=CostSettings(per_hour=8.0, currency="CHF"))
    assert plan.seconds == 450.0
    assert plan_run(lineage.home, asked, NOTHING, tokens_per_second=10.0, seconds_beside=30.0).seconds == 480.0
    assert plan.cost == pytest.approx(1.0)
    assert plan.currency == "CHF"


def test_a_plan_leaves_out_what_is_excluded(tmp_path: Path) -> None:
    lineage, asked = second_run(tmp_path)
    plan = plan_run(lineage.home, asked, Exclusions(frozenset({"n2", "t0"}), frozenset({"n1:w1:0", "t1:w0:0"})))
    assert plan.new == Reach(chunks=1, threads=1, senders=1)
    assert plan.candidates.chunks == 6


def test_a_restarted_run_finds_what_it_wrote_or_writes_the_same(tmp_path: Path) -> None:
    lineage, asked = second_run(tmp_path)
    folder = lineage.home.run(asked.run_id)
    first = prepare_run(lineage.home, asked, folder)
    written = {name: (folder / name).read_bytes() for name in (MANIFEST, SCHEDULE)}
    assert prepare_run(lineage.home, asked, folder) == first
    for missing in ([SCHEDULE], [MANIFEST], [MANIFEST, SCHEDULE]):
        for name in missing:
            (folder / name).unlink()
        assert prepare_run(lineage.home, asked, folder) == first
        assert {name: (folder / name).read_bytes() for name in written} == written


def test_two_homes_with_equal_shards_write_equal_runs(tmp_path: Path) -> None:
    runs = []
    for name in ("here", "there"):
        lineage, asked = second_run(tmp_path / name)
        lineage.prepare(asked)
        folder = lineage.home.run(asked.run_id)
        runs.append([asked.run_id, (folder / MANIFEST).read_bytes(), (folder / SCHEDULE).read_bytes()])
    assert runs[0] == runs[1]


def test_files_of_another_request_are_refused(tmp_path: Path) -> None:
    lineage, asked = second_run(tmp_path)
    folder = lineage.home.run(asked.run_id)
    lineage.prepare(asked)
    other = asked.model_copy(update={"settings": asked.settings.model_copy(update={"seed": 7})})
    with pytest.raises(RunError, match=f"is of run {asked.run_id}, not of {other.run_id}"):
        prepare_run(lineage.home, other, folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(RunError, match=r"schedule\.parquet is of run"):
        prepare_run(lineage.home, other, folder)


def test_exclusions_other_than_those_requested_are_refused(tmp_path: Path) -> None:
    lineage, asked = second_run(tmp_path)
    folder = lineage.home.run(asked.run_id)
    write_exclusions(folder / EXCLUSIONS, [("n1", None, "bridge")])
    with pytest.raises(RunError, match=r"exclusions\.parquet"):
        prepare_run(lineage.home, asked, folder)
    (folder / EXCLUSIONS).unlink()
    with pytest.raises(RunError, match=r"exclusions\.parquet"):
        prepare_run(lineage.home, asked, folder)
    assert not (folder / MANIFEST).exists()


def test_damage_is_found_before_anything_is_written(tmp_path: Path) -> None:
    lineage, asked = second_run(tmp_path)
    path = lineage.home.shard(MAILBOX, 1) / "chunks.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ShardError):
        plan_run(lineage.home, asked, NOTHING)
    with pytest.raises(ShardError):
        lineage.prepare(asked)
    lineage.coverage.write_bytes(b"")
    with pytest.raises(RunError, match=r"coverage\.parquet"):
        plan_run(lineage.home, asked, NOTHING)
    assert not (lineage.home.run(asked.run_id) / MANIFEST).exists()


def test_windows_without_train_chunks_are_nothing_to_do(tmp_path: Path) -> None:
    lineage = Lineage.at(tmp_path)
    lineage.close([make_chunk("v", 0, split=Split.VAL)])
    asked = lineage.request()
    plan = plan_run(lineage.home, asked, NOTHING)
    assert (plan.new.chunks, plan.steps, plan.tokens, plan.rehearsal_share) == (0, 0, 0, 0.0)
    with pytest.raises(NothingToDo, match="no train chunk"):
        lineage.prepare(asked)
