"""Starts this machine's processes of those that train a run together, by torchrun, and passes on what they say.

When one of them ends early, torchrun ends the others. The launcher dies with the process that asked for it
(``python -m retrain.processes.launch``: it asks Linux for that and becomes torchrun), and what it started dies with the
launcher.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import IO, Any

from pipeline.config.settings import TrainSettings
from pipeline.errors import RunError
from pipeline.home import Home
from pipeline.lifeline import die_with_parent
from retrain.progress import Observer, Progress

LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""Processes of one machine talk over its loopback interface. Those of several find their interface themselves, or are told
by the same variables."""


class RanksVanished(RunError):
    """One of the processes ended without a word (killed, out of memory); the run can go on from its last checkpoint."""


def train_together(home: Home, run_id: str, train: TrainSettings, progress: Observer, machine: int = 0) -> None:
    """Trains the run to its end in ``train.processes`` processes on each of ``train.machines``, of which this is
    ``machine``, from its newest checkpoint. The first waits for the others.

    Raises ``RunError`` when one says why it cannot go on, ``RanksVanished`` when one ended without saying anything.
    """
    if train.machines > 1 and machine == 0:
        others = "1" if train.machines == 2 else f"1 to {train.machines - 1}"
        text = (
            f"waits for the other machines; there: python -m retrain.processes.join {home.root} {run_id} MACHINE ({others})"
        )
        progress(Progress(run_id, "train", 0, 0, text))
    while True:
        again = _once(home, run_id, train, progress, machine)
        if again is None:
            return
        progress(Progress(run_id, "train", 0, 0, again))


def options(train: TrainSettings, machine: int) -> list[str]:
    """What torchrun is told of this machine's processes and of where all meet."""
    each = ["--nproc-per-node", str(train.processes)]
    if train.machines == 1:
        return ["--standalone", "--local-addr", "127.0.0.1", *each]
    host, _, port = (train.address or "").rpartition(":")
    meet = ["--master-addr", host.strip("[]"), "--master-port", port]
    return ["--nnodes", str(train.machines), "--node-rank", str(machine), *meet, *each]


def _once(home: Home, run_id: str, train: TrainSettings, progress: Observer, machine: int) -> str | None:
    """None when training is at its end, else why the processes are to be started again."""
    said: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        whom = ["--module", "retrain.processes.together", str(home.root), run_id]
        command = [sys.executable, "-m", "retrain.processes.launch", *options(train, machine), *whom]
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        if sys.platform == "linux" and train.machines == 1:
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
    return RanksVanished(f"one of the processes that train together {how}")


def main() -> int:
    """Becomes torchrun, with the arguments given."""
    from torch.distributed.run import main as torchrun

    if not die_with_parent():
        return 1
    torchrun(sys.argv[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
