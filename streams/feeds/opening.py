"""Which feed reads a path of an import, and which feeds a mailbox has while the daemon runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from pipeline.config.feed_settings import ImapFeedSettings, MaildirFeedSettings, MboxFeedSettings
from pipeline.config.settings import MailboxSettings
from pipeline.home import Home
from streams.feeds.contract import Feed, LiveFeed
from streams.feeds.maildir import MaildirFeed
from streams.feeds.mbox import MboxFeed
from streams.feeds.tail import MboxTail


class ArchiveFeed(Feed, Protocol):
    """A feed with an end, which can tell how far it is from it."""

    @property
    def size(self) -> int:
        """Bytes on disk."""
        ...

    @property
    def position(self) -> int:
        """How many of them were read."""
        ...


def archive_feed(home: Home, mailbox: str, path: Path) -> ArchiveFeed:
    """A Maildir for a folder, else an mbox; raises ``FeedError`` for what is neither."""
    if not path.expanduser().is_dir():
        return MboxFeed(home, mailbox, path)
    maildir = MaildirFeed(home, mailbox, path)
    maildir.measure()
    return maildir


def folders_left_out(paths: Iterable[Path]) -> list[Path]:
    """Folders of a Maildir++ inside the Maildirs that are named, without those that are named themselves."""
    named = [path.expanduser() for path in paths]
    known = {path.resolve() for path in named}
    inside = (folder for path in named if (path / "cur").is_dir() for folder in path.glob(".*"))
    return sorted(folder for folder in inside if (folder / "cur").is_dir() and folder.resolve() not in known)


def live_feeds(home: Home, mailbox: str, settings: MailboxSettings) -> list[LiveFeed]:
    """The feeds that the settings name, in their order, each once. Nothing is opened or connected to yet."""
    feeds: list[LiveFeed] = []
    for each in settings.feeds:
        match each:
            case MboxFeedSettings():
                feeds.append(MboxTail(home, mailbox, Path(each.path), poll=each.poll))
            case MaildirFeedSettings():
                feeds.append(MaildirFeed(home, mailbox, Path(each.path), poll=each.poll))
            case ImapFeedSettings():
                from streams.feeds.imap import imap_feeds

                feeds.extend(imap_feeds(home, mailbox, each))
    return list({feed.name: feed for feed in feeds}.values())
