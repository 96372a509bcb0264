"""One mail's bytes to a ``ParsedMail``. Never raises on any bytes, in time and memory bounded by the size of the mail.

What is damaged or beyond a limit is read as far as it goes, and recorded as a defect:

======================  ==============================================================================================
``no-headers``          nothing that reads as a header; all bytes are the body
``header-limit``        a header above 256 KB, more than 2,000 fields or 1,000 addresses; the rest is left out
``no-message-id``       no Message-ID, or an empty one
``references-limit``    more than 200 references; the oldest and the newest are kept
``date``                no Date that can be read, or one outside 1970 to 2100
``8bit-header``         raw 8-bit bytes in the header, read as UTF-8, else in the body's charset, else as windows-1252
``charset``             bytes that are not in the charset named, or none that is known is named
``base64``              not base64 to the end; what comes after the damage is left out
``quoted-printable``    an escape that is none; it stays as it stands
``uuencode``            a line that cannot be decoded, or no end
``boundary``            a boundary that never comes, or is never closed
``part-limit``          more than 1,000 parts, or 100,000 lines that look like delimiters; the rest belongs to the last part
``depth-limit``         multiparts nested more than 30 deep; the innermost count as attachments
``text-truncated``      more than 4,000,000 bytes of text; the rest is left out
======================  ==============================================================================================
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipeline.domain import Attachment, ParsedMail
from pipeline.parsing.addresses import MAX_ADDRESSES, addresses
from pipeline.parsing.charsets import decode
from pipeline.parsing.dates import parse_date
from pipeline.parsing.flowed import unflow
from pipeline.parsing.headers import (
    MAX_FIELDS,
    MAX_HEADER_BYTES,
    body_offset,
    decode_words,
    in_reply_to,
    message_id,
    one_line,
    read_fields,
    references,
    text_of,
)
from pipeline.parsing.html_text import html_to_text
from pipeline.parsing.marks import is_auto, is_bulk, list_of
from pipeline.parsing.mime import Part, describe, split_parts, text_parts
from pipeline.parsing.quotes import own_words
from pipeline.parsing.subjects import is_forward, normalise_subject
from pipeline.parsing.transfer import size_behind, undo

MAX_TEXT = 4_000_000


def parse_mail(raw: bytes) -> ParsedMail:
    """Reads a mail as it came, with or without the separator line of an mbox before it."""
    defects: set[str] = set()
    fields, start = _header(raw, defects)
    root = describe(fields, start, len(raw))
    if "8bit-header" in defects:
        fields = {name: text_of(value, root.kind.charset) for name, value in fields.items()}
    texts, attachments = _body(raw, root, defects)

    sender = addresses(fields["from"])[:1] if "from" in fields else ()
    to = addresses(fields["to"]) if "to" in fields else ()
    cc = addresses(fields["cc"]) if "cc" in fields else ()
    if len(to) >= MAX_ADDRESSES or len(cc) >= MAX_ADDRESSES:
        defects.add("header-limit")
    subject = one_line(decode_words(fields.get("subject", "")))
    subject_norm, reply_shaped = normalise_subject(subject)
    date = parse_date(fields["date"]) if "date" in fields else None
    if date is None:
        defects.add("date")
    identity = message_id(fields.get("message-id", ""))
    if identity is None:
        defects.add("no-message-id")
    ancestors, shortened = references(fields["references"]) if "references" in fields else ((), False)
    if shortened:
        defects.add("references-limit")
    parents = in_reply_to(fields["in-reply-to"]) if "in-reply-to" in fields else ()
    answers = reply_shaped or bool(ancestors) or bool(parents) or is_forward(subject)
    author = sender[0] if sender else None
    return ParsedMail(
        message_id=identity,
        sender=author,
        to=to,
        cc=cc,
        subject=subject,
        subject_norm=subject_norm,
        reply_shaped=reply_shaped,
        date=date,
        references=ancestors,
        in_reply_to=parents,
        list_id=list_of(fields),
        bulk=is_bulk(fields),
        auto=is_auto(fields, root.kind.kind, author.address if author else ""),
        text="\n\n".join(texts),
        own_text="\n\n".join(own for text in texts if (own := own_words(text, answers=answers))),
        attachments=attachments,
        defects=tuple(sorted(defects)),
    )


def mail_json(mail: ParsedMail) -> dict[str, Any]:
    """A parsed mail as ``mailtide parse`` prints it."""
    return {
        "message_id": mail.message_id,
        "from": asdict(mail.sender) if mail.sender else None,
        "to": [asdict(address) for address in mail.to],
        "cc": [asdict(address) for address in mail.cc],
        "subject": mail.subject,
        "date": f"{mail.date.isoformat()}Z" if mail.date else None,
        "references": list(mail.references),
        "in_reply_to": list(mail.in_reply_to),
        "list_id": mail.list_id,
        "bulk": mail.bulk,
        "text": mail.text,
        "own_text": mail.own_text,
        "attachments": [asdict(attachment) for attachment in mail.attachments],
        "defects": list(mail.defects),
    }


def _header(raw: bytes, defects: set[str]) -> tuple[dict[str, str], int]:
    """The header's fields and where the body begins; a separator line of an mbox and a byte order mark are skipped."""
    start = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
    if raw.startswith((b"From ", b">From "), start):
        start = raw.find(b"\n", start, start + 1000) + 1 or start
    end, body = body_offset(raw, start, len(raw))
    if end - start > MAX_HEADER_BYTES:
        defects.add("header-limit")
        end = start + MAX_HEADER_BYTES
    head = raw[start:end]
    fields, count = read_fields(head)
    if not fields and not count:
        defects.add("no-headers")
        return {}, start if end > start else body
    if count > MAX_FIELDS:
        defects.add("header-limit")
    if not head.isascii():
        defects.add("8bit-header")
    return fields, body


