"""Promotions on their way to deploy targets: from the outbox or a broker to what is wanted, from there to each target.

An event is done with once what it wants is written down; from then on targets are brought to it, as often as it takes, so
that one that is away holds up neither the bus nor the others. Of several promotions that were missed the newest counts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pipeline.config.settings import Settings
from pipeline.errors import MailtideError, RegistryError
from pipeline.events import AdapterPromoted, Event, Topic
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import AdapterRow, MetricRow, OutboxRow
from pipeline.times import utc_now
from registry.deploy.standing import Standing, speed_recorded, want
from registry.deploy.targets import converge_all, targets
from streams.bus.contract import Bus, Subscription
from streams.owning.stores import OpenStore, opener
from streams.secrets import secret_of

log = logging.getLogger(__name__)

CONSUMER = "deploy"


def subscribe_deployment(bus: Bus, home: Home) -> None:
    """Subscribes the home to promotions: each is noted as wanted, and no target is asked yet."""

    def note(event: Event) -> None:
        promotion = event.payload()
        if not isinstance(promotion, AdapterPromoted):
            raise RegistryError(f"event {event.id} promotes no adapter")
        want(home, promotion)

    bus.subscribe(Subscription(CONSUMER, Topic.ADAPTER_PROMOTED, note))


def want_newest(store: Store, home: Home) -> None:
    """Notes the newest promotion of each mailbox in the store's outbox as wanted, whatever bus carries it as well."""
    topic = Topic.ADAPTER_PROMOTED.value
    newest = "ordinal IN (SELECT max(ordinal) FROM outbox WHERE topic = ? GROUP BY key)"
    for row in store.fetch(OutboxRow, newest, [topic]):
        want(home, AdapterPromoted.model_validate_json(row.data))


def deploy(home: Home, settings: Settings, open_store: OpenStore) -> list[Standing]:
    """Brings every target to what is wanted; returns how they stand. Speeds become rows of the store."""
    found = converge_all(home, targets(home, settings, secret_of), utc_now)
    _record(home, open_store, found)
    return found


def deploy_pending(home: Home, settings: Settings) -> list[Standing]:
    """Deploys what was promoted and is not deployed yet, in this process, and returns how the targets stand.

    Where a daemon does that by itself it deploys too, and whoever comes second finds nothing to do. The outbox is read and
    no bus: in a home with a broker what was promoted is the same.
    """
    open_store = opener(home, settings)
    with open_store() as store:
        want_newest(store, home)
    return deploy(home, settings, open_store)


def troubles(found: Sequence[Standing]) -> list[str]:
    """A sentence for each target that does not serve what it should."""
    return [
        f"{one.target} of {one.mailbox} serves {one.adapter_id or 'nothing'}: {one.trouble}" for one in found if one.trouble
    ]


def _record(home: Home, open_store: OpenStore, found: Sequence[Standing]) -> None:
    """Keeps speeds that are not rows yet: once each, also when a crash came between row and note."""
    fresh = [one for one in found if one.speed is not None and not one.speed.recorded and one.served is not None]
    if not fresh:
        return
    try:
        with open_store() as store:
            for one in fresh:
                store.append(_speed_rows(store, one))
    except MailtideError as error:
        log.info("speeds are recorded later: %s", error)
        return
    for one in fresh:
        speed_recorded(home, one)


def _speed_rows(store: Store, one: Standing) -> list[MetricRow]:
    assert one.served is not None and one.speed is not None
    adapter_id, checkpoint = one.served.adapter_id, f"promotion-{one.ordinal}"
    (adapter,) = store.fetch(AdapterRow, "adapter_id = ?", [adapter_id])
    kept = store.fetch(MetricRow, "adapter_id = ? AND checkpoint = ?", [adapter_id, checkpoint])
    measured = {
        f"deploy.{one.target}.first_token_seconds": one.speed.first_token_seconds,
        f"deploy.{one.target}.tokens_per_second": one.speed.tokens_per_second,
    }
    return [
        MetricRow(adapter.run_id, adapter_id, checkpoint, "", None, None, name, value, one.speed.tokens, None, None)
        for name, value in measured.items()
        if name not in {row.metric for row in kept}
    ]
