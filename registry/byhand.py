"""Decisions that a person takes: promote, reject, return to an earlier champion. Each is one journal entry."""

from __future__ import annotations

from datetime import datetime

from pipeline.errors import RegistryError
from pipeline.home import Home, sha256_folder
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, JournalRow, Row
from registry.decide import journal, promotion_event
from registry.journal import Happening, append_event


def promote(store: Store, home: Home, mailbox: str, adapter_id: str, reason: str, actor: str, now: datetime) -> JournalRow:
    """Makes a candidate champion whatever its verdict; raises ``RegistryError``, naming those that can be promoted."""
    return _crown(store, home, mailbox, adapter_id, Happening.PROMOTED, reason, actor, now)


def rollback(
    store: Store, home: Home, mailbox: str, adapter_id: str | None, reason: str, actor: str, now: datetime
) -> JournalRow:
    """Returns to a former champion; the next run continues from there. By default it is the one that came before the
    present, so that the same again goes further back, and never to one that was left so.

    Raises ``RegistryError``, naming those that can be returned to.
    """
    if adapter_id is None:
        state = journal(store)
        adapter_id = next(iter(state.before(mailbox)), None)
        if adapter_id is None:
            left = ", ".join(state.returnable(mailbox))
            raise RegistryError(
                f"{mailbox} had no champion to return to" + (" but those that were left" if left else ""),
                hint=f"name one to have it back: {left}" if left else "see `mailtide registry list`",
            )
    return _crown(store, home, mailbox, adapter_id, Happening.ROLLED_BACK, reason, actor, now)


def reject(store: Store, mailbox: str, adapter_id: str, reason: str, actor: str, now: datetime) -> JournalRow:
    """Rejects a candidate; raises ``RegistryError`` when it is none."""
    entry = append_event(
        journal(store),
        mailbox=mailbox,
        adapter_id=adapter_id,
        event=Happening.REJECTED,
        reason=reason,
        actor=actor,
        at=now,
    )
    store.append([entry])
    return entry


def _crown(
    store: Store,
    home: Home,
    mailbox: str,
    adapter_id: str,
    event: Happening,
    reason: str,
    actor: str,
    now: datetime,
) -> JournalRow:
    entry = append_event(
        journal(store), mailbox=mailbox, adapter_id=adapter_id, event=event, reason=reason, actor=actor, at=now
    )
    sha256 = store.fetch(AdapterRow, "adapter_id = ?", [adapter_id])[0].sha256
    folder = home.adapter(adapter_id)
    if not folder.is_dir() or sha256_folder(folder) != sha256:
        raise RegistryError(
            f"{folder} is missing or was changed, so {adapter_id} cannot serve", hint="restore it from a backup"
        )
    rows: list[Row] = [entry, *store.outbox_rows([promotion_event(home, entry, sha256)])]
    store.append(rows)
    return entry
