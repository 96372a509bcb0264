"""A mail before it is bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from streams.demo.facts import Fact
from streams.demo.person import Form, Person


@dataclass(frozen=True, slots=True)
class File:
    """An attachment."""

    name: str
    content_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail of the plot. ``sent`` is what its Date header says, ``arrived`` when it really came, both UTC;
    ``paragraphs`` are its own words, ``quoted`` the mail that it quotes; ``headers`` are further header lines, in order;
    ``html`` overrides what would be made of the paragraphs."""

    message_id: str
    phase: int
    thread: int
    topic: str
    sender: Person
    to: tuple[Person, ...]
    cc: tuple[Person, ...]
    subject: str
    sent: datetime
    arrived: datetime
    form: Form
    paragraphs: tuple[str, ...]
    quoted: Letter | None = None
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    fact: Fact | None = None
    files: tuple[File, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    list_address: str | None = None
    signed: bool = True
