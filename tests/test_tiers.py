"""Caps and weights of quality tiers: what a manifest then holds, where it is told, and the command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.chunking.quality import Quality
from pipeline.chunking.shards import erase_texts
from pipeline.chunking.tiers import scores_of
from pipeline.config.settings import ReplaySettings, Settings
from pipeline.domain import Chunk, Role, Split
from pipeline.errors import ConfigError, NothingToDo, UsageError
from pipeline.runs.plan import plan_run, prepare_run
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import Exclusions
from pipeline.sampling.manifest import (
    CANDIDATE_SCHEMA,
    Manifest,
    build_manifest,
    manifest_of,
    read_manifest,
    write_manifest,
)
from pipeline.scratch import Scratch
from streams.inspecting.tiers import tier_report
from streams.whatif.policies import read_policies
from tests.support.finished import Finished
from tests.support.lineage import MAILBOX, Lineage, make_chunk, run_settings

NOTHING = Exclusions()
TIERS = ("dialogue", "person", "material", "bulk", "auto")
NEWEST = 5

Rows = list[tuple[str, int, str, str, str, str, int]]


def table(rows: Rows) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(CANDIDATE_SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, CANDIDATE_SCHEMA, strict=True)]
    return pa.table(arrays, schema=CANDIDATE_SCHEMA)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Scratch]:
    with Scratch() as shared:
        yield shared


def built(rows: Rows, replay: ReplaySettings, scratch: Scratch | None = None) -> Manifest:
    return manifest_of("x", table(rows), (NEWEST,), None, seed=0, replay=replay, scratch=scratch)


CHUNKS = st.lists(
    st.tuples(st.integers(0, NEWEST), st.integers(0, 6), st.integers(0, 3), st.sampled_from(TIERS), st.integers(1, 400)),
    max_size=60,
).map(
    lambda found: [
        (f"c{place}", window, f"t{thread}", f"s{sender}", "short", tier, tokens)
        for place, (window, thread, sender, tier, tokens) in enumerate(found)
    ]
)
CAPS = st.dictionaries(st.sampled_from(TIERS), st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]), max_size=4)
WEIGHTS = st.dictionaries(st.sampled_from(TIERS), st.sampled_from([0.0, 0.001, 0.5, 1.0, 3.0, 1000.0]), max_size=3)
STRATEGIES = st.sampled_from(["windows", "uniform", "stratified"])


@settings(max_examples=30, deadline=None)
@given(rows=CHUNKS, caps=CAPS, weights=WEIGHTS, strategy=STRATEGIES)
def test_a_cap_holds_at_every_place_of_the_order(
    scratch: Scratch, rows: Rows, caps: Any, weights: Any, strategy: Any
) -> None:
    """In every beginning of either role, each capped tier stays within its share of itself and of what has no cap; what has
    no cap is all there; nothing of weight 0 is; and every chunk is accounted for."""
    replay = ReplaySettings(strategy=strategy, ratio=20.0, max_share=1.0, tier_caps=caps, tier_weights=weights)
    manifest = built(rows, replay, scratch)
    unused = {tier for tier in TIERS if caps.get(tier) == 0 or weights.get(tier) == 0}
    capped = {tier: share for tier, share in caps.items() if 0 < share < 1 and tier not in unused}
    for role in Role:
        of_role = [row for row in rows if (row[1] == NEWEST) == (role is Role.NEW) and row[5] not in unused]
        taken = manifest.of(role).to_pylist()
        assert not {row["tier"] for row in taken} & unused
        free = {row[0] for row in of_role if row[5] not in capped}
        if role is Role.NEW:
            assert free <= {row["chunk_id"] for row in taken}
        if not free:
            continue
        sums = dict.fromkeys(TIERS, 0)
        for row in taken:
            sums[row["tier"]] += row["n_tokens"]
            others = sum(tokens for tier, tokens in sums.items() if tier not in capped)
            assert all(sums[tier] <= share * (sums[tier] + others) + 1e-6 for tier, share in capped.items())
    if caps or weights:
        assert sum(one.new + one.left_out for one in manifest.tiers) == sum(row[1] == NEWEST for row in rows)
        assert sum(one.new_tokens for one in manifest.tiers) == sum(manifest.of(Role.NEW)["n_tokens"].to_pylist())
        assert sum(one.rehearsable for one in manifest.tiers) == manifest.of(Role.REHEARSAL).num_rows


@settings(max_examples=8, deadline=None)
@given(rows=CHUNKS, strategy=STRATEGIES)
def test_equal_weights_change_no_place(scratch: Scratch, rows: Rows, strategy: Any) -> None:
    plain = built(rows, ReplaySettings(strategy=strategy), scratch)
    weighed = built(rows, ReplaySettings(strategy=strategy, tier_weights=dict.fromkeys(TIERS, 2.0)), scratch)
    assert plain.table.equals(weighed.table)
    assert plain.tiers == ()


def test_mail_of_one_tier_alone_is_not_starved_by_its_cap() -> None:
    rows: Rows = [(f"c{place}", NEWEST, "t", "s", "short", "bulk", 100) for place in range(9)]
    assert built(rows, ReplaySettings(tier_caps={"bulk": 0.1})).table.num_rows == 9


def test_twice_the_weight_is_rehearsed_about_twice_as_often() -> None:
    rows: Rows = [(f"c{place}", 0, f"t{place}", "s", "short", TIERS[place % 2], 100) for place in range(1000)]
    rows.append(("new", NEWEST, "t", "s", "short", "person", 100_000))
    replay = ReplaySettings(tier_weights={"dialogue": 2.0}, max_rehearsal=300)
    taken = built(rows, replay).of(Role.REHEARSAL)["tier"].to_pylist()
    assert 180 <= taken.count("dialogue") <= 220


def words_of(kind: str, number: int) -> str:
    """Text that a chunk's tier can be told by."""
    if kind == "material":
        return "\n".join(f"+\tregister_{number}_{line} = 0x{line:04x};" for line in range(12))
    return f"I have seen that the clock of board {number} was not the one that you would expect, but it works."


