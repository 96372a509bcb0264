"""What feeds and assigners tell each other beside the mail: which feeds there are, and how far each is taken."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime

from pydantic import Field, NonNegativeInt

from pipeline.config.settings import MAILBOX_NAME
from pipeline.strict import Strict
from streams.bus.envelope import Record, RecordRefused
from streams.mailpath.records import Kind, checked, kind_of, sealed


class AnnouncedFeed(Strict):
    """A feed; ``source`` is where it reads from, for people."""

    name: str
    kind: str
    source: str


class Announcement(Strict):
    """All feeds of a mailbox that one process reads. It goes the way of the mail, and is answered by ``Progress`` of each:
    a feed that nobody answered for yet keeps its mail until then."""

    mailbox: str = Field(pattern=re.compile(rf"\A{MAILBOX_NAME.pattern}"))
    feeds: tuple[AnnouncedFeed, ...]


class Progress(Strict):
    """The owner has taken every number of a feed up to ``last_number``; the newest record of a feed counts."""

    mailbox: str
    feed: str
    last_number: NonNegativeInt


def announcement_record(announcement: Announcement, at: datetime) -> Record:
    data = announcement.model_dump_json()
    event_id = f"feeds.announced/{announcement.mailbox}/{hashlib.sha256(data.encode()).hexdigest()[:12]}"
    return sealed(Kind.ANNOUNCED, event_id, announcement.mailbox, data.encode(), at, mailbox=announcement.mailbox)


def announcement_of(record: Record) -> Announcement:
    """Raises ``RecordRefused``."""
    kind_of(record, {Kind.ANNOUNCED})
    return checked(Announcement.model_validate_json, record.value, "data")


def progress_record(progress: Progress, at: datetime) -> Record:
    key = f"{progress.mailbox}/{progress.feed}"
    return sealed(
        Kind.PROGRESS, f"progress/{progress.feed}/{progress.last_number}", key, progress.model_dump_json().encode(), at
    )


def progress_of(record: Record) -> Progress | None:
    """The progress that a record of that topic tells; None for one that is about something else, or not ours."""
    try:
        kind_of(record, {Kind.PROGRESS})
        return checked(Progress.model_validate_json, record.value, "data")
    except RecordRefused:
        return None
