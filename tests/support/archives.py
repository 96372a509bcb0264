"""Writes mbox files as mail programs do, independently of the code that reads them."""

from __future__ import annotations

from collections.abc import Sequence

SEPARATOR = b"From someone@example.org Fri May 22 13:38:22 2015"


def escaped(mail: bytes) -> bytes:
    """mboxrd: a line of ``>``s and ``From `` gets one ``>`` more."""
    lines = mail.split(b"\n")
    return b"\n".join(b">" + line if line.lstrip(b">").startswith(b"From ") else line for line in lines)


def mboxrd(mails: Sequence[bytes], newline: bytes = b"\n", separator: bytes = SEPARATOR) -> bytes:
    """The archive of ``mails``; one that does not end with a line end gets one, as writers do."""
    pieces: list[bytes] = []
    for mail in mails:
        ending = b"" if mail.endswith(b"\n") or not mail else newline
        pieces.append(separator + newline + escaped(mail) + ending + newline)
    return b"".join(pieces)


def mail(number: int, body: str = "Text.\n") -> bytes:
    """A small mail that differs from every other number's."""
    return (
        f"Message-ID: <{number}@example.org>\nFrom: a@example.org\nDate: Fri, 22 May 2015 13:38:22 +0000\n"
        f"Subject: Mail {number}\n\n{body}"
    ).encode()
