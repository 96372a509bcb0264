"""A process to be killed: appends numbered batches to a store for ever, and prints the number of each once it is durable.

``python -m tests.support.appender HOME``; with ``hold`` behind it, the store is only opened until the input ends.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import Row, TakenRow
from tests.conftest import REPOSITORY
from tests.support.rows import START, flat, message

BATCH = 40


def batch(number: int) -> list[Row]:
    rows = flat(message(ordinal, thread=f"t{ordinal % 7}") for ordinal in range(number * BATCH, (number + 1) * BATCH))
    return [*rows, TakenRow("main", "feed", number, START)]


def appender(home: Home, *words: str) -> subprocess.Popen[bytes]:
    """Starts it."""
    command = [sys.executable, "-m", "tests.support.appender", str(home.root), *words]
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def main(home: Home, *, hold: bool) -> None:
    with Store.open(home, None, None) as store:
        if hold:
            print("held", flush=True)
            sys.stdin.read()
            return
        number = store.scalar("SELECT count(*) FROM taken")
        while True:
            store.append(batch(number))
            print(number, flush=True)
            number += 1


if __name__ == "__main__":
    main(Home(Path(sys.argv[1])), hold=sys.argv[2:] == ["hold"])
