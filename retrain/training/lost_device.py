"""A GPU that disappears while a run trains: told apart from the run's own failures, and never replaced by a processor in
the midst of a run, which would take weeks and give other bits."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.errors import RunError
from pipeline.home import write_atomic

DEVICE = "device.json"

WORDS = (
    "no CUDA-capable device",
    "CUDA-capable device(s) is/are busy or unavailable",
    "GPU is lost",
    "unspecified launch failure",
    "uncorrectable ECC error",
    "unknown error",
    "CUDA driver initialization failed",
    "invalid device ordinal",
    "device not ready",
    "NVLink",
)
"""How CUDA's runtime says that the device, and not the program, is at fault."""


class DeviceGone(RunError):
    """The GPU went away: whatever this process still holds of it is worthless, so the process should end."""


def is_device_lost(error: BaseException) -> bool:
    """Whether ``error`` means that a GPU is no longer there."""
    text = str(error)
    return isinstance(error, RuntimeError) and "CUDA" in text and any(words in text for words in WORDS)


def device_gone(error: BaseException) -> DeviceGone:
    """What is said of it."""
    said = str(error).strip().splitlines()[0]
    return DeviceGone(
        f"the GPU is gone ({said})",
        hint="see `nvidia-smi`; when it is back, run `mailtide retrain --confirm`: it goes on from its checkpoint",
    )


def require_same_device(folder: Path, *, gpu: bool, name: str, begun: bool) -> None:
    """Notes the device that the run in ``folder`` is trained on. Raises ``DeviceGone`` when the run has ``begun`` on a GPU,
    leaving checkpoints, and there is none now."""
    path = folder / DEVICE
    if begun and not gpu and path.is_file():
        then = json.loads(path.read_text(encoding="utf-8"))
        if then["gpu"]:
            raise DeviceGone(
                f"the GPU is gone: the run began on {then['name']}, and there is none here",
                hint=f"bring it back and run again; or remove {folder / 'checkpoints'} to begin anew on the processor",
            )
    write_atomic(path, json.dumps({"gpu": gpu, "name": name}).encode() + b"\n")
