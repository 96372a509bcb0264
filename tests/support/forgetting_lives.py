"""Erases a sender, in lives that end before an effect (:mod:`tests.support.lives`).

python -m tests.support.forgetting_lives HOME ADDRESS
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from pipeline.config.configuration import read_home
from pipeline.errors import NothingToDo
from pipeline.home import Home
from pipeline.store import Store
from streams.erasure.asked import Asked, Kind
from streams.erasure.carrying import erase
from streams.owning.stores import opener
from tests.support.lives import serve
from tests.support.pretended import MAILBOX

HEAVY = ("cryptography.hazmat.primitives.asymmetric.ed25519", "streams.owning.remote_store", "duckdb", "pyarrow.parquet")
EFFECTS = ((Path, "replace"), (Path, "unlink"), (Store, "append"), (shutil, "rmtree"))


def carry_out(home: Home, address: str) -> None:
    """As the command does."""
    settings = read_home(home, environment={})
    try:
        erase(home, settings, opener(home, settings), Asked(MAILBOX, Kind.SENDER, address), "test")
    except NothingToDo:
        return


if __name__ == "__main__":
    serve(lambda: carry_out(Home(Path(sys.argv[1])), sys.argv[2]), EFFECTS, HEAVY)
