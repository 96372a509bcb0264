"""What a run's figures of replies and of its search rest on, as rows: one per reply and condition, and per question."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.errors import RunError
from pipeline.parquet import read_table
from pipeline.runs.questionfile import QUESTIONS, read_questions
from pipeline.runs.replyfiles import REPLIES, read_reply_losses
from pipeline.runs.requests import RunRequest
from pipeline.store.rows import QuestionRow, ReplyRow, Row, WrittenRow

WRITTEN = "written.parquet"
_TEXTS = ("adapter_id", "checkpoint", "message_key", "thread_id", "split")
_SCORES = ("rouge_l", "bleu", "exact", "f1", "repetition")
_SCORED = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        ("tokens", pa.int64()),
        *((name, pa.float64()) for name in _SCORES),
    ]
)


def outcome_rows(folder: Path, request: RunRequest) -> Iterator[Row]:
    """Of the files in a finished run's folder; those that are not there, as in runs of older versions, give no rows."""
    run_id, mailbox = request.run_id, request.mailbox
    for loss in read_reply_losses(folder / REPLIES):
        yield ReplyRow(
            run_id=run_id,
            adapter_id=loss.adapter_id,
            checkpoint=loss.checkpoint,
            mailbox=mailbox,
            message_key=loss.message_key,
            thread_id=loss.thread_id,
            split=loss.split,
            given=loss.given,
            mails=loss.mails,
            nll=loss.nll,
            n_tokens=loss.n_tokens,
            eval_version=loss.eval_version,
        )
    yield from _written(folder / WRITTEN, run_id, mailbox)
    for question in read_questions(folder / QUESTIONS):
        yield QuestionRow(
            run_id=run_id,
            mailbox=mailbox,
            message_key=question.message_key,
            thread_id=question.thread_id,
            split=question.split,
            parent_key=question.parent_key,
            found=question.found,
            rank=question.rank,
            ndcg=question.ndcg,
        )


def _written(path: Path, run_id: str, mailbox: str) -> Iterator[WrittenRow]:
    if not path.is_file():
        return
    seen = set()
    hint = "delete it: it holds examples for the report"
    for row in read_table(path, _SCORED, error=RunError, hint=hint).to_pylist():
        key = (row["adapter_id"], row["checkpoint"], row["message_key"])
        if key not in seen:
            seen.add(key)
            named = {name: row[name] for name in (*_TEXTS, *_SCORES)}
            yield WrittenRow(run_id=run_id, mailbox=mailbox, n_tokens=row["tokens"], **named)
