"""The search indexes of a mailbox: words and vectors, made from the store and kept in the home. Derived data: they follow
the mail, are made anew where their bytes are not those recorded, and may be removed at any time.

    indexes/MAILBOX/bm25/v1-NEWEST/      BM25 over passages, built anew when much mail has come
    indexes/MAILBOX/vectors/             one vector per mail; what is new is put after the rest
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.domain import StoredMessage
from pipeline.errors import MailtideError
from pipeline.filelock import try_lock
from pipeline.home import Home, fsync_dir, private_dir
from pipeline.parsing.subjects import normalise_subject
from pipeline.privacy.scrub import mask_credentials
from pipeline.store import Store
from registry.passages import passages
from retrain.search.bm25 import Bm25Index
from retrain.search.embedder import Embedder
from retrain.search.vector_file import read_note, read_vectors, write_vectors
from retrain.search.vectors import Document, Embedded, Vectors, embed_documents

WORDS, VECTORS = "bm25", "vectors"

WORDS_VERSION = 1
"""Raised when other passages, or other words, would be indexed."""

FRESH_SHARE, MOST_BESIDE = 20, 2_000
"""How many mails may be put beside the index of words: one in so many, and so many at most."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How an index of a mailbox stands: ``documents`` in it (passages or mails), and ``lag``, the mails that came since it
    was written. ``state`` is current, behind, missing, or damaged (its bytes are not those recorded: it is made anew)."""

    mailbox: str
    index: str
    state: str
    documents: int
    lag: int
    model: str
    n_bytes: int


def searched_text(message: StoredMessage) -> str:
    """What of a mail is searched and quoted: the own words, the full text where there are none."""
    return message.own_text or message.text


_Stamp = frozenset[tuple[str, int, int, int]]


@dataclass(frozen=True, slots=True)
class _Kept:
    """An index of words as a process keeps it: the folder that it was read from, what tells that from another, and the
    newest mail that it knows, which may have come after it was written."""

    folder: Path
    stamp: _Stamp
    newest: int
    index: Bm25Index


_KEPT: dict[Path, _Kept] = {}
_READ: dict[Path, tuple[_Stamp, Vectors | None]] = {}
"""By the folder of a mailbox's index, the words and the vectors: a server answers thousands of questions."""


