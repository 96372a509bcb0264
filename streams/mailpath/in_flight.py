"""How far each feed of a process is: what it has handed on, and what its mailbox's owner has taken."""

from __future__ import annotations

FIRST_PATIENCE = 60.0
LONGEST_PATIENCE = 3_600.0


class InFlight:
    """One feed's numbers. Pure: times are seconds of any clock that only goes forward.

    Nothing is ever lost for good on the way: when nothing was taken for long, what is in flight is handed on again, after a
    time that doubles from one minute to an hour.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: int | None = None
        self._handed = 0
        self._since = 0.0
        self._patience = FIRST_PATIENCE

    @property
    def known(self) -> bool:
        """Whether the owner has ever answered for this feed; before that it may not know it."""
        return self._taken is not None

    @property
    def taken(self) -> int:
        """The number that was taken last, by what the owner told last."""
        return self._taken or 0

    @property
    def settled(self) -> bool:
        """Whether everything handed on is taken."""
        return self._handed <= self.taken

    def room_for(self, number: int) -> bool:
        return number - self.taken <= self._most

    def hand(self, number: int, now: float) -> None:
        """``number`` goes on its way."""
        if self.settled:
            self._since = now
        self._handed = max(self._handed, number)

    def take(self, number: int, now: float) -> bool:
        """The owner told how far it is; true when it is behind what it told before: it was put back, and needs the rest
        again."""
        fell = number < self.taken
        if number != self._taken:
            self._since, self._patience = now, FIRST_PATIENCE
        self._taken = number
        return fell

    def overdue(self, now: float) -> bool:
        """Whether what is in flight should be handed on again; if so, the next time comes later."""
        if self.settled or now - self._since < self._patience:
            return False
        self._since = now
        self._patience = min(2 * self._patience, LONGEST_PATIENCE)
        return True
