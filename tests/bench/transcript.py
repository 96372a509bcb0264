"""Writes what happens when mail is sent to the whole topology: ``python -m tests.bench.transcript [--write docs/live.md]``.

The lines are those that the processes say, in order of time; of those that repeat for every few mails some are left out,
and said to be. Nothing else is changed but where the home lies.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from pipeline.home import Home, write_atomic
from tests.support.kafka import running
from tests.support.live import MAILBOX, MAILS, SMALL, Live, Said, invented_mail, live
from tests.support.program import run

REPEATING = re.compile(r"handed on up to number|\d+ mails, \d+ new$")
KEPT = 2
WIDTH = 120
BEGIN, END = "<!-- transcript -->\n", "<!-- /transcript -->"
COMMANDS = (
    ("status",),
    ("windows",),
    ("runs",),
    ("registry", "list"),
    ("registry", "verify"),
    ("sql", "SELECT split, count(*) AS mails FROM messages GROUP BY split ORDER BY split"),
)
PATIENCE_SECONDS = 1_800.0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.transcript", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="put it between the marks of this page")
    options = parser.parse_args(arguments)
    text = transcript()
    if options.write is None:
        print(text)
    else:
        put_between_marks(options.write, text)
    return 0


def put_between_marks(page: Path, text: str) -> None:
    """Replaces what a page shows between its marks. Raises ``ValueError`` where it has none."""
    before, mark, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise ValueError(f"{page} has no {BEGIN.strip()} and {END}")
    write_atomic(page, f"{before}{BEGIN}{text}{END}{after}".encode())
    page.chmod(0o644)


def transcript() -> str:
    """Sends a mailbox's mail to the running topology, waits until every window is decided, and asks what came of it."""
    with tempfile.TemporaryDirectory() as name, running(Path(name) / "broker") as broker:
        folder = Path(name)
        mailbox, mails = invented_mail(folder, MAILS)
        with live(folder, broker, mailbox, **SMALL) as room:
            began = datetime.now(UTC)
            at = time.monotonic()
            sent = room.send(mails)
            sending = time.monotonic() - at
            room.until(lambda: room.stored() == sent, PATIENCE_SECONDS)
            room.until(room.settled, PATIENCE_SECONDS)
            champion = room.rows("SELECT adapter_id FROM adapters WHERE status = 'champion'")
            room.until(lambda: not champion or room.deployed() == champion[0]["adapter_id"])
            answers = [asked(room.home, "~/live", command) for command in COMMANDS]
            room.stop()
            lines = [said for said in room.said if not said.message.endswith(": stopping")]
            happened = [_line(said, room) for said in thinned(lines)]
            link = room.home.champion_link(MAILBOX)
            shown = f"$ readlink champions/{MAILBOX}\n{link.readlink()}\n" if link.is_symlink() else ""
    head = f"{sent} mails were sent by SMTP in {sending:.0f} s on {began:%Y-%m-%d} (times are UTC)."
    return (
        f"{head} Nobody touched anything from\nthen on until every closed window had its verdict:\n\n"
        + "\n".join(["```", *happened, "```", "", "Asked afterwards, while all six ran on:", "", "```console", *answers])
        + f"\n{shown}```\n"
    )


def thinned(lines: Sequence[Said]) -> Iterator[Said]:
    """All lines, but of many repeating ones in a row the first two and how many more there were."""
    for repeating, group in groupby(lines, lambda said: REPEATING.search(said.message) is not None):
        some = list(group)
        if not repeating or len(some) <= KEPT + 1:
            yield from some
            continue
        yield from some[:KEPT]
        yield Said(
            some[KEPT].at, "...", f"{len(some) - KEPT} more lines of mail handed on and taken, to {some[-1].at[11:23]}"
        )


def _line(said: Said, room: Live) -> str:
    head = f"{said.at[11:23]}  {said.who:<8} "
    indent = " " * len(head)
    text = said.message.replace(str(room.home.root), "~/live")
    return textwrap.fill(text, WIDTH, initial_indent=head, subsequent_indent=indent, break_long_words=False)


def asked(home: Home, shown: str, command: Sequence[str]) -> str:
    """A command as it is typed and what it says, with the home under the name ``shown``."""
    done = run(home.root, *command)
    if done.returncode:
        raise RuntimeError(done.stderr)
    told = done.stdout.replace(str(home.root), shown)
    lines = "\n".join(line.rstrip() for line in told.splitlines()).strip("\n")
    return f"$ mailtide {shlex.join(command)}\n" + re.sub(r"\n{3,}", "\n\n", lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
