"""What benchmarks have measured, kept in a file beside the page: each may be measured again by itself, on another day."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.rows import BenchRow


@dataclass(frozen=True, slots=True)
class Measured:
    """The rows of one benchmark: the day (ISO), and the machine's load, one minute's average, before it began
    (None: not noted)."""

    day: str
    load: float | None
    rows: tuple[BenchRow, ...]

    @property
    def when(self) -> str:
        return self.day if self.load is None else f"{self.day}, load {self.load:.1f}"


def read(file: Path, machine: Sequence[tuple[str, str]]) -> dict[str, Measured]:
    """What was kept, by benchmark; nothing of another machine, or of other packages: figures of two do not compare."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    if document["machine"] != [list(pair) for pair in machine]:
        return {}
    return {
        name: Measured(one["day"], one["load"], tuple(BenchRow(**{**row, "value": _number(row)}) for row in one["rows"]))
        for name, one in document["measured"].items()
    }


def write(file: Path, machine: Sequence[tuple[str, str]], measured: Mapping[str, Measured]) -> None:
    """Replaces the file."""
    kept = {
        name: {
            "day": one.day,
            "load": None if one.load is None else round(one.load, 1),
            "rows": [_plain(row) for row in one.rows],
        }
        for name, one in measured.items()
    }
    document = {"machine": list(machine), "measured": kept}
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _plain(row: BenchRow) -> dict[str, object]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in asdict(row).items()}


def _number(row: Mapping[str, float | None]) -> float:
    value = row["value"]
    return math.nan if value is None else value
