"""What goes through the pipes between a parser process and the one that started it.

Both ways go frames: a length (8 bytes, little-endian), then a pickle of that many bytes. In: ``Orders``, then lists of
raw mails. Out: an empty list once the process is ready, then lists of answers, one answer for every mail, in their order.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass

LENGTH = struct.Struct("<Q")
OUT_OF_MEMORY = 71
"""Exit code: the memory allowed is used up. It only has to differ from those that Python ends with."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What a parser process does: ``read`` (a function that pickles by its name, or a frozen value that can be called) with
    every mail, in at most ``memory_bytes`` of address space. An answer waits for those of the next mails at most
    ``patience`` seconds, so that a longer silence means one mail that takes long."""

    read: Callable[[bytes], object]
    memory_bytes: int
    patience: float


@dataclass(frozen=True, slots=True)
class Refused:
    """Instead of an answer: reading the mail raised. Only the kind of exception is told, as its words may be the mail's."""

    reason: str


def frame(value: object) -> bytes:
    """A value as it goes through a pipe."""
    content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(content)) + content
