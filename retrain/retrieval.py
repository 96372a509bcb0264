"""Retrieval without labels: would a search have found the mail that a reply answers?

A query is the subject and the first own lines of a reply in a held-out thread; gold is the mail it answers and, less so,
what that one answered. Candidates are only what had arrived before the reply, filtered before the best are taken.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.chunks import message_slices, read_slice
from pipeline.domain import Split
from pipeline.home import Home
from pipeline.intervals import Interval, proportion_interval, ratio_interval
from pipeline.requests import RunRequest
from pipeline.runfiles import Exclusions
from pipeline.shards import read_meta, read_texts
from retrain.bm25 import Bm25Index

MAX_CANDIDATES = 10_000
"""Mails in the index, those of the newest windows, so that a run's cost does not grow with the archive."""

QUERY_LINES, QUERY_CHARACTERS = 3, 300
DEPTH = 10
RECALL_AT = (1, 5, 10)
PARENT, ANCESTOR = 2, 1

COLUMNS = ("chunk_id", "thread_id", "split", "message_keys", "starts", "ordinals", "parents", "n_context")


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as its chunks tell it; ``words`` are the own words without the line that leads them."""

    key: str
    ordinal: int
    parent: str | None
    thread_id: str
    split: Split
    subject: str
    words: str

    @property
    def query(self) -> str:
        lines = [line for line in self.words.splitlines() if line.strip()][:QUERY_LINES]
        return f"{self.subject}\n{' '.join(lines)[:QUERY_CHARACTERS]}"


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How well replies of a split find what they answer. ``recall`` by depth and ``mrr`` are of the mail answered,
    ``ndcg`` (at 10) grades it 2 and what it answered in turn 1; None where there was no query."""

    queries: int
    candidates: int
    recall: Mapping[int, Interval | None]
    mrr: Interval | None
    ndcg: Interval | None


def read_mails(home: Home, request: RunRequest, exclusions: Exclusions) -> list[Mail]:
    """The mails of the request's newest shards, at most about :data:`MAX_CANDIDATES`, in order of arrival.

    A mail is read where it is new; one that was cut into pieces is put together again. Excluded ones are left out.
    """
    mails: dict[str, Mail] = {}
    for shard in reversed(request.shards):
        if len(mails) >= MAX_CANDIDATES:
            break
        folder = home.root / shard.path
        rows = [
            row
            for row in read_meta(folder, shard.sha256, columns=COLUMNS).to_pylist()
            if not exclusions.hold(row["thread_id"], row["chunk_id"])
        ]
        texts = read_texts(folder, shard.sha256, [row["chunk_id"] for row in rows])
        for row in rows:
            for mail in _new_mails(row, texts[row["chunk_id"]]):
                known = mails.get(mail.key)
                mails[mail.key] = mail if known is None else _joined(known, mail)
    return sorted(mails.values(), key=lambda mail: mail.ordinal)


def _new_mails(row: Mapping[str, Any], text: str) -> list[Mail]:
    first = text.partition("\n")[0]
    subject = first.removeprefix("Subject:").strip()
    slices = message_slices(text, row["starts"])
    return [
        Mail(key, ordinal, parent, row["thread_id"], Split(row["split"]), subject, read_slice(part).words)
        for place, (key, ordinal, parent, part) in enumerate(
            zip(row["message_keys"], row["ordinals"], row["parents"], slices, strict=True)
        )
        if place >= row["n_context"]
    ]


def _joined(first: Mail, second: Mail) -> Mail:
    return Mail(
        first.key,
        first.ordinal,
        first.parent,
        first.thread_id,
        first.split,
        first.subject,
        f"{first.words}\n{second.words}",
    )


def evaluate_retrieval(mails: Sequence[Mail], split: Split, max_queries: int) -> Retrieval:
    """BM25 on ``mails`` as candidates, asked by the replies of ``split``, at most ``max_queries`` (by hash)."""
    return evaluate_index(index_of(mails), mails, split, max_queries)


def index_of(mails: Sequence[Mail]) -> Bm25Index:
    return Bm25Index.build((mail.key, mail.ordinal, f"{mail.subject}\n{mail.words}") for mail in mails)


def evaluate_index(index: Bm25Index, mails: Sequence[Mail], split: Split, max_queries: int) -> Retrieval:
    """The same with an index at hand, built by :func:`index_of`, so that splits can share it."""
    by_key = {mail.key: mail for mail in mails}
    asked = [mail for mail in mails if mail.split is split and mail.words.strip() and _grades(mail, by_key)]
    asked = sorted(asked, key=lambda mail: hashlib.sha256(f"query:{mail.key}".encode()).digest())[:max_queries]
    ranks, gains = [], []
    for mail in asked:
        grades = _grades(mail, by_key)
        found = [key for key, _ in index.search(mail.query, DEPTH, before=mail.ordinal)]
        ranks.append(found.index(mail.parent) + 1 if mail.parent in found else None)
        gains.append(_ndcg(found, grades))
    threads = [mail.thread_id for mail in asked]
    ones = [1.0] * len(asked)
    return Retrieval(
        queries=len(asked),
        candidates=len(mails),
        recall={k: proportion_interval([rank is not None and rank <= k for rank in ranks], threads) for k in RECALL_AT},
        mrr=ratio_interval([0.0 if rank is None else 1 / rank for rank in ranks], ones, threads),
        ndcg=ratio_interval(gains, ones, threads),
    )


def _grades(mail: Mail, by_key: Mapping[str, Mail]) -> dict[str, int]:
    grades: dict[str, int] = {}
    answered = _answered(mail, by_key)
    while answered is not None and answered.key not in grades and answered.ordinal < mail.ordinal:
        grades[answered.key] = ANCESTOR if grades else PARENT
        answered = _answered(answered, by_key)
    return grades


def _answered(mail: Mail, by_key: Mapping[str, Mail]) -> Mail | None:
    return None if mail.parent is None else by_key.get(mail.parent)


def _ndcg(found: Sequence[str], grades: Mapping[str, int]) -> float:
    """Normalised discounted cumulative gain with gains ``2**grade - 1`` (Burges et al. 2005), at :data:`DEPTH`."""
    gained = math.fsum((2 ** grades.get(key, 0) - 1) / math.log2(place + 2) for place, key in enumerate(found))
    ideal = sorted(grades.values(), reverse=True)[:DEPTH]
    return gained / math.fsum((2**grade - 1) / math.log2(place + 2) for place, grade in enumerate(ideal))
