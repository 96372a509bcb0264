"""How long manifest and schedule take, and how much memory, over many generated shards.

Each phase runs in a process of its own, so that the memory told is that phase's peak.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.chunking.shards import CHUNK_SCHEMA, SHARD_FORMAT, read_rows
from pipeline.config.settings import EvalSettings, ModelSettings, ReplayCaps, ReplaySettings, TrainSettings
from pipeline.home import Home, sha256_file
from pipeline.parquet import with_note, write_table
from pipeline.runs.requests import AdapterRef, BaseRef, RunRequest, RunSettings, ShardRef
from pipeline.runs.runfiles import Exclusions
from pipeline.sampling.coverage import COVERAGE_SCHEMA, write_coverage
from pipeline.sampling.manifest import build_manifest, read_manifest, write_manifest
from pipeline.sampling.replay import build_schedule
from retrain.evaluation.heldout import frozen_sample, held_out_chunks
from tests.bench.forked import Spent, in_fork
from tests.bench.rows import BenchRow

MAILBOX = "bench"


def generate(home: Home, chunks: int, shards: int) -> None:
    """Metadata of ``chunks`` chunks in ``shards`` windows: senders by a Zipf law, threads of about four chunks."""
    rng = np.random.default_rng(0)
    per_shard = chunks // shards
    for window in range(shards):
        senders = np.minimum(rng.zipf(1.3, per_shard), 200_000)
        threads = rng.integers(window * per_shard // 4, (window + 1) * per_shard // 4 + 1, per_shard)
        tokens = np.minimum(rng.lognormal(5.5, 1.0, per_shard), 2048).astype(np.int32)
        ids = [f"{hashlib.md5(str(thread).encode()).hexdigest()[:16]}:w{window}:{i}" for i, thread in enumerate(threads)]
        names = np.array(["short", "medium", "long", "verylong"])
        texts = {
            "chunk_id": ids,
            "thread_id": [chunk_id.partition(":")[0] for chunk_id in ids],
            "sender": [hashlib.md5(str(sender).encode()).hexdigest() for sender in senders],
            "split": rng.choice(["train", "val", "test"], per_shard, p=[0.8, 0.1, 0.1]),
            "bucket": names[np.digitize(tokens, [512, 1024, 2048])],
            "sha256": [hashlib.sha256(chunk_id.encode()).hexdigest() for chunk_id in ids],
            "message_keys": [[f"{chunk_id}@example.org"] for chunk_id in ids],
            "parents": [[None]] * per_shard,
        }
        constant = {"mailbox": MAILBOX, "tier": "person", "starts": [0], "ordinals": [1], "format": SHARD_FORMAT}
        constant |= {"authors": ["a"], "tiers": ["person"]}
        numbers = {"window_idx": window, "n_context": 0, "n_messages": 1, "new_from": 0}
        columns = [
            pa.array(texts[name])
            if name in texts
            else pa.array(tokens)
            if name == "n_tokens"
            else pa.array([{**constant, **numbers}[name]] * per_shard, CHUNK_SCHEMA.field(name).type)
            for name in CHUNK_SCHEMA.names
        ]
        table = pa.table(columns, names=CHUNK_SCHEMA.names).cast(CHUNK_SCHEMA)
        write_table(home.shard(MAILBOX, window) / "chunks.parquet", table, plain=("chunk_id", "sha256", "message_keys"))


def request(home: Home, shards: int, coverage_sha256: str, replay: ReplaySettings) -> RunRequest:
    """A run over the newest 20 windows that continues a lineage which trained all others."""
    parent = AdapterRef(adapter_id="aparent", run_id="parent", path="adapters/aparent", sha256="")
    new = tuple(range(max(0, shards - 20), shards))
    return RunRequest(
        mailbox=MAILBOX,
        new_windows=new,
        old_windows=tuple(range(new[0])),
        shards=tuple(
            ShardRef(
                window_idx=window,
                path=str(home.shard(MAILBOX, window).relative_to(home.root)),
                sha256=sha256_file(home.shard(MAILBOX, window) / "chunks.parquet"),
            )
            for window in range(shards)
        ),
        base=BaseRef(kind="builtin", base_id="b", path="bases/b"),
        parent=parent,
        champion=parent,
        best=None,
        coverage_sha256=coverage_sha256,
        exclusions_sha256="",
        settings=RunSettings(
            seed=0,
            rolling=1,
            min_threads=20,
            replay=replay,
            model=ModelSettings(),
            train=TrainSettings(),
            eval=EvalSettings(),
        ),
    )


def bench_replay(quick: bool = False) -> list[BenchRow]:
    """The manifest over ten million chunks in 2,000 shards, and the schedule of two epochs over a million of them."""
    chunks, shards, most = (200_000, 200, 100_000) if quick else (10_000_000, 2_000, 1_000_000)
    wide = ReplaySettings(
        ratio=4.0,
        max_share=0.8,
        max_rehearsal=most,
        caps=ReplayCaps(short=10**9, medium=10**9, long=10**9, verylong=10**9),
    )
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        coverage, manifest_file = home.root / "coverage.parquet", home.root / "manifest.parquet"

        def generated() -> None:
            generate(home, chunks, shards)
            note = {"windows": list(range(max(0, shards - 20)))}
            write_coverage(coverage, with_note(COVERAGE_SCHEMA.empty_table(), note))

        in_fork(generated)

        def manifest(replay: ReplaySettings) -> Callable[[], int]:
            asked = request(home, shards, sha256_file(coverage), replay)

            def work() -> int:
                built = build_manifest(home, asked, Exclusions(frozenset(), frozenset()), coverage)
                write_manifest(manifest_file, built)
                return int(built.table.num_rows)

            return work

        def reading() -> int:
            asked = request(home, shards, "", ReplaySettings())
            return len(
                frozen_sample(held_out_chunks(home, asked, Exclusions()), asked.new_windows, EvalSettings().max_chunks)
            )

        def finding() -> int:
            asked = request(home, shards, "", ReplaySettings())
            table = read_manifest(manifest_file).table
            mine = set(table["chunk_id"].to_pylist())
            columns = ("chunk_id", "starts", "n_context")
            return sum(
                read_rows(home.root / shard.path, shard.sha256, mine, columns=columns).num_rows for shard in asked.shards
            )

        def schedule() -> tuple[int, float]:
            manifest = read_manifest(manifest_file)
            started = time.monotonic()
            built = build_schedule(manifest, seed=0, context="bench", replay=wide, train=TrainSettings())
            return int(built.table.num_rows), time.monotonic() - started

        default = in_fork(manifest(ReplaySettings()))
        found, sampled = in_fork(finding), in_fork(reading)
        uncapped = in_fork(manifest(wide))
        scheduled = in_fork(schedule)
        rows, seconds = scheduled.result
        building = replace(scheduled, wall=seconds)
    what = f"{chunks:,} chunks in {shards:,} shards"
    return [
        *_rows(f"manifest over {what}", default, 10.0, 2.5, f"default caps, {default.result:,} rows"),
        *_rows(f"chunks of that manifest found in {shards:,} shards", found, None, None, f"{found.result:,} rows"),
        *_rows(
            f"val and test sample of {what}", sampled, None, None, f"{sampled.result:,} measured, the new windows whole"
        ),
        *_rows(f"manifest over {what}, hardly capped", uncapped, None, None, f"{uncapped.result:,} rows"),
        *_rows(f"schedule of {uncapped.result:,} chunks", building, 3.0, None, f"two epochs, {rows:,} rows"),
    ]


def _rows(name: str, spent: Spent, seconds: float | None, gigabytes: float | None, note: str) -> list[BenchRow]:
    peak = spent.peak / 1e9
    fast = None if seconds is None else spent.wall < seconds
    small = None if gigabytes is None else peak < gigabytes
    clock = f"{note}; {spent.cpu:.1f} s of processor time, files read included"
    return [
        BenchRow(name, spent.wall, "s", "", None, None, f"under {seconds:g} s" if seconds else "", fast, clock),
        BenchRow(
            f"{name}: memory", peak, "GB", "", None, None, f"under {gigabytes:g} GB" if gigabytes else "", small, note
        ),
    ]
