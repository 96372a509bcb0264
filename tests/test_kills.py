"""The harness of the kill tests itself: it kills, at the moment that the seed says, and tells what it saw."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tests.support.kills import run_killed

COUNTING = """
import sys
from pathlib import Path
notes = Path(sys.argv[1])
for number in range(len(notes.read_text().splitlines()) if notes.exists() else 0, 200):
    with notes.open("a") as file:
        file.write(f"{number}\\n")
    print(f"{number:08192}", flush=True)    # long lines fill the pipe, so the reader is never far behind
print("end", flush=True)
"""
WAITING = "import signal; print('up', flush=True); signal.pause()"
WAITING_WITH_CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print(child.pid, flush=True)
child.wait()
"""


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


def test_kills_by_lines_and_restarts_until_done(tmp_path: Path) -> None:
    lives = run_killed(python(COUNTING, str(tmp_path / "notes")), kills=4, seed=1, lines=(3, 20))
    assert lives.kills == 4
    assert all(len(output) >= 3 for output in lives.outputs[:-1])
    assert lives.output[-1] == "end"
    assert (tmp_path / "notes").read_text().split() == [str(number) for number in range(200)]


def test_kills_by_time(tmp_path: Path) -> None:
    waiting_once = f"""
import signal
from pathlib import Path
first = not Path({str(tmp_path / "seen")!r}).exists()
Path({str(tmp_path / "seen")!r}).touch()
print("up", flush=True)
if first:
    signal.pause()
"""
    lives = run_killed(python(waiting_once), kills=1, seed=1, delay=(1.0, 1.0))
    assert (lives.kills, lives.outputs) == (1, (("up",), ("up",)))


def test_all_lives_together_are_bounded() -> None:
    with pytest.raises(AssertionError, match="was not done in time:\nup"):
        run_killed(python(WAITING), kills=2, seed=1, delay=(0.2, 0.3), limit=2.0)


def test_a_life_that_ends_by_itself_is_the_last() -> None:
    lives = run_killed(python("print('quick')"), kills=3, seed=1, delay=(60.0, 60.0))
    assert (lives.kills, lives.outputs) == (0, (("quick",),))


def test_a_failure_shows_what_was_printed() -> None:
    failing = python("import sys; print('because', flush=True); sys.exit(3)")
    with pytest.raises(AssertionError, match="ended with 3 after 0 kills:\nbecause"):
        run_killed(failing, kills=1, seed=1, lines=(50, 50))
    assert run_killed(failing, kills=1, seed=1, lines=(50, 50), accept=(0, 3)).kills == 0


def test_no_child_is_left_behind() -> None:
    with pytest.raises(AssertionError) as caught:
        run_killed(python(WAITING_WITH_CHILD), kills=1, seed=1, lines=(1, 1), limit=2.0)
    child = int(str(caught.value).splitlines()[-1])
    end = time.monotonic() + 5
    while time.monotonic() < end and _runs(child):
        os.sched_yield()
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
