"""What consumers set aside on a broker, told, shown and replayed as what the store holds is
(:mod:`streams.inspecting.asides`).

The broker keeps what it was given and not what became of it, so that a letter that was replayed says ``pending`` for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.config.bus_settings import BusSettings
from pipeline.errors import UsageError
from pipeline.events import PAYLOADS
from streams.bus.deadletters import DeadLetter
from streams.bus.kafka import KafkaBus
from streams.inspecting.asides import PENDING, Letter, Replayed, Shown, beginning


class BrokerAsides:
    """The dead letters on the topics of a bus, as they are when this is made. Raises ``BusError``."""

    def __init__(self, bus: KafkaBus) -> None:
        self._bus = bus
        self._letters = {_id(letter): letter for letter in bus.letters()}

    def letters(self, mailbox: str | None = None) -> list[Letter]:
        """In the order of publication, of one mailbox or of all."""
        return [told for each in self._letters.values() if mailbox in (None, (told := _told(each)).mailbox)]

    def show(self, letter_id: str) -> Shown:
        """Everything known of one; raises ``UsageError`` for an unknown id."""
        found = self._found(letter_id)
        value = found.record.value
        return Shown(_told(found), f"record {found.origin}", None, len(value), beginning(value))

    def raw(self, letter_id: str) -> bytes:
        """The value of the record; raises ``UsageError`` for an unknown id."""
        return self._found(letter_id).record.value

    def replay(self, ids: Sequence[str]) -> list[Replayed]:
        """Hands events to the consumers that refused them, and puts mail back on its topic. What was replayed before is
        left alone. Raises ``UsageError`` for an unknown id, before any effect."""
        done = []
        for letter in [self._found(letter_id) for letter_id in dict.fromkeys(ids)]:
            if not letter.replayed:
                self._bus.replay_letter(letter)
            outcome = f"replayed already ({PENDING})" if letter.replayed else PENDING
            done.append(Replayed(_id(letter), _mailbox(letter), not letter.replayed, outcome))
        return done

    def replay_all(self, mailbox: str | None) -> list[Replayed]:
        """Replays what was not replayed yet, of one mailbox or of all."""
        return self.replay([letter.id for letter in self.letters(mailbox) if not letter.replayed])

    def _found(self, letter_id: str) -> DeadLetter:
        if letter_id not in self._letters:
            raise UsageError(f"there is no dead letter {letter_id!r}", hint="see `mailtide deadletters list`")
        return self._letters[letter_id]


@contextmanager
def broker_asides(settings: BusSettings) -> Iterator[BrokerAsides]:
    """The dead letters of a broker; raises ``BusError`` when it cannot be read."""
    with KafkaBus(settings) as bus:
        yield BrokerAsides(bus)


def _id(letter: DeadLetter) -> str:
    return f"{letter.dead.event.id}@{letter.dead.consumer}#{letter.dead.attempts}"


def _mailbox(letter: DeadLetter) -> str:
    """Empty where a record does not say which: raw mail goes by its digest, and what is not ours by anything."""
    return letter.record.header("ce_mailbox") or (letter.dead.event.key if letter.topic in PAYLOADS else "")


def _told(letter: DeadLetter) -> Letter:
    dead = letter.dead
    return Letter(
        id=_id(letter),
        mailbox=_mailbox(letter),
        feed=letter.record.header("ce_feed") or letter.topic.value,
        cursor=str(letter.origin),
        stage=dead.consumer,
        reason=dead.error,
        attempts=dead.attempts,
        received_at=dead.event.time,
        at=dead.at,
        replayed=PENDING if letter.replayed else "",
    )
