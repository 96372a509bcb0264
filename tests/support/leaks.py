"""Finds stored mail that stands in another split than what belongs to it: the proof that nothing leaked, or the place.

It trusts no decision of :mod:`pipeline.arrival.threads`: it looks only at the rows, as someone would who doubts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from pipeline.domain import Split

QUARANTINED_THREAD = "q"


class Placed(Protocol):
    """A stored message: a row of the store or a :class:`pipeline.domain.StoredMessage`."""

    @property
    def message_key(self) -> str: ...
    @property
    def thread_id(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def parent_key(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Leak:
    """A message in a split where it must not be; ``reason`` says in one sentence why."""

    message_key: str
    thread_id: str
    reason: str


def find_leaks(messages: Iterable[Placed], split_of: Callable[[str], Split] | None = None) -> list[Leak]:
    """Every message that is in another split than its thread, or than a message that it answers, quarantine apart.

    A thread's split is what ``split_of`` gives (the seed's draw, or the stored rows of threads); without it, that of the
    first of its messages here, so that a thread of one message is not checked against anything.
    """
    stored = list(messages)
    by_key = {message.message_key: message for message in stored}
    of_thread: dict[str, str] = {}
    leaks = []
    for message in stored:
        expected = of_thread.setdefault(message.thread_id, _expected(message, split_of))
        if message.split != expected:
            leaks.append(Leak(message.message_key, message.thread_id, f"is in {message.split}, its thread in {expected}"))
        parent = by_key.get(message.parent_key or "")
        if parent is not None and Split.QUARANTINE not in (message.split, parent.split) and parent.split != message.split:
            reason = f"is in {message.split} and answers {parent.message_key}, which is in {parent.split}"
            leaks.append(Leak(message.message_key, message.thread_id, reason))
    return leaks


def _expected(message: Placed, split_of: Callable[[str], Split] | None) -> str:
    if split_of is None:
        return message.split
    if message.thread_id.startswith(QUARANTINED_THREAD):
        return Split.QUARANTINE
    return split_of(message.thread_id)
