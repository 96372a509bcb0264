"""One arm with one seed: a chain of trainings, window after window, each going on from the one before.

Window 0 is trained once per seed and shared by all arms. The chunk order of new mail is drawn for the seed and window, the
same in every arm, so that arms differ by their rehearsal and nothing else.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.capacity.passes import Passes
from pipeline.config.settings import Settings
from pipeline.domain import Role
from pipeline.home import private_dir
from pipeline.runs.runfiles import Loss
from pipeline.sampling.coverage import coverage_on
from pipeline.sampling.manifest import Manifest, manifest_of
from pipeline.sampling.replay import Schedule, build_schedule
from retrain.evaluation.losses import losses_of, nats_of
from retrain.forgetting import orders
from retrain.forgetting.arms import Arm
from retrain.forgetting.kept import Cost, Place
from retrain.forgetting.material import Material
from retrain.models.loaded import Loaded
from retrain.models.model import Compute, fresh_adapter, load_base
from retrain.processes.sharding import trained_weights
from retrain.study import restore
from retrain.training.batches import batches_of
from retrain.training.metrics import StepRecord
from retrain.training.recipe import recipe_of
from retrain.training.trainer import Training, fit

SHARED = "window-0"
BASE = "base"

OnTraining = Callable[[str, int, int], None]
"""Called with an arm's name, a seed and a window when that training is done."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that trains: ``model`` is the base with an adapter, whose weights are put back before every training."""

    folder: Path
    material: Material
    settings: Settings
    compute: Compute
    model: Any
    fresh: dict[str, Any]
    seed: int

    @property
    def loaded(self) -> Loaded:
        return Loaded(self.model, self.compute, self.material.pad)

    def place(self, arm: str) -> Place:
        return Place(self.folder / "trainings" / arm / f"seed={self.seed}")


def open_bench(folder: Path, material: Material, settings: Settings, compute: Compute, seed: int) -> Bench:
    """The base with a fresh adapter, drawn for ``seed``."""
    quantize = settings.model.quantize
    base = load_base(material.base, compute, quantize=quantize)
    model = fresh_adapter(base, settings.train, builtin=True, quantize=quantize, checkpointing=False, seed=seed)
    return Bench(folder, material, settings, compute, model, trained_weights(model), seed)


def run_arm(bench: Bench, arm: Arm, on_training: OnTraining) -> None:
    """Trains what is not kept yet of one arm, window 0 included; a full retrain only once, at the last window."""
    first, *later = bench.material.windows
    shared = bench.place(SHARED)
    if not shared.done(first):
        restore(bench.model, bench.fresh)
        _train(bench, Arm("none"), first, None, {}, shared)
        on_training("window 0", bench.seed, first)
    place = bench.place(arm.folder)
    if arm.placement == "full":
        if not place.done(later[-1]):
            restore(bench.model, bench.fresh)
            _train(bench, arm, later[-1], None, {}, place)
            on_training(arm.name, bench.seed, later[-1])
        return
    open_windows = [window for window in later if not place.done(window)]
    if not open_windows:
        return
    # Normally the window before; where its weights were lost, as far back as there are some.
    before = max((window for window in later if window < open_windows[0] and place.has_weights(window)), default=first)
    source = place if before != first else shared
    restore(bench.model, source.weights(before))
    coverage = source.coverage(before)
    history = [shared.losses(first), *(place.losses(window) for window in later if window <= before)]
    for window in (window for window in later if window > before):
        rises = rises_of(bench.material, history)
        losses, coverage = _train(bench, arm, window, coverage, rises, place)
        history.append(losses)
        on_training(arm.name, bench.seed, window)


def measure_base(bench: Bench) -> None:
    """The bare base on every window: an adapter that was never trained changes nothing."""
    place = bench.place(BASE)
    first = bench.material.windows[0]
    if not place.done(first):
        restore(bench.model, bench.fresh)
        losses = _losses(bench, "base", bench.material.windows)
        place.keep(
            first,
            losses,
            None,
            {},
            Cost(steps=0, new_tokens=0, rehearsal_tokens=0, wall_s=0, cpu_s=0, rehearsed_windows={}),
        )


