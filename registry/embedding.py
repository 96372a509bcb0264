"""A process that embeds mail at the lowest priority, for the daemon's idle time, and dies with its parent.

It says ``{"model"}`` once the model is loaded, or ``{"error", "hint"}``. Then one job per line on standard input,
``{"mailbox", "after", "documents": [[key, ordinal, text], ...]}``: these are put after the vectors that the home holds, if
they end with the ordinal ``after``. It answers ``{"newest", "read"}``, the highest ordinal now held and how many texts were
embedded, with nothing done where others hold the vectors (``"busy": true``) or where they end elsewhere. Killed at any
moment, it leaves the vectors as they were before the job or after it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import MailtideError
from pipeline.home import Home
from pipeline.lifeline import die_with_parent
from registry.indexes import add_vectors, stored_vectors, writing
from retrain.search.embedder import Embedder, load_embedder


def main(arguments: list[str] | None = None, load: Callable[[str], Embedder] = load_embedder) -> int:
    """Serves jobs until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m registry.embedding", description="embeds mail in idle time")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--model", required=True)
    asked = parser.parse_args(arguments)
    if not die_with_parent():
        return 1
    yield_to_others()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        embedder = load(asked.model)
    except MailtideError as error:
        _say(answers, {"error": error.message, "hint": error.hint})
        return 1
    _say(answers, {"model": embedder.name})
    home = Home(asked.home.resolve())
    for line in sys.stdin:
        _say(answers, carry_out(home, embedder, json.loads(line)))
    return 0


def yield_to_others() -> None:
    """Runs from now on when nothing else wants the processor."""
    os.nice(19)
    if hasattr(os, "sched_setscheduler"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def carry_out(home: Home, embedder: Embedder, job: dict[str, Any]) -> dict[str, Any]:
    """One job, and the answer to it. What is on disk is read each time: others may write between jobs, to erase say."""
    mailbox, after = str(job["mailbox"]), int(job["after"])
    with writing(home, mailbox) as allowed:
        if not allowed:
            return {"newest": after, "read": 0, "busy": True}
        stored = stored_vectors(home, mailbox, embedder)
        if stored.newest != after:
            return {"newest": stored.newest, "read": 0}
        documents = [(str(key), int(ordinal), str(text)) for key, ordinal, text in job["documents"]]
        done = add_vectors(home, mailbox, documents, embedder, stored)
        return {"newest": done.vectors.newest, "read": done.read}


def _say(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    sys.exit(main())
