"""A parser process, ``python -m streams.parsers.process``: mails come in on standard input, what they become goes out on
standard output (:mod:`streams.parsers.frames`).

It holds nothing that is worth keeping, so that it may be killed at any moment: a mail that breaks a parser costs a process,
not the import. It has a limit on its memory, leaves signals to its parent, and ends with its input or with its parent.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO

from pipeline.lifeline import die_with_parent
from streams.parsers.frames import LENGTH, OUT_OF_MEMORY, Orders, Refused, frame

WARM_UP = b"Subject: =?utf-8?q?warm-up?=\nDate: Fri, 22 May 2015 13:38:22 +0000\n\nText.\n"
LEAST_ROOM = 16 << 20
"""Bytes that must be left once it runs, or the limit is a mistake for which mails should not be blamed."""


def main() -> int:
    """Serves mails until standard input ends; exit code ``OUT_OF_MEMORY`` when one needs more than is allowed."""
    if not die_with_parent():
        return 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a service manager sends it to every process; the parent decides
    source, sink = sys.stdin.buffer, _own_stdout()
    try:
        orders = _next(source)
        assert isinstance(orders, Orders)
        _limit(resource.RLIMIT_AS, orders.memory_bytes)
        _limit(resource.RLIMIT_CORE, 0)
        orders.read(WARM_UP)
        bytearray(LEAST_ROOM)
        _give(sink, [])
        while (mails := _next(source)) is not None:
            assert isinstance(mails, list)
            _answer(mails, sink, orders)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except BrokenPipeError:
        os._exit(1)
    return 0


def _answer(mails: Sequence[bytes], sink: BinaryIO, orders: Orders) -> None:
    answers: list[object] = []
    given = time.monotonic()
    for raw in mails:
        try:
            answers.append(orders.read(raw))
        except MemoryError:
            raise
        except Exception as error:
            answers.append(Refused(f"parsing raised {type(error).__name__}"))
        if time.monotonic() - given >= orders.patience:
            _give(sink, answers)
            answers = []
            given = time.monotonic()
    if answers:
        _give(sink, answers)


def _next(source: BinaryIO) -> object:
    """The next frame's value; None when input has ended, be it within a frame."""
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    content = source.read(length)
    return pickle.loads(content) if len(content) == length else None


def _give(sink: BinaryIO, answers: list[object]) -> None:
    sink.write(frame(answers))
    sink.flush()


def _own_stdout() -> BinaryIO:
    """Standard output for answers alone; whatever else is printed goes to standard error."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sink


def _limit(kind: int, most: int) -> None:
    """Lowers a limit for good; one that is lower already stays, and so does one that the system does not know."""
    _, hard = resource.getrlimit(kind)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (least, least))


if __name__ == "__main__":
    sys.exit(main())
