"""The ``mailtide`` command: one module per family of commands, loaded only when one of them is called.

Modules here import nothing heavy at their top, so that ``mailtide --help`` stays instant; each command imports
what it needs when it runs.
"""

from __future__ import annotations

import sys

FAMILIES: dict[str, tuple[str, ...]] = {
    "streams.cli.mail": ("init", "import", "parse", "close", "windows"),
    "streams.cli.training": ("plan", "retrain", "runs"),
    "streams.cli.reproduce": ("reproduce",),
    "streams.cli.reporting": ("report",),
    "streams.cli.benchmarking": ("benchmark",),
    "streams.cli.simulate": ("simulate",),
    "streams.cli.study": ("study",),
    "streams.cli.adapters": ("registry",),
    "streams.cli.deploying": ("deploy",),
    "streams.cli.asking": ("ask", "sql", "export"),
    "streams.cli.data": ("data",),
    "streams.cli.tiers": ("tiers",),
    "streams.cli.contamination": ("contamination",),
    "streams.cli.index": ("index",),
    "streams.cli.qrels": ("qrels",),
    "streams.cli.aside": ("deadletters", "quarantine"),
    "streams.cli.topics": ("topics",),
    "streams.cli.daemon": ("run",),
    "streams.cli.serving": ("serve",),
    "streams.cli.notify": ("notify",),
    "streams.cli.feedback": ("feedback",),
    "streams.cli.spotcheck": ("spotcheck",),
    "streams.cli.forget": ("forget",),
    "streams.cli.machine": ("status", "doctor", "demo"),
}


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and ends the process with its exit code: 0 done, 1 failed, 2 wrong usage, 3 nothing to do."""
    try:
        from streams.cli.commands import carry_out  # here, so that an interrupt is told in one line from the start

        code = carry_out(arguments)
    except KeyboardInterrupt:
        print("mailtide: interrupted; the same command continues where it stopped", file=sys.stderr)
        code = 130
    sys.exit(code)
