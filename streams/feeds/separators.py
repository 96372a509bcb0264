"""The lines of an mbox that stand between mails, and the escape that protects the mails from looking like them.

A line is a separator when it begins with ``From `` and ends with a date in the form of C's ``asctime``, where the comma,
the seconds, a zone (before or after the year) and ``remote from HOST`` may be there or not. A date is required because
people begin sentences with "From". The line that git writes on top of a patch looks the same (a commit's 40 hex digits and
always the same date) but stands inside mails: it is no separator.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from email.utils import parsedate_tz

MONTHS = {month: 1 + index for index, month in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split())}

_MONTH = rb"Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_ZONE = rb"[ \t]+(?P<%s>[+-]\d{4}|[A-Z]{1,5})"
_SEPARATOR = re.compile(
    rb"From (?![0-9a-f]{40} Mon Sep 17 00:00:00 2001)(?:[^\n]*[ \t])?"
    rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),?[ \t]+"
    rb"(?:(?P<month>" + _MONTH + rb")[ \t]+(?P<day>\d{1,2})|(?P<day2>\d{1,2})[ \t]+(?P<month2>" + _MONTH + rb"))"
    rb"(?:[ \t]+(?P<early_year>\d{4}))?"
    rb"[ \t]+(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?"
    rb"(?:" + _ZONE % b"zone" + rb")?(?(early_year)|[ \t]+(?P<year>\d{4})(?:" + _ZONE % b"zone2" + rb")?)"
    rb"(?:[ \t]+remote from [^\n]*)?[ \t]*\r?(?:\n|\Z)"
)
_ESCAPED = re.compile(rb"^>(?=>*From )", re.MULTILINE)


def separator(data: bytes, position: int) -> tuple[int, datetime | None] | None:
    """The end of the separator line that begins at ``position``, and its date; None where the line is no separator.

    The date is naive UTC: a zone is taken off, and a date without one is taken as UTC (RFC 4155). It is None when it names
    no day, or one up to the end of 1970: archives without arrival times write the epoch there.
    """
    match = _SEPARATOR.match(data, position)
    return None if match is None else (match.end(), _date(match))


def _date(match: re.Match[bytes]) -> datetime | None:
    year = int(match["year"] or match["early_year"])
    if year <= 1970:
        return None
    month, day = MONTHS[match["month"] or match["month2"]], int(match["day"] or match["day2"])
    try:
        local = datetime(year, month, day, int(match["hour"]), int(match["minute"]), int(match["second"] or 0))
        zone = match["zone"] or match["zone2"]
        return local - _offset(zone) if zone else local
    except (ValueError, OverflowError):
        return None


def _offset(zone: bytes) -> timedelta:
    """East of UTC; a name that the mail standards do not know counts as UTC."""
    parsed = parsedate_tz(f"1 Jan 2000 00:00:00 {zone.decode('ascii')}")
    return timedelta(seconds=(parsed[9] or 0) if parsed else 0)


def unescape(mail: bytes) -> bytes:
    """The mail as it was before it was put into an mbox: a line of ``>``s and ``From `` loses one ``>``.

    That is exact for mboxrd. An mboxo file does not say whether ``>From `` was written so; it nearly never was, and
    readers agree to take one ``>`` off there too.
    """
    return _ESCAPED.sub(b"", mail) if b">From " in mail else mail
