"""Mail as it should not be: what a mailbox of eighteen months holds besides the proper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from streams.demo.letters import Letter
from streams.demo.person import Form
from streams.demo.post import post

FOOTER = "\n_______________________________________________\nlanterns mailing list, leave it by asking nicely\n"


def unknown_charset(letter: Letter) -> bytes:
    """A charset label that no one knows, over bytes that are windows-1252."""
    raw = post(replace(letter, form=Form.PLAIN_8BIT, paragraphs=("Überraschung!", *letter.paragraphs)))
    head, _, body = raw.partition(b"\n\n")
    return (
        head.replace(b"charset=utf-8", b"charset=x-tidewater-special") + b"\n\n" + body.decode().encode("cp1252", "replace")
    )


def truncated(letter: Letter) -> bytes:
    """A multipart that breaks off in the middle of its second part."""
    raw = post(replace(letter, form=Form.ALTERNATIVE))
    return raw[: int(len(raw) * 0.7)] + b"\n"


def without_id(letter: Letter) -> bytes:
    """No Message-ID at all."""
    return _without(b"Message-ID:", post(replace(letter, form=Form.PLAIN_8BIT)))


def raw_header(letter: Letter) -> bytes:
    """Undeclared 8-bit bytes in From and Subject."""
    raw = post(replace(letter, form=Form.PLAIN_8BIT))
    head, _, body = raw.partition(b"\n\n")
    lines = [
        b"Subject: Gr\xfc\xdfe vom Ufer, caf\xe9" if line.startswith(b"Subject:") else line for line in head.split(b"\n")
    ]
    return b"\n".join(lines) + b"\n\n" + body


def no_date(letter: Letter) -> bytes:
    """A Date that is none."""
    raw = post(replace(letter, form=Form.PLAIN_QP))
    head, _, body = raw.partition(b"\n\n")
    lines = [b"Date: yesterday, after lunch" if line.startswith(b"Date:") else line for line in head.split(b"\n")]
    return b"\n".join(lines) + b"\n\n" + body


def dead_clock(letter: Letter) -> bytes:
    """A Date of 1970, from a machine whose battery is empty."""
    raw = post(replace(letter, form=Form.PLAIN_QP))
    head, _, body = raw.partition(b"\n\n")
    date = b"Date: Thu, 1 Jan 1970 00:00:07 +0000"
    lines = [date if line.startswith(b"Date:") else line for line in head.split(b"\n")]
    return b"\n".join(lines) + b"\n\n" + body


def list_copy(letter: Letter) -> bytes:
    """The same mail once more, through a list that marks its subject and adds a footer: a duplicate by id and date."""
    raw = post(replace(letter, form=Form.PLAIN_8BIT, files=(), subject=f"[lanterns] {letter.subject}"))
    return raw + FOOTER.encode()


def _without(name: bytes, raw: bytes) -> bytes:
    head, _, body = raw.partition(b"\n\n")
    return b"\n".join(line for line in head.split(b"\n") if not line.startswith(name)) + b"\n\n" + body


BREAKAGES: tuple[Callable[[Letter], bytes], ...] = (unknown_charset, truncated, without_id, raw_header, no_date, dead_clock)
