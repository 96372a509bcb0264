"""Shards: what is written is read back, and every change of a byte is noticed."""

from __future__ import annotations

import hashlib
import stat
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.chunking.shards import (
    CHUNK_FIELDS,
    erase_texts,
    read_meta,
    read_rows,
    read_texts,
    verify_shard,
    write_shard,
)
from pipeline.domain import Chunk, Split, Tier
from pipeline.errors import ShardError
from pipeline.home import sha256_file
from tests.support.lineage import make_chunk


def window(count: int = 5) -> list[Chunk]:
    return [make_chunk(f"t{place % 3}", 0, place, sender=f"s{place % 2}", tokens=100 * place) for place in range(count)]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    chunks = [*window(), replace(make_chunk("q1", 0, split=Split.QUARANTINE), message_keys=("a", "b"), parents=(None, "a"))]
    digests = write_shard(tmp_path / "shard", chunks)

    assert digests.n_chunks == len(chunks)
    rows = read_meta(tmp_path / "shard", digests.chunks_sha256).to_pylist()
    as_written = [
        {name: list(value) if isinstance(value := getattr(chunk, name), tuple) else value for name in CHUNK_FIELDS}
        for chunk in chunks
    ]
    assert [{name: row[name] for name in CHUNK_FIELDS} for row in rows] == as_written
    texts = read_texts(tmp_path / "shard", digests.chunks_sha256, None)
    assert list(texts.items()) == [(chunk.chunk_id, chunk.text) for chunk in chunks]
    assert verify_shard(tmp_path / "shard", digests.chunks_sha256) == digests


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(count=st.integers(0, 600), wanted=st.sets(st.integers(0, 599)))
def test_the_same_chunks_give_the_same_bytes_and_any_text_is_found(tmp_path: Path, count: int, wanted: set[int]) -> None:
    chunks = window(count)
    first = write_shard(tmp_path / "one", iter(chunks))
    assert write_shard(tmp_path / "one", chunks) == first
    assert write_shard(tmp_path / "two", chunks) == first

    ids = {chunks[place].chunk_id for place in wanted if place < count}
    assert set(read_texts(tmp_path / "one", first.chunks_sha256, ids)) == ids
    every = read_meta(tmp_path / "one", first.chunks_sha256).to_pylist()
    rows = read_rows(tmp_path / "one", first.chunks_sha256, {*ids, "elsewhere"})
    assert rows.to_pylist() == [row for row in every if row["chunk_id"] in ids]


def test_metadata_holds_no_text(tmp_path: Path) -> None:
    write_shard(tmp_path, window())
    assert b"\xc3\xbcn\xc3\xafcode" not in (tmp_path / "chunks.parquet").read_bytes()
    assert "text" not in pq.read_schema(tmp_path / "chunks.parquet").names


def test_files_are_private_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_shard(tmp_path / "a" / "b", window())
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["chunks.parquet", "text.parquet"]
    for path, mode in [("a", 0o700), ("a/b", 0o700), ("a/b/chunks.parquet", 0o600), ("a/b/text.parquet", 0o600)]:
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == mode


