"""The ``mailtide`` command: one module per family of commands, loaded only when one of them is called.

Modules here import nothing heavy at their top, so that ``mailtide --help`` stays instant; each command imports
what it needs when it runs.
"""

from __future__ import annotations

import sys

SECTIONS: dict[str, dict[str, str]] = {
    "Begin": {
        "init": "streams.cli.mail",
        "import": "streams.cli.mail",
        "status": "streams.cli.machine",
        "doctor": "streams.cli.machine",
        "demo": "streams.cli.machine",
    },
    "Train": {
        "windows": "streams.cli.mail",
        "close": "streams.cli.mail",
        "plan": "streams.cli.training",
        "retrain": "streams.cli.training",
        "runs": "streams.cli.training",
        "report": "streams.cli.reporting",
        "reproduce": "streams.cli.reproduce",
    },
    "Ask": {
        "ask": "streams.cli.asking",
        "serve": "streams.cli.serving",
        "index": "streams.cli.index",
    },
    "Compare, promote, go back": {
        "registry": "streams.cli.adapters",
        "spotcheck": "streams.cli.spotcheck",
        "feedback": "streams.cli.feedback",
        "benchmark": "streams.cli.benchmarking",
        "contamination": "streams.cli.contamination",
        "deploy": "streams.cli.deploying",
    },
    "Look at the mail, or erase it": {
        "data": "streams.cli.data",
        "tiers": "streams.cli.tiers",
        "sql": "streams.cli.asking",
        "export": "streams.cli.asking",
        "quarantine": "streams.cli.aside",
        "deadletters": "streams.cli.aside",
        "parse": "streams.cli.mail",
        "forget": "streams.cli.forget",
    },
    "Leave it running": {
        "run": "streams.cli.daemon",
        "notify": "streams.cli.notify",
        "topics": "streams.cli.topics",
    },
    "Try and measure": {
        "simulate": "streams.cli.simulate",
        "study": "streams.cli.study",
        "qrels": "streams.cli.qrels",
    },
}
"""The commands in the order in which they are needed, each with its module."""


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and ends the process with its exit code: 0 done, 1 failed, 2 wrong usage, 3 nothing to do."""
    try:
        from streams.cli.commands import carry_out  # here, so that an interrupt is told in one line from the start

        code = carry_out(arguments)
    except KeyboardInterrupt:
        print("mailtide: interrupted; the same command continues where it stopped", file=sys.stderr)
        code = 130
    sys.exit(code)