def chunk_of(kind: str, window: int, number: int) -> Chunk:
    chunk = make_chunk(f"t{window}-{number}", window, tokens=100)
    text = f"Subject: clocks\n⁂ Ann, 2024-05-01 10:00\n{words_of(kind, number)}\n"
    return replace(chunk, text=text, starts=(16,), sha256=hashlib.sha256(text.encode()).hexdigest())


def lineage_of(root: Path, **replay: Any) -> Lineage:
    lineage = Lineage.at(root, run_settings(replay=ReplaySettings(**replay)))
    for window in range(2):
        lineage.close([chunk_of("material" if number < 8 else "person", window, number) for number in range(10)])
    return lineage


def test_a_run_says_what_it_left_out(tmp_path: Path) -> None:
    lineage = lineage_of(tmp_path, tier_caps={"material": 0.5})
    asked = lineage.request()
    manifest = build_manifest(lineage.home, asked, NOTHING, None)
    assert {one.tier: (one.new, one.left_out) for one in manifest.tiers} == {"material": (4, 12), "person": (4, 0)}
    assert set(manifest.table["tier"].to_pylist()) == {"material", "person"}
    write_manifest(tmp_path / "m", manifest)
    assert read_manifest(tmp_path / "m") == manifest
    assert plan_run(lineage.home, asked, NOTHING).tiers == manifest.tiers


def test_what_was_left_out_may_be_rehearsed_later(tmp_path: Path) -> None:
    lineage = lineage_of(tmp_path, tier_caps={"material": 0.5}, ratio=1.0, max_share=0.5)
    lineage.finish(lineage.request())
    lineage.close([chunk_of("person", 2, number) for number in range(6)])
    _, schedule = lineage.finish(lineage.request())
    rehearsed = {batch_id for batch in schedule.batches() if batch.role is Role.REHEARSAL for batch_id in batch.chunk_ids}
    assert 0 < sum(int(one.partition("-")[2].partition(":")[0]) < 8 for one in rehearsed) <= len(rehearsed) / 2


def test_nothing_but_unused_mail_is_nothing_to_do_and_says_why(tmp_path: Path) -> None:
    lineage = lineage_of(tmp_path, tier_weights={"material": 0.0, "person": 0.0})
    asked = lineage.request()
    with pytest.raises(NothingToDo, match="tier_weights"):
        prepare_run(lineage.home, asked, lineage.home.run(asked.run_id))


def test_tiers_are_scored_once_and_anew_where_the_file_is_of_no_use(tmp_path: Path) -> None:
    lineage = lineage_of(tmp_path)
    shard = lineage.shards[0]
    folder = tmp_path / shard.path
    first = scores_of(lineage.home, MAILBOX, 0, folder, shard.sha256)
    kept = tmp_path / "tiers" / MAILBOX / "window=000000.parquet"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:50])
    assert scores_of(lineage.home, MAILBOX, 0, folder, shard.sha256).equals(first)
    assert kept.read_bytes() == whole
    kept.unlink()
    erase_texts(folder, ["t0-0:w0:0"])
    assert scores_of(lineage.home, MAILBOX, 0, folder, shard.sha256).num_rows == first.num_rows - 1


def test_limits_make_another_run_and_their_absence_none(tmp_path: Path) -> None:
    plain, limited = (
        lineage_of(tmp_path / name, **given).request() for name, given in (("a", {}), ("b", {"tier_caps": {"bulk": 0.3}}))
    )
    assert plain.run_id != limited.run_id
    older = json.loads(plain.model_dump_json())
    del older["settings"]["replay"]["tier_caps"], older["settings"]["replay"]["tier_weights"]
    assert RunRequest.model_validate(older).run_id == plain.run_id


@pytest.mark.parametrize("given", ["tier_caps.news=0.5", "tier_caps.bulk=1.5", "tier_weights.bulk=0.0001"])
def test_a_limit_that_means_nothing_is_a_mistake(given: str) -> None:
    from pipeline.config.configuration import load

    with pytest.raises(ConfigError):
        load(None, environment={}, overrides=[f"replay.{given}"])


def test_a_simulation_refuses_what_it_cannot_know() -> None:
    limited = Settings(replay=ReplaySettings(tier_caps={"bulk": 0.5}))
    with pytest.raises(UsageError, match="cannot be simulated"):
        read_policies(limited, [], lambda _: limited)


def test_the_report_counts_every_chunk_and_shows_why(tmp_path: Path) -> None:
    runs = Finished.at(tmp_path)
    runs.close_window(train=4, val=2, test=1, per_thread=2)
    with runs.store:
        report = tier_report(runs.store, runs.home, MAILBOX, show=2)
        assert report.chunks == sum(one.chunks for one in report.tiers) == len(runs.chunks)
        assert sum(one.train_chunks for one in report.tiers) == sum(c.split is Split.TRAIN for c in runs.chunks.values())
        assert sum(one.share for one in report.tiers) == pytest.approx(1.0)
        (example, _) = report.examples
        assert example.tier == report.tiers[0].tier
        assert example.text in runs.chunks[example.chunk_id].text
        assert tier_report(runs.store, runs.home, MAILBOX, tier=Quality.BULK).tiers == ()
        with pytest.raises(UsageError, match="no closed window 7"):
            tier_report(runs.store, runs.home, MAILBOX, window=7)
