"""``questions.parquet`` of a run: what its search found for each reply that asked, which its retrieval figures rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.errors import RunError
from pipeline.parquet import read_table, write_table

QUESTIONS = "questions.parquet"

SCHEMA = pa.schema(
    [
        ("message_key", pa.string()),
        ("thread_id", pa.string()),
        ("split", pa.string()),
        ("parent_key", pa.string()),
        ("found", pa.list_(pa.string())),
        ("rank", pa.int64()),
        ("ndcg", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Question:
    """A reply that asked; ``found`` are the keys of what a search returned, best first. ``rank`` is the place of the mail
    that it answers (``parent_key``) among them, from 1, None where it is not there. ``ndcg`` counts what that one answered
    too."""

    message_key: str
    thread_id: str
    split: str
    parent_key: str
    found: tuple[str, ...]
    rank: int | None
    ndcg: float


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    """Writes questions in the order given."""
    columns = [pa.array([getattr(one, field.name) for one in questions], field.type) for field in SCHEMA]
    write_table(path, pa.table(columns, schema=SCHEMA))


def read_questions(path: Path) -> list[Question]:
    """Empty where there is no such file, as in runs of versions that kept none; raises ``RunError`` when it is damaged."""
    if not path.is_file():
        return []
    rows = read_table(path, SCHEMA, error=RunError, hint="delete it: the run computes it anew").to_pylist()
    return [Question(**{**row, "found": tuple(row["found"])}) for row in rows]
