"""Decides a finished run and deploys what came of it, over and over, each time killed just before its Nth effect.

    python -m tests.support.promoting HOME

Each line of standard input is a number N: a child is forked that does all of it and sends itself SIGKILL before its Nth
effect (0: none). The answer is a line with the child's exit code, negative for the signal, and the effects it had counted.
Effects are what outlives a process: a file that gets its name, a link, a transaction, a request that has been sent.
"""

from __future__ import annotations

import http.client
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config.configuration import read_home
from pipeline.home import Home
from pipeline.runs.requests import RunRequest, RunResult
from pipeline.store import Store
from pipeline.store.rows import RequestRow
from registry.decide import decide_run
from streams.deploying import deploy_pending
from streams.stores import opener
from streams.times import utc_now

HEAVY = ("pandas", "cryptography.hazmat.primitives.asymmetric.ed25519", "scipy.special", "streams.remote_store")
"""What the children would import, once each."""


def carry_out(home: Home) -> None:
    """As an owner without a daemon does: verdicts of all finished runs, then deployment."""
    settings = read_home(home, environment={})
    with opener(home, settings)() as store:
        for row in store.fetch(RequestRow, order='"at"'):
            request = RunRequest.model_validate_json(row.request)
            result = RunResult.model_validate_json((home.run(request.run_id) / "result.json").read_bytes())
            decide_run(store, home, request, result, settings, utc_now(), "gate")
    deploy_pending(home, settings)


class Doom:
    """Counts effects, and ends the process before the one that is named."""

    def __init__(self, at: int) -> None:
        self.count = 0
        self._at = at

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def doomed(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            if self.count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return doomed

    def hang_over(self) -> None:
        for owner, name in [
            (Path, "replace"),
            (Path, "symlink_to"),
            (Store, "append"),
            (http.client.HTTPConnection, "request"),
            (http.client.HTTPConnection, "getresponse"),
        ]:
            setattr(owner, name, self.before(getattr(owner, name)))


def main() -> None:
    """Serves until standard input ends."""
    home = Home(Path(sys.argv[1]))
    for heavy in HEAVY:
        importlib.import_module(heavy)
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, "a thread does not live on in a child, and the locks that it holds do"
    for line in sys.stdin:
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            doom = Doom(int(line))
            doom.hang_over()
            code = 1
            try:
                carry_out(home)
                code = 0
            finally:
                os.write(tell, str(doom.count).encode())
                os._exit(code)
        os.close(tell)
        _, status = os.waitpid(child, 0)
        with os.fdopen(told) as counted:
            print(os.waitstatus_to_exitcode(status), counted.read() or 0, flush=True)


if __name__ == "__main__":
    main()
