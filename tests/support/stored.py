"""Mail put straight into a store, each message a thread of its own, for tests of what reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from pipeline.arrival.people import PeopleKey
from pipeline.config.settings import Settings
from pipeline.domain import Address
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import MailboxRow, MessageRow, PersonRow, Row, TextRow
from pipeline.versions import VERSIONS


@contextmanager
def empty_mailbox(home: Home) -> Iterator[Store]:
    """The store of a new home with the mailbox ``main``, which holds no mail."""
    with Store.create(home, Settings(), PeopleKey(b"k" * 32), VERSIONS) as store:
        store.append([MailboxRow("main", "arrival", datetime(2026, 1, 1))])
        yield store


def store_mail(
    store: Store,
    ordinal: int,
    text: str,
    *,
    message_id: str = "",
    subject: str = "A subject",
    sender: Address | None = None,
    own_text: str | None = None,
    mailbox: str = "main",
    date: datetime | None = None,
) -> None:
    """Stores one message; ``own_text`` is the text unless given."""
    store.append(
        mail_rows(
            store,
            ordinal,
            text,
            message_id=message_id or f"{ordinal}@example.org",
            subject=subject,
            sender=sender or Address("Ann Writer", "ann@example.org"),
            own_text=text if own_text is None else own_text,
            mailbox=mailbox,
            date=date,
        )
    )


def mail_rows(
    store: Store,
    ordinal: int,
    text: str,
    *,
    message_id: str,
    subject: str,
    sender: Address,
    own_text: str,
    mailbox: str,
    date: datetime | None,
) -> Iterable[Row]:
    """The rows of one message: its words, its people, itself."""
    people = store.people
    sender_key, name_key = people.of("address", sender.address), people.of("name", sender.name)
    subject_key = people.of("subject", subject)
    yield PersonRow(sender_key, "address", sender.address)
    yield PersonRow(name_key, "name", sender.name)
    yield PersonRow(subject_key, "subject", subject)
    for body in {text, own_text} - {""}:
        yield TextRow(_sha(body), body)
    yield MessageRow(
        mailbox=mailbox,
        message_key=message_id,
        base_key=message_id,
        content_sha=_sha(text),
        thread_id=_sha(message_id)[:16],
        split="train",
        window_idx=0,
        arrival_ordinal=ordinal,
        received_at=datetime(2026, 1, 1, 12, ordinal % 60),
        date=date,
        sender_key=sender_key,
        sender_name_key=name_key,
        subject_key=subject_key,
        subject_norm_key=subject_key,
        participants=(sender_key,),
        parent_key=None,
        text_sha=_sha(text) if text else None,
        own_sha=_sha(own_text) if own_text else None,
        n_tokens=len(text) // 4,
        list_id=None,
        bulk=False,
        auto=False,
        defects=(),
        feed="test",
        number=ordinal + 1,
    )


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
