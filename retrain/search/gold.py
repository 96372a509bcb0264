"""Questions with known answers, from the mailbox itself: what a reply asks for is the mail that it answers.

A query is the subject and the first own lines of a reply. Relevant is its parent (grade 2) and, less so, what that one
answered in turn (grade 1). Candidates are only mails that had arrived before the reply. Nobody annotates anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pipeline.domain import Split

PARENT, ANCESTOR = 2, 1
"""Grades of relevance."""

QUERY_LINES, QUERY_CHARACTERS = 3, 300


class Asked(StrEnum):
    """What of a reply is asked with. Its subject alone often names the thread, its own words alone do not."""

    BOTH = "both"
    WORDS = "words"
    SUBJECT = "subject"


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as it is searched for and asked with; ``words`` are its own, or the full text where it has none (``quoted``,
    as far as that is known). ``lead`` is the line that leads it in a chunk, where it was read from one, and ``author`` the
    keyed address that the shard recorded."""

    key: str
    ordinal: int
    parent: str | None
    thread_id: str
    split: Split
    subject: str
    words: str
    quoted: bool = False
    lead: str = ""
    author: str = ""

    @property
    def document(self) -> str:
        """What of it is searched."""
        return f"{self.subject}\n{self.words}"

    @property
    def opening(self) -> str:
        """Its first own lines as one. Quoted lines are not its author's, and would give the parent away."""
        if self.quoted:
            return ""
        own = [line.strip() for line in self.words.splitlines() if line.strip() and not line.lstrip().startswith(">")]
        return " ".join(own[:QUERY_LINES])[:QUERY_CHARACTERS]


@dataclass(frozen=True, slots=True)
class Query:
    """A question: ``grades`` holds what is relevant by key, ``before`` the ordinal from which on mail is no candidate
    (None: all is). ``cluster`` names what its outcome hangs together with: the thread."""

    key: str
    text: str
    grades: Mapping[str, int]
    cluster: str
    before: int | None = None


def queries_of(mails: Sequence[Mail], split: Split, most: int | None = None, *, asked: Asked = Asked.BOTH) -> list[Query]:
    """What the replies of ``split`` ask, in the order of their arrival; at most ``most``, those with the lowest hashes.

    A reply counts when it has own words and when a mail that it answers is here, had arrived, and is of the same split:
    nothing that was trained on is ever asked with or asked for.
    """
    by_key = {mail.key: mail for mail in mails}
    found = []
    for mail in mails:
        grades = _grades(mail, by_key) if mail.split is split and mail.opening else {}
        if grades:
            found.append(Query(mail.key, _text(mail, asked), grades, mail.thread_id, mail.ordinal))
    if most is None or len(found) <= most:
        return found
    kept = set(sorted((query.key for query in found), key=_rank)[:most])
    return [query for query in found if query.key in kept]


def _grades(mail: Mail, by_key: Mapping[str, Mail]) -> dict[str, int]:
    grades: dict[str, int] = {}
    answered = by_key.get(mail.parent or "")
    while answered is not None and answered.key not in grades and answered.ordinal < mail.ordinal:
        if answered.split is not mail.split:
            break
        grades[answered.key] = ANCESTOR if grades else PARENT
        answered = by_key.get(answered.parent or "")
    return grades


def _text(mail: Mail, asked: Asked) -> str:
    if asked is Asked.SUBJECT:
        return mail.subject
    return mail.opening if asked is Asked.WORDS else f"{mail.subject}\n{mail.opening}"


def _rank(key: str) -> bytes:
    return hashlib.sha256(f"query:{key}".encode()).digest()
