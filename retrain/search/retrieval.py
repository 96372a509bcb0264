"""Retrieval without labels, within a run: would a search have found the mail that a reply of a held-out thread answers?

The mails come from the request's shards. Gold and queries are :mod:`retrain.search.gold`'s, figures
:mod:`retrain.search.rankings`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.chunking.chunks import message_slices, read_slice
from pipeline.chunking.shards import read_meta, read_texts
from pipeline.domain import Split
from pipeline.home import Home
from pipeline.runs.questionfile import Question
from pipeline.runs.requests import ShardRef
from pipeline.runs.runfiles import Exclusions
from retrain.search.bm25 import Bm25Index
from retrain.search.engines import rank
from retrain.search.gold import PARENT, Mail, Query, queries_of
from retrain.search.rankings import DEPTH, NDCG, Ranked, judge

MAX_CANDIDATES = 10_000
"""Mails in the index, those of the newest windows, so that a run's cost does not grow with the archive."""

COLUMNS = ("chunk_id", "thread_id", "split", "message_keys", "starts", "ordinals", "parents", "authors", "n_context")


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How well replies of a split find what they answer, among ``candidates`` mails, and what each of them found."""

    candidates: int
    ranked: Ranked
    questions: tuple[Question, ...]


def read_mails(home: Home, shards: Sequence[ShardRef], exclusions: Exclusions) -> list[Mail]:
    """The mails of the newest of ``shards``, at most about :data:`MAX_CANDIDATES`, in order of arrival.

    A mail is read where it is new; one that was cut into pieces is put together again. Excluded ones are left out.
    """
    mails: dict[str, Mail] = {}
    for shard in reversed(shards):
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
                mails[mail.key] = mail if known is None else replace(known, words=f"{known.words}\n{mail.words}")
    return sorted(mails.values(), key=lambda mail: mail.ordinal)


def _new_mails(row: Mapping[str, Any], text: str) -> list[Mail]:
    first = text.partition("\n")[0]
    subject = first.removeprefix("Subject:").strip()
    slices = message_slices(text, row["starts"])
    return [
        Mail(
            key,
            ordinal,
            parent,
            row["thread_id"],
            Split(row["split"]),
            subject,
            read_slice(part).words,
            lead=part[: part.index("\n") + 1],
            author=row["authors"][place] if row["authors"] else "",
        )
        for place, (key, ordinal, parent, part) in enumerate(
            zip(row["message_keys"], row["ordinals"], row["parents"], slices, strict=True)
        )
        if place >= row["n_context"]
    ]


def index_of(mails: Sequence[Mail]) -> Bm25Index:
    return Bm25Index.build((mail.key, mail.ordinal, mail.document) for mail in mails)


def evaluate_index(index: Bm25Index, mails: Sequence[Mail], split: Split, max_queries: int) -> Retrieval:
    """BM25 on ``mails`` as candidates, whose ``index`` is that of :func:`index_of`, asked by the replies of ``split``, at
    most ``max_queries`` (by hash)."""
    queries = queries_of(mails, split, max_queries)
    found = rank(index, queries, DEPTH)
    ranked = judge(queries, found)
    outcomes = zip(queries, found, ranked.outcomes[NDCG], strict=True)
    return Retrieval(len(mails), ranked, tuple(_question(query, keys, split, ndcg) for query, keys, ndcg in outcomes))


def _question(query: Query, found: Sequence[str], split: Split, ndcg: float) -> Question:
    parent = next(key for key, grade in query.grades.items() if grade == PARENT)
    place = found.index(parent) + 1 if parent in found else None
    return Question(query.key, query.cluster, split.value, parent, tuple(found), place, ndcg)
