"""A mail's MIME structure over its bytes, in one pass without copying, and which parts are the text a reader sees.

Parts are offsets into the raw mail. Delimiters are found by searching for the boundaries that are open, so an attachment
of megabytes costs one search; the innermost open boundary that matches wins, and an outer one closes all within it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.parsing.headers import (
    MAX_HEADER_BYTES,
    ContentType,
    body_offset,
    content_type,
    disposition,
    read_fields,
    text_of,
)

MAX_DEPTH = 30
MAX_PARTS = 1000
MAX_CANDIDATES = 100_000

_PLAIN = ContentType("text/plain", "", "", "", False, False)
_MESSAGE = ContentType("message/rfc822", "", "", "", False, False)
_MEDIA = ("image/", "audio/", "video/")
_TEXTS = ("text/plain", "text/html")


@dataclass(slots=True)
class Part:
    """One part: its content is ``raw[start:end]``, still encoded; ``parts`` are those of a multipart, in order."""

    kind: ContentType
    encoding: str
    attached: bool
    name: str
    start: int
    end: int
    parts: list[Part] = field(default_factory=list)

    @property
    def is_multipart(self) -> bool:
        return self.kind.kind.startswith("multipart/") and bool(self.kind.boundary)


def describe(fields: dict[str, str], start: int, end: int, default: ContentType = _PLAIN) -> Part:
    """The part that ``fields`` describe, with its content at ``raw[start:end]`` and no parts yet."""
    declared = fields.get("content-type")
    kind = content_type(declared if declared.isascii() else text_of(declared)) if declared else default
    if not kind.kind:
        kind = ContentType("text/plain", kind.charset, "", kind.name, kind.flowed, kind.delsp)
    placed = fields.get("content-disposition")
    manner, name = disposition(placed if placed.isascii() else text_of(placed)) if placed else ("", "")
    encoding = fields.get("content-transfer-encoding", "")
    if encoding:
        encoding = encoding.lower().strip(" \t;\"'")
    return Part(kind, encoding, manner == "attachment", name or kind.name, start, end)


def split_parts(raw: bytes, root: Part, defects: set[str]) -> None:
    """Fills in the parts of a multipart ``root``; what is beyond a limit stays inside the part before it.

    Defects: ``boundary`` where one never came or was not closed, ``header-limit``, ``part-limit``, ``depth-limit``.
    """
    open_boundaries = _Boundaries(raw, root)
    position = root.start - 1  # the line feed that ends the header may begin the first delimiter
    leaf: Part | None = None
    count = 0
    while delimiter := open_boundaries.next(position):
        if leaf is not None:
            leaf.end = max(leaf.start, delimiter.at - (raw[delimiter.at - 1 : delimiter.at] == b"\r"))
            leaf = None
        if open_boundaries.close_within(delimiter):
            defects.add("boundary")
        position = delimiter.after
        if delimiter.closing:
            if not open_boundaries.stack:
                return
            continue
        count += 1
        if count > MAX_PARTS:
            defects.add("part-limit")
            return
        parent = open_boundaries.stack[-1].part
        following = open_boundaries.next(position)
        part = _begin(raw, position + 1, following.at if following else root.end, parent, defects)
        parent.parts.append(part)
        position = part.start - 1
        if part.is_multipart and len(open_boundaries.stack) < MAX_DEPTH:
            open_boundaries.push(part)
        else:
            leaf = part
            if part.is_multipart:
                defects.add("depth-limit")
    if leaf is not None:
        leaf.end = root.end
    defects.add("part-limit" if open_boundaries.candidates > MAX_CANDIDATES else "boundary")


def _begin(raw: bytes, start: int, end: int, parent: Part, defects: set[str]) -> Part:
    """The part whose header begins at ``start``; a header without any field is taken for the content."""
    head_end, body = body_offset(raw, start, end)
    if head_end - start > MAX_HEADER_BYTES:
        defects.add("header-limit")
    fields, count = read_fields(raw[start : min(head_end, start + MAX_HEADER_BYTES)])
    if not count:
        body = body if head_end == start else start
    default = _MESSAGE if parent.kind.kind == "multipart/digest" else _PLAIN
    return describe(fields, min(body, max(end, start)), max(end, start), default)


@dataclass(frozen=True, slots=True)
class _Delimiter:
    """A delimiter line: where the line feed before it stands, the one after it, its level, and whether it closes."""

    at: int
    after: int
    level: int
    closing: bool


@dataclass(slots=True)
class _Open:
    """An open boundary and its next delimiter, as far as it has been looked for."""

    part: Part
    mark: bytes
    known: _Delimiter | None = None
    sought: bool = False


class _Boundaries:
    """The boundaries that are open, outermost first, and the next delimiter of any of them.

    An inner boundary is sought only up to the next delimiter of those around it, which would close it: so the search is
    linear in the size of the mail for each level, however many parts there are.
    """

    def __init__(self, raw: bytes, root: Part) -> None:
        self.raw = raw
        self.end = root.end
        self.candidates = 0
        self.stack: list[_Open] = []
        self.push(root)

    def push(self, part: Part) -> None:
        self.stack.append(_Open(part, b"\n--" + part.kind.boundary.encode("utf-8", "replace")))

    def close_within(self, delimiter: _Delimiter) -> bool:
        """Closes all boundaries inside the delimiter's, and its own if it says so; whether one had been left open."""
        left_open = delimiter.level < len(self.stack) - 1
        del self.stack[delimiter.level + (not delimiter.closing) :]
        return left_open

    def next(self, position: int) -> _Delimiter | None:
        """The first delimiter at or after ``position``; of several that read the same line, the innermost."""
        found: _Delimiter | None = None
        for level, boundary in enumerate(self.stack):
            known = boundary.known
            if not boundary.sought or (known is not None and known.at < position):
                boundary.known = known = self._seek(boundary.mark, level, position, found.at if found else self.end)
                boundary.sought = True
            if known is not None:
                found = known
        return found

    def _seek(self, mark: bytes, level: int, position: int, last: int) -> _Delimiter | None:
        """The first line from ``position`` on that is ``mark``, blanks after it or its closing dashes apart."""
        raw, size = self.raw, len(mark)
        at = raw.find(mark, position, min(last + size, self.end))
        while at >= 0 and self.candidates <= MAX_CANDIDATES:
            self.candidates += 1
            rest_end = raw.find(b"\n", at + size, min(at + size + 100, self.end))
            if rest_end < 0 and at + size + 100 >= self.end:
                rest_end = self.end
            if rest_end >= 0:
                rest = raw[at + size : rest_end].rstrip()
                if not rest or rest == b"--":
                    return _Delimiter(at, rest_end, level, bool(rest))
            at = raw.find(mark, at + 1, min(last + size, self.end))
        return None


