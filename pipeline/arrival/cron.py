"""Moments of a five-field cron expression (minute, hour, day of month, month, day of week), in UTC."""

from __future__ import annotations

import re
from datetime import datetime

FIELDS = 5


def next_moment(expression: str, after: datetime) -> datetime:
    """The first moment strictly after ``after``; raises ``ValueError`` for an expression that has none."""
    from croniter import croniter  # 0.1 s to import, and most homes close by count and age alone

    if len(expression.split()) != FIELDS:
        raise ValueError(f"{expression!r} has not the five fields of a cron expression")
    if re.search(r"\br\b", expression, re.IGNORECASE):
        raise ValueError(f"{expression!r} asks for random moments, which cannot be told again")
    moment: datetime = croniter(expression, after, ret_type=datetime).get_next()
    return moment
