"""What a run would do, before it is done; and the same written down, as a run's first step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.capacity.room import Fit, Room
from pipeline.chunking.tier_limits import TierUse
from pipeline.config.settings import CostSettings
from pipeline.domain import Bucket, Role
from pipeline.errors import NothingToDo, RunError
from pipeline.home import Home, sha256_file
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import Exclusions, read_exclusions
from pipeline.sampling.coverage import Reach, reach
from pipeline.sampling.manifest import Manifest, build_manifest, read_manifest, write_manifest
from pipeline.sampling.replay import Schedule, build_schedule, read_schedule, write_schedule

EXCLUSIONS, MANIFEST, SCHEDULE, COVERAGE = (
    "exclusions.parquet",
    "manifest.parquet",
    "schedule.parquet",
    "coverage.parquet",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``mailtide plan`` prints. Tokens are by the store's ruler.

    ``candidates`` are the chunks that may be rehearsed, ``rehearsal`` those that the schedule takes. ``buckets`` counts
    scheduled chunks per length bucket and epoch 0. ``largest_batch`` is padded to its longest chunk. ``seconds`` and
    ``cost`` are None until a run has measured a rate, ``room`` where the memory cannot be estimated. ``tiers`` are
    there where the settings limit quality tiers. ``refused`` says why ``mailtide retrain`` would not ask for this run,
    each with the next step: its base, its parent or a tracker is not of use. ``failed`` says which run on just this
    evidence failed before, and why; "" where none did. ``nothing`` says why nothing would be trained; else "".
    ``unchosen`` says why no checkpoint is chosen and nothing stops early, where the settings ask for that; else "".
    ``too_long`` says that chunks exceed the model's context; else "".
    ``owner`` holds, where replies are learned, the owner's addresses and how many mails of each the mailbox holds.
    ``begins`` says of a run that begins a new lineage, where there is a champion, why; else "".
    """

    run_id: str
    mailbox: str
    windows: tuple[int, ...]
    new: Reach
    rehearsal: Reach
    candidates: Reach
    epochs: int
    batches: int
    steps: int
    tokens_per_epoch: tuple[int, ...]
    rehearsal_share: float
    buckets: tuple[tuple[Bucket, int], ...]
    longest_chunk: int
    largest_batch: int
    seconds: float | None
    cost: float | None
    currency: str
    room: Room | None = None
    tiers: tuple[TierUse, ...] = ()
    refused: tuple[str, ...] = ()
    failed: str = ""
    nothing: str = ""
    unchosen: str = ""
    too_long: str = ""
    owner: tuple[tuple[str, int], ...] = ()
    begins: str = ""

    @property
    def is_possible(self) -> bool:
        """Whether ``mailtide retrain`` would ask for this run, its cost apart."""
        return not self.refused and not self.nothing and (self.room is None or self.room.fit is not Fit.NOT)

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return sum(self.tokens_per_epoch)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run's manifest and schedule, as they lie in its folder."""

    manifest: Manifest
    schedule: Schedule


def plan_run(
    home: Home,
    request: RunRequest,
    exclusions: Exclusions,
    *,
    tokens_per_second: float | None = None,
    seconds_beside: float = 0.0,
    cost: CostSettings | None = None,
) -> Plan:
    """Plans ``request`` from the shards, writing nothing. ``tokens_per_second`` is a rate measured in an earlier run (by
    the ruler's tokens), None where there is none yet; ``seconds_beside`` what that run took beside training."""
    manifest = build_manifest(home, request, exclusions, parent_coverage(home, request))
    schedule = _schedule(request, manifest)
    prices = CostSettings() if cost is None else cost
    per_epoch = _tokens_per_epoch(schedule, request.settings.train.epochs)
    seconds = sum(per_epoch) / tokens_per_second + seconds_beside if tokens_per_second else None
    rehearsal = manifest.of(Role.REHEARSAL)
    first = schedule.table.filter(pc.equal(schedule.table["epoch"], 0))
    return Plan(
        run_id=request.run_id,
        mailbox=request.mailbox,
        windows=manifest.windows,
        new=reach(manifest.of(Role.NEW)),
        rehearsal=reach(rehearsal.filter(pc.is_in(rehearsal["chunk_id"], value_set=schedule.table["chunk_id"]))),
        candidates=reach(rehearsal),
        epochs=request.settings.train.epochs,
        batches=schedule.n_batches,
        steps=schedule.steps(request.settings.train.accumulation),
        tokens_per_epoch=per_epoch,
        rehearsal_share=schedule.share,
        buckets=tuple((bucket, _count(first, bucket)) for bucket in Bucket),
        longest_chunk=int(pc.max(schedule.table["n_tokens"]).as_py() or 0),
        largest_batch=_largest_batch(schedule),
        seconds=seconds,
        cost=None if seconds is None else seconds / 3600 * prices.per_hour,
        currency=prices.currency,
        tiers=manifest.tiers,
        nothing=lacking(request, manifest),
    )