def open_words(store: Store, home: Home, mailbox: str) -> Bm25Index:
    """BM25 over the passages of a mailbox; names of documents are :func:`passage_name`'s.

    Mail that has come since it was built is read and put beside it; only where that is more than one mail in
    :data:`FRESH_SHARE`, or than :data:`MOST_BESIDE`, all is read and built anew. A process reads each mail once.
    """
    newest = _newest(store, mailbox)
    if newest < 0:
        return Bm25Index.build([])
    kept = _kept_words(home, mailbox)
    if kept is None or not 0 <= newest - _built_at(kept.folder) <= min(MOST_BESIDE, newest // FRESH_SHARE):
        return build_words(store, home, mailbox)
    if newest > kept.newest:
        kept = replace(kept, newest=newest, index=kept.index.extended(_passages(store, mailbox, kept.newest + 1, newest)))
    _KEPT[kept.folder.parent] = kept
    return kept.index


def build_words(store: Store, home: Home, mailbox: str) -> Bm25Index:
    """Builds it from the store, whatever is there."""
    newest = _newest(store, mailbox)
    index = Bm25Index.build(_passages(store, mailbox, 0, newest))
    if newest >= 0:
        folder = _words_folder(home, mailbox, newest)
        _keep(index, folder)
        _KEPT[folder.parent] = _Kept(folder, _stamp(folder), newest, index)
    return index


def _kept_words(home: Home, mailbox: str) -> _Kept | None:
    """The index that is there, as this process has it or as it is on disk; None without one that can be read."""
    folders = _words_folders(home, mailbox)
    if not folders:
        return None
    folder = folders[-1]
    try:
        stamp = _stamp(folder)
        kept = _KEPT.get(folder.parent)
        if kept is not None and (kept.folder, kept.stamp) == (folder, stamp):
            return kept
        return _Kept(folder, stamp, _built_at(folder), Bm25Index.load(folder))
    except (MailtideError, OSError):
        shutil.rmtree(folder, ignore_errors=True)
        return None


def passage_name(message_key: str, start: int, end: int) -> str:
    """A passage as a document: its mail and its place in :func:`searched_text`."""
    return f"{start}:{end}:{message_key}"


def passage_of(name: str) -> tuple[str, int, int]:
    """Message key, start and end of what :func:`passage_name` named."""
    start, end, message_key = name.split(":", 2)
    return message_key, int(start), int(end)


def documents(store: Store, mailbox: str, after: int = -1) -> Iterator[Document]:
    """Mails with an ordinal above ``after`` as they are embedded: subject without reply marks, and what is searched. They
    are masked like chunks are, as vectors may go to a server."""
    for message in store.all_messages(mailbox, after + 1):
        subject = normalise_subject(message.subject)[0]
        yield message.message_key, message.arrival_ordinal, mask_credentials(f"{subject}\n{searched_text(message)}")


def stored_vectors(home: Home, mailbox: str, embedder: Embedder) -> Vectors:
    """The vectors of a mailbox as they are on disk; empty where there are none, or damaged ones, or another model's."""
    found = _vectors_there(vectors_folder(home, mailbox))
    return found if found is not None and found.model == embedder.name else Vectors.none(embedder)


def _vectors_there(folder: Path) -> Vectors | None:
    """What the folder holds, read again only when a file of it has changed."""
    if not folder.is_dir():
        _READ.pop(folder, None)
        return None
    stamp = _stamp(folder)
    kept = _READ.get(folder)
    if kept is None or kept[0] != stamp:
        kept = None
        _READ.pop(folder, None)  # before the next are read: they may be large
        kept = _READ[folder] = (stamp, read_vectors(folder))
    return kept[1]


def add_vectors(
    home: Home,
    mailbox: str,
    new: list[Document],
    embedder: Embedder,
    after: Vectors,
    *,
    known: Vectors | None = None,
    told: Callable[[int], None] = lambda read: None,
) -> Embedded:
    """Embeds mails that came after those of ``after`` and keeps all; a kill loses one block at most. The store need not be
    open: this can take minutes. ``known`` may hold vectors of the same texts."""
    folder = vectors_folder(home, mailbox)

    def keep(embedded: Embedded) -> None:
        write_vectors(folder, embedded.vectors)
        told(embedded.read)

    done = embed_documents(new, embedder, known, after=after, keep=keep)
    keep(done)
    return done


def vectors_folder(home: Home, mailbox: str) -> Path:
    return home.index(mailbox) / VECTORS


def writing(home: Home, mailbox: str) -> AbstractContextManager[bool]:
    """Whether this process may write the mailbox's vectors within; it does not wait."""
    return try_lock(home.index(mailbox) / ".writing")


def standings(store: Store, home: Home, mailbox: str) -> list[Standing]:
    """How the indexes of a mailbox stand, their digests checked."""
    return [_words_standing(store, home, mailbox), _vectors_standing(store, home, mailbox)]


def _words_standing(store: Store, home: Home, mailbox: str) -> Standing:
    folders = _words_folders(home, mailbox)
    if not folders:
        return Standing(mailbox, WORDS, "missing", 0, lag(store, mailbox, -1), "", 0)
    behind = lag(store, mailbox, _built_at(folders[-1]))
    try:
        count = len(Bm25Index.load(folders[-1]))
    except MailtideError:
        return Standing(mailbox, WORDS, "damaged", 0, behind, "", _size(folders[-1]))
    return Standing(mailbox, WORDS, "behind" if behind else "current", count, behind, "", _size(folders[-1]))


def _vectors_standing(store: Store, home: Home, mailbox: str) -> Standing:
    folder = vectors_folder(home, mailbox)
    note = read_note(folder)
    if note is None:
        return Standing(mailbox, VECTORS, "missing", 0, lag(store, mailbox, -1), "", _size(folder))
    behind = lag(store, mailbox, note.newest)
    state = "damaged" if read_vectors(folder) is None else "behind" if behind else "current"
    return Standing(mailbox, VECTORS, state, note.documents, behind, note.model, _size(folder))


def behind(store: Store, home: Home, mailbox: str) -> dict[str, int]:
    """How many mails each index that there is does not know yet, from its name or note alone."""
    folders = _words_folders(home, mailbox)
    found = {WORDS: lag(store, mailbox, _built_at(folders[-1]))} if folders else {}
    note = read_note(vectors_folder(home, mailbox))
    return found if note is None else {**found, VECTORS: lag(store, mailbox, note.newest)}


def _newest(store: Store, mailbox: str) -> int:
    newest = store.scalar("SELECT max(arrival_ordinal) FROM message_rows WHERE mailbox = ?", [mailbox])
    return -1 if newest is None else int(newest)


def lag(store: Store, mailbox: str, newest: int) -> int:
    """Mails of a mailbox that came after the ordinal ``newest``."""
    sql = "SELECT count(*) FROM message_rows WHERE mailbox = ? AND arrival_ordinal > ?"
    return int(store.scalar(sql, [mailbox, newest]))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _words_folder(home: Home, mailbox: str, newest: int) -> Path:
    return home.index(mailbox) / WORDS / f"v{WORDS_VERSION}-{newest:012d}"


def _words_folders(home: Home, mailbox: str) -> list[Path]:
    """Those there are, the newest last; mostly one."""
    return sorted((home.index(mailbox) / WORDS).glob(f"v{WORDS_VERSION}-*"))


def _built_at(folder: Path) -> int:
    """The newest mail when it was built."""
    return int(folder.name.partition("-")[2])


def _stamp(folder: Path) -> _Stamp:
    """What changes when a file of an index does."""
    found = [(file.name, file.stat()) for file in folder.iterdir() if not file.name.startswith(".")]
    return frozenset((name, status.st_ino, status.st_size, status.st_mtime_ns) for name, status in found)


def _passages(store: Store, mailbox: str, first: int, newest: int) -> Iterator[Document]:
    """Every passage of the mails from ``first`` to ``newest``, with the subject of its mail, so that a passage that says
    only "it" is found too. What a daemon takes meanwhile is read and left for the next time."""
    for message in store.all_messages(mailbox, first):
        text = searched_text(message)
        for start, end in passages(text) if message.arrival_ordinal <= newest else ():
            name = passage_name(message.message_key, start, end)
            yield name, message.arrival_ordinal, f"{message.subject}\n{text[start:end]}"


def _keep(index: Bm25Index, folder: Path) -> None:
    """Writes the index beside its final name, renames it, and removes the ones that it replaces."""
    parent = private_dir(folder.parent)
    written = parent / f".{folder.name}.tmp"
    for old in (written, folder):
        shutil.rmtree(old, ignore_errors=True)
    index.save(written)
    written.replace(folder)
    fsync_dir(parent)
    for other in parent.iterdir():
        if other != folder:
            shutil.rmtree(other)
