"""Who a mail is: the key it is stored under, what tells two versions of one Message-ID apart, and the keyed hashes that
stand for its people and its subject."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable

from pipeline.arrival.people import PeopleKey
from pipeline.arrival.threads import VERSION_DIGITS, Incoming, Needs, may_follow_subject
from pipeline.domain import ParsedMail

OUR_KEYS = re.compile(rf"sha256:[0-9a-f]{{64}}\Z|.*#[0-9a-f]{{{VERSION_DIGITS}}}\Z", re.DOTALL)
RULE_LINE = re.compile(r"^[^\S\n]*[-_=*#~]{10,}[^\S\n]*$", re.MULTILINE)
FOOTER_LINES = 12


def id_key(token: str) -> str:
    """The key that a Message-ID gives: the id without angle brackets and white space, "" when nothing is left.

    An id that has the shape of a key made here (a content hash, or ``#`` and a version's digest) is replaced by a hash of
    itself, so that nobody can write a mail whose id is another mail's key.
    """
    key = "".join(token.split()).removeprefix("<").removesuffix(">")
    if "#" not in key and not key.startswith("sha256:"):  # nearly all: the pattern alone would take longer than the rest
        return key
    return f"sha256:{_sha256(['id', key])}" if OUR_KEYS.match(key) else key


def base_key(mail: ParsedMail) -> str:
    """The normalised Message-ID; without one, ``sha256:`` and hex over date, sender, subject and body."""
    key = id_key(mail.message_id or "")
    if key:
        return key
    date = mail.date.isoformat() if mail.date else ""
    sender = mail.sender.address if mail.sender else ""
    return f"sha256:{_sha256(['mail', date, sender, mail.subject, mail.text])}"


def content_sha(mail: ParsedMail) -> str:
    """Hex sha256 of what a mail says in its own words, to tell versions of one id apart.

    Lists rewrite subjects and senders, wrap lines and add footers, so none of these count; a mail without words is told
    by its attachments.
    """
    own = mail.own_text if mail.own_text.strip() else mail.text
    words = _without_footer(own).split() or own.split()
    return _sha256_of_words(words) if words else _sha256([f"{part.name} {part.size}" for part in mail.attachments])


def incoming(mail: ParsedMail, people: PeopleKey, owner: frozenset[str], lists: frozenset[str]) -> Incoming:
    """A mail as :func:`pipeline.arrival.threads.place` reads it. ``owner`` and ``lists`` are addresses; the address that a
    mail's own List-Id names counts as a list too."""
    own = base_key(mail)
    everyone = (*((mail.sender,) if mail.sender else ()), *mail.to, *mail.cc)
    keys = {
        address: people.of("address", address)
        for address in dict.fromkeys(person.address.lower() for person in everyone if person.address)
    }
    familiar = {address.lower() for address in owner | lists} | {_list_address(mail.list_id)}
    replied = _ids(mail.in_reply_to, own)
    return Incoming(
        mail=mail,
        base_key=own,
        content_sha=content_sha(mail),
        references=_ids(mail.references, own),
        in_reply_to=replied,
        subject_norm_key=people.of("subject", mail.subject_norm) if mail.subject_norm else None,
        participants=frozenset(keys.values()),
        strangers=frozenset(key for address, key in keys.items() if address not in familiar),
        token_people={token: people.of("address", token.lower()) for token in replied if "@" in token},
    )


def needs_of(batch: Iterable[Incoming]) -> Needs:
    """What must be looked up before the mails of a batch can be placed one after the other."""
    needs = Needs()
    for one in batch:
        ids = {one.base_key, *one.references, *one.in_reply_to}
        needs.ids |= ids
        needs.base_keys |= ids  # of the ids referred to too: a parent is known by its versions
        needs.person_keys |= {*one.token_people.values(), *one.participants}
        if one.subject_norm_key is not None and may_follow_subject(one):
            needs.subject_keys.add(one.subject_norm_key)
    return needs


def _ids(tokens: Iterable[str], own: str) -> tuple[str, ...]:
    keys = dict.fromkeys(id_key(token) for token in tokens)
    return tuple(key for key in keys if key and key != own)


def _list_address(list_id: str | None) -> str:
    """``name.host`` (RFC 2919) is nearly always the list ``name@host``."""
    inside = (list_id or "").rpartition("<")[2].partition(">")[0]
    return inside.strip().lower().replace(".", "@", 1)


def _without_footer(text: str) -> str:
    """The text before a horizontal rule that stands among the last lines, under which lists and virus scanners write."""
    body = text.rstrip()
    start = len(body)
    for _ in range(FOOTER_LINES):
        start = body.rfind("\n", 0, start)
        if start < 0:
            break
    rule = RULE_LINE.search(body, start + 1)
    return text if rule is None else body[: rule.start()]


def _sha256_of_words(words: list[str]) -> str:
    """What ``_sha256`` gives for words without white space, in a third of its time: written as one string, in which the
    blanks between words become the commas of a list."""
    written = json.dumps(" ".join(words)).replace(" ", '", "')
    return hashlib.sha256(f"[{written}]".encode("ascii")).hexdigest()


def _sha256(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()
