"""What somebody asks to have erased, and which mail that means: the messages, and copies of them beside the messages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pipeline.arrival.identity import id_key
from pipeline.arrival.people import PeopleKey
from pipeline.errors import NothingToDo, UsageError
from pipeline.parsing.headers import MAX_HEADER_BYTES
from pipeline.parsing.mail import parse_mail
from pipeline.store import Store


class Kind(StrEnum):
    MESSAGE = "message"
    SENDER = "sender"
    THREAD = "thread"


@dataclass(frozen=True, slots=True)
class Asked:
    """``value`` is a message's key or Message-ID, an address, or a thread's id."""

    mailbox: str
    kind: Kind
    value: str

    def target(self, people: PeopleKey) -> str:
        """What is written down of it: ids as they are, an address as its keyed hash."""
        if self.kind is Kind.SENDER:
            return people.of("address", self.value.strip().lower())
        return id_key(self.value) if self.kind is Kind.MESSAGE else self.value


_NEXT = {
    Kind.MESSAGE: 'see `mailtide sql "SELECT message_key, sender, subject FROM messages"`',
    Kind.SENDER: 'see `mailtide sql "SELECT DISTINCT sender FROM messages"`',
    Kind.THREAD: 'see `mailtide sql "SELECT thread_id, n_messages FROM threads"`',
}

_WHERE = {
    Kind.MESSAGE: "(message_key = ? OR base_key = ?)",
    Kind.SENDER: "sender_key = ?",
    Kind.THREAD: "thread_id = ?",
}


def meant(store: Store, asked: Asked) -> list[str]:
    """The keys of the messages that are meant and not erased yet, in order of arrival; none where only dead letters can be
    meant. Every version of a Message-ID is meant with it. Raises ``NothingToDo`` where all of them are erased already."""
    target = asked.target(store.people)
    named = [asked.value.strip(), target] if asked.kind is Kind.MESSAGE else [target]
    rows = store.query(
        "SELECT message_key, (mailbox, message_key) IN (SELECT (mailbox, message_key) FROM erased_rows) FROM message_rows "
        f"WHERE mailbox = ? AND {_WHERE[asked.kind]} ORDER BY arrival_ordinal",
        [asked.mailbox, *named],
    )
    alive = [key for key, erased in rows if not erased]
    if rows and not alive:
        raise NothingToDo(
            f"this {asked.kind} of {asked.mailbox} is erased already", hint='see `mailtide sql "FROM erasures"`'
        )
    return alive


def unknown(asked: Asked) -> UsageError:
    """There is nothing that could be meant."""
    who = f"no mail from {asked.value}" if asked.kind is Kind.SENDER else f"no {asked.kind} {asked.value}"
    return UsageError(f"there is {who} in {asked.mailbox}; nothing was erased", hint=_NEXT[asked.kind])


def is_meant(kept: bytes, asked: Asked, keys: Iterable[str], people: PeopleKey) -> bool:
    """Whether bytes that are kept beside the messages (a dead letter, a claim check) are a mail that is meant: by the ids
    and the sender in its header, whatever the rest of it is."""
    message_id, sender = _says(kept)
    key = id_key(message_id or "")
    if asked.kind is Kind.SENDER and sender and people.of("address", sender.lower()) == asked.target(people):
        return True
    wanted = {key.partition("#")[0] for key in keys}
    if asked.kind is Kind.MESSAGE:
        wanted.add(asked.target(people))
    return key != "" and key in wanted


def _says(kept: bytes) -> tuple[str | None, str]:
    """Message-ID and sender's address of a mail, as it came or as a parser's answer."""
    if kept.startswith(b"{"):
        try:
            told = json.loads(kept)
            return told.get("message_id"), (told.get("sender") or {}).get("address") or ""
        except (ValueError, AttributeError):
            return None, ""
    head = kept[:MAX_HEADER_BYTES].replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    mail = parse_mail(head + b"\n\n")
    return mail.message_id, mail.sender.address if mail.sender else ""
