"""One batch of items on its way into the store: the rows that they become, and where the mailbox stands after them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.arrival.people import PeopleKey
from pipeline.arrival.splits import split_of
from pipeline.arrival.threads import Incoming, Known, Placement, absorb, place
from pipeline.arrival.windows import Closing, OpenWindow, on_mail, on_tick
from pipeline.chunking.ruler import Ruler
from pipeline.config.settings import Settings
from pipeline.domain import Clock, DeadLetter, Item, Parsed, Split, Tick
from pipeline.errors import StoreError
from pipeline.store.rows import (
    BridgeRow,
    ClosingRow,
    CorrespondentRow,
    DeadLetterRow,
    DuplicateRow,
    ExclusionRow,
    LinkRow,
    MessageRow,
    PersonRow,
    QuarantinedIdRow,
    RawRow,
    Row,
    TakenRow,
    TextRow,
    ThreadRow,
    WindowStateRow,
)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a mailbox stands: the next arrival ordinal, the open window, the last number taken of each feed, the feeds
    that window 0 waits for, and the threads that are excluded already."""

    next_ordinal: int
    window: OpenWindow
    taken: dict[str, int]
    feeds: frozenset[str]
    excluded: frozenset[str]


@dataclass(slots=True)
class Taken:
    """What became of the items of one or more batches."""

    read: int = 0
    new: int = 0
    duplicates: int = 0
    quarantined: int = 0
    dead_letters: int = 0
    closed: list[int] = field(default_factory=list)

    def add(self, other: Taken) -> None:
        self.read += other.read
        self.new += other.new
        self.duplicates += other.duplicates
        self.quarantined += other.quarantined
        self.dead_letters += other.dead_letters
        self.closed.extend(other.closed)


