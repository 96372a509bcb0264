"""Child processes that do not outlive the one that started them, however it ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> bool:
    """Asks Linux to kill this process when the thread that started it is gone; elsewhere the end of its input has to do.

    False when the parent ended just then, unnoticed by Linux: the process should end itself.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent
