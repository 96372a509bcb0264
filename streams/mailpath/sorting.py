"""Puts what parsers answered back into each feed's order, and knows which offsets that leaves open."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from pipeline.domain import Item
from streams.owning.ordering import InOrder

FeedKey = tuple[str, str]
"""Mailbox and feed."""


@dataclass(slots=True)
class Ready:
    """Items of one mailbox to be taken next, in order, and the offsets that they came from."""

    partition: int
    items: list[Item] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    size: int = 0


class Offsets:
    """From where one partition, read in order from ``start`` on, must be read again: its lowest offset not taken yet."""

    def __init__(self, start: int) -> None:
        self._next = start
        self._open: OrderedDict[int, None] = OrderedDict()

    def begin(self, offset: int) -> None:
        """The record at ``offset`` was read."""
        self._open[offset] = None
        self._next = offset + 1

    def finish(self, offset: int) -> None:
        """What it said is taken, or was taken before."""
        self._open.pop(offset, None)

    @property
    def restart(self) -> int:
        """Reading on from here misses nothing."""
        return next(iter(self._open), self._next)


class Sorting:
    """What an assigner holds in memory. All items of a mailbox come from one partition."""

    def __init__(self) -> None:
        self._feeds: dict[FeedKey, InOrder] = {}
        self._waiting: dict[tuple[str, str, int], tuple[int, int]] = {}
        self._partitions: dict[int, Offsets] = {}
        self._ready: dict[str, Ready] = {}
        self._count = 0
        self._size = 0

    @property
    def ready(self) -> int:
        """Items that nothing is missing before any more."""
        return self._count

    @property
    def ready_bytes(self) -> int:
        return self._size

    def knows(self, mailbox: str, feed: str) -> bool:
        return (mailbox, feed) in self._feeds

    def add_feed(self, mailbox: str, feed: str, last: int) -> None:
        """A feed whose numbers are taken up to ``last``; one that is known already is left as it is."""
        self._feeds.setdefault((mailbox, feed), InOrder(last))

    def start(self, partition: int, offset: int) -> None:
        """Reading a partition begins at ``offset``."""
        self._partitions[partition] = Offsets(offset)

    def begin(self, partition: int, offset: int) -> None:
        """A record was read; it stays open until ``finish``, or until the items taken with ``take`` are."""
        self._partitions[partition].begin(offset)

    def finish(self, partition: int, offset: int) -> None:
        """A record that was no item is done with."""
        self._partitions[partition].finish(offset)

    def add(self, item: Item, partition: int, offset: int, size: int) -> None:
        """An item of a known feed, from a record that was begun."""
        order = self._feeds[(item.mailbox, item.feed)]
        place = (item.mailbox, item.feed, item.number)
        if item.number <= order.last or place in self._waiting:
            self.finish(partition, offset)
            return
        self._waiting[place] = (offset, size)
        for each in order.add(item):
            came_from, its_size = self._waiting.pop((each.mailbox, each.feed, each.number))
            ready = self._ready.setdefault(each.mailbox, Ready(partition))
            ready.items.append(each)
            ready.offsets.append(came_from)
            ready.size += its_size
            self._count += 1
            self._size += its_size

    def take(self) -> tuple[str, Ready, int] | None:
        """The items of one mailbox, and the offset to restart their partition from once they are taken, if any."""
        if not self._ready:
            return None
        mailbox = next(iter(self._ready))
        ready = self._ready.pop(mailbox)
        self._count -= len(ready.items)
        self._size -= ready.size
        offsets = self._partitions[ready.partition]
        for offset in ready.offsets:
            offsets.finish(offset)
        return mailbox, ready, offsets.restart
