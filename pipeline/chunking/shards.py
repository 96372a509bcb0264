"""The Parquet files of one closed window: how chunks leave ingest, and how training reads them back, checked.

``chunks.parquet`` (metadata, immutable, digest recorded) and ``text.parquet`` (text, erasable, checked chunk by chunk
against the digests in the former).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.domain import Chunk
from pipeline.errors import ShardError
from pipeline.home import atomic_path, sha256_file
from pipeline.parquet import open_writer, read_table

SHARD_FORMAT = 2
"""Version of the columns below; recorded in every row. A shard of an unknown format is refused, never guessed at."""

READABLE = frozenset({1, SHARD_FORMAT})
"""Format 1 did not record who wrote each message, nor its class: ``authors`` and ``tiers`` read as null there."""

SINCE_2 = ("authors", "tiers")

CHUNKS, TEXT = "chunks.parquet", "text.parquet"

CHUNK_SCHEMA = pa.schema(
    [
        pa.field("mailbox", pa.string()),
        pa.field("chunk_id", pa.string()),
        pa.field("thread_id", pa.string()),
        pa.field("window_idx", pa.int32()),
        pa.field("split", pa.string()),
        pa.field("sender", pa.string()),
        pa.field("message_keys", pa.list_(pa.string())),
        pa.field("starts", pa.list_(pa.int32())),
        pa.field("ordinals", pa.list_(pa.int64())),
        pa.field("parents", pa.list_(pa.string())),
        pa.field("n_context", pa.int32()),
        pa.field("n_messages", pa.int32()),
        pa.field("n_tokens", pa.int32()),
        pa.field("bucket", pa.string()),
        pa.field("tier", pa.string()),
        pa.field("new_from", pa.int32()),
        pa.field("sha256", pa.string()),
        pa.field("authors", pa.list_(pa.string())),
        pa.field("tiers", pa.list_(pa.string())),
        pa.field("format", pa.int16()),
    ]
)
TEXT_SCHEMA = pa.schema([pa.field("chunk_id", pa.string()), pa.field("text", pa.string())])

CHUNK_FIELDS = tuple(name for name in CHUNK_SCHEMA.names if name != "format")
DISTINCT = ("chunk_id", "message_keys", "parents", "sha256")

ROWS_AT_ONCE = 256
"""Chunks held in memory while writing, and per row group of text: at 2,048 tokens each about 2 MB."""

GROUP_OF_METADATA = 16_384

RESTORE = "restore the file from a backup: it is never written twice with other content"


@dataclass(frozen=True, slots=True)
class ShardDigests:
    """What is recorded of a shard: number of chunks and the hex sha256 of its two files."""

    n_chunks: int
    chunks_sha256: str
    text_sha256: str


def write_shard(folder: Path, chunks: Iterable[Chunk]) -> ShardDigests:
    """Writes a window's chunks in the order given, streaming, and returns their digests.

    ``chunks.parquet`` is renamed into place last, so its presence means that the text is there. Written again, the same
    chunks give the same bytes. A chunk whose digest is not that of its text, or whose sender is an address rather than a
    keyed hash, is refused before anything is in place.
    """
    rows = iter(chunks)
    count = 0
    with atomic_path(folder / CHUNKS) as chunks_file, atomic_path(folder / TEXT) as text_file:
        with (
            open_writer(chunks_file, CHUNK_SCHEMA, plain=DISTINCT) as metadata,
            open_writer(text_file, TEXT_SCHEMA, plain=TEXT_SCHEMA.names) as text,
        ):
            waiting: list[pa.Table] = []
            while batch := list(islice(rows, ROWS_AT_ONCE)):
                count += len(batch)
                waiting.append(_metadata(batch))
                text.write_table(_texts(batch))
                if len(waiting) * ROWS_AT_ONCE >= GROUP_OF_METADATA:
                    metadata.write_table(pa.concat_tables(waiting).combine_chunks())
                    waiting.clear()
            if waiting:
                metadata.write_table(pa.concat_tables(waiting).combine_chunks())
        digests = ShardDigests(count, sha256_file(chunks_file), sha256_file(text_file))
    return digests


def read_meta(folder: Path, sha256: str, *, columns: Sequence[str] | None = None, encoded: Sequence[str] = ()) -> pa.Table:
    """The chunks' metadata (all columns, or those named), in the shard's order; texts of columns in ``encoded`` as numbers
    and a dictionary.

    Raises ``ShardError`` when the file is missing, is not the one recorded, or has another format.
    """
    path = folder / CHUNKS
    names = None if columns is None else [*columns, "format"]
    table = read_table(
        path, CHUNK_SCHEMA, sha256, error=ShardError, hint=RESTORE, columns=names, later=SINCE_2, encoded=encoded
    )
    formats = set(pc.unique(table["format"]).to_pylist())
    if formats - READABLE:
        found, known = (", ".join(map(str, sorted(some))) for some in (formats, READABLE))
        raise ShardError(f"{path} has format {found}, this version reads {known}", hint="use the version that wrote it")
    return table if columns is None else table.select(list(columns))


def read_rows(folder: Path, sha256: str, wanted: Collection[str], *, columns: Sequence[str] | None = None) -> pa.Table:
    """:func:`read_meta` of those of the chunks ``wanted`` (a set) that the shard has, in its order.

    A shard that has none of them is read for its ids alone: most of an archive, where a run asks for its own chunks.
    """
    ids = read_meta(folder, sha256, columns=("chunk_id",))["chunk_id"].to_pylist()
    places = pa.array([place for place, chunk_id in enumerate(ids) if chunk_id in wanted], pa.int64())
    if not len(places):
        return pa.schema([CHUNK_SCHEMA.field(name) for name in columns or CHUNK_SCHEMA.names]).empty_table()
    return read_meta(folder, sha256, columns=columns).take(places)


def read_texts(
    folder: Path, sha256: str, wanted: Collection[str] | None, *, excluded: Collection[str] = ()
) -> dict[str, str]:
    """Texts by chunk id, in the shard's order; ``wanted`` None reads all.

    Each text is checked against its chunk's digest. Missing text of an ``excluded`` chunk is erasure: absent from the
    result. Missing text of any other chunk is damage, and so is a wanted id that the shard does not have: ``ShardError``.
    """
    digests = _digests(folder, sha256)
    keep = set(digests) if wanted is None else set(wanted)
    if unknown := keep - set(digests):
        raise ShardError(f"{folder / CHUNKS} holds no chunk {min(unknown)}", hint="ask the shard of the chunk's window")
    found: dict[str, str] = {}
    for chunk_id, text in _stored_texts(folder, keep):
        check_text(folder / TEXT, chunk_id, text, digests[chunk_id])
        found[chunk_id] = text
    if missing := keep - set(found) - set(excluded):
        raise _missing(folder, missing)
    return found


def verify_shard(folder: Path, sha256: str, *, excluded: Collection[str] = ()) -> ShardDigests:
    """Reads the whole shard, a row group at a time, and checks every byte that has a digest; raises ``ShardError``."""
    digests = _digests(folder, sha256)
    seen: set[str] = set()
    for chunk_id, text in _stored_texts(folder, None):
        if chunk_id not in digests or chunk_id in seen:
            raise ShardError(f"{folder / TEXT} holds text {chunk_id} that belongs to no chunk or twice", hint=RESTORE)
        check_text(folder / TEXT, chunk_id, text, digests[chunk_id])
        seen.add(chunk_id)
    if missing := set(digests) - seen - set(excluded):
        raise _missing(folder, missing)
    return ShardDigests(len(digests), sha256, sha256_file(folder / TEXT))


def check_text(path: Path, chunk_id: str, text: str, sha256: str) -> None:
    """Raises ``ShardError`` when the file ``path`` holds another text of a chunk than was recorded."""
    if hashlib.sha256(text.encode()).hexdigest() != sha256:
        raise ShardError(f"{path}: the text of chunk {chunk_id} is not the one recorded", hint=RESTORE)


def erase_texts(folder: Path, chunk_ids: Collection[str]) -> str:
    """Rewrites ``text.parquet`` without the texts of ``chunk_ids`` and returns its new sha256; their metadata stays.

    The caller excludes those chunks first, or a reader would take the gap for damage. Erasing again changes nothing.
    """
    gone = set(chunk_ids)
    with atomic_path(folder / TEXT) as temporary:
        with open_writer(temporary, TEXT_SCHEMA, plain=TEXT_SCHEMA.names) as writer:
            rows = ((chunk_id, text) for chunk_id, text in _stored_texts(folder, None) if chunk_id not in gone)
            while batch := list(islice(rows, ROWS_AT_ONCE)):
                ids, texts = zip(*batch, strict=True)
                writer.write_table(pa.table([ids, texts], schema=TEXT_SCHEMA))
        return sha256_file(temporary)


def _metadata(batch: Sequence[Chunk]) -> pa.Table:
    for chunk in batch:
        if any("@" in person for person in (chunk.sender, *chunk.authors)):
            raise ShardError(f"chunk {chunk.chunk_id} names its sender in the clear", hint="give the keyed hash")
        if hashlib.sha256(chunk.text.encode()).hexdigest() != chunk.sha256:
            raise ShardError(f"chunk {chunk.chunk_id} has another sha256 than its text", hint="build the chunk again")
    columns = {name: [getattr(chunk, name) for chunk in batch] for name in CHUNK_FIELDS}
    columns["format"] = [SHARD_FORMAT] * len(batch)
    return pa.table(columns, schema=CHUNK_SCHEMA)


def _texts(batch: Sequence[Chunk]) -> pa.Table:
    return pa.table([[chunk.chunk_id for chunk in batch], [chunk.text for chunk in batch]], schema=TEXT_SCHEMA)


def _digests(folder: Path, sha256: str) -> dict[str, str]:
    table = read_meta(folder, sha256, columns=("chunk_id", "sha256"))
    return dict(zip(table["chunk_id"].to_pylist(), table["sha256"].to_pylist(), strict=True))


def _stored_texts(folder: Path, keep: set[str] | None) -> Iterator[tuple[str, str]]:
    """Ids and texts in the file's order; row groups without a chunk in ``keep`` are passed over."""
    path = folder / TEXT
    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, columns=["chunk_id"], use_threads=False)["chunk_id"].to_pylist()
                if keep is None or not keep.isdisjoint(ids):
                    texts = file.read_row_group(group, columns=["text"], use_threads=False)["text"]
                    for chunk_id, text in zip(ids, texts, strict=True):
                        if keep is None or chunk_id in keep:
                            yield chunk_id, text.as_py()
    except (OSError, pa.ArrowException, UnicodeDecodeError, KeyError) as reason:
        raise ShardError(f"{path} cannot be read ({reason})", hint=RESTORE) from reason


def _missing(folder: Path, chunk_ids: Collection[str]) -> ShardError:
    first = min(chunk_ids)
    return ShardError(f"{folder / TEXT} lacks the text of {len(chunk_ids)} chunks, the first {first}", hint=RESTORE)
