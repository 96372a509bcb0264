"""Where a home stands: what `mailtide status` says, from a few short queries."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.config.settings import Settings
from pipeline.home import Home
from pipeline.store import Store
from streams.daemon.board import DaemonState

if TYPE_CHECKING:
    from registry.deploy.standing import Standing


@dataclass(frozen=True, slots=True)
class MailboxStanding:
    """One mailbox: its mail, its windows, its champion, and what is set aside. ``waiting`` counts closed windows that the
    champion's lineage has not learned; ``pending_run`` is a request without a verdict. ``promoted_at`` is when the champion
    was promoted first, ``champion_since`` when it took its present place, as by a rollback. ``newest`` is by the mailbox's
    clock: when a mail arrived, or what its header says, as a file copied today says nothing of an archive's age."""

    mailbox: str
    clock: str
    messages: int
    threads: int
    newest: datetime | None
    windows_closed: int
    waiting: int
    open_window: int | None
    open_messages: int
    champion: str | None
    promoted_at: datetime | None
    champion_since: datetime | None
    newest_learned: int | None
    pending_run: str | None
    quarantined: int
    dead_letters: int


def state_of(store: Store) -> DaemonState | None:
    """How the daemon that holds the store is doing; None when none does."""
    from streams.owning.remote_store import RemoteStore

    if not isinstance(store, RemoteStore):
        return None
    state: DaemonState | None = store.owner_state()
    return state


def deployments(home: Home, settings: Settings) -> list[Standing]:
    """How each deploy target stands that is on, by target and mailbox; from its files alone. One whose file is damaged is
    told as trouble, and so is one that should serve and was never deployed to."""
    from pipeline.errors import DeployError
    from registry.deploy.standing import Standing, standing

    known = {(path.parent.name, path.stem) for path in home.deployments.glob("*/*.json")}
    known = {(target, mailbox) for target, mailbox in known if target in settings.deploy.on}
    found = []
    for target, mailbox in sorted(known | _promised(home, settings)):
        try:
            if (target, mailbox) in known:
                found.append(standing(home, target, mailbox))
            else:
                found.append(Standing(target=target, mailbox=mailbox, trouble="nothing was deployed to it yet"))
        except DeployError as error:
            found.append(Standing(target=target, mailbox=mailbox, trouble=str(error)))
    return found


def _promised(home: Home, settings: Settings) -> set[tuple[str, str]]:
    """Targets and mailboxes of which something was promoted, whether or not it has reached them. A note that is damaged is
    told by whoever deploys."""
    from pipeline.errors import DeployError
    from registry.deploy.standing import wanted
    from registry.deploy.withdrawing import withdrawn

    only = {"server": settings.deploy.server.mailbox, "vllm": settings.deploy.vllm.mailbox}
    with suppress(DeployError):
        gone = withdrawn(home)
        mailboxes = [one.mailbox for one in wanted(home) if one.adapter_id not in gone]
        return {(on, box) for on in settings.deploy.on for box in mailboxes if only.get(on) in (None, box)}
    return set()


def standings(store: Store) -> list[MailboxStanding]:
    """One entry per mailbox, by name."""
    rows = store.query(
        """
        WITH RECURSIVE lineage AS (
            SELECT a.mailbox, a.run_id, r.parent_adapter
            FROM adapters a JOIN adapter_rows r USING (adapter_id) WHERE a.status = 'champion'
            UNION ALL
            SELECT r.mailbox, r.run_id, r.parent_adapter
            FROM lineage l JOIN adapter_rows r ON r.adapter_id = l.parent_adapter
        ), learned AS (
            SELECT DISTINCT l.mailbox, unnest(q.windows) AS window_idx FROM lineage l JOIN requests q USING (run_id)
        )
        SELECT b.mailbox, b.clock,
            (SELECT count(*) FROM message_rows m WHERE m.mailbox = b.mailbox),
            (SELECT count(*) FROM thread_rows t WHERE t.mailbox = b.mailbox),
            (SELECT coalesce(max(m."date") FILTER (b.clock = 'header' AND m."date" <= m.received_at), max(m.received_at))
             FROM message_rows m WHERE m.mailbox = b.mailbox),
            (SELECT count(*) FROM closings c WHERE c.mailbox = b.mailbox),
            (SELECT count(*) FROM closings c ANTI JOIN learned USING (mailbox, window_idx) WHERE c.mailbox = b.mailbox),
            (SELECT max(window_idx) FROM windows w WHERE w.mailbox = b.mailbox AND w.closed_at IS NULL),
            (SELECT coalesce(max(n_messages), 0) FROM windows w WHERE w.mailbox = b.mailbox AND w.closed_at IS NULL),
            (SELECT max(adapter_id) FROM adapters a WHERE a.mailbox = b.mailbox AND a.status = 'champion'),
            (SELECT max(promoted_at) FROM adapters a WHERE a.mailbox = b.mailbox AND a.status = 'champion'),
            (SELECT max(j."at") FROM journal j JOIN adapters a USING (adapter_id)
             WHERE a.mailbox = b.mailbox AND a.status = 'champion' AND j.event IN ('promoted', 'rolled_back')),
            (SELECT max(list_max(r.windows)) FROM requests r JOIN adapters a USING (run_id)
             WHERE a.mailbox = b.mailbox AND a.status = 'champion'),
            (SELECT max(run_id) FROM requests r WHERE r.mailbox = b.mailbox AND run_id NOT IN
             (SELECT run_id FROM run_events WHERE status IN ('promoted', 'rejected', 'abstained', 'failed'))),
            (SELECT count(*) FROM message_rows m WHERE m.mailbox = b.mailbox AND m.split = 'quarantine'),
            (SELECT count(*) FROM dead_letter_rows d WHERE d.mailbox = b.mailbox)
        FROM mailbox_rows b ORDER BY b.mailbox
        """
    )
    return [MailboxStanding(*row) for row in rows]
