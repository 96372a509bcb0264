"""Which store assigns a partition: the one whose claim stands first in the partition's log, for good.

The log of a partition has one order that everybody sees, so two stores that claim at once agree on who was first. Claims
have a key for each store and are written once, so that compaction keeps every one of them at its place. A copy of a home
claims in the same name; so each start also leaves a record of its own, and who sees a later one than his stops.
"""

from __future__ import annotations

import fcntl
import os
import socket
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import BusError
from pipeline.home import Home, write_atomic
from pipeline.strict import Strict
from pipeline.times import utc_now
from streams.bus.envelope import Record, RecordRefused
from streams.mailpath.following import Follower
from streams.mailpath.outlet import Outlet
from streams.mailpath.records import Kind, checked, kind_of, sealed

CLAIM, START = "#owner", "#start"
"""First parts of keys; no mailbox begins like that."""


class Claim(Strict):
    """``store`` owns ``partition``; ``session`` names the start of the process that wrote this. The rest is for people."""

    partition: int
    store: str
    session: str
    host: str
    home: str


@dataclass(slots=True)
class Standing:
    """What the log of one partition says of its owner, as far as it was read. ``store``, ``session``: the reader's."""

    store: str
    session: str
    first: Claim | None = None
    claimed: bool = False
    """Whether the reader's store has a claim."""
    started: bool = False
    """Whether the reader's own start was read."""
    later: Claim | None = None
    """A start of the same store after the reader's own."""

    def read(self, key: str, claim: Claim) -> None:
        """The next record, in order."""
        mine = claim.store == self.store
        if key == CLAIM:
            self.first = self.first or claim
            self.claimed = self.claimed or mine
        elif mine and claim.session == self.session:
            self.started = True
        elif mine and self.started:
            self.later = claim

    def check(self, topic: str) -> None:
        """Raises ``BusError`` when the partition belongs to another store, or to a copy of this one that started later."""
        if self.first is not None and self.first.store != self.store:
            owner = self.first
            raise BusError(
                f"partition {owner.partition} of {topic} is assigned by the home {owner.home} on {owner.host}",
                hint="give this home other partitions in bus.assign, or another bus.prefix",
            )
        if self.later is not None:
            raise BusError(
                f"a copy of this home assigns its partitions now: {self.later.home} on {self.later.host}",
                hint="run one of the two, and never both: their stores are no longer the same",
            )


class Ownership:
    """A store's claim to partitions of ``topic``; ``log`` follows the same ones of ``progress``, where claims are kept."""

    def __init__(self, home: Home, topic: str, progress: str, partitions: Sequence[int], log: Follower) -> None:
        self.store = store_name(home)
        self._home = home
        self._topic = topic
        self._progress = progress
        self._log = log
        self._session = uuid.uuid4().hex
        self._standings = {partition: Standing(self.store, self._session) for partition in partitions}

    async def claim(self, outlet: Outlet) -> None:
        """Claims what nobody has claimed; raises ``BusError`` unless all partitions are this store's then."""
        self._read(await self._log.rest())
        for partition, standing in self._standings.items():
            if not standing.claimed:
                await outlet.add(self._progress, partition, self._record(CLAIM, partition))
            # Behind the claim: when it is read, the claim was.
            await outlet.flush()
            await outlet.add(self._progress, partition, self._record(START, partition))
        await outlet.flush()
        while not all(standing.started for standing in self._standings.values()):
            self._read(await self._log.more())

    async def watch(self) -> None:
        """Raises ``BusError`` when a copy of this home starts to assign; never returns."""
        while True:
            self._read(await self._log.more())

    def _read(self, records: Iterable[Record]) -> None:
        for record in records:
            key = record.key.partition(b"/")[0].decode(errors="replace")
            claim = _claim_of(record) if key in (CLAIM, START) else None
            standing = self._standings.get(claim.partition) if claim is not None else None
            if claim is not None and standing is not None:
                standing.read(key, claim)
        for standing in self._standings.values():
            standing.check(self._topic)

    def _record(self, key: str, partition: int) -> Record:
        claim = Claim(
            partition=partition,
            store=self.store,
            session=self._session,
            host=socket.gethostname(),
            home=str(self._home.root.resolve()),
        )
        event_id = f"partition.owned/{partition}/{self.store}/{self._session}"
        return sealed(Kind.OWNED, event_id, f"{key}/{partition}/{self.store}", claim.model_dump_json().encode(), utc_now())


def store_name(home: Home) -> str:
    """The name that a home's store goes by on brokers: drawn once, and kept in the home."""
    path = home.root / "assigner.id"
    if not path.exists():
        write_atomic(path, uuid.uuid4().hex.encode())
    return path.read_text(encoding="ascii")


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """Raises ``BusError`` when another process assigns in this home."""
    handle = os.open(home.root / "assigner.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusError(f"another process assigns mail in {home.root}", hint="stop it, or let it work") from error
        yield
    finally:
        os.close(handle)


def _claim_of(record: Record) -> Claim | None:
    try:
        kind_of(record, {Kind.OWNED})
        return checked(Claim.model_validate_json, record.value, "data")
    except RecordRefused:
        return None
