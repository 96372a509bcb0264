"""From a letter to the bytes of a mail (RFC 5322, RFC 2045 to 2047), as the various programs of its people pack it.

Written here rather than by ``email.message``: the folding of headers there changes between versions of Python, and the
mailbox is to be the same everywhere.
"""

from __future__ import annotations

import base64
import quopri
from collections.abc import Iterable
from datetime import datetime, timedelta

from streams.demo.letters import File, Letter
from streams.demo.people import OWNER
from streams.demo.person import Form, Person
from streams.demo.quoting import MONTHS, WEEKDAYS, html_body, plain_body

CHARSETS = {
    Form.PLAIN_8BIT: ("utf-8", "8bit"),
    Form.PLAIN_QP: ("utf-8", "quoted-printable"),
    Form.PLAIN_LATIN: ("iso-8859-1", "quoted-printable"),
    Form.PLAIN_WINDOWS: ("windows-1252", "8bit"),
    Form.PLAIN_BASE64: ("utf-8", "base64"),
}
LIST_NAME = "Tidewater Singers"


def post(letter: Letter) -> bytes:
    """The mail as it arrives: LF line ends, headers folded at 78 columns, 8-bit only in bodies."""
    body_headers, body = _content(letter)
    lines = [*_envelope(letter), *_header_lines(letter.headers), "MIME-Version: 1.0", *body_headers]
    return "\n".join(lines).encode("ascii") + b"\n\n" + body


def date_header(when: datetime, zone: int) -> str:
    """``when`` (UTC) in the RFC 5322 form, in a zone of so many minutes east."""
    local = when + timedelta(minutes=zone)
    offset = f"{'+' if zone >= 0 else '-'}{abs(zone) // 60:02}{abs(zone) % 60:02}"
    month = MONTHS[local.month - 1][:3]
    return f"{WEEKDAYS[local.weekday()]}, {local.day} {month} {local.year} {local:%H:%M:%S} {offset}"


def _envelope(letter: Letter) -> list[str]:
    sender = letter.sender
    host = sender.address.partition("@")[2]
    fields = [
        ("Return-Path", f"<{sender.address}>"),
        ("Received", f"from mx.{host} by mail.tidewater.example; {date_header(letter.arrived, 0)}"),
        ("Date", date_header(letter.sent, sender.zone)),
        ("From", _mailbox(sender)),
        ("To", letter.list_address or _mailboxes(letter.to)),
    ]
    if letter.cc and letter.list_address is None:
        fields.append(("Cc", _mailboxes(letter.cc)))
    fields.append(("Subject", _encoded(letter.subject)))
    fields.append(("Message-ID", f"<{letter.message_id}>"))
    if letter.in_reply_to:
        fields.append(("In-Reply-To", letter.in_reply_to))
    if letter.references:
        fields.append(("References", " ".join(f"<{reference}>" for reference in letter.references)))
    if letter.list_address:
        fields += [("List-Id", f"{LIST_NAME} <{letter.list_address.replace('@', '.')}>"), ("Precedence", "list")]
    fields.append(("User-Agent", sender.program))
    return _header_lines(fields)


def _content(letter: Letter) -> tuple[list[str], bytes]:
    """Header lines and body of what the mail holds."""
    boundary = f"=_{letter.message_id[:10]}_"
    if letter.form is Form.ALTERNATIVE:
        plain = _part(*_text(plain_body(letter), "plain", "utf-8", "quoted-printable"))
        rich = _part(*_text(html_body(letter), "html", "utf-8", "quoted-printable"))
        headers, body = _multipart("alternative", boundary + "a", (plain, rich))
    elif letter.form is Form.HTML:
        headers, body = _text(html_body(letter), "html", "utf-8", "quoted-printable")
    else:
        headers, body = _text(plain_body(letter), "plain", *CHARSETS[letter.form])
    if letter.files:
        headers, body = _multipart("mixed", boundary + "m", (_part(headers, body), *map(_attached, letter.files)))
    return headers, body


def _text(text: str, subtype: str, charset: str, encoding: str) -> tuple[list[str], bytes]:
    try:
        data = text.encode(charset)
    except UnicodeEncodeError:
        data, charset = text.encode(), "utf-8"
    headers = [f"Content-Type: text/{subtype}; charset={charset}", f"Content-Transfer-Encoding: {encoding}"]
    if encoding == "quoted-printable":
        return headers, quopri.encodestring(data)
    return headers, base64.encodebytes(data) if encoding == "base64" else data


def _attached(file: File) -> bytes:
    name = f'filename="{file.name}"' if file.name.isascii() else f"filename*=utf-8''{_percent(file.name)}"
    headers = [
        f"Content-Type: {file.content_type}",
        f"Content-Disposition: attachment; {name}",
        "Content-Transfer-Encoding: base64",
    ]
    return _part(headers, base64.encodebytes(file.data))


def _multipart(subtype: str, boundary: str, parts: Iterable[bytes]) -> tuple[list[str], bytes]:
    mark = boundary.encode("ascii")
    body = b"".join(b"--" + mark + b"\n" + part + b"\n" for part in parts) + b"--" + mark + b"--\n"
    return [f'Content-Type: multipart/{subtype}; boundary="{boundary}"'], body


def _part(headers: list[str], body: bytes) -> bytes:
    return "\n".join(headers).encode("ascii") + b"\n\n" + body


def _header_lines(fields: Iterable[tuple[str, str]]) -> list[str]:
    lines: list[str] = []
    for name, value in fields:
        line = f"{name}:"
        for word in value.split(" "):
            if len(line) + len(word) >= 78 and line.strip() != f"{name}:":
                lines.append(line)
                line = ""
            line += f" {word}"
        lines.append(line)
    return lines


def _mailboxes(people: Iterable[Person]) -> str:
    return ", ".join(map(_mailbox, people)) or _mailbox(OWNER)


def _mailbox(person: Person) -> str:
    name = f'"{person.name}"' if set(person.name) & set("&,.") else _encoded(person.name)
    return f"{name} <{person.address}>"


def _encoded(text: str) -> str:
    """Text of a header: as it is, or as encoded words of at most 75 columns (RFC 2047, base64)."""
    if text.isascii():
        return text
    words: list[str] = []
    piece = ""
    for character in text:
        if len((piece + character).encode()) > 42:
            words.append(piece)
            piece = ""
        piece += character
    words.append(piece)
    return " ".join(f"=?utf-8?b?{base64.b64encode(word.encode()).decode('ascii')}?=" for word in words)


def _percent(text: str) -> str:
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}" for byte in text.encode())