class Batch:
    """Collects the rows of items taken in order. Nothing here reads the store: ``known`` holds what it said."""

    def __init__(
        self,
        mailbox: str,
        position: Position,
        known: Known,
        *,
        clock: Clock,
        settings: Settings,
        ruler: Ruler,
        people: PeopleKey,
        now: datetime,
    ) -> None:
        self.taken = Taken()
        self._mailbox = mailbox
        self._known = known
        self._clock = clock
        self._settings = settings
        self._ruler = ruler
        self._people = people
        self._now = now
        self._feeds = position.feeds
        self._ordinal = position.next_ordinal
        self._window = position.window
        self._numbers = dict(position.taken)
        self._excluded = set(position.excluded)
        self._touched: set[str] = set()
        self._named: set[str] = set()
        self._rows: list[Row] = []

    def add(self, item: Item, view: Incoming | None) -> None:
        """Takes one item, ``view`` being what a ``Parsed`` says in keyed hashes. A number already taken is no row.

        Raises ``StoreError`` when the number is not the feed's next: something before it is missing.
        """
        last = self._numbers.get(item.feed, 0)
        self.taken.read += isinstance(item, Parsed | DeadLetter)
        if item.number <= last:
            return
        if item.number != last + 1:
            raise StoreError(
                f"feed {item.feed}: number {item.number} came after {last}",
                hint="the numbers between are missing; run the import again, which hands them on",
            )
        if isinstance(item, Parsed):
            assert view is not None
            self._mail(item, view)
        elif isinstance(item, Tick):
            self._tick(item)
        else:
            self._dead_letter(item)
        self._numbers[item.feed] = item.number
        self._touched.add(item.feed)

    def finish(self) -> tuple[list[Row], Position]:
        """Every row to append as one, and the position after them."""
        ends = [TakenRow(self._mailbox, feed, self._numbers[feed], self._now) for feed in sorted(self._touched)]
        state = WindowStateRow(self._mailbox, self._ordinal, self._window.to_json(), self._now)
        position = Position(self._ordinal, self._window, self._numbers, self._feeds, frozenset(self._excluded))
        return [*self._rows, *ends, state], position

    def _split(self, thread_id: str) -> Split:
        return split_of(self._settings.seed, thread_id, self._settings.split)

    def _mail(self, item: Parsed, view: Incoming) -> None:
        placement = place(view, self._known, split_of=self._split)
        if placement.duplicate_of is not None:
            self.taken.duplicates += 1
            self._rows.append(DuplicateRow(self._mailbox, placement.duplicate_of, item.feed, item.cursor, self._now))
            return
        mail = item.mail
        n_tokens = self._ruler.count(mail.own_text or mail.text)
        header_clock = self._clock is Clock.HEADER
        transition = on_mail(
            self._window,
            self._settings.window,
            self._clock,
            at=item.received_at if header_clock else self._now,
            date=mail.date,
            n_tokens=n_tokens,
        )
        self._close(transition.closed_before)
        self._message(item, view, placement, transition.window_idx, n_tokens)
        absorb(self._known, view, placement, self._ordinal)
        self._ordinal += 1
        self._window = transition.window
        self._close(transition.closed_after)
        self.taken.new += 1
        self.taken.quarantined += placement.split is Split.QUARANTINE

    def _message(self, item: Parsed, view: Incoming, placement: Placement, window_idx: int, n_tokens: int) -> None:
        mailbox, mail, thread_id = self._mailbox, item.mail, placement.thread_id
        if placement.is_new_thread:
            self._rows.append(ThreadRow(mailbox, thread_id, placement.split.value, window_idx, self._ordinal))
        self._rows.extend(LinkRow(mailbox, id_, thread_id) for id_ in placement.new_links)
        self._rows.extend(QuarantinedIdRow(mailbox, id_, thread_id) for id_ in placement.quarantined_ids)
        if strange := view.participants - self._known.people:
            self._rows.extend(CorrespondentRow(mailbox, key) for key in sorted(strange))
        self._rows.extend(
            BridgeRow(mailbox, placement.message_key, thread_id, bridge.other_thread_id, bridge.same_split, self._now)
            for bridge in placement.bridges
        )
        for excluded in placement.excluded_threads:
            if excluded not in self._excluded:
                self._excluded.add(excluded)
                self._rows.append(ExclusionRow(mailbox, excluded, None, "late merge across splits", window_idx, self._now))
        sender = mail.sender
        text_sha = self._text(mail.text)
        self._rows.append(
            MessageRow(
                mailbox=mailbox,
                message_key=placement.message_key,
                base_key=view.base_key,
                content_sha=view.content_sha,
                thread_id=thread_id,
                split=placement.split.value,
                window_idx=window_idx,
                arrival_ordinal=self._ordinal,
                received_at=item.received_at,
                date=mail.date,
                sender_key=self._person("address", sender.address) if sender else None,
                sender_name_key=self._person("name", sender.name) if sender and sender.name else None,
                subject_key=self._person("subject", mail.subject) if mail.subject else None,
                subject_norm_key=view.subject_norm_key,
                participants=tuple(sorted(view.participants)),
                parent_key=placement.parent_key,
                text_sha=text_sha,
                own_sha=text_sha if mail.own_text == mail.text else self._text(mail.own_text),
                n_tokens=n_tokens,
                list_id=mail.list_id,
                bulk=mail.bulk,
                auto=mail.auto,
                defects=mail.defects,
                feed=item.feed,
                number=item.number,
            )
        )

    def _person(self, kind: str, value: str) -> str:
        key = self._people.of(kind, value)
        if key not in self._named:  # a few people write most mails: three rows a mail would be one in three new
            self._named.add(key)
            self._rows.append(PersonRow(key, kind, value))
        return key

    def _text(self, text: str) -> str | None:
        if not text:
            return None
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._rows.append(TextRow(digest, text))
        return digest

    def _tick(self, tick: Tick) -> None:
        transition = on_tick(self._window, self._settings.window, self._clock, tick, self._feeds)
        self._window = transition.window
        self._close(transition.closed_before)

    def _dead_letter(self, item: DeadLetter) -> None:
        self.taken.dead_letters += 1
        raw_sha = hashlib.sha256(item.raw).hexdigest()
        self._rows.append(RawRow(raw_sha, item.raw))
        self._rows.append(
            DeadLetterRow(
                id=f"{item.feed}/{item.number}",
                mailbox=self._mailbox,
                feed=item.feed,
                cursor=item.cursor,
                received_at=item.received_at,
                stage=item.stage,
                reason=item.reason,
                attempts=item.attempts,
                raw_sha=raw_sha,
                at=self._now,
            )
        )

    def _close(self, closing: Closing | None) -> None:
        if closing is None:
            return
        # The ordinal is that of the next message: what closes before a mail does not hold it.
        self._rows.append(
            ClosingRow(
                mailbox=self._mailbox,
                window_idx=closing.idx,
                opened_at=closing.opened_at,
                closed_at=closing.closed_at,
                reason=closing.reason,
                n_messages=closing.n_messages,
                n_tokens=closing.n_tokens,
                last_ordinal=self._ordinal - 1,
            )
        )
        self.taken.closed.append(closing.idx)
