"""When a training window opens and closes: a state machine over mails and ticks, without clock or store."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class OpenWindow(BaseModel):
    """The open window of a mailbox. ``opened_at`` is None until its first mail. ``caught_up`` lists feeds that have read
    to their end while window 0 is open. Under the header clock ``clock_at`` is the time that the Date headers have
    reached and ``held_at`` a jump of 30 days or more that waits for the next mail to confirm it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    idx: int = 0
    opened_at: datetime | None = None
    n_messages: int = 0
    n_tokens: int = 0
    caught_up: tuple[str, ...] = ()
    clock_at: datetime | None = None
    held_at: datetime | None = None
