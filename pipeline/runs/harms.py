"""Measured harms that may speak against an adapter: what a run leaves of them in ``eval_results.json``, read again by the
gate (:mod:`registry.objections` lists them by name).

**Greater is worse**, and 0 is no harm. What compares two adapters has the sign that makes it so (nDCG@10 *lost*, not
gained).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import RunError
from pipeline.intervals import Interval

GATE_EVIDENCE = "gate_evidence"
"""The key of ``eval_results.json`` that holds them."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured harm with its bounds, from ``n`` things measured. ``figure`` is None where it could not be measured, as
    ``reason`` says."""

    name: str
    figure: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str = ""

    @classmethod
    def of(cls, name: str, found: Interval | None, absent: str) -> Figure:
        """An estimate; ``absent`` says why there is none."""
        return cls(name, None, reason=absent) if found is None else cls(name, found.value, *found.bounds, found.n)

    def row(self) -> dict[str, Any]:
        """As :func:`read_figures` reads it."""
        row = asdict(self)
        if not self.reason:
            del row["reason"]
        return row


_FIGURES = TypeAdapter(tuple[Figure, ...])


def read_figures(path: Path) -> tuple[Figure, ...]:
    """The figures that a run left; none in files of versions that wrote none. Raises ``RunError`` when they have another
    shape, or the file cannot be read."""
    hint = "restore it from a backup, or delete it and run `mailtide retrain --confirm` again"
    try:
        return _FIGURES.validate_python(_of(json.loads(path.read_bytes())))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise RunError(f"{path}: {GATE_EVIDENCE}.{where}: {problem['msg']}", hint=hint) from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({str(error).splitlines()[0]})", hint=hint) from error


def _of(document: Any) -> Sequence[Any]:
    if not isinstance(document, dict):
        raise ValueError("not an object")
    found = document.get(GATE_EVIDENCE, [])
    if not isinstance(found, list):
        raise ValueError(f"{GATE_EVIDENCE} is no list")
    return found