def rises_of(material: Material, history: Sequence[Sequence[Loss]]) -> dict[int, float]:
    """How far each window's val loss stands above the best it ever had, in nats per token, by the stored losses."""
    window_of = {chunk.chunk_id: chunk.window for chunk in material.val}
    means = []
    for losses in history:
        nats, tokens = Counter[int](), Counter[int]()
        for loss in losses:
            nats[window_of[loss.chunk_id]] += loss.nll  # type: ignore[assignment]
            tokens[window_of[loss.chunk_id]] += loss.n_tokens
        means.append({window: nats[window] / tokens[window] for window in nats})
    now = means[-1]
    return {window: now[window] - min(mean[window] for mean in means if window in mean) for window in now}


def _train(
    bench: Bench, arm: Arm, window: int, lineage: pa.Table | None, rises: dict[int, float], place: Place
) -> tuple[list[Loss], pa.Table]:
    """One training with the product's own manifest, schedule, loop and losses; kept before it returns."""
    material, settings = bench.material, bench.settings
    replay = arm.replay(settings.replay)
    new = tuple(idx for idx in material.windows if idx <= window) if arm.placement == "full" else (window,)
    upto = material.candidates.filter(pc.less_equal(material.candidates["window_idx"], window))
    if replay.strategy == "none":
        upto = upto.filter(pc.is_in(upto["window_idx"], value_set=pa.array(new, pa.int32())))
    context = f"window {window}"
    turns = replay.model_copy(update={"strategy": "stratified"}) if arm.order == "mixed" else replay
    manifest = _chosen(manifest_of(context, upto, new, lineage, seed=bench.seed, replay=turns), arm, rises, bench.seed)
    schedule = build_schedule(manifest, seed=bench.seed, context=context, replay=replay, train=settings.train)
    if arm.placement == "late":
        schedule = orders.late(schedule)
    batches = batches_of(((batch.epoch, batch.chunk_ids) for batch in schedule.batches()), material.examples)
    train = settings.train
    records: list[StepRecord] = []
    wall, cpu = time.monotonic(), time.process_time()
    scratch = private_dir(bench.folder / "scratch")
    recipe = recipe_of(train, bench.compute, bench.seed)
    fit(Training(bench.loaded, batches, recipe, scratch, records.append, passes=Passes(train.pass_tokens)))
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    losses = _losses(bench, arm.name, [idx for idx in material.windows if idx <= window])
    coverage = coverage_on(lineage, manifest, schedule, schedule.steps(train.accumulation), train.accumulation)
    place.keep(
        window, losses, coverage, trained_weights(bench.model), _cost(material, schedule, manifest, len(records), wall, cpu)
    )
    return losses, coverage


def _chosen(manifest: Manifest, arm: Arm, rises: dict[int, float], seed: int) -> Manifest:
    match arm.order:
        case "window":
            manifest = orders.equal(manifest)
        case "forgetting" | "mixed":
            manifest = orders.by_forgetting(manifest, rises)
        case "sender":
            manifest = orders.by_sender(manifest, 1000 * manifest.windows[-1] + seed)
        case "silent":
            manifest = orders.silent_first(manifest)
    return orders.in_place(manifest, arm.share) if arm.placement == "place" else manifest


def _losses(bench: Bench, adapter: str, windows: Sequence[int]) -> list[Loss]:
    examples = bench.material.val_of(windows)
    splits = {example.chunk_id: "val" for example in examples}
    return losses_of(nats_of(bench.loaded, examples, bench.settings.eval.batch_tokens), examples, splits, adapter, "")


def _cost(material: Material, schedule: Schedule, manifest: Manifest, steps: int, wall: float, cpu: float) -> Cost:
    lengths = {True: 0, False: 0}
    windows: Counter[int] = Counter()
    window_of = dict(zip(manifest.table["chunk_id"].to_pylist(), manifest.table["window_idx"].to_pylist(), strict=True))
    for batch in schedule.batches():
        for chunk_id in batch.chunk_ids:
            length = len(material.examples[chunk_id].ids)
            lengths[batch.role is Role.NEW] += length
            if batch.role is Role.REHEARSAL:
                windows[window_of[chunk_id]] += length
    return Cost(
        steps=steps,
        new_tokens=lengths[True],
        rehearsal_tokens=lengths[False],
        wall_s=round(wall, 3),
        cpu_s=round(cpu, 3),
        rehearsed_windows=dict(sorted(windows.items())),
    )