def test_a_source_that_breaks_off_leaves_the_shard_as_it_was(tmp_path: Path) -> None:
    def broken() -> Iterator[Chunk]:
        yield from window(400)
        raise RuntimeError("the store went away")

    with pytest.raises(RuntimeError):
        write_shard(tmp_path, broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [{"text": "another text"}, {"sender": "ann@example.org"}, {"authors": ("ann@example.org",)}],
    ids=["text", "sender", "author"],
)
def test_a_chunk_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ShardError):
        write_shard(tmp_path, [*window(), replace(make_chunk("t9", 0), **change)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("offset", [4, 100, -100])
def test_one_changed_byte_of_metadata_is_noticed(tmp_path: Path, offset: int) -> None:
    digests = write_shard(tmp_path, window())
    path = tmp_path / "chunks.parquet"
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    for reads in (read_meta, verify_shard):
        with pytest.raises(ShardError, match=r"chunks\.parquet.*backup"):
            reads(tmp_path, digests.chunks_sha256)


def test_a_missing_shard_and_another_format_are_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"chunks\.parquet cannot be read"):
        read_meta(tmp_path, "0" * 64)
    digests = write_shard(tmp_path, window())
    table = read_meta(tmp_path, digests.chunks_sha256)
    newer = table.set_column(table.schema.get_field_index("format"), "format", pa.array([99] * len(table), pa.int16()))
    pq.write_table(newer, tmp_path / "chunks.parquet")
    with pytest.raises(ShardError, match="format 99"):
        read_meta(tmp_path, sha256_file(tmp_path / "chunks.parquet"))


def test_a_shard_of_the_first_format_is_read_without_what_it_did_not_record(tmp_path: Path) -> None:
    chunks = [replace(chunk, authors=("ab",), tiers=(Tier.PERSON,)) for chunk in window()]
    digests = write_shard(tmp_path, chunks)
    table = read_meta(tmp_path, digests.chunks_sha256)
    assert table["authors"].to_pylist() == [["ab"]] * len(chunks)
    older = table.drop_columns(["authors", "tiers"])
    older = older.set_column(older.schema.get_field_index("format"), "format", pa.array([1] * len(older), pa.int16()))
    pq.write_table(older, tmp_path / "chunks.parquet")
    sha256 = sha256_file(tmp_path / "chunks.parquet")
    assert read_meta(tmp_path, sha256)["authors"].to_pylist() == [None] * len(chunks)
    assert read_meta(tmp_path, sha256).drop_columns(["authors", "tiers", "format"]) == older.drop_columns(["format"])
    assert verify_shard(tmp_path, sha256).n_chunks == len(chunks)


def _forge(folder: Path, chunk_id: str, text: str) -> None:
    rows = pq.read_table(folder / "text.parquet").to_pylist()
    forged = [{**row, "text": text} if row["chunk_id"] == chunk_id else row for row in rows]
    pq.write_table(pa.Table.from_pylist(forged), folder / "text.parquet")


def test_a_changed_text_is_noticed_by_whoever_wants_it(tmp_path: Path) -> None:
    chunks = window()
    sha256 = write_shard(tmp_path, chunks).chunks_sha256
    _forge(tmp_path, chunks[1].chunk_id, "something else")
    assert set(read_texts(tmp_path, sha256, {chunks[0].chunk_id})) == {chunks[0].chunk_id}
    with pytest.raises(ShardError, match=chunks[1].chunk_id):
        read_texts(tmp_path, sha256, None)
    with pytest.raises(ShardError, match=chunks[1].chunk_id):
        verify_shard(tmp_path, sha256)


def test_an_erased_text_is_a_gap_only_where_its_chunk_is_excluded(tmp_path: Path) -> None:
    chunks = window(600)
    sha256 = write_shard(tmp_path, chunks).chunks_sha256
    gone = {chunks[3].chunk_id, chunks[500].chunk_id}
    after = erase_texts(tmp_path, gone)
    assert erase_texts(tmp_path, gone) == after == sha256_file(tmp_path / "text.parquet")
    assert sha256_file(tmp_path / "chunks.parquet") == sha256

    kept = read_texts(tmp_path, sha256, None, excluded=gone)
    assert set(kept) == {chunk.chunk_id for chunk in chunks} - gone
    assert verify_shard(tmp_path, sha256, excluded=gone).text_sha256 == after
    for excluded in (set(), {chunks[3].chunk_id}):
        with pytest.raises(ShardError, match=chunks[500].chunk_id):
            read_texts(tmp_path, sha256, {chunks[500].chunk_id}, excluded=excluded)
        with pytest.raises(ShardError, match="lacks the text"):
            verify_shard(tmp_path, sha256, excluded=excluded)


def test_a_text_of_no_chunk_and_an_unknown_id_are_refused(tmp_path: Path) -> None:
    sha256 = write_shard(tmp_path, window(3)).chunks_sha256
    with pytest.raises(ShardError, match="nobody"):
        read_texts(tmp_path, sha256, {"nobody"})
    write_shard(tmp_path / "longer", window(4))
    (tmp_path / "longer" / "text.parquet").replace(tmp_path / "text.parquet")
    with pytest.raises(ShardError, match="belongs to no chunk"):
        verify_shard(tmp_path, sha256)


def test_a_long_window_is_not_held_in_memory(tmp_path: Path) -> None:
    """12,000 chunks of 20 kB are 240 MB of text; written and verified they take a small part of that."""
    arrow = [pa.total_allocated_bytes()]

    def long_texts() -> Iterator[Chunk]:
        for place in range(12_000):
            text = f"{place} " + "wörds " * 3_000
            arrow.append(pa.total_allocated_bytes())
            yield replace(make_chunk("t", 0, place), text=text, sha256=hashlib.sha256(text.encode()).hexdigest())

    tracemalloc.start()
    digests = write_shard(tmp_path, long_texts())
    verify_shard(tmp_path, digests.chunks_sha256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert digests.n_chunks == 12_000
    assert peak < 60e6
    assert max(arrow) - arrow[0] < 60e6
