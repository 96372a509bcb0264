"""Where everything of one mailtide home lies, and how files are written there: whole, private, or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Home:
    """The paths of a home; nothing here touches the disk."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def store(self) -> Path:
        return self.root / "store.duckdb"

    @property
    def bodies(self) -> Path:
        return self.root / "bodies.duckdb"

    @property
    def people_key(self) -> Path:
        return self.root / "people.key"

    @property
    def signing_key(self) -> Path:
        return self.root / "signing.key"

    @property
    def owner_socket(self) -> Path:
        return self.root / "owner.sock"

    @property
    def server_token(self) -> Path:
        return self.root / "server.token"

    @property
    def feeds(self) -> Path:
        return self.root / "feeds"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    def shard(self, mailbox: str, window_idx: int) -> Path:
        return self.root / "shards" / mailbox / f"window={window_idx:06d}"

    def base(self, mailbox: str, base_id: str) -> Path:
        return self.root / "bases" / mailbox / base_id

    def run(self, run_id: str) -> Path:
        return self.runs / run_id

    def adapter(self, adapter_id: str) -> Path:
        return self.adapters / adapter_id

    def champion_link(self, mailbox: str) -> Path:
        return self.root / "champions" / mailbox

    @property
    def deployments(self) -> Path:
        return self.root / "deployments"

    def merged(self, mailbox: str) -> Path:
        return self.root / "merged" / mailbox

    def index(self, mailbox: str) -> Path:
        return self.root / "indexes" / mailbox

    def spot_checks(self, mailbox: str) -> Path:
        return self.root / "spotchecks" / mailbox

    @property
    def external_bases(self) -> Path:
        return self.root / "external-bases.json"

    @property
    def tokenised(self) -> Path:
        return self.root / "tokenised"


def private_dir(path: Path) -> Path:
    """Makes ``path`` and its missing parents, each 0700; an existing folder is left as it is."""
    missing = []
    probe = path
    while not probe.exists():
        missing.append(probe)
        probe = probe.parent
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    return path


def fsync_dir(path: Path) -> None:
    """Makes a rename or a creation in ``path`` durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary file name beside ``path``; what was written there becomes ``path``, 0600 and durable, on exit.

    An exception leaves ``path`` as it was and removes the temporary file. What a kill leaves is replaced by the next
    attempt, as the name is the same: a file of a home has one writer at a time.
    """
    private_dir(path.parent)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        temporary.chmod(0o600)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        fsync_dir(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces ``path`` by ``data`` as a whole; a reader sees the old bytes or the new ones."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(path: Path) -> str:
    """Hex sha256 over the names and digests of a folder's files, in name order: one byte anywhere changes it."""
    lines = [
        f"{sha256_file(file)}  {file.relative_to(path).as_posix()}\n" for file in sorted(path.rglob("*")) if file.is_file()
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
