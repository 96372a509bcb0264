"""The header of a mail: its fields, encoded words, parameters and ids, read from bytes and bounded in size.

Fields are read by the rules of RFC 5322, words by RFC 2047 and parameters by RFC 2231, with the liberties that real mail
takes: raw 8-bit text, encoded words inside quotes, parameters without semicolons, ids cut by folding.
"""

from __future__ import annotations

import binascii
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from pipeline.parsing.charsets import codec_name, decode
from pipeline.parsing.dates import parse_date
from pipeline.parsing.transfer import from_base64

MAX_HEADER_BYTES = 256 * 1024
MAX_FIELDS = 2000
MAX_REFERENCES = 200
MAX_ID = 998

_HEADER_END = re.compile(rb"\n(?:\r?\n|--)")
_FOLD = re.compile(r"\n[ \t]+")
_RECEIVED = re.compile(r"^received(?:[^\S\n]|\n[ \t]+)*:([^\n]*(?:\n[ \t][^\n]*)*)", re.MULTILINE | re.IGNORECASE)
_WORD = re.compile(r"=\?([^?\s]{1,80})\?([bBqQ])\?([^?]*)\?=")
_PARAMETER = re.compile(r"[;\s]\s*([^\s=;\"]{1,80})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"?|([^;]*))", re.S)
_QUOTED_PAIR = re.compile(r"\\(.)", re.S)
_ANGLE = re.compile(r"<([^<>]*)>")
_BLANK = re.compile(r"\s+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")

_WANTED = frozenset(
    {
        "auto-submitted", "cc", "content-disposition", "content-transfer-encoding", "content-type", "date", "from",
        "in-reply-to", "list-id", "list-post", "list-unsubscribe", "mailing-list", "message-id", "precedence",
        "references", "return-path", "sender", "subject", "to", "x-autoreply", "x-autorespond",
        "x-beenthere", "x-list", "x-mailing-list",
    }
)  # fmt: skip
_LAST_WINS = frozenset({"content-type", "content-transfer-encoding", "content-disposition"})


@dataclass(frozen=True, slots=True)
class ContentType:
    """A media type in lower case with its parameters; ``charset`` and ``name`` are ``""`` where absent."""

    kind: str
    charset: str
    boundary: str
    name: str
    flowed: bool
    delsp: bool


def body_offset(raw: bytes, start: int, end: int) -> tuple[int, int]:
    """Where a header that begins at ``start`` ends, and where its body begins; without a blank line both are ``end``.

    A line that begins like a MIME delimiter is no field, so the header also ends before it.
    """
    if raw.startswith((b"\n", b"\r\n"), start):
        return start, start + 1 + (raw[start] == 13)
    stop = _HEADER_END.search(raw, start, end)
    if stop is None:
        return end, end
    return stop.start() + 1, stop.start() + 1 if stop[0].endswith(b"-") else stop.end()


def read_fields(head: bytes) -> tuple[dict[str, str], int]:
    """The wanted fields of a header, unfolded and undecoded, and how many lines hold a field at all.

    The first of several fields of one name counts, as mail programs show it; of those that say how the body is coded
    the last. Raw 8-bit bytes come as latin-1 (see ``text_of``). Reading ends after ``MAX_FIELDS``.
    """
    text = head.decode("latin-1")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    fields: dict[str, str] = {}
    count = 0
    for line in _FOLD.sub(" ", text).split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            count += 1
            if count > MAX_FIELDS:
                break
            name = name.lower()
            if name not in _WANTED:
                name = name.rstrip()
                if name not in _WANTED:
                    continue
            if name not in fields or name in _LAST_WINS:
                fields[name] = value.strip()
    return fields, count


def text_of(value: str, hint: str = "") -> str:
    """A field's value as text: raw 8-bit bytes read as UTF-8, else in the charset ``hint`` of the body, else western."""
    if value.isascii():
        return value if "\x1b$" not in value else decode(value.encode("latin-1"))[0]
    data = value.encode("latin-1")
    text, agreed = decode(data)
    return text if agreed or not hint else decode(data, hint)[0]


def decode_words(value: str) -> str:
    """``value`` with its encoded words decoded; neighbours of one charset are joined first, as characters may be split."""
    if "=?" not in value:
        return value
    out: list[str] = []
    pending = bytearray()
    charset = ""
    position = 0
    for match in _WORD.finditer(value):
        gap = value[position : match.start()]
        label = match[1].partition("*")[0].lower()
        if pending and (label != charset or (gap and not gap.isspace())):
            out.append(decode(bytes(pending), charset)[0])
            pending.clear()
        if gap and not (position and gap.isspace()):
            out.append(gap)
        charset = label
        data = _encoded(match[3], label)
        pending += from_base64(data)[0] if match[2] in "bB" else binascii.a2b_qp(data, header=True)
        position = match.end()
    if pending:
        out.append(decode(bytes(pending), charset)[0])
    out.append(value[position:])
    return "".join(out)


def _encoded(text: str, label: str) -> bytes:
    """The bytes of an encoded word's text; raw characters in it, which should not be there, in the word's own charset."""
    if not text.isascii():
        with suppress(UnicodeError):
            return text.encode(codec_name(label) or "utf-8")
    return text.encode("utf-8", "replace")


