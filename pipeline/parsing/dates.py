"""Dates of mail headers to naive UTC, as programs of fifty years have written them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
_ZONES = {
    "ut": 0, "utc": 0, "gmt": 0, "z": 0, "wet": 0, "west": 60, "bst": 60, "met": 60, "mez": 60, "cet": 60, "mest": 120,
    "mesz": 120, "cest": 120, "eet": 120, "eest": 180, "msk": 180, "msd": 240, "jst": 540, "kst": 540, "hkt": 480,
    "sgt": 480, "aest": 600, "aedt": 660, "nzst": 720, "nzdt": 780, "est": -300, "edt": -240, "cst": -360, "cdt": -300,
    "mst": -420, "mdt": -360, "pst": -480, "pdt": -420, "akst": -540, "akdt": -480, "hst": -600, "brt": -180,
}  # fmt: skip
"""Minutes east of Greenwich; a name that is not here, or stands for several zones, is read as UTC."""

_CLOCK = r"(\d{1,2})[:.](\d{1,2})(?:[:.](\d{1,2}))?(?:[.,]\d{1,9})?(?:\s{0,3}([AaPp]\.?[Mm]\b))?"
_ZONE = r"(?:\s{0,9}\(?(?:(?:GMT|UTC|UT)?\s?([+-]\s?\d{1,2}:?\d{2})|([A-Za-z]{1,5})))?"
_USUAL = re.compile(
    rf"[^\d]{{0,40}}(\d{{1,2}})[\s,/-]{{1,9}}([A-Za-z]{{3}})[A-Za-z]{{0,6}}\.?[\s,/-]{{1,9}}(\d{{2,4}})[\s,:]{{1,9}}{_CLOCK}{_ZONE}"
)
_ASCTIME = re.compile(
    rf"\s{{0,9}}(?:[A-Za-z]{{3,9}},?\s{{1,9}})?([A-Za-z]{{3}})[a-z]{{0,6}}\.?\s{{1,9}}(\d{{1,2}}),?\s{{1,9}}(?:(\d{{4}}),?\s{{1,9}})?{_CLOCK}{_ZONE}(?:\s{{1,9}}(\d{{4}}))?"
)
_ISO = re.compile(rf"\s{{0,9}}(\d{{4}})[-/](\d{{1,2}})[-/](\d{{1,2}})[T\s]{{1,3}}{_CLOCK}{_ZONE}")
_AFTER = re.compile(r"\s{0,9}([+-]\d{4})")
_EARLIEST = datetime(1970, 1, 1)
_LATEST = datetime(2100, 1, 1)


def parse_date(value: str) -> datetime | None:
    """The moment a Date header names, naive UTC; None where it names none, or one outside 1970 to 2100.

    Two-digit years follow RFC 5322 (00 to 49 are of this century), unknown zones and offsets beyond 14 hours count as
    UTC, and a leap second counts as the second before it.
    """
    usual = _USUAL.match(value)
    if usual:
        day, month, year, hour, minute, second, half, offset, name = usual.groups()
        return _moment(year, _MONTHS.get(month.lower()), day, hour, minute, second, half, offset, name)
    asctime = _ASCTIME.match(value)
    if asctime:
        month, day, early, hour, minute, second, half, offset, name, late = asctime.groups()
        if late and not offset:
            after = _AFTER.match(value, asctime.end())
            offset = after[1] if after else None
        return _moment(early or late, _MONTHS.get(month.lower()), day, hour, minute, second, half, offset, name)
    iso = _ISO.match(value)
    if iso:
        year, number, day, hour, minute, second, half, offset, name = iso.groups()
        return _moment(year, int(number), day, hour, minute, second, half, offset, name)
    return None


def _moment(
    year: str | None,
    month: int | None,
    day: str,
    hour: str,
    minute: str,
    second: str | None,
    half: str | None,
    offset: str | None,
    name: str | None,
) -> datetime | None:
    if year is None or month is None:
        return None
    number = int(year)
    if number < 1000:  # 02 and 99, but also 102 and 0102 of programs that count from 1900
        number += 2000 if number < 50 else 1900
    hours = int(hour)
    if half:
        hours = hours % 12 + (12 if half[0] in "pP" else 0)
    try:
        local = datetime(number, month, int(day), hours, int(minute), min(int(second or 0), 59))
        moment = local - _east(offset, name)
    except (ValueError, OverflowError):
        return None
    return moment if _EARLIEST <= moment < _LATEST else None


@lru_cache(maxsize=256)
def _east(offset: str | None, name: str | None) -> timedelta:
    """How far east of Greenwich an offset, else a zone's name, puts the clock."""
    if not offset:
        return timedelta(minutes=_ZONES.get(name.lower(), 0) if name else 0)
    digits = offset[1:].strip().replace(":", "").rjust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    if minutes > 14 * 60:
        minutes = 0
    return timedelta(minutes=-minutes if offset[0] == "-" else minutes)
