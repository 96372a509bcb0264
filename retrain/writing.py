"""Replies as a model writes them, given what a search found, beside the real ones. Greedy, so that a repeat is the same.

The real reply is held against what was written as far as there was room to write: its first ``eval.generate_tokens``
tokens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import StoppingCriteriaList

from pipeline.chunks import MARK
from pipeline.errors import RunError
from pipeline.parquet import read_table, write_table
from retrain.asking import Put
from retrain.study import Study
from retrain.text_metrics import METRICS, repetition

WRITTEN = "written.parquet"
"""File of a run's folder. It holds text, so no receipt covers it: it may be removed, and nothing but the report reads
it."""

AT_ONCE = 8
"""Replies written at once."""

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


@dataclass(frozen=True, slots=True)
class Timed:
    """One answer: its token ids, and the seconds until the first of them and until the last."""

    ids: tuple[int, ...]
    first_token: float
    answer: float


class Pen:
    """Writes with the study's model as it stands."""

    def __init__(self, study: Study, tokenizer: Any) -> None:
        self._study = study
        self._tokenizer = tokenizer
        self._tokens = study.request.settings.eval.generate_tokens

    def write(self, put: Sequence[Put], adapter_id: str, checkpoint: str, known: Sequence[Written] = ()) -> list[Written]:
        """A reply to each of ``put``, in their order; one that ``known`` holds is not written again."""
        have = {
            one.read_sha256: one
            for one in known
            if (one.adapter_id, one.checkpoint, one.tokens) == (adapter_id, checkpoint, self._tokens)
        }
        lacking = [one for one in put if one.example.chunk_id not in have]
        some = [lacking[place : place + AT_ONCE] for place in range(0, len(lacking), AT_ONCE)]
        texts = [self._text(ids) for batch in some for ids in self._generate([one.prompt for one in batch])]
        real = [self._text(one.example.ids[one.example.label_from :][: self._tokens]) for one in lacking]
        scores = {
            metric.title: metric().compute(predictions=texts, references=real)["scores"] for metric in METRICS if texts
        }
        for place, one in enumerate(lacking):
            have[one.example.chunk_id] = Written(
                adapter_id=adapter_id,
                checkpoint=checkpoint,
                message_key=one.reply.key,
                thread_id=one.reply.thread_id,
                split=one.reply.split.value,
                read_sha256=one.example.chunk_id,
                tokens=self._tokens,
                text=texts[place],
                repetition=repetition(texts[place]),
                **{name: float(values[place]) for name, values in scores.items()},
            )
        return [have[one.example.chunk_id] for one in put]

    def time(self, put: Put) -> Timed:
        """One answer, alone and timed."""
        stamps: list[float] = []
        started = time.perf_counter()

        def stamp(ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            stamps.append(time.perf_counter())
            return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)

        ids = self._generate([put.prompt], StoppingCriteriaList([stamp]))[0]
        return Timed(ids, stamps[0] - started, time.perf_counter() - started)

    def _generate(
        self, prompts: Sequence[tuple[int, ...]], stamps: StoppingCriteriaList | None = None
    ) -> list[tuple[int, ...]]:
        """What the model goes on with after each prompt, all at once, padded on the left: a small model spends its time on
        reading weights, not on how many rows it multiplies them with."""
        study = self._study
        length = max(map(len, prompts))
        given = torch.tensor([[study.pad] * (length - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        was_training = study.model.training
        study.model.eval()
        try:
            with study.compute.lanes(1), torch.inference_mode(), study.compute.precision():
                out = study.model.generate(
                    input_ids=given.to(study.compute.device),
                    attention_mask=mask.to(study.compute.device),
                    max_new_tokens=self._tokens,
                    do_sample=False,
                    use_cache=True,
                    pad_token_id=study.pad,
                    stopping_criteria=stamps,
                )
        finally:
            study.model.train(was_training)
        return [tuple(row) for row in out[:, length:].tolist()]

    def _text(self, ids: Sequence[int]) -> str:
        """What was written up to where the model goes on with a mail of somebody else."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).partition(MARK)[0].strip()


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
