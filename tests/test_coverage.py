"""Coverage: a lineage knows what it has trained, and by that reaches everything in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.settings import ReplaySettings, TrainSettings
from pipeline.domain import Role, Split
from pipeline.errors import RunError
from pipeline.home import sha256_file
from pipeline.runs.runfiles import Exclusions
from pipeline.sampling.coverage import (
    Reach,
    coverage_after,
    read_coverage,
    replay_coverage,
    windows_trained,
    write_coverage,
)
from pipeline.sampling.rehearsal import quota
from tests.support.lineage import Lineage, make_chunk, run_settings


def counts(coverage: pa.Table) -> dict[str, tuple[int, int, int, int]]:
    columns = ("new_times", "rehearsal_times", "run_new", "run_rehearsal")
    return {row["chunk_id"]: tuple(row[name] for name in columns) for row in coverage.to_pylist()}


def test_counts_grow_along_the_lineage_and_the_run_s_own_stand_apart(tmp_path: Path) -> None:
    lineage = Lineage.at(tmp_path)
    lineage.close([make_chunk("a", 0), make_chunk("b", 0)])
    lineage.finish(lineage.request())
    assert counts(read_coverage(lineage.coverage)) == {"a:w0:0": (2, 0, 2, 0), "b:w0:0": (2, 0, 2, 0)}

    lineage.close([make_chunk("c", 1, place) for place in range(8)])
    lineage.finish(lineage.request())
    found = counts(read_coverage(lineage.coverage))
    assert found["a:w0:0"] == found["b:w0:0"] == (2, 2, 0, 2)
    assert all(found[f"c:w1:{place}"] == (2, 0, 2, 0) for place in range(8))
    assert windows_trained(read_coverage(lineage.coverage)) == {0, 1}


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_counts_are_those_of_the_schedule_up_to_the_chosen_step(data: st.DataObject) -> None:
    """At any step and accumulation, over a lineage of three runs, against a plain count of the batches."""
    train = TrainSettings(batch_tokens=data.draw(st.sampled_from([100, 300])), accumulation=data.draw(st.integers(1, 3)))
    expected: dict[Role, Counter[str]] = {role: Counter() for role in Role}
    with TemporaryDirectory() as folder:
        lineage = Lineage.at(Path(folder), run_settings(train=train, replay=ReplaySettings(ratio=1, max_share=0.5)))
        for window in range(3):
            lineage.close([make_chunk(f"t{place}", window, place) for place in range(data.draw(st.integers(1, 6)))])
            asked = lineage.request()
            _, schedule = lineage.prepare(asked)
            step = data.draw(st.integers(1, schedule.steps(train.accumulation)))
            lineage.finish(asked, step)
            for batch in list(schedule.batches())[: step * train.accumulation]:
                expected[batch.role].update(batch.chunk_ids)
            found = counts(read_coverage(lineage.coverage))
            assert {chunk_id: times[0] for chunk_id, times in found.items() if times[0]} == expected[Role.NEW]
            assert {chunk_id: times[1] for chunk_id, times in found.items() if times[1]} == expected[Role.REHEARSAL]


def test_a_checkpoint_chosen_early_leaves_its_unreached_windows_new(tmp_path: Path) -> None:
    lineage = Lineage.at(tmp_path, run_settings(train=TrainSettings(batch_tokens=100)))
    for window in range(2):
        lineage.close([make_chunk("t", window, place) for place in range(2)])
    _, schedule = lineage.prepare(asked := lineage.request())
    reached = [batch.chunk_ids[0] for batch in schedule.batches()][:3]
    lineage.finish(asked, 3)
    missed = {f"t:w{window}:{place}" for window in range(2) for place in range(2)} - set(reached)
    assert lineage.trained == {0, 1} - {int(chunk_id[3]) for chunk_id in missed}

    manifest, _ = lineage.prepare(lineage.request())
    again = set(manifest.of(Role.NEW)["chunk_id"].to_pylist())
    assert missed < again
    assert not again & set(manifest.of(Role.REHEARSAL)["chunk_id"].to_pylist())
    assert {int(chunk_id[3]) for chunk_id in again} == {0, 1} - lineage.trained
    lineage.finish(lineage.request())
    assert lineage.trained == {0, 1}


def test_a_window_without_train_chunks_is_trained_by_being_taken(tmp_path: Path) -> None:
    lineage = Lineage.at(tmp_path)
    lineage.close([make_chunk("a", 0)])
    lineage.close([make_chunk("v", 1, split=Split.VAL)])
    lineage.finish(lineage.request())
    assert lineage.trained == {0, 1}
    lineage.close([make_chunk("a", 2)])
    assert lineage.request().new_windows == (2,)


def test_rolling_windows_are_new_again_and_stay_trained(tmp_path: Path) -> None:
    lineage = Lineage.at(tmp_path, run_settings(rolling=3))
    for window in range(4):
        lineage.close([make_chunk("t", window, tokens=100 * (window + 1))])
        manifest, _ = lineage.finish(lineage.request())
        assert manifest.windows == tuple(range(max(0, window - 2), window + 1))
    assert counts(read_coverage(lineage.coverage))["t:w1:0"][0] == 6
    assert lineage.trained == {0, 1, 2, 3}
    assert manifest.of(Role.REHEARSAL)["chunk_id"].to_pylist() == ["t:w0:0"]


REACHABLE = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from([50, 100, 600, 1100])), min_size=1, max_size=10
)


@settings(max_examples=8, deadline=None)
@given(
    old=REACHABLE,
    strategy=st.sampled_from(["windows", "stratified", "uniform"]),
    caps=st.tuples(*[st.integers(1, 3)] * 4),
    most=st.integers(1, 30),
    least=st.integers(1, 3),
    epochs=st.integers(1, 2),
)
def test_a_lineage_reaches_every_earlier_chunk(
    old: list[tuple[int, int, int]], strategy: str, caps: Sequence[int], most: int, least: int, epochs: int
) -> None:
    """Each run rehearses one of the least rehearsed chunks at least, so after as many runs as there are chunks, all of
    window 0 was reached, whatever caps and quota leave of each run."""
    names = ("short", "medium", "long", "verylong")
    replay = ReplaySettings.model_validate(
        {
            "strategy": strategy,
            "ratio": 0.25,
            "max_share": 0.2,
            "caps": dict(zip(names, caps, strict=True)),
            "max_rehearsal": most,
            "min_per_stratum": least,
        }
    )
    train = TrainSettings(epochs=epochs)
    longest = max(tokens for _, _, tokens in old)
    fresh = 4 * longest
    assert quota(fresh, replay) == longest
    with TemporaryDirectory() as folder:
        lineage = Lineage.at(Path(folder), run_settings(replay=replay, train=train))
        first = [
            make_chunk(f"t{sender}.{thread}", 0, place, sender=f"s{sender}", tokens=tokens)
            for place, (sender, thread, tokens) in enumerate(old)
        ]
        lineage.close(first)
        lineage.finish(lineage.request())
        for run in range(1, len(old) + 1):
            lineage.close([make_chunk("own", run, tokens=fresh)])
            before = counts(read_coverage(lineage.coverage))
            _, schedule = lineage.finish(lineage.request())
            taken = set(schedule.table["chunk_id"].to_pylist()) & {chunk.chunk_id for chunk in first}
            assert min(before[chunk_id][1] for chunk_id in taken) == min(before[chunk.chunk_id][1] for chunk in first)
        after = counts(read_coverage(lineage.coverage))
    assert all(after[chunk.chunk_id][1] > 0 for chunk in first)


@pytest.mark.parametrize("strategy", ["windows", "uniform", "stratified"])
def test_nothing_starves_while_more_mail_comes_in_than_is_rehearsed(tmp_path: Path, strategy: str) -> None:
    """Eight chunks a window, of which a run rehearses four earlier ones: half of all can never have been rehearsed. Were
    the order the same in every run, the same half would wait for ever; drawn anew, the wait ends for the old ones."""
    replay = ReplaySettings.model_validate({"strategy": strategy, "ratio": 0.25, "max_share": 0.2})
    lineage = Lineage.at(tmp_path, run_settings(replay=replay))
    for window in range(20):
        lineage.close([make_chunk(f"t{place}", window, sender=f"s{place}", tokens=100) for place in range(8)])
        lineage.finish(lineage.request())
    found = read_coverage(lineage.coverage)
    rehearsed = [times[1] for chunk_id, times in counts(found).items() if int(chunk_id.split(":w")[1].split(":")[0]) < 5]
    assert len(rehearsed) == 40
    assert sum(times == 0 for times in rehearsed) < 0.3 * 40
    reach = replay_coverage(found)
    assert (reach.earlier, reach.this_run.chunks) == (Reach(152, 8, 8), 4)
    assert reach.ever.chunks == sum(times[1] > 0 for times in counts(found).values())


def test_replay_coverage_counts_chunks_threads_and_senders(tmp_path: Path) -> None:
    replay = ReplaySettings(strategy="stratified", ratio=0.25, max_share=0.2)
    lineage = Lineage.at(tmp_path, run_settings(replay=replay))
    lineage.close([make_chunk("a", 0, place, sender="ann") for place in range(3)] + [make_chunk("b", 0, 9, sender="bob")])
    lineage.finish(lineage.request())
    reach = replay_coverage(read_coverage(lineage.coverage))
    assert reach.earlier == reach.this_run == reach.ever == Reach(0, 0, 0)

    for window in (1, 2):
        lineage.close([make_chunk("n", window, sender="new", tokens=400)])
        lineage.finish(lineage.request())
    found = read_coverage(lineage.coverage)
    reach = replay_coverage(found)
    assert reach.earlier == Reach(5, 3, 3)
    assert reach.this_run == Reach(2, 2, 2)
    assert reach.ever == Reach(3, 2, 2), "bob's only chunk took its turn again"
    assert replay_coverage(found, Exclusions(frozenset({"a"}), frozenset({"b:w0:9"}))).earlier == Reach(1, 1, 1)


def test_coverage_is_the_same_bytes_and_is_checked(tmp_path: Path) -> None:
    lineage = Lineage.at(tmp_path)
    lineage.close([make_chunk(f"t{place}", 0) for place in range(5)])
    manifest, schedule = lineage.finish(lineage.request())
    table = coverage_after(None, manifest, schedule, schedule.steps(1), 1)
    assert write_coverage(tmp_path / "again.parquet", table) == lineage.coverage_sha256 == sha256_file(lineage.coverage)
    assert read_coverage(lineage.coverage, lineage.coverage_sha256) == table
    with pytest.raises(RunError, match=r"coverage\.parquet.*roll back"):
        read_coverage(lineage.coverage, "0" * 64)
    with pytest.raises(RunError, match="cannot be read"):
        read_coverage(tmp_path / "absent.parquet")
