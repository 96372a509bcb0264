"""Whether a run's cost stays what it is while the archive grows, and whether kills change a bit of what it trains."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean

from pipeline.config.settings import BuiltinModel, EvalSettings, ModelSettings, TrainSettings
from pipeline.home import Home, sha256_file, write_atomic
from pipeline.runs.plan import EXCLUSIONS, prepare_run
from pipeline.runs.requests import RunRequest, RunResult
from pipeline.runs.runfiles import read_exclusions
from tests.bench.forked import Spent, in_fork, killed_in_fork
from tests.bench.rows import BenchRow
from tests.support.mailroom import Mailroom, letters, tiny_settings

EARLY, LATE, THREADS = (11, 14), (47, 50), 64
"""Windows that are measured, all on one of the three topics."""
TOLERANCE = 0.1
KILLS = 20
INPUTS = {"request.json", EXCLUSIONS, "known_losses.parquet"}


def bench_growth(quick: bool = False) -> list[BenchRow]:
    """Runs of equal windows, the default built-in model: the 48th and 51st against the 12th and 15th, when rehearsal and
    samples are full.

    Each window holds as many letters as any other, and as long ones, and those measured are on one topic: what differs is
    how many windows came before, and which of their chunks were drawn. Windows between are promoted without training; each
    measured run is a real one, in a process of its own.
    """
    from retrain.offline import keep_offline

    keep_offline()
    import retrain.run  # noqa: F401  # before forking

    early, late = (EARLY[:1], (20,)) if quick else (EARLY, LATE)
    settings = tiny_settings(
        train=TrainSettings(epochs=1, threads=1),
        model=ModelSettings(builtin=BuiltinModel(base_tokens=20_000)),
        evaluate=EvalSettings(max_chunks=40, retrieval_queries=40),
    )
    with tempfile.TemporaryDirectory() as folder:
        room = Mailroom(Path(folder), settings)
        lineage = room.lineage
        lineage.close(letters(0, THREADS))
        first = room.ask()
        result: RunResult = in_fork(lambda: _execute(room.home, first)).result
        lineage.finish(first)
        runs: dict[int, RunRequest] = {}
        for window in range(1, late[-1] + 1):
            lineage.close(letters(window, THREADS, like=0))
            assert lineage.parent is not None
            lineage.parent = lineage.parent.model_copy(
                update={"path": f"adapters/{result.adapter_id}", "sha256": result.adapter_sha256}
            )
            asked = room.ask()
            if window in (*early, *late):
                runs[window] = asked
            else:
                write_atomic(room.home.run(asked.run_id) / "result.json", result.model_dump_json().encode())
            lineage.finish(asked)
        spent = {window: in_fork(partial(_execute, room.home, asked)) for window, asked in runs.items()}
    before, after = ([spent[window] for window in windows] for windows in (early, late))
    tokens, chunks = (
        ", ".join(f"{getattr(one.result, name):,}" for one in spent.values()) for name in ("tokens", "rehearsal_chunks")
    )
    note = (
        f"windows {', '.join(map(str, runs))} of {THREADS} generated threads, alike in number and length; {tokens} tokens "
        f"trained, {chunks} chunks rehearsed, 40 chunks measured per split; the mean of {len(after)} runs each, one thread"
    )
    return [
        _against("time", early, before, after, lambda one: one.cpu, "CPU-seconds", note),
        _against("peak memory", early, before, after, lambda one: one.peak / 1e6, "MB", note),
    ]


def _against(
    what: str,
    early: Sequence[int],
    before: Sequence[Spent],
    after: Sequence[Spent],
    of: Callable[[Spent], float],
    unit: str,
    note: str,
) -> BenchRow:
    value, reference = mean(map(of, after)), mean(map(of, before))
    ratio = value / reference
    windows = " and ".join(map(str, early))
    return BenchRow(
        f"run of window {LATE[-1]}: {what}",
        value,
        unit,
        f"windows {windows}",
        reference,
        ratio,
        f"within {TOLERANCE:.0%}",
        ratio <= 1 + TOLERANCE,
        note,
    )


def _execute(home: Home, request: RunRequest) -> RunResult:
    from retrain.run import execute

    return execute(home, request.run_id, lambda progress: None)


def _cleared(home: Home, request: RunRequest) -> None:
    """Leaves of a run what its request is made of."""
    folder = home.run(request.run_id)
    for path in folder.iterdir():
        if path.name not in INPUTS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(home.adapter(request.adapter_id), ignore_errors=True)


def bench_kills(quick: bool = False) -> list[BenchRow]:
    """A training process killed at a random step, and another that goes on: the last checkpoint, byte for byte."""
    from retrain.offline import keep_offline

    keep_offline()
    import retrain.study  # noqa: F401  # before forking

    kills = 3 if quick else KILLS
    source = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        home, request = _asked(Path(folder) / "home")
        steps, undisturbed = in_fork(lambda: _trained(home, request)).result
        moments = [source.randint(1, steps) for _ in range(kills)]
        equal = 0
        for moment in moments:
            _cleared(home, request)
            if not killed_in_fork(partial(_trained, home, request, moment)):
                raise ChildProcessError(f"the process was not killed at step {moment}")
            equal += in_fork(lambda: _trained(home, request)).result == (steps, undisturbed)
    return [
        BenchRow(
            "runs that were killed and resumed, bit-identical",
            equal,
            "runs",
            "all",
            kills,
            equal / kills,
            "all",
            equal == kills,
            f"kill -9 after steps {', '.join(map(str, moments))} of {steps}, a checkpoint every 4; weights, optimizer and "
            "losses of the last checkpoint and every step's figures; on a CPU, none on a GPU",
        )
    ]


def _asked(root: Path) -> tuple[Home, RunRequest]:
    room = Mailroom(root)
    room.close()
    return room.home, room.ask()


def _trained(home: Home, request: RunRequest, kill_after: int | None = None) -> tuple[int, dict[str, str]]:
    """Trains to the end, or to the step at which this process kills itself: the steps, and digests of what they left."""
    from retrain.models.base import find_base
    from retrain.models.model import choose_compute
    from retrain.progress import Progress
    from retrain.study import CHECKPOINTS, open_study
    from retrain.training import checkpoints
    from retrain.training.metrics import METRICS, read_metrics
    from retrain.training.to_the_end import train

    def observe(progress: Progress) -> None:
        if progress.step == "train" and progress.done == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    folder = home.run(request.run_id)
    prepared = prepare_run(home, request, folder)
    exclusions = read_exclusions(folder / EXCLUSIONS, request.exclusions_sha256)
    compute = choose_compute(request.settings.model, 1)
    base = find_base(home, request, exclusions, compute, lambda record: None)
    train(open_study(home, request, prepared, exclusions, base, compute), folder, observe)
    records = read_metrics(folder / METRICS)
    last = checkpoints.find(folder / CHECKPOINTS)[-1].folder
    files = {path.name: sha256_file(path) for path in sorted(last.iterdir())}
    return len(records), {**files, METRICS: repr([(x.loss, x.lr, x.tokens) for x in records])}
