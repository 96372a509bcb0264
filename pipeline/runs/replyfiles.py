"""``replies.parquet`` of a run: how well each model foretells real replies, given nothing and given mail.

It holds every reply of the run's sample under every model that the run compares, so a later run that continues or
challenges one of them finds there what need not be computed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pyarrow as pa

from pipeline.errors import RunError
from pipeline.parquet import read_table, write_table

REPLIES = "replies.parquet"

SCHEMA = pa.schema(
    [
        ("adapter_id", pa.string()),
        ("checkpoint", pa.string()),
        ("message_key", pa.string()),
        ("thread_id", pa.string()),
        ("split", pa.string()),
        ("given", pa.string()),
        ("mails", pa.list_(pa.string())),
        ("read_sha256", pa.string()),
        ("nll", pa.float64()),
        ("n_tokens", pa.int64()),
        ("eval_version", pa.int64()),
    ]
)


class Given(StrEnum):
    """What a model reads before a reply, besides its subject, author and date."""

    NOTHING = "nothing"
    RETRIEVED = "retrieved"
    RANDOM = "random"
    PARENT = "parent"


@dataclass(frozen=True, slots=True)
class ReplyLoss:
    """Loss of one reply under one checkpoint: ``nll`` in nats, summed over the ``n_tokens`` tokens of the author's own
    words.

    ``mails`` are the keys of what was read before, in that order, and ``read_sha256`` is the digest of all tokens, read and
    predicted: the same weights and the same digest are the same loss.
    """

    adapter_id: str
    checkpoint: str
    message_key: str
    thread_id: str
    split: str
    given: str
    mails: tuple[str, ...]
    read_sha256: str
    nll: float
    n_tokens: int
    eval_version: int


def write_reply_losses(path: Path, losses: Sequence[ReplyLoss]) -> None:
    """Writes losses in the order given."""
    columns = [pa.array([getattr(loss, field.name) for loss in losses], field.type) for field in SCHEMA]
    write_table(path, pa.table(columns, schema=SCHEMA))


def read_reply_losses(path: Path) -> list[ReplyLoss]:
    """Empty where there is no such file, as in runs of versions that did not ask; raises ``RunError`` when it is
    damaged."""
    if not path.is_file():
        return []
    hint = "delete it: the run, or the next one, computes it anew"
    rows = read_table(path, SCHEMA, error=RunError, hint=hint).to_pylist()
    return [ReplyLoss(**{**row, "mails": tuple(row["mails"])}) for row in rows]


def unlike(losses: Iterable[ReplyLoss]) -> list[ReplyLoss]:
    """Each model's loss of each reply given each thing, once; the first of equals."""
    found: dict[tuple[str, str, str, str], ReplyLoss] = {}
    for loss in losses:
        found.setdefault((loss.adapter_id, loss.checkpoint, loss.message_key, loss.given), loss)
    return list(found.values())
