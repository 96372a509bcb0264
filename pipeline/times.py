"""The wall clock, at the edge: everything else is handed a time."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Now, as naive UTC to the microsecond, as the store keeps times."""
    return datetime.now(UTC).replace(tzinfo=None)
