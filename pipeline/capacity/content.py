"""What a base from elsewhere is, told by the bytes of its files: other weights under the same name are another base.

Every file that loading reads is digested, as model signing does it (the OpenSSF's manifest of files and their sha256), and
the base is named by the list. A file is read once: its sha256 is remembered in the home for as long as its size, times and
inode stay. A blob of the Hub's cache has the sha256 that it should have as its name, and may hold other bytes all the same
(huggingface_hub#3643), so it is read too, and the name is what it is held against.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from pipeline.capacity.bases import CONFIG, FETCH, TOKENIZER, TOKENIZER_CONFIG, weight_files
from pipeline.errors import RunError
from pipeline.filelock import locked
from pipeline.home import Home, write_atomic
from pipeline.strict import Strict

BESIDE = (
    CONFIG,
    "generation_config.json",
    TOKENIZER,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)
"""What is read beside the weights, where it is there."""

PIECE = 16 << 20
"""Bytes that are read at once, and after which progress is told."""

WORTH_TELLING = 256 << 20
"""Bytes to be read, below which nobody is told: they take less than a second."""

TOO_FRESH_NS = 2_000_000_000
"""A file that was written within this time may be written again without its times showing it, as clocks of file systems
tick up to two seconds apart: its digest is used, and not remembered."""

OnRead = Callable[[int, int], None]
"""Hears bytes read so far, of how many."""


class Seen(Strict):
    """A file as it was when it was read; ``path`` has no links in it."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str


class Memory(Strict):
    """``external-bases.json`` of a home: files that were read, by inode and path, and what files each base had, by its id.
    Derived: without it all is read again, and of a changed base nobody can tell which files changed."""

    files: dict[str, Seen] = Field(default_factory=dict)
    bases: dict[str, dict[str, str]] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Content:
    """``base_id`` names the base; ``files`` are the sha256 of its files by name."""

    base_id: str
    files: dict[str, str] = field(repr=False)


def content_of(home: Home, folder: Path, on_read: OnRead | None = None, *, afresh: bool = False) -> Content:
    """The base in ``folder``. What was not read before, or ``afresh`` everything, is read, at the speed of the disk.

    Raises ``RunError`` when the folder holds no configuration, cannot be read, or has a blob of the Hub's cache whose bytes
    are not what its name says.
    """
    if not (folder / CONFIG).is_file():
        raise RunError(f"{folder} holds no {CONFIG}", hint="set model.base to a model's folder or a Hub id")
    try:
        paths = {name: (folder / name).resolve() for name in _names(folder)}
        memory = _recall(home)
        known = {} if afresh else {name: sha256 for name, path in paths.items() if (sha256 := _seen(memory, path))}
        if len(known) < len(paths):
            with locked(home.root / ".external-bases.lock"):
                memory = _recall(home)
                known = _read(paths, Memory(bases=memory.bases) if afresh else memory, memory, home, on_read)
    except OSError as error:
        raise RunError(
            f"the base model in {folder} cannot be read ({error})", hint="check the disk and who may read"
        ) from error
    for name, path in paths.items():
        if path.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", path.name) and path.name != known[name]:
            raise RunError(
                f"{folder / name} is damaged: its sha256 is not the one that the Hub's cache names it by",
                hint=f"remove {path} and fetch the model again",
            )
    content = Content(_name(folder, known), known)
    if content.base_id not in memory.bases:
        with locked(home.root / ".external-bases.lock"):
            memory = _recall(home)
            _keep(home, memory.model_copy(update={"bases": {**memory.bases, content.base_id: known}}))
    return content


def by_name(name: str, revision: str | None) -> str:
    """What names a base that is not on this disk: nobody here can tell its content."""
    named = f"{name}@{revision or 'main'}"
    slug = re.sub(r"[^a-z0-9]+", "-", name.rpartition("/")[2].lower()).strip("-")
    return f"{slug}-{hashlib.sha256(named.encode()).hexdigest()[:8]}"


def require_content(home: Home, folder: Path, base_id: str) -> None:
    """Raises ``RunError`` when ``folder`` holds another base than the one that ``base_id`` names, saying by which files."""
    found = content_of(home, folder)
    if found.base_id != base_id:
        raise RunError(
            f"the base model in {folder} {told_change(home, base_id, found)}", hint="put its files back as they were"
        )


def told_change(home: Home, base_id: str, found: Content) -> str:
    """How ``found`` differs from the base ``base_id`` that was in its place, to be said behind its name."""
    before = _recall(home).bases.get(base_id)
    said = f"is {found.base_id} now, no longer {base_id}"
    if before is None:
        return said
    changed = sorted(name for name in before | found.files if before.get(name) != found.files.get(name))
    return f"{said}: {', '.join(changed)} changed"


def _names(folder: Path) -> list[str]:
    try:
        weights = weight_files(folder)
    except RunError:
        weights = []  # said by `require_usable`, with all else that is wrong with it
    return sorted(name for name in {*weights, *BESIDE} if (folder / name).is_file())


def _name(folder: Path, files: dict[str, str]) -> str:
    """The kind of model and 12 hex digits over the list of its files, as sha256sum writes it."""
    listed = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
    try:
        kind = str(json.loads((folder / CONFIG).read_bytes()).get("model_type") or "model")
    except (ValueError, AttributeError) as error:
        raise RunError(f"{folder / CONFIG} is damaged ({error})", hint=FETCH) from error
    slug = re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
    return f"{slug}-{hashlib.sha256(listed.encode()).hexdigest()[:12]}"


def _read(paths: dict[str, Path], trusted: Memory, memory: Memory, home: Home, on_read: OnRead | None) -> dict[str, str]:
    """The digests of all files, those that are not ``trusted`` read and noted in ``memory``."""
    known = {name: sha256 for name, path in paths.items() if (sha256 := _seen(trusted, path))}
    missing = {name: path for name, path in paths.items() if name not in known}
    total, done = sum(path.stat().st_size for path in missing.values()), 0
    seen = dict(memory.files)
    for name, path in missing.items():
        before = _stand(path)
        digest = hashlib.sha256()
        for piece in _pieces(path):
            digest.update(piece)
            done += len(piece)
            if on_read is not None and total >= WORTH_TELLING:
                on_read(done, total)
        known[name] = digest.hexdigest()
        if _stand(path) != before:
            raise RunError(f"{path} was written to while it was read", hint="wait until it is whole, then try again")
        if time.time_ns() - max(before["mtime_ns"], before["ctime_ns"]) > TOO_FRESH_NS:
            seen[_key(path, before)] = Seen(path=str(path), sha256=known[name], **before)
    _keep(home, memory.model_copy(update={"files": seen}))
    return known


def _pieces(path: Path) -> Iterator[memoryview]:
    buffer = bytearray(PIECE)
    with path.open("rb", buffering=0) as file:
        while got := file.readinto(buffer):
            yield memoryview(buffer)[:got]


def _stand(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns, "inode": stat.st_ino}


def _key(path: Path, stand: dict[str, int]) -> str:
    return f"{stand['inode']} {path}"


def _seen(memory: Memory, path: Path) -> str | None:
    stand = _stand(path)
    seen = memory.files.get(_key(path, stand))
    return seen.sha256 if seen is not None and seen == Seen(path=str(path), sha256=seen.sha256, **stand) else None


def _recall(home: Home) -> Memory:
    try:
        return Memory.model_validate_json(home.external_bases.read_bytes())
    except (OSError, ValueError):
        return Memory()


def _keep(home: Home, memory: Memory) -> None:
    write_atomic(home.external_bases, memory.model_dump_json(indent=2).encode() + b"\n")
