"""Fetches mails by UID, in batches bounded in number and bytes; what cannot be had whole comes with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.errors import SourceAway
from streams.feeds.handing import BATCH_BYTES, too_long
from streams.feeds.imap_errors import Refused
from streams.feeds.imap_session import Listed, Session

LISTED = 500
BATCH_MAILS = 250
GIVEN_UP = 5
"""Connections that must end over one mail, asked for alone, before it is held to be what ends them."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A mail; ``received_at`` is naive UTC, ``problem`` why ``raw`` is only its beginning, or nothing."""

    uid: int
    received_at: datetime | None
    raw: bytes
    problem: str = ""


class Fetcher:
    """Remembers which mails a connection ended over, so that one that no server can give does not stop those behind it."""

    def __init__(self, limit: int, kept: int) -> None:
        """Of a mail above ``limit`` bytes the first ``kept`` are fetched."""
        self._limit = limit
        self._kept = kept
        self._suspects: frozenset[int] = frozenset()
        self._ended: Counter[int] = Counter()

    def forget(self) -> None:
        """For when UIDs begin to stand for other mails."""
        self._suspects = frozenset()
        self._ended.clear()

    def fetched(self, session: Session, uids: Sequence[int]) -> Iterator[list[Fetched]]:
        """The mails that are still there, in the order asked for. Raises as ``Session`` does."""
        for start in range(0, len(uids), LISTED):
            page = uids[start : start + LISTED]
            listed = session.listed(page)
            for batch in self._batches((uid, listed[uid]) for uid in page if uid in listed):
                found = (
                    [self._long(session, *batch[0])] if self._is_long(batch[0][1]) else self._whole(session, dict(batch))
                )
                yield [mail for mail in found if mail is not None]

    def _batches(self, mails: Iterable[tuple[int, Listed]]) -> Iterator[list[tuple[int, Listed]]]:
        batch: list[tuple[int, Listed]] = []
        size = 0
        for uid, listed in mails:
            alone = self._is_long(listed) or uid in self._suspects
            if batch and (alone or len(batch) == BATCH_MAILS or size + listed.size > BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append((uid, listed))
            size += listed.size
            if alone:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _is_long(self, listed: Listed) -> bool:
        return listed.size > self._limit

    def _long(self, session: Session, uid: int, listed: Listed) -> Fetched | None:
        raw = session.beginning(uid, self._kept)
        return None if raw is None else Fetched(uid, listed.received_at, raw, too_long(listed.size, self._limit))

    def _whole(self, session: Session, batch: dict[int, Listed]) -> list[Fetched | None]:
        uids = list(batch)
        if self._ended[uids[0]] >= GIVEN_UP:
            problem = f"the server ended the connection {GIVEN_UP} times when asked for it"
            return [Fetched(uids[0], batch[uids[0]].received_at, b"", problem)]
        try:
            bodies = session.bodies(uids)
        except SourceAway:
            self._suspects = frozenset(uids)
            self._ended.update(uids if len(uids) == 1 else [])
            raise
        except Refused as refused:
            if len(uids) > 1:
                return [mail for uid in uids for mail in self._whole(session, {uid: batch[uid]})]
            if not session.has(uids[0]):
                return []
            return [Fetched(uids[0], batch[uids[0]].received_at, b"", f"the server does not give it: {refused.said}")]
        return [self._cut(uid, batch[uid], bodies[uid]) for uid in uids if uid in bodies]

    def _cut(self, uid: int, listed: Listed, raw: bytes) -> Fetched:
        """Some servers guess at sizes: what came may be longer than what was told."""
        if len(raw) > self._limit:
            return Fetched(uid, listed.received_at, raw[: self._kept], too_long(len(raw), self._limit))
        return Fetched(uid, listed.received_at, raw)
