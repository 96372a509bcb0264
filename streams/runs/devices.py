"""What this machine would train on, without importing torch: its GPU where there is one, else its processor."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import subprocess
from pathlib import Path

from pipeline.capacity.footprint import Device
from pipeline.config.settings import Settings

MIB = 1 << 20
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""As Linux names them; torch asks the processor for the same."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def training_device(settings: Settings) -> Device:
    """The device that a run would be trained on: the GPU that ``plan.gpu_gib`` describes, else what this machine has.

    A GPU is taken to have bfloat16, as all have had since 2020.
    """
    elsewhere = settings.plan.gpu_gib
    if elsewhere is not None:
        return Device(f"a GPU with {elsewhere:g} GiB", True, round(elsewhere * (1 << 30)), True, 1)
    return _gpu() or _processor(settings.train.threads)


def _gpu() -> Device | None:
    """The first GPU that this process may see, if torch could use it."""
    program = shutil.which("nvidia-smi")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if program is None or visible == "" or _built_for_processors():
        return None
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    if visible:
        query.append(f"--id={visible.split(',')[0]}")
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        name, _, mebibytes = told.splitlines()[0].rpartition(",")
        return Device(name.strip(), True, int(mebibytes) * MIB, True, 1)
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None


def _built_for_processors() -> bool:
    try:
        return "+cpu" in importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False


def _processor(threads: int | None) -> Device:
    """The memory is all of the machine's, or what its container may use; a lane for each core, as torch has threads."""
    import psutil

    memory = int(psutil.virtual_memory().total)
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        memory = min(memory, int(CGROUP_LIMIT.read_text(encoding="ascii")))
    told = os.environ.get("OMP_NUM_THREADS", "")
    lanes = threads or (int(told) if told.isdigit() else 0) or psutil.cpu_count(logical=False) or 1
    return Device("this machine", False, memory, _has_bfloat16(), lanes)


def _has_bfloat16() -> bool:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(BFLOAT16_FLAGS & set(line.split()) for line in lines if line.startswith(("flags", "Features")))
