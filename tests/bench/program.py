"""Runs programs and tells what they took."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)
LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Took:
    """Wall and processor seconds of a program that ended well, its peak resident memory in MB (10**6 bytes; 0 where the
    system does not tell), and its standard output."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    output: str


def mailtide(home: Path, *arguments: str) -> list[str]:
    """The command line of this installation's ``mailtide``."""
    return [str(Path(sys.executable).with_name("mailtide")), "--home", str(home), *arguments]


def run(command: Sequence[str]) -> Took:
    """Runs ``command`` to its end; raises ``RuntimeError`` with what it said when it fails."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        before = os.times()
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, stdin=subprocess.DEVNULL)
        peak = _wait(process)
        seconds = time.perf_counter() - begin
        after = os.times()
        output.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            said = errors.read().decode(errors="replace").strip().splitlines()
            name = " ".join([Path(command[0]).name, *command[1:]])
            raise RuntimeError(f"`{name}` ended with {process.returncode}: {said[-1] if said else 'no message'}")
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return Took(seconds, cpu, peak, output.read().decode(errors="replace"))


def _wait(process: subprocess.Popen[bytes]) -> float:
    """Peak memory of a child, in MB, as last seen before it ended; the kernel's high-water mark never falls, so that only
    a rise in its last moments is missed."""
    status = Path(f"/proc/{process.pid}/status")
    peak = 0.0
    while True:
        try:
            process.wait(timeout=LOOK_EVERY_S)
            return peak
        except subprocess.TimeoutExpired:
            found = PEAK.search(status.read_text(encoding="ascii", errors="replace")) if status.exists() else None
            peak = int(found[1]) * 1024 / 1e6 if found else peak
