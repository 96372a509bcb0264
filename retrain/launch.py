"""Starts the processes that train a run together on this machine, by torchrun, and passes on what they say.

When one of them ends early, torchrun ends the others. The launcher dies with the process that asked for it
(``python -m retrain.launch``: it asks Linux for that and becomes torchrun), and what it started dies with the launcher.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import IO, Any

from pipeline.errors import RunError
from pipeline.home import Home
from pipeline.lifeline import die_with_parent
from retrain.progress import Observer, Progress

LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""Processes of one machine talk over its loopback interface."""


class RanksVanished(RunError):
    """One of the processes ended without a word (killed, out of memory); the run can go on from its last checkpoint."""


def train_together(home: Home, run_id: str, processes: int, progress: Observer) -> None:
    """Trains the run to its end in ``processes`` processes, from its newest checkpoint.

    Raises ``RunError`` when one says why it cannot go on, ``RanksVanished`` when one ended without saying anything.
    """
    while True:
        again = _once(home, run_id, processes, progress)
        if again is None:
            return
        progress(Progress(run_id, "train", 0, 0, again))


def _once(home: Home, run_id: str, processes: int, progress: Observer) -> str | None:
    """None when training is at its end, else why the processes are to be started again."""
    said: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        command = [sys.executable, "-m", "retrain.launch", str(processes), str(home.root), run_id]
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        if sys.platform == "linux":
            environment = {**LOOPBACK, **environment}
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as launcher:
            assert launcher.stdout is not None
            try:
                for line in launcher.stdout:
                    message: dict[str, Any] = json.loads(line)
                    if "progress" in message:
                        progress(Progress(**message["progress"]))
                    elif "error" not in said:
                        said |= message
            except BaseException:
                launcher.kill()  # an observer that raised: nobody listens any more
                raise
        if launcher.returncode == 0:
            return None
        if "error" in said:
            raise RunError(said["error"], hint=said["hint"])
        if "again" in said:
            return str(said["again"])
        raise _vanished(launcher.returncode, log)


def _vanished(code: int, log: IO[str]) -> RanksVanished:
    """How the first of them ended, as torchrun tells it; the whole of what it told goes to this process's log."""
    log.seek(0)
    told = log.read()
    sys.stderr.write(told)
    codes = [line.split(":")[1].split()[0] for line in told.splitlines() if line.lstrip().startswith("exitcode")]
    first = int(codes[-1]) if codes else code  # the root cause stands last
    how = f"was killed by signal {-first}" if first < 0 else f"ended with code {first}"
    return RanksVanished(
        f"one of the processes that train together {how}",
        hint="run `mailtide retrain --confirm` again; it goes on where it stopped",
    )


def main() -> int:
    """``PROCESSES HOME RUN_ID``: becomes torchrun."""
    from torch.distributed.run import main as torchrun

    parent = os.getppid()
    die_with_parent()
    if os.getppid() != parent:
        return 1
    processes, *rest = sys.argv[1:]
    here = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", processes]
    torchrun([*here, "--module", "retrain.together", *rest])
    return 0


if __name__ == "__main__":
    sys.exit(main())
