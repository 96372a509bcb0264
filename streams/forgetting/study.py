"""A study from archives to figures, kept in one folder: what is there is not done again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.settings import Settings
from pipeline.errors import NothingToDo, UsageError
from pipeline.home import Home, private_dir, sha256_file, write_atomic
from pipeline.runs.requests import ShardRef
from streams.forgetting.windows import Cut, import_windows

if TYPE_CHECKING:
    from retrain.forgetting.arms import Arm
    from retrain.forgetting.figures import Figures, Floats
    from retrain.forgetting.kept import Cost
    from retrain.forgetting.material import Material, Sizes

STUDY, SHARDS = "study.json", "shards.json"
HOME, BASE, TRAININGS = "home", "base", "trainings"

SMALL = (
    "split.train=0.6",
    "split.val=0.4",
    "split.test=0",
    "chunk.max_tokens=128",
    "chunk.overlap=0",
    "window.count=null",
    "window.age=null",
    "replay.max_rehearsal=1000000",
    "model.quantize=false",
    "model.dtype=float32",
    "model.builtin.vocabulary=1024",
    "model.builtin.width=64",
    "model.builtin.layers=2",
    "model.builtin.heads=4",
    "model.builtin.context=192",
    "model.builtin.base_tokens=250000",
    "train.threads=1",
    "train.lr=0.01",
    "train.batch_tokens=512",
    "train.pass_tokens=2048",
)
"""The settings of a study, which differ from a mailbox's: a model and chunks so small that hundreds of trainings take
minutes, and enough val mail to measure on."""

OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """One arm of a finished study. ``rises``: how far each window stood above its best loss after each training, of shape
    (trainings, windows), averaged over seeds, NaN where not measured. ``costs`` are by seed and training."""

    arm: Arm
    figures: Figures
    rises: Floats
    costs: tuple[tuple[Cost, ...], ...]


@dataclass(frozen=True, slots=True)
class Study:
    """A finished study. ``windows`` names the archive of each window, ``base`` is the untrained model's loss on it,
    ``rare`` and ``rarer`` count senders and val chunks behind those figures."""

    archives: tuple[str, ...]
    windows: tuple[str, ...]
    cut: Cut
    sizes: Sizes
    seeds: int
    val_chunks: int
    val_threads: int
    rare: tuple[int, int]
    rarer: tuple[int, int]
    base: tuple[float, ...]
    arms: tuple[Trained, ...]

    def of(self, name: str) -> Trained | None:
        return next((each for each in self.arms if each.arm.name == name), None)


def run_study(
    folder: Path,
    archives: Sequence[Path],
    cut: Cut,
    sizes: Sizes,
    seeds: int,
    arms: Sequence[Arm],
    settings: Settings,
    on_progress: OnProgress,
) -> Study:
    """Trains every arm with every seed, seed after seed, and tells what came of it.

    Raises ``UsageError`` when the folder holds another study, ``NothingToDo`` where the archives hold too little mail.
    """
    from retrain.forgetting.chains import measure_base, open_bench, run_arm
    from retrain.forgetting.material import prepare
    from retrain.models.model import choose_compute

    _claim(folder, archives, cut, sizes, settings)
    shards = _shards(folder, settings, archives, cut, on_progress)
    compute = choose_compute(settings.model, settings.train.threads)
    material = prepare(
        Home(folder / HOME),
        shards,
        settings,
        sizes,
        folder / BASE,
        compute,
        lambda step: on_progress(step.step, step.steps, "the base"),
    )
    total = seeds * (1 + sum(1 if arm.placement == "full" else cut.windows for arm in arms))
    done = 0

    def on_training(name: str, seed: int, window: int) -> None:
        nonlocal done
        done += 1
        on_progress(done, total, f"{name}, seed {seed}, window {window}")

    for seed in range(seeds):
        bench = open_bench(folder, material, settings, compute, seed)
        if seed == 0:
            measure_base(bench)
        for arm in arms:
            run_arm(bench, arm, on_training)
    return gather(folder, material, archives, cut, sizes, seeds, arms)


def gather(
    folder: Path, material: Material, archives: Sequence[Path], cut: Cut, sizes: Sizes, seeds: int, arms: Sequence[Arm]
) -> Study:
    """The figures of what is kept in ``folder``."""
    import numpy as np

    from retrain.forgetting.chains import BASE as UNTRAINED
    from retrain.forgetting.chains import SHARED
    from retrain.forgetting.figures import draw_threads, figures, matrix, rare_senders, rises, window_losses
    from retrain.forgetting.kept import Place

    chunks, count = material.val, len(material.windows)
    counts = draw_threads(chunks)
    senders = rare_senders(chunks, material.candidates)
    windows = np.array([chunk.window for chunk in chunks])
    trained = []
    for arm in arms:
        measured, costs = [], []
        for seed in range(seeds):
            place = Place(folder / TRAININGS / arm.folder / f"seed={seed}")
            done = [window for window in material.windows if place.done(window)]
            losses = {window: place.losses(window) for window in done}
            if arm.placement != "full":
                losses[material.windows[0]] = Place(folder / TRAININGS / SHARED / f"seed={seed}").losses(0)
            measured.append(losses)
            costs.append(tuple(place.cost(window) for window in done))
        found = matrix(chunks, count, measured)
        risen = rises(window_losses(found, windows, counts[:1]))[0].mean(axis=0)
        trained.append(Trained(arm, figures(found, chunks, senders, counts), risen, tuple(costs)))
    base = matrix(chunks, count, [{0: Place(folder / TRAININGS / UNTRAINED / "seed=0").losses(0)}])
    return Study(
        archives=tuple(path.name for path in archives),
        windows=_names(archives, cut),
        cut=cut,
        sizes=sizes,
        seeds=seeds,
        val_chunks=len(chunks),
        val_threads=len({chunk.thread_id for chunk in chunks}),
        rare=(len(senders.rare), sum(chunk.sender in senders.rare for chunk in chunks)),
        rarer=(len(senders.rarer), sum(chunk.sender in senders.rarer for chunk in chunks)),
        base=tuple(window_losses(base, windows, counts[:1])[0, 0, 0].tolist()),
        arms=tuple(trained),
    )


def _names(archives: Sequence[Path], cut: Cut) -> tuple[str, ...]:
    """The archive of each window, without what its name ends in."""
    from streams.forgetting.windows import shares

    names = [path.name.partition(".")[0] for path in archives]
    counts = shares(cut.windows, len(names))
    return (names[0], *(name for name, each in zip(names, counts, strict=True) for _ in range(each)))


def _claim(folder: Path, archives: Sequence[Path], cut: Cut, sizes: Sizes, settings: Settings) -> None:
    """Notes what the folder's study is of, or refuses when it is of something else. Where nothing was trained yet, as after
    one that had too little mail, another takes its place."""
    said = {
        "archives": [path.name for path in archives],
        "mail": [sha256_file(path) for path in archives if path.is_file()],
        "cut": asdict(cut),
        "sizes": asdict(sizes),
        "settings": settings.model_dump(mode="json", exclude_defaults=True),
    }
    path = private_dir(folder) / STUDY
    if path.is_file():
        before = json.loads(path.read_bytes())
        other = [name for name in said if before.get(name, said[name]) != said[name]]
        if other and (folder / TRAININGS).exists():
            raise UsageError(
                f"{folder} holds a study with other {', '.join(other)}",
                hint="name another folder with --keep, or remove it",
            )
        if other:
            for begun in (HOME, BASE):
                shutil.rmtree(folder / begun, ignore_errors=True)
            (folder / SHARDS).unlink(missing_ok=True)
    elif any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty, and no study", hint="name another folder with --keep")
    write_atomic(path, json.dumps(said, indent=1).encode() + b"\n")


def _shards(
    folder: Path, settings: Settings, archives: Sequence[Path], cut: Cut, on_progress: OnProgress
) -> list[ShardRef]:
    path = folder / SHARDS
    if not path.is_file():
        shutil.rmtree(folder / HOME, ignore_errors=True)
        total = cut.windows + 1
        shards = import_windows(
            Home(folder / HOME), settings, archives, cut, lambda done: on_progress(done, total, "windows imported")
        )
        if len(shards) != total:
            raise NothingToDo(f"{len(shards)} of {total} windows hold mail", hint="take more mails per window with --mails")
        write_atomic(path, json.dumps([shard.model_dump() for shard in shards], indent=1).encode() + b"\n")
    return [ShardRef(**shard) for shard in json.loads(path.read_bytes())]