def _body(raw: bytes, root: Part, defects: set[str]) -> tuple[list[str], tuple[Attachment, ...]]:
    """The texts of the parts that are shown, none of them empty, and the attachments."""
    if not root.is_multipart:
        if root.kind.kind == "text/plain" and not root.attached:
            text = _text_of(raw, root, defects).strip("\n")
            return [text] if text else [], ()
    else:
        split_parts(raw, root, defects)
        if not root.parts:  # its boundary never came: better the text with whatever is in it than none
            root = describe({}, root.start, root.end)
    plain, html, attached = text_parts(root)
    texts = _texts(raw, plain, defects)
    if not any(text.strip() for text in texts) and html != plain:
        texts = _texts(raw, html, defects)
    return texts, tuple(_attachment(raw, part) for part in attached)


def _texts(raw: bytes, parts: list[Part], defects: set[str]) -> list[str]:
    texts: list[str] = []
    room = MAX_TEXT
    for part in parts:
        if room <= 0:
            defects.add("text-truncated")
            break
        text = _text_of(raw, part, defects, room).strip("\n")
        room -= len(text)
        if text:
            texts.append(text)
    return texts


def _text_of(raw: bytes, part: Part, defects: set[str], room: int = MAX_TEXT) -> str:
    """The text of a part, with ``\\n`` at line ends and without NUL."""
    data = raw[part.start : part.end]
    if len(data) > 3 * room:  # no encoding needs more than three bytes for one
        data = data[: 3 * room]
        defects.add("text-truncated")
    if part.encoding not in ("", "7bit", "8bit", "binary"):
        data, damage = undo(data, part.encoding)
        if damage:
            defects.add(damage)
    if len(data) > room:
        data = data[:room]
        defects.add("text-truncated")
    text, agreed = decode(data, part.kind.charset)
    if not agreed:
        defects.add("charset")
    if part.kind.kind == "text/html":
        text = html_to_text(text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        text = text.replace("\0", "")
    if part.kind.flowed:
        text = unflow(text, part.kind.delsp)
    return text


def _attachment(raw: bytes, part: Part) -> Attachment:
    return Attachment(part.name, part.kind.kind, size_behind(raw[part.start : part.end], part.encoding))
