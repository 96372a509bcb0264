"""The worker's conversation: one JSON line per thing it has to say, and nothing that a job does ends it but its parent."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import RunError
from retrain.processes.launch import RanksVanished
from retrain.progress import Progress
from retrain.worker import serve
from tests.conftest import REPOSITORY


def conversation(lines: list[str], job: Callable[[str, Callable[[Progress], None]], None]) -> list[dict[str, object]]:
    answers = io.StringIO()
    serve(io.StringIO("".join(f"{line}\n" for line in lines)), answers, job)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_progress_then_the_end_and_failures_do_not_end_it() -> None:
    def job(run_id: str, observe: Callable[[Progress], None]) -> None:
        if run_id == "wrong":
            raise RunError("it is wrong", hint="do it right")
        if run_id == "broken":
            raise ZeroDivisionError("by zero")
        observe(Progress(run_id, "train", 1, 2, "half", 0.5, 90.0, 3.0))

    said = conversation(['{"run_id": "wrong"}', "", '{"run_id": "broken"}', "no json", '{"run_id": "fine"}'], job)
    assert said[0] == {"run_id": "wrong", "ok": False, "error": "it is wrong", "hint": "do it right"}
    place = f"{'/'.join(Path(__file__).parts[-3:])}:{job.__code__.co_firstlineno + 4}"
    error = str(said[1]["error"])
    assert error.startswith(f"ZeroDivisionError: by zero ({place}, called from ") and "/retrain/worker.py:" in error
    assert said[2]["ok"] is False and said[2]["run_id"] == ""
    assert said[3] == {"run_id": "fine", "step": "train", "done": 1, "total": 2, "text": "half", "loss": 0.5} | {
        "tokens_per_second": 90.0,
        "seconds_left": 3.0,
    }
    assert said[4]["ok"] is True and said[4]["run_id"] == "fine"
    assert len(said) == 5


def test_a_run_that_lost_one_of_its_processes_is_told_from_one_that_failed() -> None:
    def job(run_id: str, observe: Callable[[Progress], None]) -> None:
        raise RanksVanished("one was killed", hint="again")

    (said,) = conversation(['{"run_id": "r"}'], job)
    assert said == {"run_id": "r", "ok": False, "vanished": True, "error": "one was killed", "hint": "again"}


TALKATIVE = """
import os, sys
from retrain.worker import own_stdout, serve

def job(run_id, observe):
    print("a library in Python")
    os.write(1, b"and one in C")

serve(sys.stdin, own_stdout(), job)
"""


def test_only_answers_reach_its_output_and_it_ends_with_its_input() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TALKATIVE],
        input='{"run_id": "first"}\n{"run_id": "second"}\n',
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert [json.loads(line)["run_id"] for line in done.stdout.splitlines()] == ["first", "second"]
    assert (done.stderr.count("a library in Python"), done.stderr.count("and one in C")) == (2, 2)


PARENT = """
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
worker.stdout.readline()
print(worker.pid, flush=True)
sys.stdin.read()
"""
CHILD = """
import signal
from pipeline.lifeline import die_with_parent
die_with_parent()
print("ready", flush=True)
signal.pause()
"""


def test_it_dies_with_its_parent() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.replace("CHILD", repr(CHILD), 1)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    watch = os.pidfd_open(child)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert select.select([watch], [], [], 30)[0], "the child lives on"
    os.close(watch)
