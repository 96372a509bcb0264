"""What a run learns to foretell, and which chunks are examples of it: told from the shards' metadata and the request alone.

``cpt`` takes every chunk: the thread's text. ``reply`` takes those with a new reply of the mailbox's owner: the thread so
far is read, the owner's words are foretold. Who wrote a mail is recorded in the shard, keyed; whose keys are the owner's is
fixed by the request. So a chunk never changes, and another owner makes another run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

from pipeline.arrival.people import PeopleKey
from pipeline.chunking.shards import read_meta
from pipeline.config.settings import Settings
from pipeline.domain import Tier
from pipeline.errors import ConfigError
from pipeline.home import Home
from pipeline.runs.requests import RunRequest, ShardRef

WRITTEN = (Tier.PERSON.value, Tier.BULK.value)
"""Classes of mail with words of its sender: not what a program answered, nor what only passes on a mail of others."""

VERSIONS_APART = 1000
"""Losses on replies bear evaluation versions above this, those on threads lie below: neither is ever compared with the
other, though both are of the same chunks."""

_COLUMNS = ("authors", "tiers", "n_context")


def eval_version(version: int, objective: str) -> int:
    """The evaluation version that losses under ``objective`` bear, ``version`` being that of losses on threads."""
    return version + VERSIONS_APART if objective == "reply" else version


def reply_places(authors: Sequence[str] | None, tiers: Sequence[str] | None, owner: Collection[str]) -> tuple[int, ...]:
    """Which messages of a chunk are replies of ``owner`` (keyed addresses): written by the owner, after a mail of somebody
    else that stands in the chunk too. None where a shard of the first format did not record who wrote what."""
    found, answered = [], False
    for place, (author, tier) in enumerate(zip(authors or (), tiers or (), strict=True)):
        if author not in owner:
            answered = True
        elif answered and tier in WRITTEN:
            found.append(place)
    return tuple(found)


def read_examples(
    home: Home, request: RunRequest, shard: ShardRef, *, columns: Sequence[str], encoded: Sequence[str] = ()
) -> pa.Table:
    """:func:`pipeline.chunking.shards.read_meta` of those chunks only that are examples of the request's objective."""
    folder = home.root / shard.path
    if request.settings.model.objective == "cpt":
        return read_meta(folder, shard.sha256, columns=columns, encoded=encoded)
    wanted = [*columns, *(name for name in _COLUMNS if name not in columns)]
    table = read_meta(folder, shard.sha256, columns=wanted, encoded=encoded)
    owner = frozenset(request.owner)
    keep = [
        any(place >= row["n_context"] for place in reply_places(row["authors"], row["tiers"], owner))
        for row in table.select(list(_COLUMNS)).to_pylist()
    ]
    return table.filter(pa.array(keep, pa.bool_())).select(list(columns))


def owner_of(home: Home, settings: Settings, mailbox: str) -> tuple[str, ...]:
    """The keyed addresses of a mailbox's owner that a request names: none under ``cpt``, which asks for nobody.

    Raises ``ConfigError`` when replies are to be learned and nobody is named.
    """
    if settings.model.objective == "cpt":
        return ()
    addresses = settings.mailbox(mailbox).owner
    if not addresses:
        raise ConfigError(
            [f"model.objective is reply, and mailboxes.{mailbox}.owner names no address whose replies are to be learned"],
            hint=f"set mailboxes.{mailbox}.owner to the owner's addresses, or model.objective to cpt",
        )
    key = PeopleKey.read(home.people_key)
    return tuple(sorted({key.of("address", address.strip().lower()) for address in addresses}))
