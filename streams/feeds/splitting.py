"""Cuts the bytes of an mbox into mails, in one pass and in bounded memory, whatever the file holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from streams.feeds.separators import separator

LONGEST_LINE = 64 << 10


@dataclass(frozen=True, slots=True)
class Slice:
    """One mail of an mbox. ``separator`` and ``offset`` are where its separator line and its first byte stand, ``length``
    its bytes, without the blank line that closes it; ``head`` are these bytes, still escaped: all of them, or the first
    ``kept`` where they are more than the caller's limit. ``date`` is the separator's."""

    separator: int
    offset: int
    length: int
    head: bytes
    date: datetime | None


class _OpenMail:
    """A mail whose end has not been seen."""

    def __init__(self, start: int, offset: int, date: datetime | None, limit: int, kept: int) -> None:
        self._start, self._offset, self._date, self._limit, self._kept = start, offset, date, limit, kept
        self._parts: list[bytes] = []
        self._length = 0
        self._tail = b""
        self._cut = False

    def add(self, part: bytes) -> None:
        self._length += len(part)
        self._tail = (self._tail + part[-3:])[-3:]
        if self._cut:
            return
        self._parts.append(part)
        if self._length > self._limit + len(b"\r\n"):
            self._cut = True
            self._parts = [self._beginning()]

    def _beginning(self) -> bytes:
        """The first ``kept`` bytes, without joining all the others to them."""
        held: list[bytes] = []
        size = 0
        for part in self._parts:
            held.append(part[: self._kept - size])
            size += len(held[-1])
            if size == self._kept:
                break
        return b"".join(held)

    def close(self) -> Slice:
        length = self._length - self._blank_line()
        whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        head = whole[: self._kept] if length > self._limit else whole[:length]
        return Slice(self._start, self._offset, length, head, self._date)

    def _blank_line(self) -> int:
        """Bytes of the blank line at the end, which belongs to the mbox and not to the mail."""
        if self._tail.endswith(b"\n\n") or self._tail == b"\n":
            return 1
        return 2 if self._tail.endswith(b"\n\r\n") or self._tail == b"\r\n" else 0


def split(blocks: Iterable[bytes], start: int, *, limit: int, kept: int) -> Iterator[Slice]:
    """The mails in ``blocks``, which begin at offset ``start`` of the file, with a separator or a blank line.

    Each mail is yielded once its end is seen, so that an exception from ``blocks`` costs the mail that it struck and none
    before. Memory: a block, and the mail at hand up to ``limit`` bytes; of a longer one the first ``kept``.
    """
    mail: _OpenMail | None = None
    at = start
    fresh_line = True
    for data in _whole_lines(blocks):
        begin = 0
        for position in _from_lines(data, fresh_line):
            found = separator(data, position)
            if found is None:
                continue
            if mail is not None:
                mail.add(data[begin:position])
                yield mail.close()
            begin, date = found
            mail = _OpenMail(at + position, at + begin, date, limit, kept)
        if mail is not None:
            mail.add(data[begin:])
        at += len(data)
        fresh_line = data.endswith(b"\n")
    if mail is not None:
        yield mail.close()


def _from_lines(data: bytes, fresh_line: bool) -> Iterator[int]:
    """Where lines with ``From `` begin; ``fresh_line`` says whether ``data`` itself begins a line."""
    if fresh_line and data.startswith(b"From "):
        yield 0
    newline = data.find(b"\nFrom ")
    while newline >= 0:
        yield newline + 1
        newline = data.find(b"\nFrom ", newline + 1)


def _whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that end with a line, so that no separator is torn. A line beyond ``LONGEST_LINE`` is, as
    it is none; so that a file without lines needs no more memory than one with them."""
    held = b""
    for block in blocks:
        cut = block.rfind(b"\n") + 1
        if cut:
            yield held + block[:cut]
            held = block[cut:]
        elif len(held) + len(block) > LONGEST_LINE:
            yield held + block
            held = b""
        else:
            held += block
    if held:
        yield held
