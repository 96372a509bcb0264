"""A warm training process beside this one: it imports torch once, holds no store, and dies with its parent."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

from pipeline.errors import RunError
from pipeline.home import Home
from streams.bus.contract import Interrupted
from streams.runs.lease import device_for_training
from streams.runs.withdrawal import is_withdrawn, running, withdrawn

NEEDED = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")


@dataclass(frozen=True, slots=True)
class Step:
    """What the worker is doing: ``done`` of ``total`` within ``stage``, and a few words. While it trains: the loss of the
    last step in nats per token, the pace, and the seconds left; None where they are not known."""

    run_id: str
    stage: str
    done: float
    total: float
    text: str
    loss: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None


OnStep = Callable[[Step], None]


MEMORY = "so the system ends what takes more memory than there is: free some, or take less (`mailtide plan` says how much)"


class WorkerDied(RunError):
    """The training process ended without an answer (killed, out of memory); the run can be continued."""


def require_training() -> None:
    """Raises ``RunError`` naming the packages of the training extra that are missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        from pipeline.installing import install_command

        raise RunError(f"training needs {', '.join(missing)}", hint=f"install them with `{install_command('train')}`")


class Runner:
    """Runs one run after another in the same process, started with the first."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None
        self._stopping = threading.Event()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def run(self, run_id: str, on_step: OnStep) -> None:
        """Carries out a run, or what is left of it. Raises ``RunError`` when it fails or is withdrawn, ``WorkerDied`` when
        it vanished, and ``Interrupted`` after ``stop``."""
        with device_for_training(self._home, self._stopping), running(self._home, run_id):
            self._carry_out(run_id, on_step)

    def _carry_out(self, run_id: str, on_step: OnStep) -> None:
        if self._stopping.is_set():
            raise Interrupted("no run begins any more")
        process = self._started()
        if self._stopping.is_set():  # told while it started, when there was nothing to end yet
            process.kill()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({"run_id": run_id}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._died(process) from None
        for line in process.stdout:
            message: dict[str, Any] = json.loads(line)
            if is_withdrawn(self._home, run_id):
                process.kill()
                process.wait()
                self.close()
                raise withdrawn(run_id)
            if "ok" not in message:
                on_step(
                    Step(
                        run_id,
                        str(message.get("step", "")),
                        float(message.get("done", 0)),
                        float(message.get("total", 0)),
                        str(message.get("text", "")),
                        message.get("loss"),
                        message.get("tokens_per_second"),
                        message.get("seconds_left"),
                    )
                )
            elif message["ok"]:
                return
            else:
                failed = WorkerDied if message.get("vanished") else RunError
                raise failed(str(message["error"]), hint=str(message.get("hint", "")))
        raise self._died(process)

    def stop(self) -> None:
        """Ends training for good, from any thread; the run can be continued from its last checkpoint."""
        self._stopping.set()
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """Ends the process; a run in progress stays where its last checkpoint left it."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        require_training()
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  # closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "retrain.worker", "--home", str(self._home.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
        )
        return self._process

    def _died(self, process: subprocess.Popen[str]) -> WorkerDied:
        code = process.wait()
        if self._stopping.is_set():
            raise Interrupted("training was stopped")
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        said = ""
        if self._log is not None:
            self._log.seek(0)
            lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
            said = f": {lines[-1]}" if lines and code >= 0 else ""
        self.close()
        return WorkerDied(f"the training process {how}{said}", hint=MEMORY if code == -signal.SIGKILL else "")
