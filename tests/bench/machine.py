"""One core for what is measured, and the machine in words: no host name, no path."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

PACKAGES = ("duckdb", "pyarrow", "bm25s", "numpy", "selectolax", "torch", "transformers", "peft", "bitsandbytes")


@contextmanager
def one_core() -> Iterator[None]:
    """Keeps this process and the children that it starts meanwhile on one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def describe() -> list[tuple[str, str]]:
    """What a figure depends on: processor, memory, system, versions."""
    versions = [f"{name} {version}" for name in PACKAGES if (version := _version(name))]
    return [
        ("processor", f"{os.cpu_count()} cores, {_processor()}"),
        ("memory", _memory()),
        ("system", f"{platform.system()} {platform.release().split('-')[0]}, {platform.machine()}"),
        ("Python", platform.python_version()),
        ("packages", ", ".join(versions)),
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _memory() -> str:
    pages: int = os.sysconf("SC_PHYS_PAGES")
    return f"{pages * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
