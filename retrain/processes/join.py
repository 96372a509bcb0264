"""Takes part in a run that several machines train: ``python -m retrain.processes.join HOME RUN_ID MACHINE``.

For every machine but the first, which carries out the run: it starts this machine's processes, as many as the request of
the run says, and ends when training does. The home is the first machine's, by whatever file system they share. Exit code 1,
with one line that says why, when the processes ended before; then it is to be started again, as the first does its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.errors import MailtideError, UsageError
from pipeline.home import Home
from pipeline.runs.requests import read_request
from retrain.processes.launch import train_together
from retrain.progress import Progress


def main(arguments: list[str] | None = None) -> int:
    """Joins the run and stays until its training is over."""
    parser = argparse.ArgumentParser(
        prog="python -m retrain.processes.join", description="trains a run with other machines"
    )
    parser.add_argument("home", type=Path, help="the first machine's home, as this one sees it")
    parser.add_argument("run_id", help="of the run that waits there")
    parser.add_argument("machine", type=int, help="this one's number, from 1")
    asked = parser.parse_args(arguments)
    try:
        join(Home(asked.home.resolve()), asked.run_id, asked.machine)
    except MailtideError as error:
        print(f"{error.message}; {error.hint}" if error.hint else error.message, file=sys.stderr)
        return 1
    return 0


def join(home: Home, run_id: str, machine: int) -> None:
    """Trains with the others; raises ``UsageError`` for a number that the run has no machine of."""
    train = read_request(home.run(run_id)).settings.train
    if not 0 < machine < train.machines:
        raise UsageError(
            f"run {run_id} is trained by {train.machines} machines, of which {machine} is none that joins",
            hint="the first, 0, carries out the run; train.machines says how many there are",
        )
    train_together(home, run_id, train, _tell, machine)


def _tell(progress: Progress) -> None:
    print(progress.text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
