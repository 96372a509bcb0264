"""Decides a finished run and deploys what came of it, in lives that end before an effect (:mod:`tests.support.lives`).

python -m tests.support.promoting HOME
"""

from __future__ import annotations

import http.client
import sys
from pathlib import Path

from pipeline.config.configuration import read_home
from pipeline.home import Home
from pipeline.runs.requests import RunRequest, RunResult
from pipeline.store import Store
from pipeline.store.rows import RequestRow
from pipeline.times import utc_now
from registry.decide import decide_run
from streams.deploying import deploy_pending
from streams.owning.stores import opener
from tests.support.lives import serve

HEAVY = ("pandas", "cryptography.hazmat.primitives.asymmetric.ed25519", "scipy.special", "streams.owning.remote_store")
EFFECTS = (
    (Path, "replace"),
    (Path, "symlink_to"),
    (Store, "append"),
    (http.client.HTTPConnection, "request"),
    (http.client.HTTPConnection, "getresponse"),
)


def carry_out(home: Home) -> None:
    """As an owner without a daemon does: verdicts of all finished runs, then deployment."""
    settings = read_home(home, environment={})
    with opener(home, settings)() as store:
        for row in store.fetch(RequestRow, order='"at"'):
            request = RunRequest.model_validate_json(row.request)
            result = RunResult.model_validate_json((home.run(request.run_id) / "result.json").read_bytes())
            decide_run(store, home, request, result, settings, utc_now(), "gate")
    deploy_pending(home, settings)


if __name__ == "__main__":
    serve(lambda: carry_out(Home(Path(sys.argv[1]))), EFFECTS, HEAVY)
