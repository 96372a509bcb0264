"""Chunks of closed windows as a model's tokens, so that each is tokenised once: a copy that may be removed at any time.

A file holds what was tokenised of one shard in one way so far. ``KEY.SHA256.parquet`` names that way, and the file's own
digest: what is damaged, or was put there by others, is not believed. Processes of a home share the files; one at a time
changes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import ShardError
from pipeline.filelock import locked
from pipeline.home import Home, write_atomic
from pipeline.parquet import read_table

TOKENISED = pa.schema(
    [
        pa.field("chunk_id", pa.string()),
        pa.field("ids", pa.list_(pa.int32())),
        pa.field("label_from", pa.int32()),
        pa.field("n_bytes", pa.int32()),
        pa.field("unlabelled", pa.list_(pa.int32())),
    ]
)
"""``unlabelled`` are the beginnings and ends of ranges by turns; all else is as in ``retrain.training.batches.Example``."""

LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Tokenised:
    """The files of one mailbox. All of a home take ``most_bytes`` together; what was not used for longest goes first, and
    with none allowed nothing is kept. No trouble with these files ever stops anybody: what cannot be read is not there, and
    what cannot be written is not kept."""

    home: Home
    mailbox: str
    most_bytes: int

    def read(self, key: str) -> pa.Table | None:
        """What is kept under ``key``, of :data:`TOKENISED`; None where there is nothing that can be believed."""
        for path in self._files(key) if self.most_bytes else ():
            with contextlib.suppress(ShardError, OSError):
                table = read_table(path, TOKENISED, path.name.split(".")[1], error=ShardError, hint="it is made anew")
                os.utime(path)
                return table
        return None

    def add(self, key: str, rows: pa.Table) -> None:
        """Keeps ``rows`` beside those that are kept under ``key``, or in their place."""
        if not self.most_bytes:
            return
        with contextlib.suppress(OSError), locked(self.home.tokenised / LOCK):
            # What another process has erased or added meanwhile is so in what is written here.
            before = self.read(key)
            if before is not None:
                others = before.filter(pc.invert(pc.is_in(before["chunk_id"], value_set=rows["chunk_id"].combine_chunks())))
                rows = pa.concat_tables([others.replace_schema_metadata(), rows])
            data = io.BytesIO()
            pq.write_table(rows, data, compression="zstd")
            kept = self._folder / f"{key}.{hashlib.sha256(data.getbuffer()).hexdigest()}.parquet"
            write_atomic(kept, data.getvalue())
            for path in self._files(key):
                if path != kept:
                    path.unlink()
            trim(self.home, self.most_bytes)

    @property
    def _folder(self) -> Path:
        return self.home.tokenised / self.mailbox

    def _files(self, key: str) -> list[Path]:
        return sorted(self._folder.glob(f"{key}.*.parquet"))


def trim(home: Home, most_bytes: int) -> None:
    """Removes files until the rest take at most ``most_bytes``, those first that were not used for longest. For whoever has
    the lock: a temporary file is then one that a kill has left, and goes too."""
    for path in home.tokenised.glob("*/.*.tmp"):
        path.unlink()
    files = [(path.stat(), path) for path in home.tokenised.glob("*/*.parquet")]
    over = sum(found.st_size for found, _ in files) - most_bytes
    for found, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
        if over <= 0:
            return
        path.unlink()
        over -= found.st_size


def erase_tokenised(home: Home, mailbox: str) -> None:
    """Removes all that is kept of a mailbox: it is made anew of what may still be read."""
    if (home.tokenised / mailbox).exists():
        with locked(home.tokenised / LOCK):
            shutil.rmtree(home.tokenised / mailbox)