def lacking(request: RunRequest, manifest: Manifest) -> str:
    """Why a run would have nothing to train on, in a sentence; "" where it has something."""
    if manifest.of(Role.NEW).num_rows:
        return ""
    what = "train chunk"
    if request.settings.model.objective == "reply":
        what = "reply of the owner to train on (who wrote a mail is recorded since shards have format 2)"
    if any(tier.left_out for tier in manifest.tiers):
        what += " but those that replay.tier_caps and replay.tier_weights leave out"
    return f"the new windows of {request.mailbox} hold no {what}"


def prepare_run(home: Home, request: RunRequest, run_dir: Path) -> Prepared:
    """Writes ``manifest.parquet`` and ``schedule.parquet`` where they are missing, and returns both.

    A restarted run finds what it wrote before. Raises ``RunError`` when a file of the folder is not of this request, and
    ``NothingToDo`` when the new windows hold nothing to train on.
    """
    exclusions = run_dir / EXCLUSIONS
    if not exclusions.is_file() or sha256_file(exclusions) != request.exclusions_sha256:
        raise RunError(f"{exclusions} is missing or not the one requested", hint="ask for the run again")
    manifest = _manifest(home, request, run_dir)
    nothing = lacking(request, manifest)
    if nothing:
        raise NothingToDo(nothing, hint="wait for the next window")
    path = run_dir / SCHEDULE
    if not path.exists():
        write_schedule(path, _schedule(request, manifest))
    schedule = read_schedule(path)
    _check_owner(path, schedule.context, request)
    return Prepared(manifest, schedule)


def parent_coverage(home: Home, request: RunRequest) -> Path | None:
    """Where the parent run left the lineage's coverage; None without a parent."""
    return None if request.parent is None else home.run(request.parent.run_id) / COVERAGE


def _manifest(home: Home, request: RunRequest, run_dir: Path) -> Manifest:
    path = run_dir / MANIFEST
    if not path.exists():
        exclusions = read_exclusions(run_dir / EXCLUSIONS)
        write_manifest(path, build_manifest(home, request, exclusions, parent_coverage(home, request)))
    manifest = read_manifest(path)
    _check_owner(path, manifest.run_id, request)
    return manifest


def _schedule(request: RunRequest, manifest: Manifest) -> Schedule:
    settings = request.settings
    return build_schedule(
        manifest, seed=settings.seed, context=request.run_id, replay=settings.replay, train=settings.train
    )


def _check_owner(path: Path, run_id: str, request: RunRequest) -> None:
    if run_id != request.run_id:
        raise RunError(f"{path} is of run {run_id}, not of {request.run_id}", hint="remove it and run again")


def _tokens_per_epoch(schedule: Schedule, epochs: int) -> tuple[int, ...]:
    sums = schedule.table.group_by("epoch").aggregate([("n_tokens", "sum")])
    found = dict(zip(sums["epoch"].to_pylist(), sums["n_tokens_sum"].to_pylist(), strict=True))
    return tuple(int(found.get(epoch, 0)) for epoch in range(epochs))


def _largest_batch(schedule: Schedule) -> int:
    batches = schedule.table.group_by("batch").aggregate([("n_tokens", "max"), ("n_tokens", "count")])
    padded = pc.multiply(batches["n_tokens_max"].cast(pa.int64()), batches["n_tokens_count"])
    return int(pc.max(padded).as_py() or 0)


def _count(table: pa.Table, bucket: Bucket) -> int:
    return int(pc.sum(pc.equal(table["bucket"], bucket.value)).as_py() or 0)
