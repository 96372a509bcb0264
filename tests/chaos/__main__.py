"""Runs the long chaos: ``python -m tests.chaos --kills 200 --seed 1 [--bus embedded|kafka|both] [--mails 10000]``."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.chaos.report import Outcome, lines, section, with_section
from tests.chaos.trial import trial

BUSES = ("embedded", "kafka")


def main(arguments: list[str]) -> int:
    """Exit code 1 when anything was lost, doubled or leaked, or differs; 2 where a server that it needs is missing."""
    options = _options(arguments)
    # So that servers and folders go with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    root = options.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    command = _command(options)
    failed = False
    for bus in BUSES if options.bus == "both" else (options.bus,):
        outcomes: list[Outcome] = []
        for seed in options.seed:
            try:
                outcomes.append(_trial(root / f"{bus}-{seed}", bus, seed, options))
            except (pytest.skip.Exception, pytest.fail.Exception) as missing:
                print(f"chaos: {missing}", file=sys.stderr)
                return 2
            print("\n".join(lines(outcomes[-1])), flush=True)
            failed = failed or bool(outcomes[-1].faults)
            if options.write:
                text = section(outcomes, command, datetime.now(UTC).date())
                page = with_section(options.write.read_text(encoding="utf-8"), bus, text)
                options.write.write_text(page, encoding="utf-8")
    if failed:
        print(f"FAILED; everything is left in {root}; the same again: {command}")
    elif not options.keep:
        shutil.rmtree(root)
    return 1 if failed else 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Kills parts of an installation while mail flows through it, and compares the outcome.",
    )
    parser.add_argument("--kills", type=int, default=200, help="in each run")
    parser.add_argument("--seed", type=int, nargs="+", default=[1], help="of the mail, and of what is killed; a run each")
    parser.add_argument("--bus", choices=[*BUSES, "both"], default="both")
    parser.add_argument("--mails", type=int, default=10_000, help="in each run")
    parser.add_argument("--window", type=int, default=100, help="mails that close a window")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into a page that has places for them")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="work there and leave everything; else in a temporary folder"
    )
    return parser.parse_args(arguments)


def _command(options: argparse.Namespace) -> str:
    """What to type for the same again, wherever one keeps it."""
    seeds = " ".join(map(str, options.seed))
    return (
        f"python -m tests.chaos --kills {options.kills} --seed {seeds} --bus {options.bus} "
        f"--mails {options.mails} --window {options.window}"
    )


def _trial(root: Path, bus: str, seed: int, options: argparse.Namespace) -> Outcome:
    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {bus}, seed {seed}: {text}", file=sys.stderr, flush=True)

    return trial(
        root,
        bus=bus,
        seed=seed,
        kills=options.kills,
        mails=options.mails,
        window=options.window,
        say=say,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
