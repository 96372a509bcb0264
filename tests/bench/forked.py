"""Work in a forked process, which may be killed or measured: libraries are imported before, and once."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Spent:
    """What a process took: seconds by the clock and of a processor, and its peak of resident memory in bytes."""

    wall: float
    cpu: float
    peak: int
    result: Any


def in_fork(work: Callable[[], Any]) -> Spent:
    """Does ``work`` in a process of its own, whose result must be picklable. Raises ``ChildProcessError`` when it fails."""
    here, there = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF)
        started = time.monotonic()
        result = work()
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        there.send(Spent(time.monotonic() - started, cpu, after.ru_maxrss * 1024, result))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    there.close()
    try:
        spent: Spent = here.recv()
    except EOFError:
        raise ChildProcessError(f"the process ended with code {process.exitcode}") from None
    finally:
        here.close()
        process.join()
    return spent


def killed_in_fork(work: Callable[[], object]) -> bool:
    """Does ``work`` in a process that is expected to kill itself; whether it did."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode == -9
