"""Memory that ran out: told apart from other failures, and given back before something smaller is tried."""

from __future__ import annotations

import ctypes
import gc
import mmap

import torch

WORDS = (
    "out of memory",
    "Out of Memory Error",
    "can't allocate memory",
    "Cannot allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""How DuckDB, torch's allocator for CPUs, and CUDA's runtime and libraries say it in errors that mean other things too."""


NO_PRIMITIVE = "could not create a primitive"
"""How oneDNN says on a CPU that it found no memory for the machine code that it writes, or may not write any."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` means that memory ran out, on a GPU or beside one."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return any(words in said for words in WORDS) or (NO_PRIMITIVE in said and not _code_is_forbidden())


def _code_is_forbidden() -> bool:
    """Whether the system lets this process write no machine code, as systemd's MemoryDenyWriteExecute does: then oneDNN
    fails however much memory there is."""
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def free_memory() -> None:
    """Gives back what nothing refers to any more, to the system and not only to the allocator: the C library's heap keeps
    half a gigabyte and more after a run, which a process that waits for the next one has no use for.

    Call it outside of the ``except`` block: while an exception is handled, its traceback refers to all that was there.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU C library alone
    if trim is not None:
        trim(0)
