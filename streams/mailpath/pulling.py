"""The blocking side of a feed: hands its items on in small groups, from a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.domain import Arrival
from pipeline.errors import MailtideError
from streams.feeds.contract import Handed

PULL_MAILS = 500
PULL_BYTES = 1 << 20
PULL_SECONDS = 0.05
"""A group goes on when it is this old and another item comes, so that a slow source does not keep mail back."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """Some items, in order, and whether they were the last of this pass: at its end, or before ``failure``."""

    items: tuple[Handed, ...]
    ended: bool
    failure: MailtideError | None = None


def pull(items: Iterator[Handed]) -> Pulled:
    """The next group of a pass. What a source gave before it failed is handed on with the failure."""
    group: list[Handed] = []
    size = 0
    began = time.monotonic()
    while len(group) < PULL_MAILS and size < PULL_BYTES and (not group or time.monotonic() - began < PULL_SECONDS):
        try:
            item = next(items, None)
        except MailtideError as error:
            return Pulled(tuple(group), True, error)
        if item is None:
            return Pulled(tuple(group), True)
        if not group:
            began = time.monotonic()
        group.append(item)
        size += len(item.raw) if isinstance(item, Arrival) else 0
    return Pulled(tuple(group), False)
