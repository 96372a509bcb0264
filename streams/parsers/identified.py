"""Mail that is identified where it is parsed, so that parser processes take that work from the owner of a store too."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.arrival.identity import incoming
from pipeline.arrival.people import PeopleKey
from pipeline.arrival.threads import Incoming
from pipeline.config.settings import MailboxSettings
from pipeline.domain import Arrival, Parsed, ParsedMail
from pipeline.parsing.mail import parse_mail


@dataclass(frozen=True, slots=True)
class Identified(Parsed):
    """A parsed mail with its keys and the keyed hashes of its people, as the owner of its mailbox would compute them."""

    view: Incoming


@dataclass(frozen=True, slots=True)
class Identify:
    """Reads the mails of one mailbox. It holds the home's secret: for processes of the same person on the same machine."""

    people: PeopleKey
    owner: frozenset[str]
    lists: frozenset[str]

    @classmethod
    def of(cls, people: PeopleKey, mailbox: MailboxSettings) -> Identify:
        """For a mailbox with these addresses of its owner and of its lists."""
        lowered = [frozenset(address.lower() for address in some) for some in (mailbox.owner, mailbox.lists)]
        return cls(people, *lowered)

    def view(self, item: Parsed) -> Incoming:
        """What the owner needs to know of a mail, if it does not come with it."""
        return item.view if isinstance(item, Identified) else incoming(item.mail, self.people, self.owner, self.lists)

    def __call__(self, raw: bytes) -> Incoming:
        """Parses a mail and identifies it."""
        return incoming(parse_mail(raw), self.people, self.owner, self.lists)


def answer(arrival: Arrival, found: ParsedMail | Incoming) -> Parsed:
    """A parser's answer to a raw mail: with what travels with it, without the raw bytes."""
    if isinstance(found, Incoming):
        return Identified(
            arrival.mailbox, arrival.feed, arrival.number, arrival.cursor, arrival.received_at, found.mail, found
        )
    return Parsed(arrival.mailbox, arrival.feed, arrival.number, arrival.cursor, arrival.received_at, found)
