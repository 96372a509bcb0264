"""Which val threads choose a checkpoint and which judge it: never the same ones.

A checkpoint chosen for its loss on some threads looks better on them than it is, so the gate must ask others. While val
is small it cannot spare any: then nothing is chosen (no early stopping, the last checkpoint is taken) and all of val
judges. Both sides, training and gate, pass the same set: the val threads of every shard of the request, exclusions left
out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def selects(thread_id: str) -> bool:
    """Whether a thread is of the half that chooses; fixed per thread, and unrelated to the hash that splits."""
    return hashlib.sha256(f"half:{thread_id}".encode()).digest()[0] < 128


def gating_threads(threads: Iterable[str], min_threads: int) -> frozenset[str] | None:
    """The threads that may judge, or None when all may, because val holds fewer than twice ``min_threads``."""
    known = frozenset(threads)
    if len(known) < 2 * min_threads:
        return None
    return frozenset(thread for thread in known if not selects(thread))


def selecting_threads(threads: Iterable[str], min_threads: int) -> frozenset[str] | None:
    """The threads that may choose a checkpoint, or None when none may."""
    known = frozenset(threads)
    gating = gating_threads(known, min_threads)
    return None if gating is None else known - gating
