"""Carries out every run again, in peace and in a home of its own: the same request must give the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.home import Home, private_dir, sha256_file
from pipeline.runs.requests import RunResult
from pipeline.store import Store
from pipeline.store.rows import RequestRow
from streams.runs.runner import Runner
from tests.chaos.watching import CLAIMED

LEFT = ("manifest.parquet", "schedule.parquet", "losses.parquet", "coverage.parquet", "best_checkpoint.txt")
"""Files of a run that hold no times."""


def faults_of_training(struck: Home, root: Path, say: Callable[[str], None]) -> list[str]:
    """What a run that was interrupted left otherwise than the same run undisturbed: its files, its adapter."""
    with Store.open(struck, None, None) as store:
        runs = [row.run_id for row in store.fetch(RequestRow, order='"at"')]
    again = Home(root)
    private_dir(root)
    (root / "shards").symlink_to(struck.root / "shards", target_is_directory=True)
    faults = []
    with Runner(again) as runner:
        for number, run_id in enumerate(runs):
            if not (struck.run(run_id) / "result.json").exists():
                continue  # it failed, which is told elsewhere
            private_dir(again.run(run_id))
            for name in CLAIMED & {path.name for path in struck.run(run_id).iterdir()}:
                shutil.copy2(struck.run(run_id) / name, again.run(run_id) / name)
            runner.run(run_id, lambda step: None)
            faults += [
                f"run {run_id}: {name} differs from that of the same run undisturbed"
                for name in _unlike(struck, again, run_id)
            ]
            if number % 10 == 9:
                say(f"{number + 1} of {len(runs)} runs repeated")
    return faults


def _unlike(struck: Home, again: Home, run_id: str) -> list[str]:
    files = [(struck.run(run_id) / name, again.run(run_id) / name) for name in LEFT]
    adapter = RunResult.model_validate_json((struck.run(run_id) / "result.json").read_bytes()).adapter_id
    files += [(path, again.adapter(adapter) / path.name) for path in sorted(struck.adapter(adapter).iterdir())]
    return [one.name for one, other in files if not other.exists() or sha256_file(one) != sha256_file(other)]
