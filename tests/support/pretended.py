"""Runs on real mail without training: claimed, planned, recorded and decided as ever; only weights and losses are not."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from pipeline.chunking.archive import write_training_set
from pipeline.config.settings import Settings
from pipeline.home import Home, private_dir, sha256_folder, write_atomic
from pipeline.runs.plan import COVERAGE, parent_coverage, prepare_run
from pipeline.runs.requests import RunRequest, RunResult
from pipeline.runs.runfiles import Loss, write_losses
from pipeline.sampling.coverage import coverage_after, write_coverage
from pipeline.store import Store
from pipeline.store.rows import ChunkRow
from registry.decide import Decision, decide_run
from streams.report.writing import try_to_write_report
from streams.runs.claims import Windows, claim
from tests.support.finished import eval_results

MAILBOX = "main"
START = datetime(2026, 3, 1)
CHECKPOINT = "step-000100"


def run_on_next_window(store: Store, home: Home, settings: Settings, number: int) -> Decision:
    """A run on one closing more, a little better than what there was; returns the verdict."""
    now = START + timedelta(days=number)
    request = claim(store, home, settings, MAILBOX, Windows(each=True), now)
    result = finish(store, home, request, now, level=5.0 - 0.2 * (number + 1))
    decision = decide_run(store, home, request, result, settings, now, "gate")
    try_to_write_report(store, home, request.run_id)
    return decision


def finish(store: Store, home: Home, request: RunRequest, now: datetime, *, level: float) -> RunResult:
    """Leaves all that a run leaves, weights, training set and checkpoints too; ``level`` is its loss in nats per token."""
    folder = home.run(request.run_id)
    prepared = prepare_run(home, request, folder)
    write_training_set(home, request, set(prepared.schedule.table["chunk_id"].to_pylist()))
    base = home.root / request.base.path
    if not base.is_dir():
        write_atomic(private_dir(base) / "model.safetensors", f"weights of {request.base.base_id}".encode())
    steps = prepared.schedule.steps(request.settings.train.accumulation)
    coverage = coverage_after(
        parent_coverage(home, request), prepared.manifest, prepared.schedule, steps, request.settings.train.accumulation
    )
    write_coverage(folder / COVERAGE, coverage)
    write_losses(folder / "losses.parquet", _losses(store, request, level))
    weights = f"weights of {request.adapter_id}".encode()
    write_atomic(private_dir(folder / "checkpoints" / CHECKPOINT) / "adapter_model.safetensors", weights)
    write_atomic(private_dir(home.adapter(request.adapter_id)) / "adapter_model.safetensors", weights)
    write_atomic(folder / "metrics.jsonl", b'{"step": 100, "loss": 4.2, "tokens": 100, "epoch": 0}\n')
    write_atomic(folder / "eval_results.json", json.dumps(eval_results(request.adapter_id)).encode())
    write_atomic(folder / "best_checkpoint.txt", CHECKPOINT.encode())
    result = RunResult(
        run_id=request.run_id,
        adapter_id=request.adapter_id,
        adapter_sha256=sha256_folder(home.adapter(request.adapter_id)),
        checkpoint=CHECKPOINT,
        started_at=now,
        finished_at=now + timedelta(minutes=30),
        steps=steps,
        tokens=20_000,
        new_chunks=12,
        rehearsal_chunks=3,
        seconds={"train": 1800.0},
        environment={"device": "cpu"},
    )
    write_atomic(folder / "result.json", result.model_dump_json().encode())
    return result


def _losses(store: Store, request: RunRequest, level: float) -> list[Loss]:
    """Every held-out chunk under the run's adapter, under its champion and under the base, which are worse."""
    champion = request.champion
    levels = [(request.adapter_id, CHECKPOINT, level), (f"base:{request.base.base_id}", "", 5.0)]
    if champion is not None:
        levels.append((champion.adapter_id, CHECKPOINT, level + 0.2))
    chunks = store.fetch(ChunkRow, "mailbox = ? AND split IN ('val', 'test')", [request.mailbox])
    windows = {shard.window_idx for shard in request.shards}
    return [
        Loss(name, checkpoint, chunk.chunk_id, chunk.split, 100 * nll, 100, 400, 1)
        for name, checkpoint, nll in levels
        for chunk in chunks
        if chunk.window_idx in windows and not _known(store, name, checkpoint, chunk.chunk_id)
    ]


def _known(store: Store, adapter_id: str, checkpoint: str, chunk_id: str) -> bool:
    sql = "SELECT count(*) FROM loss_rows WHERE adapter_id = ? AND checkpoint = ? AND chunk_id = ?"
    return bool(store.scalar(sql, [adapter_id, checkpoint, chunk_id]))
