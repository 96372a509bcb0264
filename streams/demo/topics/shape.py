"""What a topic is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """Something that people write about for a while. ``people`` are keys of :mod:`streams.demo.people`, those who care;
    ``sentences`` fit anywhere, ``answers`` only in a reply. All text is in the template language of the grammar."""

    name: str
    people: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]
    subjects: tuple[str, ...]
    sentences: tuple[str, ...]
    answers: tuple[str, ...]
    list_address: str | None = None