def text_parts(root: Part) -> tuple[list[Part], list[Part], list[Part]]:
    """The parts shown to a reader who wants plain text, those for one who wants HTML, and the attachments: RFC 8621,
    section 4.1.4.

    Where only one form is offered it is in both lists. Media count as attachments everywhere.
    """
    text: list[Part] = []
    html: list[Part] = []
    attachments: list[Part] = []
    _sort_parts([root], "mixed", False, text, html, attachments)
    return text, html, attachments


def _sort_parts(
    parts: list[Part],
    multipart: str,
    in_alternative: bool,
    text: list[Part] | None,
    html: list[Part] | None,
    attachments: list[Part],
) -> None:
    """That section's algorithm; a list that is None is not filled, as the other one alone is meant."""
    text_before = len(text) if text is not None else -1
    html_before = len(html) if html is not None else -1
    for index, part in enumerate(parts):
        kind = part.kind.kind
        media = kind.startswith(_MEDIA)
        if part.is_multipart:
            inner = kind.partition("/")[2]
            _sort_parts(part.parts, inner, in_alternative or inner == "alternative", text, html, attachments)
            continue
        visible = (media or kind in _TEXTS) and not part.attached
        if media or not visible or (index > 0 and (multipart == "related" or part.name)):
            attachments.append(part)
            continue
        if in_alternative and multipart != "alternative":
            html = None if kind == "text/plain" else html
            text = None if kind == "text/html" else text
        if text is not None and (multipart != "alternative" or kind == "text/plain"):
            text.append(part)
        if html is not None and (multipart != "alternative" or kind == "text/html"):
            html.append(part)
    if multipart == "alternative" and text is not None and html is not None:
        if len(text) == text_before and len(html) != html_before:
            text.extend(html[html_before:])
        elif len(html) == html_before and len(text) != text_before:
            html.extend(text[text_before:])
