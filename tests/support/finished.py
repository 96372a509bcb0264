"""Finished runs without training: a real home, store, shards, manifests and coverage, and losses planted by hand."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.arrival.people import PeopleKey
from pipeline.chunking.shards import TEXT
from pipeline.config.settings import Settings
from pipeline.domain import Chunk, Split
from pipeline.home import Home, private_dir, sha256_file, sha256_folder, write_atomic
from pipeline.runs.requests import AdapterRef, RunRequest, RunResult
from pipeline.runs.runfiles import Loss, write_losses
from pipeline.sampling.coverage import windows_trained
from pipeline.store import Store
from pipeline.store.rows import ChunkRow, LossRow, RequestRow, RunEventRow, ShardRow
from pipeline.store.tables import table_of
from pipeline.versions import CHUNK_FORMAT, VERSIONS
from registry.decide import Decision, decide_run
from tests.support.lineage import MAILBOX, Lineage, make_chunk

START = datetime(2026, 3, 1)
SELECTED, EARLIER = "step-000100", "step-000050"
BASE = "base:base"


@dataclass
class Finished:
    """Runs of one mailbox. ``skill`` is each adapter's true loss per window in nats per token, in order of making."""

    store: Store
    lineage: Lineage
    settings: Settings
    skill: dict[str, dict[int, float]] = field(default_factory=dict)
    chunks: dict[str, Chunk] = field(default_factory=dict)
    now: datetime = START
    base: str = BASE

    @classmethod
    def at(cls, root: Path, settings: Settings | None = None) -> Finished:
        settings = settings or Settings()
        lineage = Lineage.at(root)
        home = lineage.home
        store = Store.create(home, settings, PeopleKey(b"k" * 32), VERSIONS)
        base = private_dir(home.base(MAILBOX, "base"))
        write_atomic(base / "model.safetensors", b"weights of the base")
        return cls(store, lineage, settings)

    @property
    def home(self) -> Home:
        return self.lineage.home

    def close_window(self, *, train: int = 6, val: int = 8, test: int = 2, per_thread: int = 2) -> int:
        """Closes a window of fresh threads and notes it in the store."""
        window = len(self.lineage.shards)
        named = [(Split.TRAIN, train), (Split.VAL, val), (Split.TEST, test)]
        chunks = [
            make_chunk(f"{split.value}{window}-{i}", window, part, split=split)
            for split, count in named
            for i in range(count)
            for part in range(per_thread)
        ]
        self.lineage.close(chunks)
        self.chunks |= {chunk.chunk_id: chunk for chunk in chunks}
        shard = self.lineage.shards[-1]
        text_sha256 = sha256_file(self.home.root / shard.path / TEXT)
        event_id = f"window.closed/{MAILBOX}/{window}"
        self.store.append(
            [
                *(chunk_row(chunk) for chunk in chunks),
                ShardRow(MAILBOX, window, len(chunks), shard.path, shard.sha256, text_sha256, event_id),
            ]
        )
        return window

    def request(self, *, best: AdapterRef | None = None) -> RunRequest:
        """The next request, noted in the store as the owner would."""
        asked = self.lineage.request()
        if best is not None:
            asked = asked.model_copy(update={"best": best})
            moved = self.home.run(self.lineage.request().run_id) / "exclusions.parquet"
            write_atomic(self.home.run(asked.run_id) / "exclusions.parquet", moved.read_bytes())
        self.now += timedelta(hours=1)
        parent = asked.parent.adapter_id if asked.parent else None
        self.store.append(
            [
                RequestRow(
                    asked.run_id, MAILBOX, asked.new_windows, parent, asked.adapter_id, asked.model_dump_json(), self.now
                ),
                RunEventRow(asked.run_id, "requested", "{}", self.now),
            ]
        )
        return asked

    def finish(self, asked: RunRequest, *, new: float, old: float = 0.0) -> RunResult:
        """Leaves what a run leaves. ``new`` and ``old`` are nats per token that it is worse than its champion (negative:
        better) on the windows that only it learned, and on earlier ones."""
        folder = self.home.run(asked.run_id)
        before = replace(self.lineage)
        self.lineage.finish(asked)
        for name in ("parent", "coverage_sha256", "trained"):
            setattr(self.lineage, name, getattr(before, name))
        champion = asked.champion.adapter_id if asked.champion else self.base
        reference = self.skill.get(champion, {})
        windows = [shard.window_idx for shard in asked.shards]
        self.skill[asked.adapter_id] = {
            window: reference.get(window, 5.0) + (old if window in asked.old_windows else new) for window in windows
        }
        write_atomic(folder / "request.json", asked.model_dump_json().encode())
        self._write_losses(asked, champion)
        write_atomic(folder / "metrics.jsonl", b'{"step": 100, "loss": 4.2}\n')
        write_atomic(folder / "eval_results.json", json.dumps(eval_results(asked.adapter_id)).encode())
        write_atomic(folder / "best_checkpoint.txt", SELECTED.encode())
        adapter = private_dir(self.home.adapter(asked.adapter_id))
        write_atomic(adapter / "adapter_model.safetensors", f"weights of {asked.adapter_id}".encode())
        result = RunResult(
            run_id=asked.run_id,
            adapter_id=asked.adapter_id,
            adapter_sha256=sha256_folder(adapter),
            checkpoint=SELECTED,
            started_at=self.now,
            finished_at=self.now + timedelta(minutes=30),
            steps=100,
            tokens=20_000,
            new_chunks=12,
            rehearsal_chunks=3,
            seconds={"train": 1800.0},
            environment={"torch": "2.13.0", "device": "cpu"},
        )
        write_atomic(folder / "result.json", result.model_dump_json().encode())
        return result

    def decide(self, asked: RunRequest, result: RunResult) -> Decision:
        """The verdict; the lineage continues from the adapter when it is promoted."""
        self.now += timedelta(hours=1)
        decision = decide_run(self.store, self.home, asked, result, self.settings, self.now, "gate")
        if decision.status == "promoted":
            self.adopt(asked, result)
        return decision

    def adopt(self, asked: RunRequest, result: RunResult) -> AdapterRef:
        """Makes the adapter the one that the next request continues and challenges."""
        from pipeline.sampling.coverage import read_coverage

        path = self.home.adapter(result.adapter_id).relative_to(self.home.root).as_posix()
        self.lineage.parent = AdapterRef(
            adapter_id=result.adapter_id, run_id=asked.run_id, path=path, sha256=result.adapter_sha256
        )
        coverage = self.home.run(asked.run_id) / "coverage.parquet"
        self.lineage.coverage_sha256 = sha256_file(coverage)
        self.lineage.trained = windows_trained(read_coverage(coverage))
        return self.lineage.parent

    def step(self, *, new: float = -0.2, old: float = 0.0) -> tuple[RunRequest, RunResult, Decision]:
        """A window, a run on it, and the verdict."""
        self.close_window()
        asked = self.request()
        result = self.finish(asked, new=new, old=old)
        return asked, result, self.decide(asked, result)

    def _write_losses(self, asked: RunRequest, champion: str) -> None:
        stored = self.store.fetch(LossRow, "mailbox = ?", [MAILBOX])
        named = {self.base, *(adapter.adapter_id for adapter in (asked.champion, asked.parent, asked.best) if adapter)}
        known = [Loss.of(row) for row in stored if row.adapter_id in named]
        held_out = [chunk for chunk in self.chunks.values() if chunk.split in (Split.VAL, Split.TEST)]
        at = "" if champion == self.base else SELECTED
        has = {loss.chunk_id for loss in known if (loss.adapter_id, loss.checkpoint) == (champion, at)}
        computed = [
            *self.losses(asked.adapter_id, SELECTED, held_out),
            *self.losses(asked.adapter_id, EARLIER, held_out, worse=0.5),
            *self.losses(champion, at, [chunk for chunk in held_out if chunk.chunk_id not in has]),
        ]
        folder = self.home.run(asked.run_id)
        write_losses(folder / "known_losses.parquet", known)
        write_losses(folder / "losses.parquet", computed)

    def losses(self, adapter_id: str, checkpoint: str, chunks: Sequence[Chunk], worse: float = 0.0) -> list[Loss]:
        """Planted losses: the adapter's skill, the thread's own level, and what adapters made one after the other differ by
        in either direction: 0.02, half of the threads each way."""
        found = []
        place = [self.base, *(name for name in self.skill if name != self.base)].index(adapter_id)
        for chunk in chunks:
            level = self.skill.get(adapter_id, {}).get(chunk.window_idx, 5.0)
            thread = random.Random(chunk.thread_id).gauss(0, 0.5)
            noise = 0.02 * place * (1 if int(chunk.thread_id.rpartition("-")[2]) % 2 else -1)
            tokens = 60 + random.Random(chunk.chunk_id).randrange(400)
            nll = tokens * (level + thread + noise + worse)
            found.append(Loss(adapter_id, checkpoint, chunk.chunk_id, chunk.split.value, nll, tokens, 4 * tokens, 1))
        return found


def chunk_row(chunk: Chunk) -> ChunkRow:
    """The store's row of a chunk: all but its text and offsets."""
    values = {name: getattr(chunk, name) for name in table_of(ChunkRow).columns if name != "format"}
    values |= {name: values[name].value for name in ("split", "bucket", "tier")}
    return ChunkRow(**values, format=CHUNK_FORMAT)


def eval_results(adapter_id: str) -> dict[str, object]:
    """What a run writes of its figures, one that could not be computed among them."""
    loss = {"metric": "loss", "value": 4.2, "n": 16, "ci_low": 4.1, "ci_high": 4.3, "window_from": 0, "window_to": 0}
    unknown = {"metric": "recall@1", "value": None, "n": 0, "ci_low": None, "ci_high": None}
    metrics = [loss, unknown]
    return {
        "version": 1,
        "note": "a field that is new here",
        "checkpoints": [{"checkpoint": SELECTED, "adapter_id": adapter_id, "split": "val", "metrics": metrics}],
    }


Corrupt = Callable[[Path], None]


def flip_a_byte(path: Path) -> None:
    """Changes one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x01
    path.write_bytes(bytes(data))