def one_line(value: str) -> str:
    """A decoded value as one line without control characters, its ends stripped."""
    return _CONTROL.sub(" ", value).strip() if not value.isprintable() else value


@lru_cache(maxsize=1024)
def content_type(value: str) -> ContentType:
    """Reads a Content-Type; what has no slash or is empty reads as ``""``, for the caller to give a default."""
    kind = value.partition(";")[0].strip().lower()
    kind = kind.split(None, 1)[0] if kind else ""
    if "/" not in kind or len(kind) > 127:
        kind = ""
    parameters = _parameters(value)
    boundary = parameters.get("boundary", "")
    return ContentType(
        kind=kind,
        charset=parameters.get("charset", ""),
        boundary=boundary.rstrip()[:500],
        name=one_line(decode_words(parameters.get("name", ""))),
        flowed=parameters.get("format", "").lower() == "flowed",
        delsp=parameters.get("delsp", "").lower() == "yes",
    )


@lru_cache(maxsize=1024)
def disposition(value: str) -> tuple[str, str]:
    """Reads a Content-Disposition: ``attachment``, ``inline`` or whatever stands there, and the decoded file name."""
    kind = value.partition(";")[0].strip().lower()
    return kind, one_line(decode_words(_parameters(";" + value).get("filename", "")))


def _parameters(value: str) -> dict[str, str]:
    """The parameters of a field by lower-case name, RFC 2231 pieces joined and decoded; the first of a name counts."""
    plain: dict[str, str] = {}
    pieces: dict[str, list[tuple[int, bool, str]]] = {}
    for match in _PARAMETER.finditer(value[:8192]):
        name = match[1].lower()
        text = _QUOTED_PAIR.sub(r"\1", match[2]) if match[2] is not None else match[3].strip()
        stem, star, rest = name.partition("*")
        if not star:
            if text or name not in plain:
                plain[name] = plain.get(name) or text
            continue
        number = rest.rstrip("*")
        pieces.setdefault(stem, []).append(
            (int(number) if number.isdecimal() and len(number) < 4 else 0, name.endswith("*"), text)
        )
    for stem, parts in pieces.items():
        parts.sort(key=lambda part: part[0])
        charset = ""
        data = b""
        for index, (_, extended, text) in enumerate(parts):
            if extended and index == 0 and text.count("'") >= 2:
                charset, _, text = text.split("'", 2)
            piece = text.encode("utf-8", "replace")
            data += _PERCENT.sub(lambda found: bytes([int(found[1], 16)]), piece) if extended else piece
        plain[stem] = decode(data, charset)[0]
    return plain


def message_id(value: str) -> str | None:
    """The id of a Message-ID field, without brackets and without whitespace from folding; case is kept."""
    if not (sole := _sole(value)):
        match = _ANGLE.search(value)
        first = value.partition(" ")[0]
        sole = match[1] if match else first if "@" in first else value
    return _tidy(sole)


def references(value: str) -> tuple[tuple[str, ...], bool]:
    """The ids of a References field, oldest first, each once, and whether some were left out.

    Beyond ``MAX_REFERENCES`` the oldest is kept, as the root of the thread, and the newest of the others.
    """
    tokens = _ANGLE.findall(value) or [token for token in value.split() if "@" in token]
    ids = tuple(dict.fromkeys(token for token in map(_tidy, tokens) if token))
    if len(ids) > MAX_REFERENCES:
        return (ids[0], *ids[1 - MAX_REFERENCES :]), True
    return ids, False


def in_reply_to(value: str) -> tuple[str, ...]:
    """The id-like tokens of an In-Reply-To field: what stands in angle brackets, or a lone word with an ``@``.

    Mail programs also write addresses there; they come back too, as only threading can tell them from ids.
    """
    if (sole := _sole(value)) and "@" in sole:
        only = _tidy(sole)
        return (only,) if only else ()
    tokens = _ANGLE.findall(value)
    if not tokens:
        words = value.split()
        tokens = words if len(words) == 1 and "@" in value else []
    ids = (_tidy(token) for token in tokens if "@" in token or not _BLANK.search(token.strip()))
    return tuple(dict.fromkeys(token for token in ids if token))[:MAX_REFERENCES]


def _sole(value: str) -> str:
    """What the angle brackets hold, where a value is nothing but one pair of them; else ``""``."""
    return value[1:-1] if value[:1] == "<" and value[-1:] == ">" and value.count("<") == value.count(">") == 1 else ""


def _tidy(token: str) -> str | None:
    if not token.isprintable() or " " in token:
        token = _CONTROL.sub("", _BLANK.sub("", token))
    return token if 0 < len(token) <= MAX_ID else None


def list_name(value: str) -> str | None:
    """The id of a List-Id field in lower case: what stands in angle brackets, else the whole value."""
    match = _ANGLE.search(value)
    name = _tidy(match[1] if match else value)
    return name.lower() if name else None


def newest_received(raw: bytes) -> datetime | None:
    """When the last server took the mail over: the date of the topmost Received field that has one, UTC."""
    head = raw[: body_offset(raw, 0, len(raw))[0]][:MAX_HEADER_BYTES].decode("latin-1")
    if "\r" in head:
        head = head.replace("\r\n", "\n")
    for field in _RECEIVED.finditer(head):
        if at := parse_date(_FOLD.sub(" ", field[1]).rpartition(";")[2]):
            return at
    return None
