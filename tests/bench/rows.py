"""What a measurement returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BenchRow:
    """One figure: ``value`` in ``unit``; what it is compared with, where it is (``ratio`` is value over reference); the
    goal in words and whether it was met; and what a reader must know to trust it."""

    name: str
    value: float
    unit: str
    reference: str
    reference_value: float | None
    ratio: float | None
    goal: str
    met: bool | None
    note: str
