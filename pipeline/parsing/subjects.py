"""Subjects made comparable: what mail programs and list servers put before them is taken off."""

from __future__ import annotations

import re
from functools import lru_cache

_REPLY = r"re|ré|r|aw|antw|antwort|sv|vs|vá|odp|rif|res|ynt|atb|回复|回覆|答复|答覆|返信|답장|رد|תגובה|отв"
_FORWARD = r"fwd?|fw|wg|tr|rv|enc|i|vl|vb|doorst|pd|trs|пересл|转发|轉寄|轉寄|転送|전달|הועבר|إعادة توجيه"
_COUNT = r"(?:\s?[\[({*^]\d{1,3}[\])}]?|\d{1,2})?"
_PREFIX = re.compile(rf"\s*(?:((?:{_REPLY}){_COUNT})|(?:{_FORWARD}){_COUNT})\s?[:：]+\s*", re.I)
_TAG = re.compile(r"\s*\[[^\[\]]{1,60}\]\s*")
_TRAILER = re.compile(r"\s*(?:\((?:fwd?|forwarded)\)|\(was:[^()]{0,200}\)|\[(?:fwd?|was):?[^\[\]]{0,200}\])\s*\Z", re.I)
_WRAPPED = re.compile(r"\s*\[\s*(?:fwd?|fw)\s?:\s*(.*)\]\s*\Z", re.I | re.S)
_MAX = 1000


@lru_cache(maxsize=2048)
def normalise_subject(subject: str) -> tuple[str, bool]:
    """The subject without reply and forward marks, list tags and "(fwd)", whitespace collapsed, case folded; and whether
    a mark of a reply stood before it.

    A tag is kept where nothing else is left, and so is a subject that consists of marks alone.
    """
    rest = " ".join(subject[:_MAX].split())
    reply = False
    while rest:
        prefix = _prefix(rest)
        if prefix:
            reply = reply or prefix[1] is not None
            rest = rest[prefix.end() :]
        elif rest[0] == "[" and (wrapped := _WRAPPED.match(rest)):
            rest = wrapped[1].strip()
        elif rest[0] == "[" and (tag := _TAG.match(rest)) and tag.end() < len(rest):
            rest = rest[tag.end() :]
        elif rest[-1] in ")]" and (trailer := _TRAILER.search(rest, max(len(rest) - 250, 1))):
            rest = rest[: trailer.start()]
        else:
            break
    return rest.strip().casefold(), reply


def is_forward(subject: str) -> bool:
    """Whether the subject begins with the mark of a forwarded mail, such as ``Fwd:`` or ``[Fwd: ...]``."""
    if subject.startswith("["):
        return _WRAPPED.match(subject[:_MAX]) is not None
    prefix = _prefix(subject[:_MAX])
    return prefix is not None and prefix[1] is None


def _prefix(subject: str) -> re.Match[str] | None:
    head = subject[:24]
    return _PREFIX.match(subject) if ":" in head or "：" in head else None
