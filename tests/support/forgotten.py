"""A mailbox with somebody in it who asks to be forgotten, and a search for what is left of him: in every file of a home, as
its bytes are, unpacked where they are packed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.arrival.splits import split_of
from pipeline.arrival.threads import short
from pipeline.config.settings import SplitSettings
from pipeline.domain import Split
from streams.demo.mailbox import write_mailbox

NAME, ADDRESS = "Zoltan Vexmark", "zoltan.vexmark@vex.example"
OTHER, OTHER_ADDRESS = "Mara Quillon", "mara.quillon@vex.example"
MARKS = ("quibblewort", "snarkelfen", "brindlemoss", "tarnhollow")
"""Words that nobody else writes, one a mail."""
KEPT_MARK = "fenwickstone"
"""A word of the one who answers him, and stays."""
ANSWERED = "answer.1@vex.example"

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
FROM_LINE = re.compile(rb"^From ", re.MULTILINE)


def thread_ids(seed: int, split: SplitSettings, wanted: Split, count: int) -> list[str]:
    """Message-IDs of which the threads fall into a split."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        number += 1
        name = f"vex.{number}@vex.example"
        if split_of(seed, short(name), split) is wanted:
            found.append(name)
    return found


def write_archive(path: Path, ids: Sequence[str], *, seed: int, messages: int) -> None:
    """The demo's mailbox with four of his mails spread over it, and one that answers the first and quotes it."""
    write_mailbox(path, seed=seed, messages=messages)
    data = path.read_bytes()
    starts = [found.start() for found in FROM_LINE.finditer(data)]
    mails = [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]
    places = [len(mails) * share // 100 for share in (10, 50, 97, 99)]
    for place, mark, name in sorted(zip(places, MARKS, ids, strict=True), reverse=True):
        added = [_mail(mails[place], name, mark)]
        if mark == MARKS[0]:
            added.append(_answer(mails[place], name, mark))
        mails[place + 1 : place + 1] = added
    path.write_bytes(b"".join(mails))


def _words(mark: str) -> str:
    return f"The {mark} stood beside the harbour wall until the {mark} warden took it home.\nNobody asked me about it."


def _mail(before: bytes, name: str, mark: str) -> bytes:
    return _letter(before, name, f"{NAME} <{ADDRESS}>", f"About the {mark}", _words(mark), "")


def _answer(before: bytes, name: str, mark: str) -> bytes:
    quoted = "> " + _words(mark).replace("\n", "\n> ")
    words = f"The {KEPT_MARK} is what I would look at first.\n\nOn Monday {NAME} <{ADDRESS}> wrote:\n{quoted}"
    return _letter(before, ANSWERED, f"{OTHER} <{OTHER_ADDRESS}>", "Another matter", words, f"In-Reply-To: <{name}>\n")


def _letter(before: bytes, name: str, sender: str, subject: str, words: str, more: str) -> bytes:
    """A mail at the time of the one before it."""
    line = before.partition(b"\n")[0].decode()
    date = next(line for line in before.decode(errors="replace").splitlines() if line.startswith("Date:"))
    head = f"From: {sender}\nTo: list@vex.example\n{date}\nMessage-ID: <{name}>\nSubject: {subject}\n{more}"
    return f"{line}\n{head}\n{words}\n\n".encode()


def traces(root: Path, words: Sequence[str]) -> list[str]:
    """Every place under a folder where one of the words still is: ``file: word``, each once."""
    found = []
    seen = 0
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        seen += 1
        texts = [path.read_bytes().lower(), *_unpacked(path)]
        found += [
            f"{path.relative_to(root)}: {word}" for word in words if any(word.lower().encode() in text for text in texts)
        ]
    assert seen > 10, "a search that saw no files finds nothing"
    return found


def _unpacked(path: Path) -> Iterator[bytes]:
    if path.suffix == ".parquet":
        for column in pq.read_table(path).columns:
            for value in column.to_pylist():
                yield str(value).lower().encode() if not isinstance(value, bytes) else value.lower()
    if path.suffix == ".duckdb":
        yield from _cells(path)
        yield from _frames(path.read_bytes())


def _cells(path: Path) -> Iterator[bytes]:
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{path}' AS looked_at (READ_ONLY)")
        tables = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'looked_at' AND NOT internal"
        ).fetchall()
        for (table,) in tables:
            for row in connection.execute(f"SELECT * FROM looked_at.{table}").fetchall():
                yield str(row).lower().encode()


def _frames(data: bytes) -> Iterator[bytes]:
    """What the file holds packed by zstd, in blocks that are in use and in blocks that are not any more."""
    at = data.find(ZSTD_MAGIC)
    while at >= 0:
        try:
            with pa.CompressedInputStream(pa.BufferReader(data[at : at + (1 << 20)]), "zstd") as stream:
                yield stream.read(1 << 18).lower()
        except (OSError, pa.ArrowException):
            pass  # four bytes that only look like a frame, or one that goes on elsewhere
        at = data.find(ZSTD_MAGIC, at + 1)
