"""Texts of a shard, asked for one by one: the same as read at once, with the same checks."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline.chunking.texts as texts
from pipeline.chunking.shards import erase_texts, write_shard
from pipeline.chunking.texts import ShardTexts
from pipeline.errors import ShardError
from tests.support.lineage import make_chunk


def test_any_message_is_given_in_any_order_and_what_was_erased_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "GROUPS_HELD", 2)  # of five
    chunks = [make_chunk(f"t{place}", 0, place) for place in range(1_100)]
    sha256 = write_shard(tmp_path, chunks).chunks_sha256
    gone = {chunks[0].chunk_id, chunks[700].chunk_id}
    erase_texts(tmp_path, gone)
    shard = ShardTexts(tmp_path, sha256)
    Random(5).shuffle(chunks)
    for chunk in chunks:
        expected = None if chunk.chunk_id in gone else chunk.text[chunk.starts[0] :]
        assert shard.message(chunk.chunk_id, 0) == expected


def test_another_text_than_the_one_recorded_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    chunk = make_chunk("t", 0)
    sha256 = write_shard(tmp_path, [chunk]).chunks_sha256
    forged = pa.table({"chunk_id": [chunk.chunk_id], "text": [chunk.text.replace("Part", "Port")]})
    pq.write_table(forged, tmp_path / "text.parquet")
    with pytest.raises(ShardError, match="is not the one recorded"):
        ShardTexts(tmp_path, sha256).message(chunk.chunk_id, 0)
    (tmp_path / "text.parquet").unlink()
    with pytest.raises(ShardError, match=r"text\.parquet cannot be read"):
        ShardTexts(tmp_path, sha256)
