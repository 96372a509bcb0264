"""Mailboxes and adapters as people name them: what is meant, and the one thing that is said of what is not there."""

from __future__ import annotations

from pipeline.errors import NothingToDo, UsageError
from pipeline.home import Home
from pipeline.runs.requests import AdapterRef
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, MailboxRow


def mailboxes(store: Store) -> list[str]:
    """The mailboxes of a store, by name."""
    return sorted(row.mailbox for row in store.fetch(MailboxRow))


def the_mailbox(store: Store, named: str | None) -> str:
    """The mailbox that is meant: the one named, else the only one.

    Raises ``NothingToDo`` before any mail, ``UsageError`` for an unknown name and where there are several to choose from.
    """
    if not mailboxes(store):
        raise NothingToDo("there is no mailbox yet", hint="bring mail in with `mailtide import PATH`")
    meant = mailboxes_of(store, named)
    if len(meant) > 1:
        hint = "name one: --mailbox NAME, or NAME itself after plan, retrain, tiers and spotcheck"
        raise UsageError(f"there are several mailboxes: {', '.join(meant)}", hint=hint)
    return meant[0]


def mailboxes_of(store: Store, named: str | None) -> list[str]:
    """The mailboxes meant: the one named, else all that there are. Raises ``UsageError`` for an unknown name."""
    known = mailboxes(store)
    if named is not None and named not in known:
        raise UsageError(f"there is no mailbox {named!r}", hint=f"mailboxes here: {', '.join(known) or 'none yet'}")
    return known if named is None else [named]


def adapter_of(store: Store, mailbox: str, adapter_id: str) -> AdapterRow:
    """A mailbox's adapter by its id; raises ``UsageError`` for one that it does not have."""
    rows = store.fetch(AdapterRow, "adapter_id = ? AND mailbox = ?", [adapter_id, mailbox])
    if not rows:
        raise UsageError(f"{mailbox} has no adapter {adapter_id}", hint="see `mailtide registry list`")
    return rows[0]


def reference(home: Home, adapter: AdapterRow) -> AdapterRef:
    """An adapter as requests name it."""
    path = home.adapter(adapter.adapter_id).relative_to(home.root).as_posix()
    return AdapterRef(adapter_id=adapter.adapter_id, run_id=adapter.run_id, path=path, sha256=adapter.sha256)


def no_adapter(adapter_id: str) -> UsageError:
    """The error for an adapter that no mailbox has."""
    return UsageError(f"there is no adapter {adapter_id}", hint="see `mailtide registry list`")


def no_run(run_id: str) -> UsageError:
    """The error for a run that was never asked for."""
    return UsageError(f"there is no run {run_id}", hint="see `mailtide runs`")
