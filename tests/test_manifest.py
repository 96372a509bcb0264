"""Manifests: what may enter, in which order, and that nothing else decides it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.settings import ReplayCaps, ReplaySettings
from pipeline.domain import Chunk, Role, Split
from pipeline.errors import RunError, ShardError
from pipeline.home import Home
from pipeline.parquet import with_note
from pipeline.runs.requests import AdapterRef, RunRequest
from pipeline.runs.runfiles import Exclusions
from pipeline.sampling.coverage import COVERAGE_SCHEMA, write_coverage
from pipeline.sampling.manifest import Manifest, build_manifest, read_manifest, waiting_windows, write_manifest
from pipeline.sampling.turns import first_in_turn
from tests.support.lineage import MAILBOX, Lineage, make_chunk, run_settings

NOTHING = Exclusions(frozenset(), frozenset())


def rows(manifest: Manifest, role: Role) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = manifest.of(role).to_pylist()
    return listed


def ids(manifest: Manifest, role: Role) -> list[str]:
    return [str(row["chunk_id"]) for row in rows(manifest, role)]


def continued(
    root: Path, windows: Sequence[Sequence[Chunk]], trained: Sequence[int], rehearsed: dict[str, int], **choices: object
) -> tuple[Home, RunRequest, Path]:
    """A request over ``windows`` by a lineage that trained ``trained`` and rehearsed chunks as often as told."""
    lineage = Lineage.at(root, run_settings(**choices))  # type: ignore[arg-type]
    for chunks in windows:
        lineage.close(chunks)
    lineage.trained = frozenset(trained)
    everything = {chunk.chunk_id: chunk for listed in windows for chunk in listed}
    seen = [
        [c.chunk_id, c.window_idx, c.thread_id, c.sender, 2, rehearsed.get(c.chunk_id, 0), 0, 0]
        for c in everything.values()
        if c.window_idx in trained
    ]
    columns = [list(column) for column in zip(*seen, strict=True)] or [[] for _ in COVERAGE_SCHEMA]
    table = with_note(pa.table(columns, schema=COVERAGE_SCHEMA), {"windows": sorted(trained)})
    path = root / "coverage.parquet"
    asked = lineage.request()
    parent = AdapterRef(adapter_id="a1", run_id="1", path="adapters/a1", sha256="")
    return lineage.home, asked.model_copy(update={"parent": parent, "coverage_sha256": write_coverage(path, table)}), path


SPLITS = st.sampled_from([Split.TRAIN] * 5 + [Split.VAL, Split.TEST, Split.QUARANTINE])


@st.composite
def mailboxes(draw: st.DrawFn) -> list[list[Chunk]]:
    """Up to six windows; a thread keeps its split through all of them."""
    split_of = draw(st.lists(SPLITS, min_size=8, max_size=8))
    windows = []
    for window in range(draw(st.integers(1, 6))):
        threads = draw(st.lists(st.integers(0, 7), max_size=12))
        windows.append(
            [
                make_chunk(
                    f"t{thread}",
                    window,
                    place,
                    sender=f"s{draw(st.integers(0, 3))}",
                    tokens=draw(st.sampled_from([20, 300, 700, 1500, 2500])),
                    split=split_of[thread],
                )
                for place, thread in enumerate(threads)
            ]
        )
    return windows


@settings(max_examples=25, deadline=None)
@given(data=st.data(), windows=mailboxes())
def test_no_double_dipping(data: st.DataObject, windows: list[list[Chunk]]) -> None:
    """New and rehearsal are disjoint; val, test, quarantined and excluded chunks never enter; caps hold; and the whole is
    the same bytes whenever it is built."""
    everything = {chunk.chunk_id: chunk for listed in windows for chunk in listed}
    trained = sorted(data.draw(st.sets(st.integers(0, len(windows) - 1))))
    rehearsed = {chunk_id: data.draw(st.integers(0, 3)) for chunk_id in everything}
    caps = ReplayCaps(**{name: data.draw(st.integers(0, 4)) for name in ("short", "medium", "long", "verylong")})
    replay = ReplaySettings(
        strategy=data.draw(st.sampled_from(["windows", "stratified", "uniform", "none"])),
        ratio=0.25,
        max_share=0.2,
        caps=caps,
        max_rehearsal=data.draw(st.integers(1, 8)),
        max_new_windows=data.draw(st.integers(1, 6)),
    )
    rolling = data.draw(st.integers(1, 3))
    threads = frozenset(data.draw(st.sets(st.sampled_from([f"t{place}" for place in range(8)]), max_size=2)))
    listed = sorted(everything) or ["none"]
    exclusions = Exclusions(threads, frozenset(data.draw(st.sets(st.sampled_from(listed), max_size=3))))
    with TemporaryDirectory() as folder:
        root = Path(folder)
        home, asked, coverage = continued(root, windows, trained, rehearsed, rolling=rolling, replay=replay)
        manifest = build_manifest(home, asked, exclusions, coverage)
        again = build_manifest(home, asked, exclusions, coverage)
        digests = {write_manifest(root / name, built) for name, built in [("one", manifest), ("two", again)]}
        back = read_manifest(root / "one")
    assert len(digests) == 1
    assert back == manifest

    new, old = rows(manifest, Role.NEW), rows(manifest, Role.REHEARSAL)
    taken = [str(row["chunk_id"]) for row in (*new, *old)]
    assert len(taken) == len(set(taken)) == manifest.table.num_rows
    assert all(everything[chunk_id].split is Split.TRAIN for chunk_id in taken)
    assert not any(exclusions.hold(everything[chunk_id].thread_id, chunk_id) for chunk_id in taken)

    again_new = set(trained[len(trained) - min(len(trained), rolling - 1) :])
    allowed = [c for c in everything.values() if c.split is Split.TRAIN and not exclusions.hold(c.thread_id, c.chunk_id)]
    assert manifest.windows == tuple(sorted({*asked.new_windows, *again_new}))
    assert {row["chunk_id"] for row in new} == {c.chunk_id for c in allowed if c.window_idx in manifest.windows}
    room = sum(c.n_tokens for c in allowed if c.window_idx in manifest.windows) // 4
    before = {c.chunk_id for c in allowed if c.window_idx in set(trained) - again_new and c.n_tokens <= room}
    assert {row["chunk_id"] for row in old} <= before
    per_bucket = Counter(str(row["bucket"]) for row in old)
    assert all(count <= getattr(caps, bucket) for bucket, count in per_bucket.items())
    expected = sum(min(getattr(caps, name), count) for name, count in _buckets(everything, before).items())
    assert len(old) == (0 if replay.strategy == "none" else min(replay.max_rehearsal, expected))
    for role in (new, old):
        assert [row["rank"] for row in role] == list(range(1, len(role) + 1))
    assert all(row["rehearsed"] == rehearsed[str(row["chunk_id"])] for row in old)


def _buckets(everything: dict[str, Chunk], chosen: set[str]) -> Counter[str]:
    return Counter(everything[chunk_id].bucket.value for chunk_id in chosen)


@settings(max_examples=50, deadline=None)
@given(
    due=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), max_size=60),
    caps=st.lists(st.integers(0, 9), min_size=3, max_size=3),
    looked_at=st.integers(1, 20),
)
def test_first_turns_are_the_same_however_few_chunks_are_looked_at_first(
    due: list[tuple[int, int]], caps: list[int], looked_at: int
) -> None:
    windows, buckets = np.array(due or np.empty((0, 2)), np.int64).T
    turn = [sum(other == window for other, _ in due[:place]) for place, (window, _) in enumerate(due)]
    left, expected = list(caps), []
    for place in sorted(range(len(due)), key=lambda place: (turn[place], place)):
        if left[due[place][1]]:
            left[due[place][1]] -= 1
            expected.append(place)
    assert first_in_turn(windows, buckets, np.array(caps), looked_at).tolist() == expected


def test_windows_take_turns_however_often_they_were_rehearsed(tmp_path: Path) -> None:
    """Drawn evenly, the newest window comes first as a whole, as nothing of it was rehearsed yet."""
    old = [[make_chunk(f"t{window}-{place}", window) for place in range(6)] for window in range(3)]
    times = {chunk.chunk_id: 3 - window for window in range(3) for chunk in old[window]}
    windows = [*old, [make_chunk("new", 3, tokens=40_000)]]
    for strategy, expected in (("windows", [{0, 1, 2}] * 6), ("uniform", [{2}, {2}, {1}, {1}, {0}, {0}])):
        replay = ReplaySettings.model_validate({"strategy": strategy})
        home, asked, coverage = continued(tmp_path / strategy, windows, [0, 1, 2], times, replay=replay)
        chosen = rows(build_manifest(home, asked, NOTHING, coverage), Role.REHEARSAL)
        assert [{row["window_idx"] for row in chosen[place : place + 3]} for place in range(0, 18, 3)] == expected
        assert chosen[0]["rehearsed"] == min(times.values())


def test_senders_take_turns_and_within_a_sender_its_threads(tmp_path: Path) -> None:
    old = [make_chunk(f"loud{thread}", 0, place, sender="loud") for thread in range(3) for place in range(10)]
    old += [make_chunk("rare", 0, place, sender="rare") for place in range(4)]
    replay = ReplaySettings(strategy="stratified", max_rehearsal=8)
    home, asked, coverage = continued(tmp_path, [old, [make_chunk("new", 1, tokens=40_000)]], [0], {}, replay=replay)
    chosen = rows(build_manifest(home, asked, NOTHING, coverage), Role.REHEARSAL)
    assert Counter(row["sender"] for row in chosen).most_common() == [(old[0].sender, 4), (old[-1].sender, 4)]
    assert len({row["thread_id"] for row in chosen if row["sender"] == old[0].sender}) == 3
    pairs = [{row["sender"] for row in chosen[place : place + 2]} for place in range(0, 8, 2)]
    assert all(len(pair) == 2 for pair in pairs)


def test_the_least_rehearsed_of_a_thread_come_first(tmp_path: Path) -> None:
    old = [make_chunk("t", 0, place) for place in range(9)]
    times = {chunk.chunk_id: place % 3 for place, chunk in enumerate(old)}
    home, asked, coverage = continued(tmp_path, [old, [make_chunk("new", 1, tokens=40_000)]], [0], times)
    chosen = rows(build_manifest(home, asked, NOTHING, coverage), Role.REHEARSAL)
    assert [row["rehearsed"] for row in chosen] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_order_depends_on_the_seed_and_on_the_newest_window(tmp_path: Path) -> None:
    old = [make_chunk("t", 0, place) for place in range(20)]
    windows = [old, [make_chunk("new", 1, tokens=40_000)]]
    orders = []
    for name, seed, extra in [("a", 0, 0), ("b", 1, 0), ("c", 0, 1), ("d", 0, 0)]:
        more = [[make_chunk("more", 2, tokens=40_000)]] if extra else []
        home, asked, coverage = continued(tmp_path / name, [*windows, *more], [0], {}, seed=seed)
        orders.append(ids(build_manifest(home, asked, NOTHING, coverage), Role.REHEARSAL))
    assert orders[0] == orders[3]
    assert len({tuple(order) for order in orders}) == 3
    assert {frozenset(order) for order in orders} == {frozenset(chunk.chunk_id for chunk in old)}


@pytest.mark.parametrize("caps", [ReplayCaps(verylong=0), ReplayCaps()], ids=["no cap", "no room"])
def test_a_chunk_that_cannot_be_rehearsed_does_not_stand_in_the_way(tmp_path: Path, caps: ReplayCaps) -> None:
    old = [make_chunk("t", 0, 0, tokens=5000 if caps.verylong == 0 else 10_001), make_chunk("t", 0, 1)]
    times = {old[1].chunk_id: 7}
    replay = ReplaySettings(ratio=0.25, max_share=0.2, caps=caps, max_rehearsal=1)
    home, asked, coverage = continued(tmp_path, [old, [make_chunk("new", 1, tokens=40_000)]], [0], times, replay=replay)
    assert ids(build_manifest(home, asked, NOTHING, coverage), Role.REHEARSAL) == [old[1].chunk_id]


def test_a_first_run_has_only_new_chunks(tmp_path: Path) -> None:
    lineage = Lineage.at(tmp_path)
    lineage.close([make_chunk("t1", 0), make_chunk("t2", 0, split=Split.VAL)])
    lineage.close([make_chunk("t1", 1)])
    manifest = build_manifest(lineage.home, lineage.request(), NOTHING, None)
    assert manifest.windows == (0, 1)
    assert sorted(ids(manifest, Role.NEW)) == ["t1:w0:0", "t1:w1:0"]
    assert ids(manifest, Role.REHEARSAL) == []


def test_waiting_windows_are_the_newest_untrained() -> None:
    assert waiting_windows(range(6), {0, 3}, 3) == (2, 4, 5)
    assert waiting_windows(range(6), {0, 3}, 20) == (1, 2, 4, 5)
    assert waiting_windows([], [], 20) == ()


def test_a_request_that_does_not_fit_its_lineage_is_refused(tmp_path: Path) -> None:
    windows = [[make_chunk("t", window)] for window in range(3)]
    home, asked, coverage = continued(tmp_path, windows, [0], {}, replay=ReplaySettings(max_new_windows=2))
    shards = asked.shards
    changes: list[tuple[dict[str, object], str]] = [
        ({"new_windows": (0, 1)}, "window 0 was trained"),
        ({"new_windows": (2, 1)}, "not in order"),
        ({"new_windows": (3,)}, "window 3 has no shard"),
        ({"shards": shards[1:]}, "window 0 has no shard"),
        ({"shards": (*shards, shards[0])}, "two shards"),
        ({"coverage_sha256": "0" * 64}, "recorded is"),
    ]
    assert build_manifest(home, asked, NOTHING, coverage).windows == (1, 2)
    for change, reason in changes:
        with pytest.raises(RunError, match=reason):
            build_manifest(home, asked.model_copy(update=change), NOTHING, coverage)
    with pytest.raises(RunError, match="exactly when it has a parent"):
        build_manifest(home, asked, NOTHING, None)
    strict = asked.settings.model_copy(update={"replay": ReplaySettings(max_new_windows=1)})
    with pytest.raises(RunError, match="max_new_windows"):
        build_manifest(home, asked.model_copy(update={"settings": strict}), NOTHING, coverage)


def test_a_damaged_shard_is_named_and_one_that_is_not_read_is_not_missed(tmp_path: Path) -> None:
    windows = [[make_chunk("t", window)] for window in range(3)]
    home, asked, coverage = continued(tmp_path, windows, [0], {}, replay=ReplaySettings(max_new_windows=1))
    (home.shard(MAILBOX, 1) / "chunks.parquet").unlink()
    assert build_manifest(home, asked, NOTHING, coverage).windows == (2,)
    broken = home.shard(MAILBOX, 0) / "chunks.parquet"
    broken.write_bytes(broken.read_bytes() + b"x")
    with pytest.raises(ShardError, match="window=000000"):
        build_manifest(home, asked, NOTHING, coverage)


def test_a_home_may_be_called_anything(tmp_path: Path) -> None:
    windows = [[make_chunk("t", 0)], [make_chunk("t", 1, tokens=400)]]
    home, asked, coverage = continued(tmp_path / "mail [a-b] * it's ü", windows, [0], {})
    assert build_manifest(home, asked, NOTHING, coverage).table.num_rows == 2


def test_a_manifest_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    with pytest.raises(RunError, match="cannot be read"):
        read_manifest(path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(RunError, match="not what this version reads"):
        read_manifest(path)
    write_coverage(path, with_note(COVERAGE_SCHEMA.empty_table(), {"windows": []}))
    with pytest.raises(RunError, match="not what this version reads"):
        read_manifest(path)
