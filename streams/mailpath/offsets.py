"""From which offset a partition must be read again: the lowest whose record is not taken yet."""

from __future__ import annotations

from collections import OrderedDict


class Offsets:
    """One partition, read in order of its offsets from ``start`` on."""

    def __init__(self, start: int) -> None:
        self._next = start
        self._open: OrderedDict[int, None] = OrderedDict()

    def begin(self, offset: int) -> None:
        """The record at ``offset`` was read."""
        self._open[offset] = None
        self._next = offset + 1

    def finish(self, offset: int) -> None:
        """What it said is taken, or was taken before."""
        self._open.pop(offset, None)

    @property
    def restart(self) -> int:
        """Reading on from here misses nothing."""
        return next(iter(self._open), self._next)
