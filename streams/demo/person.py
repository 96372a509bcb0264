"""What makes a correspondent: a name, ways of speaking, and the habits of a mail program."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Form(Enum):
    """How a mail program packs a text: media types, charset and transfer encoding."""

    PLAIN_8BIT = "plain, UTF-8, 8bit"
    PLAIN_QP = "plain, UTF-8, quoted-printable"
    PLAIN_LATIN = "plain, ISO-8859-1, quoted-printable"
    PLAIN_WINDOWS = "plain, windows-1252, 8bit"
    PLAIN_BASE64 = "plain, UTF-8, base64"
    ALTERNATIVE = "plain and HTML"
    HTML = "HTML alone"


class Attribution(Enum):
    """How a mail program introduces what it quotes; the templates are filled by :mod:`streams.demo.quoting`."""

    WROTE_ON = "On {weekday}, {day} {month} {year} at {time}, {name} <{address}> wrote:"
    WROTE = "{name} wrote:"
    GERMAN = "Am {day:02}.{number:02}.{year} um {time} schrieb {name}:"
    FRENCH = "Le {day}/{number:02}/{year} {time}, {name} a écrit :"
    BRACKETS = "* {name} <{address}> [{year}-{number:02}-{day:02} {time}]:"
    ORIGINAL = (
        "-----Original Message-----\nFrom: {name} <{address}>\nSent: {day} {month} {year} {time}\nSubject: {subject}\n"
    )


class Posting(Enum):
    """Where an answer stands: above the quoted mail, below it, or between its paragraphs."""

    ABOVE = "above"
    BELOW = "below"
    BETWEEN = "between"


@dataclass(frozen=True, slots=True)
class Person:
    """A correspondent. ``zone`` is minutes east of UTC; ``width`` the column at which plain text is wrapped, 0 for none."""

    name: str
    address: str
    greetings: tuple[str, ...]
    farewells: tuple[str, ...]
    sayings: tuple[str, ...]
    signature: str
    forms: tuple[Form, ...]
    attribution: Attribution
    posting: Posting
    zone: int
    width: int
    program: str

    @property
    def first_name(self) -> str:
        return self.name.split()[0]
