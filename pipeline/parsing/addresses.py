"""Address headers to names and addresses, with what real mail puts there: comments, groups, ``a at b.c``, encoded words."""

from __future__ import annotations

import re
from functools import lru_cache

from pipeline.domain import Address
from pipeline.parsing.headers import decode_words, one_line

MAX_ADDRESSES = 1000

_SIMPLE = re.compile(r"\s*(?:\"([^\"\\<>=]*)\"|([^\"\\<>(),;:@=]*))\s*<([^<>\"\\(),;:\s]+@[^<>\"\\(),;:\s@]+)>\s*")
_BARE = re.compile(r"\s*([^<>\"\\(),;:\s@]+@[^<>\"\\(),;:\s@]+)\s*(?:\(([^()\"\\=]*)\))?\s*")
_TOKEN = re.compile(
    r"=\?[^?\s]{1,80}\?[bBqQ]\?[^?]*\?=|\"((?:[^\"\\]|\\.)*)\"?|<([^<>]*)>?|([,;:(>])|\\(.)|[^\",;:<>(\\=]+|=|\\", re.S
)
_COMMENT_MARK = re.compile(r"[()]|\\.", re.S)
_QUOTED_PAIR = re.compile(r"\\(.)", re.S)
_AT = re.compile(r"(?<!\S)([^\s@<>()]{1,100})\s{1,9}at\s{1,9}([^\s@<>()]{1,255})")
_MASKED = re.compile(r"\s*(\S+) @end(?:\||i)ng (?:\||f)rom (\S+)\s*(?:\((.*)\))?\s*", re.S)
_PIPERMAIL = re.compile(r"\s*([^\s@<>(),;:\"]+) at ([^\s@<>(),;:\"]+)\s*(?:\(([^()]*)\))?\s*")
_TRICKY = re.compile(r"[(\\:;?]")
_BLANKS = re.compile(r"\s+")


def addresses(value: str) -> tuple[Address, ...]:
    """The mailboxes of an address header, in order, at most ``MAX_ADDRESSES``; groups are flattened.

    A name without an address comes with the address ``""``. Pipermail's ``ann at b.org`` is undone; where it masks more
    (``@nn @end|ng |rom b@org``: ``@`` for a, s and the dot, ``|`` for f, i and l) that is past undoing, and the address is
    only made one by form, so that a person keeps one. Short values are remembered, since the same people write again.
    """
    if len(value) < 200 and "," not in value:
        return _remembered(value)
    pieces = value.split(",", MAX_ADDRESSES)
    if _TRICKY.search(value) or ('"' in value and any(piece.count('"') & 1 for piece in pieces)):
        return _tokenise(value)
    found: list[Address] = []
    for piece in pieces:
        found += _remembered(piece) if len(piece) < 200 else _read(piece)
    return tuple(found[:MAX_ADDRESSES])


@lru_cache(maxsize=4096)
def _remembered(value: str) -> tuple[Address, ...]:
    return _read(value)


def _read(value: str) -> tuple[Address, ...]:
    simple = _SIMPLE.fullmatch(value)
    if simple:
        return (Address(one_line(_clean(simple[1] or simple[2] or "")), simple[3].lower()),)
    bare = _BARE.fullmatch(value)
    if bare:
        return (Address(one_line(_clean(bare[2] or "")), bare[1].lower()),)
    archived = _PIPERMAIL.fullmatch(value)
    if archived:
        return (Address(_name(archived[3] or ""), f"{archived[1]}@{archived[2]}".lower()),)
    masked = _MASKED.fullmatch(value) if "@end" in value else None
    if masked:
        local, domain = (text.replace("@", ".") for text in masked.group(1, 2))
        return (Address(_name(masked[3] or ""), f"{local}@{domain}".lower()),)
    return _tokenise(value)


def _tokenise(value: str) -> tuple[Address, ...]:
    found: list[Address] = []
    words: list[str] = []
    comments: list[str] = []
    angle: str | None = None
    position = 0
    while position < len(value) and len(found) < MAX_ADDRESSES:
        match = _TOKEN.match(value, position)
        if match is None:
            position += 1
            continue
        position = match.end()
        quoted, inside, mark, escaped = match.groups()
        if quoted is not None:
            words.append(_QUOTED_PAIR.sub(r"\1", quoted))
        elif inside is not None:
            angle = inside if angle is None or "@" in inside else angle
        elif escaped is not None:
            words.append(escaped)
        elif mark == "(":
            text, position = _comment(value, position)
            comments.append(text)
        elif mark in (",", ";"):
            _finish(found, words, comments, angle)
            words, comments, angle = [], [], None
        elif mark == ":" and angle is None:
            words, comments = [], []
        elif mark is None:
            words.append(match[0])
    _finish(found, words, comments, angle)
    return tuple(found)


def _comment(value: str, position: int) -> tuple[str, int]:
    """The text of a comment whose ``(`` has been read, nested ones included, and where it ends."""
    depth = 1
    for match in _COMMENT_MARK.finditer(value, position):
        if match[0] == "(":
            depth += 1
        elif match[0] == ")":
            depth -= 1
            if depth == 0:
                return value[position : match.start()], match.end()
    return value[position:], len(value)


def _finish(found: list[Address], words: list[str], comments: list[str], angle: str | None) -> None:
    phrase = "".join(words).strip()
    comment = " ".join(comments)
    if angle is not None:
        address = angle
        name = phrase or comment
    elif "@" in phrase:
        parts = phrase.split()
        address = next(part for part in parts if "@" in part)
        name = " ".join(part for part in parts if part is not address) or comment
    elif archived := _AT.search(phrase):
        address = f"{archived[1]}@{archived[2]}"
        name = f"{phrase[: archived.start()]} {phrase[archived.end() :]}".strip() or comment
    else:
        address, name = "", phrase or comment
    address = _address(address)
    name = _name(name)
    if address or name:
        found.append(Address(name, address))


def _address(text: str) -> str:
    if "@" not in text and (archived := _AT.fullmatch(text.strip())):
        text = f"{archived[1]}@{archived[2]}"
    if text.startswith("@"):  # a source route: <@relay,@relay:box@host>
        text = text.rpartition(":")[2]
    text = text.strip().removeprefix("mailto:")
    return one_line(_BLANKS.sub("", text)).lower()[:320]


def _name(text: str) -> str:
    return one_line(_clean(decode_words(text)))[:500]


def _clean(text: str) -> str:
    return _BLANKS.sub(" ", text).strip().strip("'") if text else text
