"""Small mailboxes and lineages of runs, without a store or a model: chunks, shards, requests and their coverage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.chunking.shards import write_shard
from pipeline.config.settings import EvalSettings, ModelSettings, ReplaySettings, TrainSettings
from pipeline.domain import Bucket, Chunk, Split, Tier
from pipeline.home import Home, sha256_file
from pipeline.runs.plan import COVERAGE, EXCLUSIONS, prepare_run
from pipeline.runs.requests import AdapterRef, BaseRef, RunRequest, RunSettings, ShardRef
from pipeline.runs.runfiles import write_exclusions
from pipeline.sampling.coverage import coverage_after, windows_trained, write_coverage
from pipeline.sampling.manifest import Manifest, waiting_windows
from pipeline.sampling.replay import Schedule

MAILBOX = "main"


def sender_key(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def bucket_of(tokens: int) -> Bucket:
    limits = ((512, Bucket.SHORT), (1024, Bucket.MEDIUM), (2048, Bucket.LONG))
    return next((bucket for limit, bucket in limits if tokens < limit), Bucket.VERYLONG)


def make_chunk(
    thread: str, window: int, ordinal: int = 0, *, sender: str = "ann", tokens: int = 100, split: Split = Split.TRAIN
) -> Chunk:
    """A chunk of one message whose text is short, whatever ``tokens`` claims."""
    chunk_id = f"{thread}:w{window}:{ordinal}"
    text = f"Subject: {thread}\n\nPart {ordinal} of window {window}, ünïcode included.\n"
    return Chunk(
        mailbox=MAILBOX,
        chunk_id=chunk_id,
        thread_id=thread,
        window_idx=window,
        split=split,
        sender=sender_key(sender),
        message_keys=(f"<{chunk_id}@example.org>",),
        starts=(text.index("\n\n") + 2,),
        ordinals=(ordinal,),
        parents=(None,),
        n_context=0,
        n_messages=1,
        n_tokens=tokens,
        bucket=bucket_of(tokens),
        tier=Tier.PERSON,
        new_from=0,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        text=text,
    )


def run_settings(
    *,
    seed: int = 0,
    rolling: int = 1,
    replay: ReplaySettings | None = None,
    train: TrainSettings | None = None,
) -> RunSettings:
    return RunSettings(
        seed=seed,
        rolling=rolling,
        min_threads=20,
        replay=replay or ReplaySettings(),
        model=ModelSettings(),
        train=train or TrainSettings(),
        eval=EvalSettings(),
    )


@dataclass
class Lineage:
    """A home whose runs each continue the one before, promoted without training."""

    home: Home
    settings: RunSettings = field(default_factory=run_settings)
    shards: list[ShardRef] = field(default_factory=list)
    trained: frozenset[int] = frozenset()
    parent: AdapterRef | None = None
    coverage_sha256: str = ""
    excluded: list[tuple[str, str | None, str]] = field(default_factory=list)
    owner: tuple[str, ...] = ()

    @classmethod
    def at(cls, root: Path, settings: RunSettings | None = None) -> Lineage:
        return cls(Home(root), settings or run_settings())

    def close(self, chunks: Iterable[Chunk]) -> int:
        """Writes the next window's shard and returns its index."""
        window = len(self.shards)
        folder = self.home.shard(MAILBOX, window)
        digests = write_shard(folder, chunks)
        path = folder.relative_to(self.home.root).as_posix()
        self.shards.append(ShardRef(window_idx=window, path=path, sha256=digests.chunks_sha256))
        return window

    def request(self, new_windows: Sequence[int] | None = None) -> RunRequest:
        """The request of the next run, its exclusions written into its folder."""
        closed = [shard.window_idx for shard in self.shards]
        most = self.settings.replay.max_new_windows
        scratch = self.home.root / EXCLUSIONS
        asked = RunRequest(
            mailbox=MAILBOX,
            new_windows=tuple(waiting_windows(closed, self.trained, most) if new_windows is None else new_windows),
            old_windows=tuple(sorted(self.trained)),
            shards=tuple(self.shards),
            base=BaseRef(kind="builtin", base_id="base", path="bases/main/base"),
            parent=self.parent,
            champion=self.parent,
            best=self.parent,
            coverage_sha256=self.coverage_sha256,
            exclusions_sha256=_written(scratch, self.excluded),
            settings=self.settings,
            owner=self.owner,
        )
        _written(self.home.run(asked.run_id) / EXCLUSIONS, self.excluded)
        return asked

    def prepare(self, asked: RunRequest) -> tuple[Manifest, Schedule]:
        prepared = prepare_run(self.home, asked, self.home.run(asked.run_id))
        return prepared.manifest, prepared.schedule

    def finish(self, asked: RunRequest, upto_step: int | None = None) -> tuple[Manifest, Schedule]:
        """Prepares the run, counts what its checkpoint (the last unless named) has trained, and continues from it."""
        manifest, schedule = self.prepare(asked)
        parent = None if self.parent is None else self.home.run(self.parent.run_id) / COVERAGE
        accumulation = self.settings.train.accumulation
        step = schedule.steps(accumulation) if upto_step is None else upto_step
        coverage = coverage_after(parent, manifest, schedule, step, accumulation)
        self.coverage_sha256 = write_coverage(self.home.run(asked.run_id) / COVERAGE, coverage)
        self.trained = windows_trained(coverage)
        name = asked.adapter_id
        self.parent = AdapterRef(adapter_id=name, run_id=asked.run_id, path=f"adapters/{name}", sha256="0" * 64)
        return manifest, schedule

    @property
    def coverage(self) -> Path:
        """The newest run's coverage."""
        assert self.parent is not None
        return self.home.run(self.parent.run_id) / COVERAGE


def _written(path: Path, rows: Sequence[tuple[str, str | None, str]]) -> str:
    write_exclusions(path, rows)
    return sha256_file(path)
