"""A mailbox of the store as questions with known answers, for other tools and for our own engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.config.settings import Settings
from pipeline.domain import Split
from pipeline.errors import NothingToDo
from pipeline.parsing.subjects import normalise_subject
from pipeline.privacy.scrub import masker
from pipeline.store import Store
from pipeline.store.rows import ExclusionRow
from registry.indexes import searched_text
from retrain.search.beir import Collection
from retrain.search.gold import PARENT, Asked, Mail, queries_of

HELD_OUT = (Split.VAL, Split.TEST)


def collect(
    store: Store, settings: Settings, mailbox: str, *, splits: Sequence[Split], asked: Asked, most: int | None
) -> Collection:
    """The mailbox's mails as documents and the replies of ``splits`` as queries, ``most`` a split at most.

    Credentials are masked as in chunks. Raises ``NothingToDo`` where no reply of these splits answers a stored mail.
    """
    mails = stored_mails(store, mailbox, masker(settings.privacy))
    queries = {split.value: tuple(queries_of(mails, split, most, asked=asked)) for split in splits}
    if not any(queries.values()):
        raise NothingToDo(
            f"no reply in {' or '.join(queries)} of {mailbox} answers a mail that is there", hint="bring in more mail"
        )
    return Collection(tuple((mail.key, mail.ordinal, mail.document) for mail in mails), queries, PARENT)


def stored_mails(store: Store, mailbox: str, mask: Callable[[str], str]) -> list[Mail]:
    """Every mail of a mailbox in the order of arrival, excluded threads and chunks left out. Subjects are without reply
    marks and list tags, which say nothing about a mail and are the same in all of them."""
    threads = {row.thread_id for row in store.fetch(ExclusionRow, "mailbox = ? AND chunk_id IS NULL", [mailbox])}
    keys = {
        key
        for message_keys, n_context in store.query(
            "SELECT message_keys, n_context FROM chunk_rows WHERE mailbox = ? AND chunk_id IN "
            "(SELECT chunk_id FROM exclusion_rows WHERE mailbox = ?)",
            [mailbox, mailbox],
        )
        for key in message_keys[n_context:]
    }
    return [
        Mail(
            key=message.message_key,
            ordinal=message.arrival_ordinal,
            parent=message.parent_key,
            thread_id=message.thread_id,
            split=message.split,
            subject=mask(normalise_subject(message.subject)[0]),
            words=mask(searched_text(message)),
            quoted=not message.own_text,
        )
        for message in store.all_messages(mailbox)
        if message.thread_id not in threads and message.message_key not in keys
    ]
