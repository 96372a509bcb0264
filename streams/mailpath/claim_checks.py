"""Large data travel as files: written first, under their sha256, and the record carries the reference.

The folder must be the same for all parts that mail passes: on several machines, a shared file system.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pipeline.errors import BusError
from pipeline.home import Home, fsync_dir, private_dir
from streams.bus.envelope import Record
from streams.mailpath.records import DATAREF, with_headers

SHA256_HEX = 64


class ClaimMissing(BusError):
    """The file that a record refers to is gone, or its bytes are not those it was named by."""


class ClaimChecks:
    """``<home>/claims``. Values above ``limit`` bytes are checked in there."""

    def __init__(self, home: Home, limit: int) -> None:
        self._folder = home.root / "claims"
        self._limit = limit

    def checked_in(self, record: Record) -> Record:
        """The record, its value replaced by a reference where it is too large; the file is durable on return.

        Raises ``BusError`` when the file cannot be written: the record must not go out then.
        """
        if len(record.value) <= self._limit:
            return record
        name = hashlib.sha256(record.value).hexdigest()
        self._write(self._path(name), record.value)
        return with_headers(replace(record, value=b""), {DATAREF: f"claims/{name}"})

    def redeemed(self, record: Record) -> Record:
        """The record with its value in place; raises ``ClaimMissing``."""
        reference = record.header(DATAREF)
        if reference is None:
            return record
        name = reference.removeprefix("claims/")
        if len(name) != SHA256_HEX or not set(name) <= set("0123456789abcdef"):
            raise ClaimMissing("its reference is no claim check of mailtide")
        try:
            value = self._path(name).read_bytes()
        except OSError as error:
            raise ClaimMissing(f"its file {self._path(name)} cannot be read: {error.strerror}") from error
        if hashlib.sha256(value).hexdigest() != name:
            raise ClaimMissing(f"its file {self._path(name)} is damaged: the bytes are not those it is named by")
        return replace(record, value=value)

    def sweep(self, days: float) -> int:
        """Removes files older than the topics keep the records that refer to them; returns how many."""
        oldest = time.time() - days * 86_400
        removed = 0
        for file in self._folder.glob("*/*"):
            with suppress(FileNotFoundError):  # another feeder sweeps as well
                if file.stat().st_mtime < oldest:
                    file.unlink()
                    removed += 1
        return removed

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    def _write(self, path: Path, value: bytes) -> None:
        # Parsers of one mail may come here at once, so each has a temporary name of its own.
        try:
            private_dir(path.parent)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(value)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(path)
            finally:
                Path(temporary).unlink(missing_ok=True)
            fsync_dir(path.parent)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise BusError(
                f"a mail of {len(value):,} bytes cannot be put down in {path.parent.parent}: {error.strerror}",
                hint="make room there and start again; nothing is lost" if full else "check the folder and its permissions",
            ) from error
