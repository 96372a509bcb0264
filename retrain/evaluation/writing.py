"""Replies as a model writes them, given what a search found, beside the real ones.

The real reply is held against what was written as far as there was room to write: its first ``eval.generate_tokens``
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.errors import RunError
from pipeline.parquet import read_table, write_table
from retrain.evaluation.asking import Trial
from retrain.evaluation.text_metrics import METRICS, repetition
from retrain.models.pen import Pen

WRITTEN = "written.parquet"
"""File of a run's folder. It holds text, so no receipt covers it: it may be removed, and nothing but the report reads
it."""

SCORES = (*(metric.title for metric in METRICS), "repetition")

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("adapter_id", "checkpoint", "message_key", "thread_id", "split", "read_sha256")),
        ("tokens", pa.int64()),
        ("text", pa.string()),
        *((name, pa.float64()) for name in SCORES),
    ]
)


@dataclass(frozen=True, slots=True)
class Written:
    """A reply by a model, at most ``tokens`` long, with its scores against the real one; ``repetition`` is None where it is
    too short to repeat itself. ``read_sha256`` is that of the prompt and the real reply."""

    adapter_id: str
    checkpoint: str
    message_key: str
    thread_id: str
    split: str
    read_sha256: str
    tokens: int
    text: str
    rouge_l: float
    bleu: float
    exact: float
    f1: float
    repetition: float | None


def write_replies(
    pen: Pen, put: Sequence[Trial], adapter_id: str, checkpoint: str, known: Sequence[Written] = ()
) -> list[Written]:
    """A reply to each of ``put``, in their order; one that ``known`` holds is not written again."""
    have = {
        one.read_sha256: one
        for one in known
        if (one.adapter_id, one.checkpoint, one.tokens) == (adapter_id, checkpoint, pen.tokens)
    }
    lacking = [one for one in put if one.example.chunk_id not in have]
    texts = pen.texts([one.prompt for one in lacking])
    real = [pen.text(one.example.ids[one.example.label_from :][: pen.tokens]) for one in lacking]
    scores = {metric.title: metric().compute(predictions=texts, references=real)["scores"] for metric in METRICS if texts}
    for place, one in enumerate(lacking):
        have[one.example.chunk_id] = Written(
            adapter_id=adapter_id,
            checkpoint=checkpoint,
            message_key=one.reply.key,
            thread_id=one.reply.thread_id,
            split=one.reply.split.value,
            read_sha256=one.example.chunk_id,
            tokens=pen.tokens,
            text=texts[place],
            repetition=repetition(texts[place]),
            **{name: float(values[place]) for name, values in scores.items()},
        )
    return [have[one.example.chunk_id] for one in put]


def write_written(path: Path, replies: Sequence[Written]) -> None:
    """Writes replies in the order given."""
    columns = [pa.array([getattr(reply, field.name) for reply in replies], field.type) for field in SCHEMA]
    write_table(path, pa.table(columns, schema=SCHEMA), plain=("text",))


def read_written(path: Path) -> list[Written]:
    """Empty where there is no such file, which may be removed at any time; raises ``RunError`` when it is damaged."""
    if not path.is_file():
        return []
    rows = read_table(path, SCHEMA, error=RunError, hint="delete it: it holds examples for the report").to_pylist()
    return [Written(**row) for row in rows]
