"""How long manifest and schedule take, and how much memory, over many generated shards.

Run ``python -m tests.bench.replay --chunks 1000000 --shards 200``; each phase runs in a process of its own, so that the
memory told is that phase's peak.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.coverage import COVERAGE_SCHEMA, write_coverage
from pipeline.domain import Role
from pipeline.home import Home, sha256_file
from pipeline.manifest import build_manifest, read_manifest, write_manifest
from pipeline.parquet import with_note, write_table
from pipeline.replay import build_schedule
from pipeline.requests import AdapterRef, BaseRef, RunRequest, RunSettings, ShardRef
from pipeline.runfiles import Exclusions
from pipeline.settings import EvalSettings, ModelSettings, ReplayCaps, ReplaySettings, TrainSettings
from pipeline.shards import CHUNK_SCHEMA, SHARD_FORMAT

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


def measured(name: str, work: Callable[[], int]) -> None:
    """Runs ``work`` in a forked process and prints its wall and CPU seconds and its peak memory."""

    def child() -> None:
        before, cpu = time.perf_counter(), time.process_time()
        count = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        wall, used = time.perf_counter() - before, time.process_time() - cpu
        print(f"{name}: {count:,} rows, {wall:.1f} s wall, {used:.1f} s CPU, {peak:.2f} GiB peak")

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--schedule", type=int, default=1_000_000, help="most rehearsal chunks of the schedule's manifest")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        coverage, manifest_file = home.root / "coverage.parquet", home.root / "manifest.parquet"

        def generated() -> int:
            generate(home, chosen.chunks, chosen.shards)
            note = {"windows": list(range(max(0, chosen.shards - 20)))}
            write_coverage(coverage, with_note(COVERAGE_SCHEMA.empty_table(), note))
            return int(chosen.chunks)

        def manifest(replay: ReplaySettings) -> Callable[[], int]:
            asked = request(home, chosen.shards, sha256_file(coverage), replay)

            def work() -> int:
                built = build_manifest(home, asked, Exclusions(frozenset(), frozenset()), coverage)
                write_manifest(manifest_file, built)
                return int(built.table.num_rows)

            return work

        wide = ReplaySettings(
            ratio=4.0,
            max_share=0.8,
            max_rehearsal=chosen.schedule,
            caps=ReplayCaps(short=10**9, medium=10**9, long=10**9, verylong=10**9),
        )

        def schedule() -> int:
            built = build_schedule(
                read_manifest(manifest_file), seed=0, context="bench", replay=wide, train=TrainSettings()
            )
            print(
                f"  rehearsal share {built.share:.3f}, new {built.tokens(Role.NEW):,} tokens, {built.n_batches:,} batches"
            )
            return int(built.table.num_rows)

        measured("generate", generated)
        measured("manifest, default caps", manifest(ReplaySettings()))
        measured("manifest, no caps", manifest(wide))
        measured("schedule of that, two epochs", schedule)


if __name__ == "__main__":
    main()
