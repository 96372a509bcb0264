"""Rows for tests of the store: one of any table, and messages by the dozen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pipeline.arrival.people import PeopleKey
from pipeline.config.settings import Settings
from pipeline.home import Home
from pipeline.store import Store, Versions
from pipeline.store.rows import LinkRow, MessageRow, PersonRow, Row, TextRow, ThreadRow

R = TypeVar("R", bound=Row)

START = datetime(2026, 1, 1)
KEY = PeopleKey(b"k" * 32)
VERSIONS = Versions(parse=1, scrub=1, chunk=1)


def new_store(root: Path, settings: Settings | None = None) -> Store:
    return Store.create(Home(root), settings or Settings(), KEY, VERSIONS)


def any_row(row_type: type[R], **values: object) -> R:
    """A row with a plain value in every column that is not given."""
    plain: dict[Any, object] = {str: "x", int: 1, float: 0.5, bool: True, datetime: START, bytes: b"x"}
    hints = get_type_hints(row_type)
    cells = {field.name: plain.get(hints[field.name]) for field in fields(row_type)}
    for name, hint in hints.items():
        if name in cells and str(hint).startswith("tuple"):
            cells[name] = ()
    return row_type(**{**cells, **values})


def message(
    ordinal: int,
    *,
    thread: str = "t",
    window: int = 0,
    mailbox: str = "main",
    key: str = "",
    base: str = "",
    subject: str = "Hello",
    sender: str = "ann@example.org",
) -> list[Row]:
    """All rows of a message: its words, its people, its link, itself."""
    name = key or f"{ordinal}@example.org"
    text, own = f"text of {name}\n> quoted", f"text of {name}"
    sender_key, name_key = KEY.of("address", sender), KEY.of("name", sender.title())
    subject_key = KEY.of("subject", subject)
    return [
        PersonRow(sender_key, "address", sender),
        PersonRow(name_key, "name", sender.title()),
        PersonRow(subject_key, "subject", subject),
        TextRow(sha(text), text),
        TextRow(sha(own), own),
        any_row(LinkRow, mailbox=mailbox, id=name, thread_id=thread),
        MessageRow(
            mailbox=mailbox,
            message_key=name,
            base_key=base or name,
            content_sha=sha(text),
            thread_id=thread,
            split="train",
            window_idx=window,
            arrival_ordinal=ordinal,
            received_at=START + timedelta(minutes=ordinal),
            date=START + timedelta(minutes=ordinal),
            sender_key=sender_key,
            sender_name_key=name_key,
            subject_key=subject_key,
            subject_norm_key=subject_key,
            participants=(sender_key,),
            parent_key=None,
            text_sha=sha(text),
            own_sha=sha(own),
            n_tokens=len(own) // 4,
            list_id=None,
            bulk=False,
            auto=False,
            defects=(),
            feed="feed",
            number=ordinal + 1,
        ),
    ]


def thread(thread_id: str, *, mailbox: str = "main", split: str = "train", first_ordinal: int = 0) -> ThreadRow:
    return ThreadRow(mailbox, thread_id, split, 0, first_ordinal)


def flat(groups: Iterable[Iterable[Row]]) -> list[Row]:
    return [row for group in groups for row in group]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
