"""``metrics.jsonl``: one line per optimizer step, cut back to the checkpoint that a resumed run starts from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO

from pipeline.home import write_atomic

METRICS = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step: ``loss`` in nats per token, ``tokens`` through the model so far, ``seconds`` since the start;
    ``grad_norm`` is the gradient's before it was clipped, None where an earlier version did not note it."""

    step: int
    steps: int
    epoch: int
    loss: float
    lr: float
    tokens: int
    seconds: float
    grad_norm: float | None = None


class MetricsFile:
    """Appends records; ``seconds`` go on counting from those of the lines that were kept."""

    def __init__(self, path: Path, from_step: int) -> None:
        self._path = path
        kept = [record for record in read_metrics(path) if record.step <= from_step]
        self._spent = kept[-1].seconds if kept else 0.0
        write_atomic(path, "".join(_line(record) for record in kept).encode())
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, record: StepRecord) -> None:
        self._file.write(_line(replace(record, seconds=round(record.seconds + self._spent, 3))))
        self._file.flush()


def read_metrics(path: Path) -> list[StepRecord]:
    """The records of whole lines; empty without a file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [StepRecord(**json.loads(line)) for line in lines]


def _line(record: StepRecord) -> str:
    return json.dumps(asdict(record)) + "\n"
