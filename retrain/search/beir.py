"""A retrieval collection as files that other tools read: the folder layout of BEIR, and TREC's qrels and runs.

    FOLDER/corpus.jsonl       {"_id", "title", "text", "metadata": {"ordinal"}}
    FOLDER/queries.jsonl      {"_id", "text", "metadata": {"before", "thread"}}
    FOLDER/qrels/SPLIT.tsv    query-id, corpus-id, score (with this header)
    FOLDER/SPLIT.qrels        query 0 document grade
    FOLDER/SPLIT.ENGINE.run   query Q0 document rank score engine
    FOLDER/mailtide.json      {"relevant"}: the grade from which on recall and reciprocal rank count a document

``metadata`` is ours: a document is a candidate for a query only when its ordinal is below ``before``. Where it is missing,
every document is. BEIR: Thakur et al. 2021, arXiv 2104.08663.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.errors import MailtideError
from pipeline.home import private_dir, write_atomic
from retrain.search.gold import Query
from retrain.search.rankings import scores
from retrain.search.vectors import Document

CORPUS, QUERIES, QRELS, ABOUT = "corpus.jsonl", "queries.jsonl", "qrels", "mailtide.json"


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents in the order of their arrival, the queries of each split, and the grade from which on a document counts
    for recall and reciprocal rank."""

    documents: tuple[Document, ...]
    queries: Mapping[str, tuple[Query, ...]]
    relevant: int


def write_collection(folder: Path, collection: Collection) -> None:
    """Writes a collection for other tools, TREC's qrels included. Keys are written so that they hold no white space."""
    private_dir(folder)
    private_dir(folder / QRELS)
    corpus = (
        {
            "_id": safe(key),
            "title": text.partition("\n")[0],
            "text": text.partition("\n")[2],
            "metadata": {"ordinal": ordinal},
        }
        for key, ordinal, text in collection.documents
    )
    asked = [query for queries in collection.queries.values() for query in queries]
    queries = (
        {"_id": safe(query.key), "text": query.text, "metadata": {"before": query.before, "thread": query.cluster}}
        for query in asked
    )
    _write_lines(folder / CORPUS, map(_line, corpus))
    _write_lines(folder / QUERIES, map(_line, queries))
    write_atomic(folder / ABOUT, (json.dumps({"relevant": collection.relevant}) + "\n").encode())
    for split, some in collection.queries.items():
        graded = [(safe(query.key), safe(key), grade) for query in some for key, grade in query.grades.items()]
        rows = (f"{query}\t{key}\t{grade}" for query, key, grade in graded)
        _write_lines(folder / QRELS / f"{split}.tsv", ["query-id\tcorpus-id\tscore", *rows])
        _write_lines(folder / f"{split}.qrels", (f"{query} 0 {key} {grade}" for query, key, grade in graded))


def write_run(folder: Path, split: str, engine: str, queries: Sequence[Query], found: Sequence[Sequence[str]]) -> Path:
    """Writes what an engine found as a TREC run, with scores that fall from rank to rank; returns the file's path."""
    path = folder / f"{split}.{engine}.run"
    _write_lines(
        path,
        (
            f"{safe(query.key)} Q0 {safe(key)} {rank} {score:g} {engine}"
            for query, ranking in zip(queries, found, strict=True)
            for rank, (key, score) in enumerate(scores(ranking).items(), 1)
        ),
    )
    return path


def read_collection(folder: Path, splits: Sequence[str] | None = None) -> Collection:
    """Reads a BEIR folder, of any maker; all splits that it has unless some are named.

    Documents without an ordinal are taken as arriving in the order of the file. Queries without a judged document are left
    out. Raises ``MailtideError`` with file and line of what cannot be read.
    """
    documents: list[Document] = []
    for place, entry in _entries(folder / CORPUS):
        ordinal = _metadata(entry).get("ordinal")
        text = f"{entry.get('title') or ''}\n{entry['text']}"
        documents.append((str(entry["_id"]), place if ordinal is None else int(ordinal), text))
    documents.sort(key=lambda document: document[1])
    asked = {str(entry["_id"]): entry for _, entry in _entries(folder / QUERIES)}
    there = sorted(path.stem for path in (folder / QRELS).glob("*.tsv"))
    if not there:
        raise MailtideError(f"{folder / QRELS} holds no .tsv file", hint="name a folder in BEIR's layout")
    missing = sorted(set(splits or ()) - set(there))
    if missing:
        raise MailtideError(f"{folder} has no split {missing[0]}", hint=f"it has {', '.join(there)}")
    queries = {}
    for split in splits or there:
        grades = _qrels(folder / QRELS / f"{split}.tsv")
        queries[split] = tuple(
            Query(
                key=key,
                text=str(asked[key]["text"]),
                grades=graded,
                cluster=str(_metadata(asked[key]).get("thread") or key),
                before=_metadata(asked[key]).get("before"),
            )
            for key, graded in grades.items()
            if key in asked
        )
    return Collection(tuple(documents), queries, _relevant(folder / ABOUT))


def safe(key: str) -> str:
    """A key as files with columns can hold it: white space and control characters as percent signs and digits."""
    return "".join(quote(char) if char.isspace() or not char.isprintable() else char for char in key)


def _relevant(about: Path) -> int:
    """What mailtide noted; 1 in a folder of another maker, as BEIR counts."""
    try:
        return int(json.loads(about.read_bytes())["relevant"])
    except FileNotFoundError:
        return 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MailtideError(f"{about} cannot be read ({error})", hint="remove it, or export the folder anew") from error


def _qrels(path: Path) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        fields = line.split("\t")
        if not line.strip() or (number == 1 and fields[-1].strip() == "score"):
            continue
        try:
            query, key, grade = fields
            grades.setdefault(query, {})[key] = int(grade)
        except ValueError as error:
            raise MailtideError(
                f"{path}, line {number}: not a query, a document and a grade", hint="separate them by tabs"
            ) from error
    return {query: graded for query, graded in grades.items() if max(graded.values()) > 0}


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                if not line.strip():
                    continue
                try:
                    entry = json.loads(line)
                    entry["_id"], entry["text"]
                except (ValueError, KeyError, TypeError) as error:
                    raise MailtideError(
                        f"{path}, line {number + 1}: not a JSON object with _id and text",
                        hint="name a folder in BEIR's layout",
                    ) from error
                yield number, entry
    except OSError as error:
        raise MailtideError(f"{path} cannot be read ({error.strerror})", hint="name a folder in BEIR's layout") from error


def _metadata(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found = entry.get("metadata")
    return found if isinstance(found, Mapping) else {}


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode())
