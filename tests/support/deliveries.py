"""Mail delivered to a real owner, each in a thread of the split that a test wants it in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.arrival.people import PeopleKey
from pipeline.arrival.splits import split_of
from pipeline.arrival.threads import short
from pipeline.config.configuration import load
from pipeline.config.settings import SplitSettings
from pipeline.domain import Arrival, Clock, Item, Parsed
from pipeline.home import Home
from pipeline.parsing.mail import parse_mail
from pipeline.store import Store
from pipeline.store.rows import FeedRow
from streams.homes import make_home
from streams.owning.owner import Owner

NOW = datetime(2026, 1, 5, 12)
WINDOWS = ("window.bootstrap=6", "window.count=6", "window.age=null")
VOCABULARY = [f"{a}{b}" for a in ("ka", "lo", "mi", "ru", "te", "sa", "no") for b in ("ban", "dor", "fel", "gim", "hut")]


def words(seed: int, n: int = 120) -> list[str]:
    source = random.Random(seed)
    return [source.choice(VOCABULARY) + str(source.randint(0, 9)) for _ in range(n)]


def changed(given: Sequence[str], n: int, seed: int) -> list[str]:
    """The words with ``n`` of them replaced, evenly spread."""
    source = random.Random(seed)
    out = list(given)
    for at in range(n):
        out[(at * len(out) + len(out) // 2) // n] = f"other{source.randint(0, 10**6)}"
    return out


def thread_in(split: str, number: int) -> str:
    """A Message-ID whose thread falls into that split, by the seed and the ratios that are the default."""
    tried = 0
    while True:
        name = f"{split}{number}.{tried}@mail.example"
        if split_of(0, short(name), SplitSettings()).value == split:
            return name
        tried += 1


class Mailbox:
    """A home whose mails begin threads in chosen splits, six to a window; ``settings`` are further ones."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.home = Home(folder / "home")
        self.settings = load(None, environment={}, overrides=[*WINDOWS, *settings])
        make_home(self.home, self.settings, PeopleKey(b"k" * 32))
        self.number = 0

    def deliver(self, mails: Sequence[tuple[str, str]], store: Store) -> None:
        """Takes (split, words) each as a mail of its own thread; every sixth closes a window."""
        owner = Owner(store, self.home, self.settings, lambda: NOW)
        owner.register("main", Clock.HEADER, [FeedRow("main", "main.a", "mbox", "a", NOW)])
        items: list[Item] = []
        for split, text in mails:
            self.number += 1
            at = NOW + timedelta(minutes=self.number)
            raw = (
                f"Message-ID: <{thread_in(split, self.number)}>\nDate: {at:%a, %d %b %Y %H:%M:%S} +0000\n"
                f"From: ann@mail.example\nSubject: letter {self.number}\n\n{text}\n"
            ).encode()
            arrival = Arrival("main", "main.a", self.number, str(self.number), at, "", raw)
            items.append(
                Parsed("main", "main.a", self.number, str(self.number), arrival.received_at, parse_mail(arrival.raw))
            )
        owner.take("main", items)


def fillers(n: int, start: int) -> list[tuple[str, str]]:
    return [("train", " ".join(words(1000 + start + at))) for at in range(n)]
