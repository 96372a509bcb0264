"""Archives as the windows of a study: imported into a home of its own, a window closed by hand after so many mails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.arrival.people import PeopleKey
from pipeline.config.settings import Settings
from pipeline.domain import Clock, DeadLetter, Item, Parsed, TickKind
from pipeline.errors import NothingToDo
from pipeline.home import Home
from pipeline.runs.requests import ShardRef
from pipeline.store import Store
from pipeline.store.rows import FeedRow, ShardRow
from pipeline.times import utc_now
from pipeline.versions import VERSIONS
from streams.feeds.clock import ClockFeed
from streams.feeds.opening import archive_feed
from streams.homes import make_home
from streams.owning.ingest import batches
from streams.owning.owner import Owner
from streams.parsers.identified import Identify
from streams.parsers.pool import ParserPool

MAILBOX = "study"


@dataclass(frozen=True, slots=True)
class Cut:
    """Mails of window 0, mails of each later window, and how many later windows there are."""

    first: int
    mails: int
    windows: int


def shares(windows: int, archives: int) -> list[int]:
    """How many later windows each archive gives, in order: as equal as can be, the last ones one more."""
    each, over = divmod(windows, archives)
    return [each + (place >= archives - over) for place in range(archives)]


def import_windows(
    home: Home, settings: Settings, archives: Sequence[Path], cut: Cut, on_window: Callable[[int], None]
) -> list[ShardRef]:
    """Makes the home and imports what the windows need, in the order of ``archives``; returns the shards, window 0 first.

    An archive named again goes on where it stopped before. Raises ``NothingToDo`` when an archive has too little mail.
    """
    make_home(home, settings, PeopleKey.draw())
    with Store.open(home, settings, VERSIONS) as store:
        owner = Owner(store, home, settings, utc_now)
        feeds = {path: archive_feed(home, MAILBOX, path) for path in archives}
        rows = [FeedRow(MAILBOX, feed.name, feed.kind, feed.source, utc_now()) for feed in feeds.values()]
        owner.register(MAILBOX, Clock.ARRIVAL, rows)
        done = 0
        with ParserPool(settings.parse, Identify.of(store.people, settings.mailbox(MAILBOX))) as parsers:
            answers = {path: parsers.answers(feed.items(after=0)) for path, feed in feeds.items()}
            for path, count in zip(archives, shares(cut.windows, len(archives)), strict=True):
                for size in [cut.first] * (done == 0) + [cut.mails] * count:
                    items = list(_mails(answers[path], size))
                    if sum(isinstance(item, Parsed) for item in items) < size:
                        raise NothingToDo(
                            f"{path} ends before its windows are full", hint="take fewer or smaller windows, or more mail"
                        )
                    for batch in batches(items):
                        owner.take(MAILBOX, batch)
                    _close(owner, home)
                    done += 1
                    on_window(done)
            for open_answers in answers.values():
                open_answers.close()
        found = store.fetch(ShardRow, "mailbox = ?", [MAILBOX], "window_idx")
    return [ShardRef(window_idx=row.window_idx, path=row.shard_path, sha256=row.shard_sha256) for row in found]


def _mails(items: Iterator[Item], count: int) -> Iterator[Item]:
    """Items until ``count`` mails were among them; marks stay out, as windows here close by hand alone."""
    return islice((item for item in items if isinstance(item, Parsed | DeadLetter)), count)


def _close(owner: Owner, home: Home) -> None:
    feed = ClockFeed(home, MAILBOX)
    owner.take(MAILBOX, [feed.note(TickKind.MANUAL, utc_now(), floor=owner.last_taken(MAILBOX, feed.name))])
