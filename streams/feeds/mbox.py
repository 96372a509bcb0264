"""An mbox file as a feed: mboxrd or mboxo, plain or gzip, with either line ending, also one that grows between imports.

The mail is handed on as the sender wrote it: without its separator line, without the blank line that closes it, without
the mbox's escape. Its cursor ``OFFSET+LENGTH`` are the bytes of the (unpacked) file that it was cut from.

Every read begins again at the last mail that was noted. When that one has grown, because it was still being written, it is
handed on again, whole, under a number of its own; when it is not there, the file is not the one it was, and nothing is
read from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.domain import TickKind
from pipeline.errors import FeedError, NotMail
from pipeline.home import Home
from pipeline.times import utc_now
from streams.feeds.bytestreams import ByteStream, PlainBytes, open_bytes
from streams.feeds.contract import Handed
from streams.feeds.handing import (
    BATCH_BYTES,
    BATCH_MAILS,
    KEPT_OF_LONGER,
    MAX_MAIL,
    Origin,
    in_batches,
    newest_received,
    note_of,
    sha256,
)
from streams.feeds.naming import feed_name, path_text
from streams.feeds.numbering import MAIL, Note, Noted, Numbering
from streams.feeds.separators import separator, unescape
from streams.feeds.splitting import Slice, split

BLOCK = 1 << 20
HEAD_BYTES = 4096
SETTLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Source:
    """What the journal keeps about the file: the digest of its first bytes, how many these are, its time of change when it
    was first seen (ISO 8601, naive UTC), and where the last noted mail's separator stands."""

    head: str
    head_length: int
    file_time: datetime
    resume: int = 0

    @classmethod
    def of(cls, state: dict[str, str]) -> _Source | None:
        if "head" not in state:
            return None
        return cls(
            state["head"], int(state["head_length"]), datetime.fromisoformat(state["file_time"]), int(state["resume"])
        )

    def state(self) -> dict[str, str]:
        return {name: str(value) for name, value in asdict(self).items()}


