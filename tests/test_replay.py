"""Schedules: every new chunk once per epoch, rehearsal on top within its share, the same batches everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.settings import ReplaySettings, TrainSettings
from pipeline.domain import Role
from pipeline.errors import RunError
from pipeline.sampling.manifest import MANIFEST_SCHEMA, Manifest
from pipeline.sampling.rehearsal import Pool, apportion, draw, quota
from pipeline.sampling.replay import Batch, Schedule, build_schedule, read_schedule, write_schedule
from tests.support.lineage import bucket_of

Row = tuple[str, str, int]
"""Sender, thread and tokens of a manifest row."""


def manifest_of(new: Sequence[Row], old: Sequence[Row]) -> Manifest:
    rows = []
    for role, listed in ((Role.NEW, new), (Role.REHEARSAL, old)):
        for place, (sender, thread, tokens) in enumerate(listed):
            rows.append(
                {
                    "chunk_id": f"{role}:{thread}:{place}",
                    "role": role.value,
                    "window_idx": 1 if role is Role.NEW else 0,
                    "thread_id": thread,
                    "sender": sender,
                    "bucket": bucket_of(tokens).value,
                    "tier": "person",
                    "n_tokens": tokens,
                    "rehearsed": 0,
                    "rank": place + 1,
                }
            )
    return Manifest("run", (1,), pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA))


def schedule_of(
    manifest: Manifest, replay: ReplaySettings | None = None, *, seed: int = 0, context: str = "run", **train: int
) -> Schedule:
    return build_schedule(
        manifest, seed=seed, context=context, replay=replay or ReplaySettings(), train=TrainSettings(**train)
    )


def rehearsed(schedule: Schedule, epoch: int | None = None) -> list[str]:
    return [
        chunk_id
        for batch in schedule.batches()
        if batch.role is Role.REHEARSAL and epoch in (None, batch.epoch)
        for chunk_id in batch.chunk_ids
    ]


TOKENS = st.one_of(st.integers(1, 400), st.sampled_from([512, 900, 1500, 2500, 6000]))
ROWS = st.lists(st.tuples(st.sampled_from(["ann", "bob", "cem"]), st.sampled_from(["t1", "t2", "t3"]), TOKENS), max_size=40)


@settings(max_examples=150, deadline=None)
@given(
    new=ROWS,
    old=ROWS,
    strategy=st.sampled_from(["windows", "stratified", "uniform", "none"]),
    ratio=st.sampled_from([0.0, 0.05, 0.25, 1.0, 3.0]),
    share=st.sampled_from([0.0, 0.1, 0.2, 0.7, 1.0]),
    least=st.integers(0, 4),
    epochs=st.integers(1, 4),
    budget=st.sampled_from([256, 2048, 4096]),
    seed=st.integers(0, 5),
)
def test_every_schedule_keeps_its_promises(
    new: list[Row],
    old: list[Row],
    strategy: str,
    ratio: float,
    share: float,
    least: int,
    epochs: int,
    budget: int,
    seed: int,
) -> None:
    manifest = manifest_of(new, old)
    replay = ReplaySettings.model_validate(
        {"strategy": strategy, "ratio": ratio, "max_share": share, "min_per_stratum": least}
    )
    schedule = schedule_of(manifest, replay, seed=seed, epochs=epochs, batch_tokens=budget)
    assert schedule == schedule_of(manifest, replay, seed=seed, epochs=epochs, batch_tokens=budget)

    length = dict(zip(manifest.table["chunk_id"].to_pylist(), manifest.table["n_tokens"].to_pylist(), strict=True))
    batches = list(schedule.batches())
    assert len(batches) == schedule.n_batches
    assert [batch.epoch for batch in batches] == sorted(batch.epoch for batch in batches)
    for batch in batches:
        lengths = [length[chunk_id] for chunk_id in batch.chunk_ids]
        assert {bucket_of(tokens) for tokens in lengths} == {batch.bucket}
        assert len(lengths) == 1 or max(lengths) * len(lengths) <= budget
    for epoch in range(epochs):
        mine = [batch for batch in batches if batch.epoch == epoch]
        fresh = [chunk_id for batch in mine if batch.role is Role.NEW for chunk_id in batch.chunk_ids]
        again = rehearsed(schedule, epoch)
        assert Counter(fresh) == Counter(manifest.of(Role.NEW)["chunk_id"].to_pylist())
        assert len(again) == len(set(again))
        of_new, of_old = sum(length[chunk_id] for chunk_id in fresh), sum(length[chunk_id] for chunk_id in again)
        assert of_old <= Fraction(str(ratio)) * of_new
        assert of_old <= Fraction(str(share)) * (of_new + of_old)
    assert strategy != "none" or not rehearsed(schedule)

    every = sum(schedule.tokens(role) for role in Role)
    assert every == sum(length[chunk_id] for batch in batches for chunk_id in batch.chunk_ids)
    assert schedule.share == (schedule.tokens(Role.REHEARSAL) / every if every else 0.0)


@settings(max_examples=80, deadline=None)
@given(old=ROWS.filter(bool), room=st.integers(0, 20_000), least=st.integers(0, 4), epochs=st.integers(1, 5))
def test_no_chunk_comes_again_before_its_stratum_is_exhausted(old: list[Row], room: int, least: int, epochs: int) -> None:
    """Within a stratum, whose chunks are of one length here, the counts of any two differ by one at most."""
    old = [(sender, thread, 100 * (1 + len(sender + thread) % 3)) for sender, thread, _ in old]
    pool, strata = pool_of(old), [(sender, thread) for sender, thread, _ in old]
    drawn = np.zeros(len(old), np.int64)
    for _ in range(epochs):
        drawn[draw(pool, drawn, room, ReplaySettings(strategy="stratified", min_per_stratum=least))] += 1
        for stratum in set(strata):
            counts = [int(count) for count, mine in zip(drawn, strata, strict=True) if mine == stratum]
            assert max(counts) - min(counts) <= 1
            assert counts == sorted(counts, reverse=True)


def pool_of(old: Sequence[Row]) -> Pool:
    senders = {sender: code for code, sender in enumerate(dict.fromkeys(sender for sender, _, _ in old))}
    strata = {pair: code for code, pair in enumerate(dict.fromkeys((sender, thread) for sender, thread, _ in old))}
    return Pool(
        np.array([tokens for _, _, tokens in old], np.int64),
        np.array([senders[sender] for sender, _, _ in old], np.int64),
        np.array([strata[sender, thread] for sender, thread, _ in old], np.int64),
    )


def test_every_stratum_gives_its_least_before_volume_counts() -> None:
    old = [("loud", "big", 100)] * 90 + [("loud", "small", 100)] * 9 + [("rare", "only", 100)]
    taken = draw(pool_of(old), np.zeros(100, np.int64), 2500, ReplaySettings(strategy="stratified", min_per_stratum=2))
    given_by = Counter(old[place][:2] for place in taken.tolist())
    assert given_by == {("loud", "big"): 20, ("loud", "small"): 4, ("rare", "only"): 1}
    first = [old[place][:2] for place in taken[:5].tolist()]
    assert Counter(first) == {("loud", "big"): 2, ("loud", "small"): 2, ("rare", "only"): 1}


def test_strata_take_turns_over_epochs_where_the_quota_is_small() -> None:
    old = [(f"s{place}", "t", 100) for place in range(10)]
    replay = ReplaySettings(strategy="stratified", ratio=0.25, max_share=0.2)
    schedule = schedule_of(manifest_of([("new", "n", 400)] * 3, old), replay, epochs=4)
    per_epoch = [sorted(rehearsed(schedule, epoch)) for epoch in range(4)]
    assert [len(chunks) for chunks in per_epoch] == [3, 3, 3, 3]
    assert len(set(chain(*per_epoch[:3]))) == 9
    assert set(chain(*per_epoch)) == {f"rehearsal:t:{place}" for place in range(10)}


def test_volume_decides_between_senders_then_between_their_threads() -> None:
    old = [("a", "a1", 100)] * 60 + [("a", "a2", 100)] * 20 + [("b", "b1", 100)] * 20
    taken = draw(pool_of(old), np.zeros(100, np.int64), 1000, ReplaySettings(strategy="stratified", min_per_stratum=0))
    assert Counter(old[place][1] for place in taken.tolist()) == {"a1": 6, "a2": 2, "b1": 2}


def test_uniform_follows_the_manifest_whoever_sent_it() -> None:
    old = [("a", "a1", 100)] * 30 + [("b", "b1", 100)] * 10
    taken = draw(pool_of(old), np.zeros(40, np.int64), 1000, ReplaySettings(strategy="uniform"))
    assert taken.tolist() == list(range(10))


@settings(max_examples=150, deadline=None)
@given(
    members=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 10**9), st.integers(0, 30)), min_size=1, max_size=25),
    seats=st.lists(st.integers(0, 60), min_size=4, max_size=4),
)
def test_apportionment_deals_every_seat_that_can_be_dealt(members: list[tuple[int, int, int]], seats: list[int]) -> None:
    group, volume, most = (np.array(column, np.int64) for column in zip(*members, strict=True))
    given = apportion(np.array(seats), group, volume, most)
    assert (given <= most).all()
    for number, wanted in enumerate(seats):
        mine = group == number
        assert given[mine].sum() == min(wanted, most[mine].sum())
        if wanted <= most[mine].min(initial=10**9) and mine.any():
            exact = wanted * volume[mine] / volume[mine].sum()
            assert (np.abs(given[mine] - exact) < 1).all(), "largest remainder keeps quota"


@pytest.mark.parametrize(
    ("ratio", "share", "tokens"), [(0.25, 0.2, 250), (0.1, 0.2, 100), (4.0, 0.2, 250), (0.3, 1.0, 300), (0.7, 0.0, 0)]
)
def test_the_quota_is_the_lesser_of_ratio_and_share(ratio: float, share: float, tokens: int) -> None:
    assert quota(1000, ReplaySettings(ratio=ratio, max_share=share)) == tokens


def test_rehearsal_batches_stand_evenly_among_new_ones() -> None:
    manifest = manifest_of([("a", "n", 400)] * 40, [("b", f"o{place}", 400) for place in range(10)])
    roles = [batch.role for batch in schedule_of(manifest, epochs=1, batch_tokens=400).batches()]
    places = [place for place, role in enumerate(roles) if role is Role.REHEARSAL]
    assert np.diff(places).tolist() == [5] * 9
    assert roles[0] is roles[-1] is Role.NEW


def test_order_and_company_change_with_epoch_seed_and_context_only() -> None:
    manifest = manifest_of([("a", f"t{place}", 100 + place) for place in range(80)], [])

    def epochs(seed: int, context: str) -> list[list[Batch]]:
        schedule = schedule_of(manifest, seed=seed, context=context, epochs=2, batch_tokens=1000)
        return [[batch for batch in schedule.batches() if batch.epoch == epoch] for epoch in range(2)]

    base = epochs(0, "run")
    assert epochs(0, "run") == base
    orders = [base[0], base[1], epochs(1, "run")[0], epochs(0, "other")[0]]
    assert len({tuple(batch.chunk_ids for batch in order) for order in orders}) == 4
    company = [{frozenset(batch.chunk_ids) for batch in order} for order in orders]
    assert company[0] != company[1]


def test_the_order_is_the_same_on_every_machine() -> None:
    """Written down once: a change of this order would make old runs impossible to derive again."""
    manifest = manifest_of([("a", f"t{place}", 100 * (1 + place % 7)) for place in range(9)], [("b", "o", 90)] * 4)
    schedule = schedule_of(manifest, epochs=1, batch_tokens=800)
    order = [" ".join(chunk_id.partition(":")[2] for chunk_id in batch.chunk_ids) for batch in schedule.batches()]
    assert order == ["t4:4", "t0:0 t7:7 t8:8 t1:1", "t2:2 t3:3", "o:0 o:2 o:1 o:3", "t5:5", "t6:6"]


def test_little_is_padded() -> None:
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.lognormal(5.5, 1.0, 3000), 2048).astype(int).tolist()
    schedule = schedule_of(manifest_of([("a", "t", tokens) for tokens in lengths], []), epochs=1)
    length = dict(zip(schedule.table["chunk_id"].to_pylist(), schedule.table["n_tokens"].to_pylist(), strict=True))
    padded = sum(max(length[i] for i in batch.chunk_ids) * len(batch.chunk_ids) for batch in schedule.batches())
    assert sum(lengths) / padded > 0.93


def test_a_schedule_is_read_back_and_a_broken_one_refused(tmp_path: Path) -> None:
    schedule = schedule_of(manifest_of([("a", "t", 100)] * 5, [("b", "t", 50)] * 5))
    path = tmp_path / "schedule.parquet"
    sha256 = write_schedule(path, schedule)
    assert read_schedule(path, sha256) == schedule
    assert write_schedule(tmp_path / "again.parquet", read_schedule(path)) == sha256
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RunError, match=r"schedule\.parquet"):
        read_schedule(path)


def test_a_run_without_new_chunks_has_no_batches() -> None:
    schedule = schedule_of(manifest_of([], [("b", "t", 50)] * 5))
    assert (schedule.n_batches, schedule.steps(4), schedule.share, list(schedule.batches())) == (0, 0, 0.0, [])


def test_steps_count_batches_through_all_epochs() -> None:
    schedule = schedule_of(manifest_of([("a", "t", 400)] * 5, []), epochs=3, batch_tokens=400)
    assert schedule.n_batches == 15
    assert [schedule.steps(accumulation) for accumulation in (1, 4, 15, 16)] == [15, 4, 1, 1]
    assert schedule.trained(2, 4).num_rows == 8
    assert schedule.trained(4, 4) == schedule.table
