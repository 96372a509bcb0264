"""Which split a thread is in: drawn from the seed and the thread's id alone, so that nothing else can move it."""

from __future__ import annotations

import hashlib

from pipeline.config.settings import SplitSettings
from pipeline.domain import Split


def unit(seed: int, thread_id: str) -> float:
    """A number from 0 to 1, uniform over threads: the first 8 bytes of sha256("{seed}:{thread_id}") over 2**64."""
    digest = hashlib.sha256(f"{seed}:{thread_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(seed: int, thread_id: str, ratios: SplitSettings) -> Split:
    """The split of a new thread; what is stored at that moment counts from then on. Never ``quarantine``."""
    drawn = unit(seed, thread_id)
    if drawn < ratios.train:
        return Split.TRAIN
    return Split.VAL if drawn < ratios.train + ratios.val else Split.TEST