class MboxFeed:
    """One mbox file of a mailbox. ``position`` of ``size`` bytes on disk have been read, for a progress bar."""

    kind = "mbox"

    def __init__(
        self,
        home: Home,
        mailbox: str,
        path: Path,
        feed: str | None = None,
        *,
        now: Callable[[], datetime] = utc_now,
        max_mail: int = MAX_MAIL,
        settle: float = SETTLE_SECONDS,
    ) -> None:
        """Raises ``FeedError`` when ``path`` is no file with an mbox in it; an empty file is one without mail.

        ``feed`` names the feed; by default the mailbox, the file's name and 8 hex digits of its absolute path do.
        A file changed less than ``settle`` seconds ago, whose last mail is not closed by a blank line, is waited for.
        """
        self.path = path.expanduser().resolve()
        self.name = feed or feed_name(mailbox, self.path)
        self.position = 0
        self._origin = Origin(mailbox, self.name)
        self._home = home
        self._now = now
        self._max_mail = max_mail
        self._kept = min(KEPT_OF_LONGER, max_mail)
        self._settle = settle
        stream = open_bytes(self.path)
        try:
            _check_begins(stream)
        finally:
            stream.close()
        self.size = self.path.stat().st_size

    @property
    def source(self) -> str:
        return path_text(self.path)

    def items(self, after: int) -> Iterator[Handed]:
        """Everything numbered above ``after``, in order: what was noted and not taken, then what is new in the file, and
        at its end a tick, unless nothing came since the last one. Each number is noted before its item is yielded.

        Raises ``FeedError`` where the file is damaged, after all that came before, and when it is not the file it was.
        """
        self._wait_until_quiet()
        stream = open_bytes(self.path)
        try:
            with Numbering(self._home, self.name) as numbering:
                source = self._recognise(stream, numbering)
                for noted in numbering.after(after):
                    self.position = stream.file_position
                    yield self._again(stream, noted)
                yield from self._new(stream, numbering, source, after)
        finally:
            stream.close()

    def _new(self, stream: ByteStream, numbering: Numbering, source: _Source, floor: int) -> Iterator[Handed]:
        last = numbering.last_mail()
        if last is not None:
            self._check_last(stream, source, last)
        stream.seek(source.resume)
        blocks = iter(lambda: stream.read(BLOCK), b"")
        pieces = split(blocks, source.resume, limit=self._max_mail, kept=self._kept)
        for batch in in_batches(pieces, lambda piece: len(piece.head), most=BATCH_MAILS, most_bytes=BATCH_BYTES):
            mails = [(piece, unescape(piece.head)) for piece in batch]
            notes = [self._note(piece, raw, source) for piece, raw in mails]
            if last is not None and not _has_grown(batch[0], last.note):
                del mails[0], notes[0]
            last = None
            source = replace(source, resume=batch[-1].separator)
            noted = numbering.note(notes, floor=floor, state=source.state())
            self.position = stream.file_position
            for one, (piece, raw) in zip(noted, mails, strict=True):
                yield self._origin.mail_or_beginning(one, raw, piece.length, self._max_mail)
        self.position = stream.file_position
        end = Note(TickKind.CAUGHT_UP.value, str(stream.offset), "", self._now())
        tick = numbering.last()
        if tick is None or (tick.note.kind, tick.note.cursor) != (end.kind, end.cursor):
            (noted_tick,) = numbering.note([end], floor=floor)
            yield self._origin.tick(noted_tick)

    def _note(self, piece: Slice, raw: bytes, source: _Source) -> Note:
        received_at = piece.date or newest_received(raw) or source.file_time
        cursor = f"{piece.offset}+{piece.length}"
        return note_of(cursor, raw, received_at, length=piece.length, limit=self._max_mail)

    def _again(self, stream: ByteStream, noted: Noted) -> Handed:
        """A noted item, read once more from where it stands."""
        if not noted.note.digest:
            return self._origin.tick(noted)
        offset, length = _range(noted.note)
        raw = _read_mail(stream, offset, length if noted.note.kind == MAIL else self._kept)
        if sha256(raw) != noted.note.digest:
            raise self._changed(f"mail {noted.number} does not stand at byte {offset} any more")
        return self._origin.mail_or_beginning(noted, raw, length, self._max_mail)

    def _recognise(self, stream: ByteStream, numbering: Numbering) -> _Source:
        """What is known about the file, noted when it is seen for the first time, or is longer than its noted head."""
        known = _Source.of(numbering.state())
        stream.seek(0)
        head = stream.read(HEAD_BYTES)
        if known is not None:
            if len(head) < known.head_length:
                raise self._changed("it has shrunk")
            if sha256(head[: known.head_length]) != known.head:
                raise self._changed("it begins with other mail")
            if len(head) == known.head_length:
                return known
        file_time = (
            known.file_time if known else datetime.fromtimestamp(self.path.stat().st_mtime, UTC).replace(tzinfo=None)
        )
        source = _Source(sha256(head), len(head), file_time, known.resume if known else 0)
        numbering.note([], state=source.state())
        return source

    def _check_last(self, stream: ByteStream, source: _Source, last: Noted) -> None:
        """Raises ``FeedError`` unless the last noted mail, or one that begins with it, stands where it stood."""
        offset, length = _range(last.note)
        stream.seek(source.resume)
        line = stream.read(offset - source.resume)
        raw = _read_mail(stream, offset, length if last.note.kind == MAIL else self._kept)
        if separator(line, 0) is None or sha256(raw) != last.note.digest:
            raise self._changed(f"mail {last.number} does not stand at byte {offset} any more")

    def _changed(self, what: str) -> FeedError:
        return FeedError(
            f"{self.path} was replaced or rewritten since it was read: {what}",
            hint="copy it to a new name and import that; mail that is stored already counts as duplicates",
        )

    def _wait_until_quiet(self) -> None:
        while self._settle > 0:
            stream = open_bytes(self.path)
            try:
                age = time.time() - self.path.stat().st_mtime
                if not isinstance(stream, PlainBytes) or _is_closed(stream) or not 0 <= age < self._settle:
                    return
            finally:
                stream.close()
            time.sleep(self._settle - age)


def _check_begins(stream: ByteStream) -> None:
    """Raises ``FeedError`` unless the first line that is not blank is a separator; a file of blank lines has no mail."""
    head = stream.read(BLOCK).lstrip(b"\r\n")
    if head and separator(head, 0) is None:
        raise NotMail(
            f"{stream.path} is not an mbox: its first line is no 'From ADDRESS DATE'",
            hint="`mailtide parse` shows a single mail; several go into an mbox, each after such a line",
        )


def _is_closed(stream: PlainBytes) -> bool:
    """Whether the file ends with a blank line, as writers of mbox close a mail."""
    size = stream.path.stat().st_size
    stream.seek(max(0, size - 3))
    return stream.read(3).endswith((b"\n\n", b"\n\r\n")) or size == 0


def _has_grown(piece: Slice, last: Note) -> bool:
    """Whether the last noted mail, which ``piece`` begins with, has become longer by more than the end of its line."""
    _, length = _range(last)
    return bool(piece.head[length:].strip(b"\r\n")) if last.kind == MAIL else piece.length > length + len(b"\r\n")


def _read_mail(stream: ByteStream, offset: int, length: int) -> bytes:
    stream.seek(offset)
    return unescape(stream.read(length))


def _range(note: Note) -> tuple[int, int]:
    offset, length = note.cursor.split("+")
    return int(offset), int(length)
