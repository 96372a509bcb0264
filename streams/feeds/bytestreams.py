"""The bytes of an archive from any offset on, whether it lies there plainly or compressed by gzip."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO, Protocol

from pipeline.errors import FeedError, NotMail

GZIP_MAGIC = b"\x1f\x8b"
GZIP_BLOCK = 16 << 10
OTHER_FORMATS = {
    b"BZh": ("compressed with bzip2", "unpack it with bunzip2 and import what comes out"),
    b"\xfd7zXZ\0": ("compressed with xz", "unpack it with unxz and import what comes out"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it with unzstd and import what comes out"),
    b"PK\x03\x04": ("a zip archive", "unpack it and import the mbox files in it"),
    b"!BDN": ("an Outlook data file", "convert it with readpst and import the mbox files that it writes"),
}


class ByteStream(Protocol):
    """What an archive says, in order. Offsets count what it says, not how it is packed."""

    path: Path

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer only at the end; raises ``FeedError`` at damage, after all that came before."""

    def seek(self, offset: int) -> None:
        """Goes to ``offset``, or to the end where that comes first."""

    @property
    def offset(self) -> int:
        """Where the next ``read`` begins."""

    @property
    def file_position(self) -> int:
        """Bytes of the file on disk read so far, for a progress bar."""

    def close(self) -> None: ...


def open_bytes(path: Path) -> ByteStream:
    """Opens ``path`` by what it holds, not by its name; raises ``FeedError`` for what cannot hold an mbox."""
    if (path / "cur").is_dir() and (path / "new").is_dir():
        raise NotMail(f"{path} is a Maildir, not an mbox", hint="in the settings its kind is maildir")
    if path.is_dir():
        raise NotMail(f"{path} is a folder", hint="name the mbox files in it")
    if path.exists() and not path.is_file():  # asked before opening: a pipe without a writer would block
        raise NotMail(f"{path} is not a regular file", hint="write the mail to a file and import that")
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise FeedError(f"{path} cannot be read: {error.strerror}", hint="check the path and its permissions") from error
    try:
        magic = _read(file, path, 8)
    except FeedError:
        file.close()
        raise
    file.seek(0)
    if magic.startswith(GZIP_MAGIC):
        return GzipBytes(path, file)
    for start, (what, hint) in OTHER_FORMATS.items():
        if magic.startswith(start):
            file.close()
            raise FeedError(f"{path} is {what}", hint=hint)
    return PlainBytes(path, file)


class PlainBytes:
    """A file as it is, up to the size that it had when it was opened: what is appended meanwhile is for the next time."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self._size = path.stat().st_size

    def read(self, size: int) -> bytes:
        wanted = min(size, self._size - self.offset)
        pieces: list[bytes] = []
        while wanted > 0:
            piece = _read(self._file, self.path, wanted)
            if not piece:
                break
            pieces.append(piece)
            wanted -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def seek(self, offset: int) -> None:
        self._file.seek(min(offset, self._size))

    @property
    def offset(self) -> int:
        return self._file.tell()

    @property
    def file_position(self) -> int:
        return self.offset

    def close(self) -> None:
        self._file.close()


class GzipBytes:
    """What a gzip file says, its members one after the other.

    The standard library's reader loses up to a buffer of good bytes before damage and does not say where it is; this
    one gives every byte up to it, and names the byte of the file. Going back means to begin anew.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self._rewind()

    def _rewind(self) -> None:
        self._file.seek(0)
        self._member: zlib._Decompress | None = None
        self._members = 0
        self._ready = bytearray()
        self._offset = 0
        self._damage: FeedError | None = None

    def read(self, size: int) -> bytes:
        while len(self._ready) < size and self._unpack_block():
            pass
        if not self._ready and size and self._damage is not None:
            raise self._damage
        piece = bytes(self._ready[:size])
        del self._ready[:size]
        self._offset += len(piece)
        return piece

    def seek(self, offset: int) -> None:
        if offset < self._offset:
            self._rewind()
        while self._offset < offset and self.read(min(offset - self._offset, 1 << 20)):
            pass

    @property
    def offset(self) -> int:
        return self._offset

    @property
    def file_position(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    def _unpack_block(self) -> bool:
        """Unpacks the next block of the file; False at the end or at damage."""
        if self._damage is not None:
            return False
        start = self._file.tell()
        block = _read(self._file, self.path, GZIP_BLOCK)
        if not block:
            if self._member is not None:
                self._damage = self._damaged(start, "it ends before its mail does")
            return False
        saved = (None if self._member is None else self._member.copy(), self._members)
        try:
            self._ready += self._unpack(block)
        except zlib.error:
            self._member, self._members = saved
            self._unpack_up_to_damage(start, block)
        return True

    def _unpack_up_to_damage(self, start: int, block: bytes) -> None:
        """Byte by byte, so that nothing before the damage is lost."""
        for index in range(len(block)):
            try:
                self._ready += self._unpack(block[index : index + 1])
            except zlib.error as error:
                self._damage = self._damaged(start + index, str(error))
                return

    def _unpack(self, packed: bytes) -> bytes:
        pieces: list[bytes] = []
        while packed:
            if self._member is None:
                packed = packed.lstrip(b"\0") if self._members else packed  # padding after a member, as tapes have it
                if not packed:
                    break
                self._member = zlib.decompressobj(wbits=31)
            pieces.append(self._member.decompress(packed))
            packed = self._member.unused_data
            if not self._member.eof:
                break
            self._member = None
            self._members += 1
        return b"".join(pieces)

    def _damaged(self, position: int, what: str) -> FeedError:
        return FeedError(
            f"{self.path} is damaged at byte {position} of the compressed file: {what}",
            hint="every whole mail before it was taken; fetch the file again and import it once more",
        )


def _read(file: BinaryIO, path: Path, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise FeedError(
            f"{path} cannot be read at byte {file.tell()}: {error.strerror}",
            hint="every whole mail before it was taken; import it again when it can be read",
        ) from error
