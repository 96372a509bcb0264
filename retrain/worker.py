"""A warm training process: imports torch once, carries out one run after another, and dies with its parent.

One job per line on standard input, ``{"run_id": ...}``; on standard output one JSON object per line: progress
(the fields of :class:`retrain.progress.Progress`), then ``{"run_id", "ok": true, "seconds"}`` or
``{"run_id", "ok": false, "error", "hint"}``, with ``"vanished": true`` where one of several processes vanished and the run
can go on. All else goes to standard error. A failed job does not end the process; the end of standard input does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import MailtideError, RunError
from pipeline.home import Home
from pipeline.lifeline import die_with_parent
from retrain.offline import TIED, keep_offline
from retrain.processes.launch import RanksVanished
from retrain.progress import Progress
from retrain.training.exhaustion import NO_PRIMITIVE, is_out_of_memory
from retrain.training.lost_device import DeviceGone, device_gone, is_device_lost

OURS = tuple(Path(__file__).resolve().parents[1] / name for name in ("retrain", "pipeline"))
"""Our own packages that training is made of."""


def main(arguments: list[str] | None = None) -> int:
    """Serves jobs until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m retrain.worker", description="carries out retraining runs")
    parser.add_argument("--home", type=Path, required=True)
    home = Home(parser.parse_args(arguments).home.resolve())
    if not die_with_parent():
        return 1
    answers = own_stdout()
    keep_offline()
    warnings.filterwarnings("ignore", message=TIED)
    from retrain.run import execute
    from retrain.training.exhaustion import free_memory

    def job(run_id: str, observe: Callable[[Progress], None]) -> None:
        try:
            execute(home, run_id, observe)
        finally:
            free_memory()  # of a GPU that a server waits for

    serve(sys.stdin, answers, job)
    return 0


def own_stdout() -> TextIO:
    """Standard output for answers alone: what libraries print, in Python or in C, goes to standard error from here on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return answers


def serve(jobs: TextIO, answers: TextIO, job: Callable[[str, Callable[[Progress], None]], None]) -> None:
    """Answers every line of ``jobs``."""

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    for line in jobs:
        if not line.strip():
            continue
        run_id = ""
        started = time.monotonic()
        try:
            run_id = _run_id(line)
            job(run_id, lambda progress: say(asdict(progress)))
        except RanksVanished as error:
            say({"run_id": run_id, "ok": False, "vanished": True, "error": error.message, "hint": error.hint})
        except MailtideError as error:
            say({"run_id": run_id, "ok": False, "error": error.message, "hint": error.hint})
            if isinstance(error, DeviceGone):
                return  # what this process holds of the device is worthless; the next run has a process of its own
        except Exception as error:  # whatever a run dies of, the next one has a right to be tried
            if is_device_lost(error):
                gone = device_gone(error)
                say({"run_id": run_id, "ok": False, "error": gone.message, "hint": gone.hint})
                return
            traceback.print_exc()
            said = str(error).strip().splitlines() or ["no message"]
            hint = "nobody foresaw this: please report it, with the line that it names"
            if is_out_of_memory(error):
                hint = "memory ran out: free some, or take less (`mailtide plan` says how much a run takes)"
            elif NO_PRIMITIVE in str(error):
                hint = "the system lets it write no machine code: lift MemoryDenyWriteExecute, or what else forbids that"
            told = f"{type(error).__name__}: {said[0]} ({_place(error)})"
            say({"run_id": run_id, "ok": False, "error": told, "hint": hint})
        else:
            say({"run_id": run_id, "ok": True, "seconds": round(time.monotonic() - started, 3)})


def _place(error: Exception) -> str:
    """Where it was raised, and where our own code last had a hand in it; no text of mail is in either."""
    raised = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in raised if any(Path(frame.filename).is_relative_to(folder) for folder in OURS)]
    places = [f"{'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno}" for frame in (raised[-1], *ours[-1:])]
    return ", called from ".join(dict.fromkeys(places))


def _run_id(line: str) -> str:
    try:
        return str(json.loads(line)["run_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError("a job is a line of JSON with a run_id", hint="ask through `mailtide retrain`") from error


if __name__ == "__main__":
    sys.exit(main())
