"""The runs that windows would have asked for: one per closing, each promoted, by the code that plans real ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.settings import Settings
from pipeline.domain import Role
from pipeline.sampling.coverage import coverage_on, replay_coverage, windows_trained
from pipeline.sampling.manifest import manifest_of, waiting_windows, windows_taken
from pipeline.sampling.replay import build_schedule
from pipeline.scratch import Scratch


@dataclass(frozen=True, slots=True)
class Run:
    """One run. Tokens are by the store's ruler, over all epochs. ``earlier`` counts the chunks that earlier runs trained
    as new, ``reached`` those of them that any run so far has rehearsed."""

    window_idx: int
    new_chunks: int
    steps: int
    new_tokens: int
    rehearsal_tokens: int
    earlier: int
    reached: int

    @property
    def tokens(self) -> int:
        return self.new_tokens + self.rehearsal_tokens


def promoted_runs(windows: int, candidates: pa.Table, settings: Settings, scratch: Scratch) -> Iterator[Run]:
    """The runs over so many windows, whose train chunks are ``candidates``, no run waiting for another.

    A window without a train chunk asks for nothing and stays waiting, as it does for real. The order of batches is drawn
    for other names than a real run has, which can change its number of steps by a few.
    """
    lineage: pa.Table | None = None
    train, replay = settings.train, settings.replay
    for idx in range(windows):
        before = lineage if settings.model.init_from == "champion" else None
        trained = windows_trained(before) if before is not None else frozenset[int]()
        asked = waiting_windows(range(idx + 1), trained, replay.max_new_windows)
        taken = windows_taken(asked, trained, rolling=settings.window.rolling, replay=replay)
        wanted = pa.array(sorted({*taken.new, *taken.old}), pa.int32())
        rows = candidates.filter(pc.is_in(candidates["window_idx"], value_set=wanted))
        manifest = manifest_of(
            f"what-if/{idx}", rows, taken.new, before, seed=settings.seed, replay=replay, scratch=scratch
        )
        new_chunks = manifest.of(Role.NEW).num_rows
        if not new_chunks:
            continue
        schedule = build_schedule(manifest, seed=settings.seed, context=manifest.run_id, replay=replay, train=train)
        steps = schedule.steps(train.accumulation)
        lineage = coverage_on(before, manifest, schedule, steps, train.accumulation, scratch=scratch)
        covered = replay_coverage(lineage)
        yield Run(
            window_idx=idx,
            new_chunks=new_chunks,
            steps=steps,
            new_tokens=schedule.tokens(Role.NEW),
            rehearsal_tokens=schedule.tokens(Role.REHEARSAL),
            earlier=covered.earlier.chunks,
            reached=covered.ever.chunks,
        )
