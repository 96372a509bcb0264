"""Texts of one shard asked for one by one, in any order: what must be read of the whole shard is read once."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.chunking.chunks import message_slices
from pipeline.chunking.shards import RESTORE, TEXT, check_text, read_meta
from pipeline.errors import ShardError

GROUPS_HELD = 8
"""Row groups of text that stay unpacked, about 2 MB each: who asks goes through a shard more or less in its order."""

ERASED = -1


class ShardTexts:
    """The texts of a shard. About 250 bytes a chunk are held, and :data:`GROUPS_HELD` row groups."""

    def __init__(self, folder: Path, sha256: str) -> None:
        """Raises ``ShardError`` when the shard is missing, damaged or not the one recorded."""
        self._path = folder / TEXT
        self._meta = read_meta(folder, sha256, columns=("chunk_id", "starts", "sha256"))
        self._rows = {chunk_id: row for row, chunk_id in enumerate(self._meta["chunk_id"].to_pylist())}
        self._places = array("q", [ERASED]) * len(self._rows)
        self._firsts: list[int] = []
        self._groups: dict[int, Any] = {}
        self._file = self._opened()

    def _opened(self) -> pq.ParquetFile:
        """The file of texts, once it is noted where each lies."""
        place = 0
        try:
            file = pq.ParquetFile(self._path)
            for group in range(file.num_row_groups):
                self._firsts.append(place)
                for chunk_id in file.read_row_group(group, columns=["chunk_id"], use_threads=False)["chunk_id"].to_pylist():
                    self._places[self._rows[chunk_id]] = place
                    place += 1
        except (OSError, pa.ArrowException, UnicodeDecodeError, KeyError) as reason:
            raise self._unreadable(reason) from reason
        return file

    def message(self, chunk_id: str, at: int) -> str | None:
        """One of the messages of a chunk, from its lead line on; None where the chunk's text was erased.

        Raises ``ShardError`` for a text that is not the one recorded.
        """
        row = self._rows[chunk_id]
        place = self._places[row]
        if place == ERASED:
            return None
        group = bisect_right(self._firsts, place) - 1
        text: str = self._group(group)[place - self._firsts[group]].as_py()
        check_text(self._path, chunk_id, text, self._meta["sha256"][row].as_py())
        return message_slices(text, self._meta["starts"][row].as_py())[at]

    def _group(self, number: int) -> Any:
        if number not in self._groups:
            if len(self._groups) >= GROUPS_HELD:
                del self._groups[next(iter(self._groups))]
            try:
                self._groups[number] = self._file.read_row_group(number, columns=["text"], use_threads=False)["text"]
            except (OSError, pa.ArrowException, UnicodeDecodeError) as reason:
                raise self._unreadable(reason) from reason
        return self._groups[number]

    def _unreadable(self, reason: Exception) -> ShardError:
        return ShardError(f"{self._path} cannot be read ({reason})", hint=RESTORE)
