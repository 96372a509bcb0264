"""Parsed mails made by hand, and a store in memory that tells a batch no more than it asked for, as the real one does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.arrival.identity import incoming, needs_of
from pipeline.arrival.people import PeopleKey
from pipeline.arrival.threads import SUBJECT_USES, Incoming, Known, Needs, Placement, absorb, place
from pipeline.domain import Address, ParsedMail, Split

PEOPLE = PeopleKey(b"\7" * 32)
NOON = datetime(2024, 5, 1, 12)


def letter(
    message_id: str | None,
    *,
    references: Sequence[str] = (),
    in_reply_to: Sequence[str] = (),
    date: datetime | None = NOON,
    sender: str = "ann@example.org",
    to: Sequence[str] = ("bob@example.org",),
    cc: Sequence[str] = (),
    subject: str = "lunch",
    reply: bool = False,
    text: str | None = None,
    list_id: str | None = None,
) -> ParsedMail:
    """A mail whose words are its id unless given, so that mails differ."""
    words = f"Words of {message_id}." if text is None else text
    return ParsedMail(
        message_id=message_id,
        sender=Address("", sender) if sender else None,
        to=tuple(Address("", address) for address in to),
        cc=tuple(Address("", address) for address in cc),
        subject=f"Re: {subject}" if reply else subject,
        subject_norm=subject,
        reply_shaped=reply,
        date=date,
        references=tuple(references),
        in_reply_to=tuple(in_reply_to),
        list_id=list_id,
        bulk=False,
        auto=False,
        text=words,
        own_text=words,
        attachments=(),
        defects=(),
    )


@dataclass(frozen=True, slots=True)
class Shelved:
    """A message as the store in memory holds it."""

    ordinal: int
    incoming: Incoming
    placement: Placement

    @property
    def message_key(self) -> str:
        return self.placement.message_key

    @property
    def thread_id(self) -> str:
        return self.placement.thread_id

    @property
    def split(self) -> str:
        return self.placement.split

    @property
    def parent_key(self) -> str | None:
        return self.placement.parent_key


@dataclass
class Shelf:
    """A mailbox: mails go in by batches, each looked up, placed one by one, and put away as a whole."""

    split_of: Callable[[str], Split]
    owner: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    messages: list[Shelved] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    _all: Known = field(default_factory=Known)

    def take(self, mails: Iterable[ParsedMail], batch: int = 1_000_000) -> list[Placement]:
        return self.take_views([incoming(mail, PEOPLE, self.owner, self.lists) for mail in mails], batch)

    def take_views(self, views: Sequence[Incoming], batch: int = 1_000_000) -> list[Placement]:
        placements = []
        for start in range(0, len(views), batch):
            part = views[start : start + batch]
            known = self.lookup(needs_of(part))
            for view in part:
                placement = place(view, known, split_of=self.split_of)
                ordinal = len(self.messages)
                absorb(known, view, placement, ordinal)
                absorb(self._all, view, placement, ordinal)
                if placement.duplicate_of is None:
                    self.messages.append(Shelved(ordinal, view, placement))
                else:
                    self.duplicates.append(placement.duplicate_of)
                placements.append(placement)
        return placements

    def lookup(self, needs: Needs) -> Known:
        everything = self._all
        known = Known(
            versions={key: everything.versions[key] for key in needs.base_keys if key in everything.versions},
            links={id_: everything.links[id_] for id_ in needs.ids if id_ in everything.links},
            quarantined={id_: everything.quarantined[id_] for id_ in needs.ids if id_ in everything.quarantined},
            subjects={
                key: everything.subjects[key][-SUBJECT_USES:] for key in needs.subject_keys if key in everything.subjects
            },
            people=everything.people & needs.person_keys,
        )
        named = {*known.links.values(), *known.quarantined.values()}
        named |= {version.thread_id for versions in known.versions.values() for version in versions}
        named |= {use.thread_id for uses in known.subjects.values() for use in uses}
        known.threads = {thread_id: everything.threads[thread_id] for thread_id in named}
        return known

    @property
    def threads(self) -> dict[str, list[str]]:
        """Message keys by thread, in order of arrival."""
        found: dict[str, list[str]] = {}
        for message in self.messages:
            found.setdefault(message.thread_id, []).append(message.message_key)
        return found
