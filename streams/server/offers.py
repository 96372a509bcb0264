"""What the registry has to serve: its champion, its newest candidate, any adapter by name."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.settings import Settings
from pipeline.errors import RegistryError
from pipeline.home import Home
from pipeline.runs.requests import AdapterRef, BaseRef, RunRequest
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, RequestRow, ShardRow
from registry.decide import journal
from registry.journal import AdapterState, Status
from registry.named import reference
from streams.runs.bases import base_of

SERVABLE = (Status.CANDIDATE, Status.CHAMPION, Status.SUPERSEDED, Status.REJECTED)
"""What may be in memory: no adapter that learned from erased mail, and none whose files may be gone."""


@dataclass(frozen=True, slots=True)
class Offers:
    """``base`` is the champion's, else the one of the settings (None: not made yet). ``withdrawn`` must leave memory."""

    base: BaseRef | None
    champion: AdapterRef | None
    candidate: AdapterRef | None
    withdrawn: frozenset[str]


def offers(store: Store, home: Home, settings: Settings, mailbox: str) -> Offers:
    """As the registry stands now."""
    state = journal(store)
    own = [adapter for adapter in state.adapters.values() if adapter.mailbox == mailbox]
    champion = state.champion(mailbox)
    newest = newest_candidate(own)
    return Offers(
        base=_base(store, home, settings, mailbox, champion),
        champion=offer_of(store, home, mailbox, champion) if champion else None,
        candidate=offer_of(store, home, mailbox, newest) if newest else None,
        withdrawn=frozenset(adapter.adapter_id for adapter in own if adapter.status not in SERVABLE),
    )


def newest_candidate(adapters: list[AdapterState]) -> str | None:
    """The newest adapter without a verdict for or against it; without such, the one that was evaluated last."""
    servable = sorted((one for one in adapters if one.status in SERVABLE), key=lambda one: one.registered_at)
    undecided = [one for one in servable if one.status is Status.CANDIDATE]
    newest = undecided or servable
    return newest[-1].adapter_id if newest else None


def offer_of(store: Store, home: Home, mailbox: str, adapter_id: str) -> AdapterRef:
    """An adapter of the mailbox, as it was recorded. Raises ``RegistryError`` for others, and for what may not serve."""
    rows = store.fetch(AdapterRow, "adapter_id = ? AND mailbox = ?", [adapter_id, mailbox])
    if not rows:
        raise RegistryError(f"{mailbox} has no such adapter", hint="see `mailtide registry list`")
    standing = journal(store).adapter(adapter_id)
    if standing.status not in SERVABLE:
        raise RegistryError(f"adapter {adapter_id} is {standing.status} and is not served", hint="name another adapter")
    return reference(home, rows[0])


def _base(store: Store, home: Home, settings: Settings, mailbox: str, champion: str | None) -> BaseRef | None:
    base = _recorded_base(store, champion) or _set_base(store, home, settings, mailbox)
    if base is None or (base.kind == "builtin" and not (home.root / base.path).is_dir()):
        return None
    return base


def _recorded_base(store: Store, adapter_id: str | None) -> BaseRef | None:
    """The base that an adapter was trained on, by the request of its run."""
    if adapter_id is None:
        return None
    rows = store.fetch(RequestRow, "adapter_id = ?", [adapter_id])
    return RunRequest.model_validate_json(rows[0].request).base if rows else None


def _set_base(store: Store, home: Home, settings: Settings, mailbox: str) -> BaseRef | None:
    shards = store.fetch(ShardRow, "mailbox = ?", [mailbox], "window_idx")
    return base_of(store, home, settings, mailbox, shards[0]) if shards else None
