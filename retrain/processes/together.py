"""One of the processes that train a run together: ``python -m retrain.processes.together HOME RUN_ID``.

Started by torchrun or ``accelerate launch``, on one machine or on several that share the home. The run's request, manifest,
schedule and base must be there; the first process writes checkpoints, and all end when training does. Whoever carries out
the run goes on from these.

Each line on standard output is a JSON object: what the first process does (``{"progress": {...}}``), why one cannot go on
(``{"error", "hint"}``), or that all are to be started again (``{"again"}``). All else goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline.errors import MailtideError
from pipeline.home import Home
from pipeline.lifeline import die_with_parent
from retrain.offline import TIED, keep_offline
from retrain.progress import Progress
from retrain.worker import own_stdout

Say = Callable[[dict[str, Any]], None]


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 when the run cannot go on, or is to be started again."""
    parser = argparse.ArgumentParser(
        prog="python -m retrain.processes.together", description="trains a run with other processes"
    )
    parser.add_argument("home", type=Path)
    parser.add_argument("run_id")
    options = parser.parse_args(arguments)
    if not die_with_parent():
        return 1
    answers = own_stdout()
    keep_offline()
    warnings.filterwarnings("ignore", message=TIED)

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        again = take_part(Home(options.home.resolve()), options.run_id, say)
    except MailtideError as error:
        say({"error": error.message, "hint": error.hint})
        return 1
    if again is not None:
        say({"again": again})
    return 0 if again is None else 1


def take_part(home: Home, run_id: str, say: Say) -> str | None:
    """Trains this process's share. None when training is at its end, else why it must be started again."""
    from pipeline.runs.plan import EXCLUSIONS, prepare_run
    from pipeline.runs.requests import read_request
    from pipeline.runs.runfiles import read_exclusions
    from retrain.models.base import locate
    from retrain.models.model import choose_compute
    from retrain.processes.ranks import join, leave
    from retrain.study import open_study
    from retrain.training.retries import train_until_better

    folder = home.run(run_id)
    request = read_request(folder)
    ranks = join()

    def tell(progress: Progress) -> None:
        if ranks.first:
            say({"progress": asdict(progress)})

    prepared = ranks.in_turn(lambda: prepare_run(home, request, folder))
    exclusions = read_exclusions(folder / EXCLUSIONS, request.exclusions_sha256)
    chosen = choose_compute(request.settings.model, request.settings.train.threads, ranks)
    compute = replace(chosen, sharded=request.settings.train.shard)
    base = locate(home, request.base, request.settings.model)
    study = open_study(home, request, prepared, exclusions, base, compute)
    again = train_until_better(study, folder, tell)
    if again is None:
        leave()
    return again


if __name__ == "__main__":
    sys.exit(main())
