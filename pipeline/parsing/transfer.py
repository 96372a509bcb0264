"""Content transfer encodings undone: what is damaged is decoded as far as it goes, and said to be damaged."""

from __future__ import annotations

import binascii
import re

_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/]*")
_BLANKS = b" \t\r\n\x0b\x0c\0"
_BROKEN_ESCAPE = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]*\r?\n|[ \t]*\Z)")
_UU_BEGIN = re.compile(rb"^begin [0-7]{3,4} [^\n]*\n", re.M)


def from_base64(data: bytes) -> tuple[bytes, bool]:
    """Decodes up to the first character that cannot be base64; false where characters or padding were wrong.

    What follows the padding, such as a footer that a list server appended, is dropped. Data that does not begin as base64
    at all is returned as it is.
    """
    packed = data.translate(None, _BLANKS)
    run = _BASE64_RUN.match(packed)
    end = run.end() if run else 0
    if end == 0 and packed:
        return data, False
    rest = packed[end : end + 3].lstrip(b"=")
    whole = end - end % 4 if end % 4 == 1 else end
    plain = binascii.a2b_base64(packed[:whole] + b"=" * (-whole % 4))
    return plain, not rest and whole == end and len(packed) - end == -whole % 4


def from_quoted_printable(data: bytes) -> tuple[bytes, bool]:
    """Decodes quoted-printable; an escape that is none stays as it stands and makes the second value false."""
    return binascii.a2b_qp(data), _BROKEN_ESCAPE.search(data) is None


def from_uuencode(data: bytes) -> tuple[bytes, bool]:
    """Decodes uuencode from its ``begin`` line to its ``end``; without one the data comes back as it is."""
    begin = _UU_BEGIN.search(data)
    if begin is None:
        return data, False
    out: list[bytes] = []
    for line in data[begin.end() :].splitlines():
        if line.strip() in (b"end", b"`", b""):
            return b"".join(out), True
        try:
            out.append(binascii.a2b_uu(line))
        except binascii.Error:
            try:
                out.append(binascii.a2b_uu(line[: ((line[0] - 32) & 63) * 4 // 3 + 5]))
            except binascii.Error:
                return b"".join(out), False
    return b"".join(out), False


def undo(data: bytes, encoding: str) -> tuple[bytes, str]:
    """The bytes behind a Content-Transfer-Encoding, and the encoding's name as a defect where it was damaged."""
    if encoding in ("base64", "b64"):
        plain, sound = from_base64(data)
        return plain, "" if sound else "base64"
    if encoding in ("quoted-printable", "quotedprintable", "qp"):
        plain, sound = from_quoted_printable(data)
        return plain, "" if sound else "quoted-printable"
    if encoding in ("x-uuencode", "uuencode", "x-uue", "uue"):
        plain, sound = from_uuencode(data)
        return plain, "" if sound else "uuencode"
    return data, ""


def size_behind(data: bytes, encoding: str) -> int:
    """How many bytes ``data`` decodes to, counted without decoding; exact for data without damage."""
    if encoding in ("base64", "b64"):
        packed = len(data) - data.count(b"\n") - data.count(b"\r")
        return max(packed * 3 // 4 - data[-8:].count(b"="), 0)
    if encoding in ("quoted-printable", "quotedprintable", "qp"):
        soft = data.count(b"=\n") * 2 + data.count(b"=\r\n") * 3
        return len(data) - soft - (data.count(b"=") - data.count(b"=\n") - data.count(b"=\r\n")) * 2
    if encoding in ("x-uuencode", "uuencode", "x-uue", "uue"):
        return len(from_uuencode(data)[0])
    return len(data)
