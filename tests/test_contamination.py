"""Near copies across splits leave evaluation when a window closes; copies within a split, and short mails, do not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pipeline.configuration import load
from pipeline.domain import Arrival, Clock, Item, Parsed
from pipeline.home import Home
from pipeline.mail import parse_mail
from pipeline.minhash import agreement, bands_of, candidates, signatures
from pipeline.people import PeopleKey
from pipeline.runfiles import NEAR_COPY, read_exclusions, write_exclusions
from pipeline.shingles import RUN, likeness, runs, words_of
from pipeline.splits import split_of
from pipeline.store import Store
from pipeline.store.rows import ExclusionRow, FeedRow
from pipeline.threads import short
from streams.homes import make_home
from streams.owner import Owner
from streams.stores import opener

NOW = datetime(2026, 1, 5, 12)
SETTINGS = load(None, environment={}, overrides=["window.bootstrap=6", "window.count=6", "window.age=null"])
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
    """A Message-ID whose thread falls into that split."""
    tried = 0
    while True:
        name = f"{split}{number}.{tried}@mail.example"
        if split_of(SETTINGS.seed, short(name), SETTINGS.split).value == split:
            return name
        tried += 1


class Mailbox:
    """A home whose mails begin threads in chosen splits."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        make_home(self.home, SETTINGS, PeopleKey(b"k" * 32))
        self.number = 0

    def deliver(self, mails: Sequence[tuple[str, str]], store: Store) -> None:
        """Takes (split, words) each as a mail of its own thread; every sixth closes a window."""
        owner = Owner(store, self.home, SETTINGS, lambda: NOW)
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

    def excluded(self, store: Store) -> dict[str, str]:
        rows = store.fetch(ExclusionRow, "mailbox = ?", ["main"])
        splits = dict(store.query("SELECT chunk_id, split FROM chunk_rows"))
        return {splits[row.chunk_id]: row.reason for row in rows if row.chunk_id is not None}


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path)


def fillers(n: int, start: int) -> list[tuple[str, str]]:
    return [("train", " ".join(words(1000 + start + at))) for at in range(n)]


def test_a_copy_in_the_same_window_leaves_evaluation(mailbox: Mailbox) -> None:
    text = words(1)
    with opener(mailbox.home, SETTINGS)() as store:
        mails = [("val", " ".join(text)), ("train", " ".join(changed(text, 3, 2))), *fillers(4, 0)]
        mailbox.deliver(mails, store)
        (split, reason), *others = mailbox.excluded(store).items()
    assert (split, others) == ("val", [])
    assert reason.startswith(NEAR_COPY) and "(train)" in reason


@pytest.mark.parametrize(
    ("first", "second", "left"), [("val", "train", "val"), ("train", "test", "test"), ("test", "val", "test")]
)
def test_a_copy_in_a_later_window_is_found_whichever_came_first(
    mailbox: Mailbox, first: str, second: str, left: str
) -> None:
    text = words(3)
    with opener(mailbox.home, SETTINGS)() as store:
        mailbox.deliver([(first, " ".join(text)), *fillers(5, 0)], store)
        assert mailbox.excluded(store) == {}
        mailbox.deliver([*fillers(5, 20), (second, " ".join(changed(text, 4, 5)))], store)
        assert list(mailbox.excluded(store)) == [left]
        mailbox.deliver([*fillers(5, 40), (second, " ".join(changed(text, 2, 6)))], store)
        assert list(mailbox.excluded(store)) == [left]  # once, and not again


def test_copies_within_a_split_and_short_mails_are_no_leak(mailbox: Mailbox) -> None:
    text, short = " ".join(words(7)), "applied, thanks a lot"
    with opener(mailbox.home, SETTINGS)() as store:
        mails = [
            ("val", text),
            ("val", text),
            ("val", short),
            ("train", short),
            ("test", " ".join(words(8))),
            *fillers(1, 0),
        ]
        mailbox.deliver(mails, store)
        assert store.query("SELECT count(*) FROM shard_rows") == [(1,)]
        assert mailbox.excluded(store) == {}


def test_lost_signatures_are_made_anew(mailbox: Mailbox) -> None:
    text = words(9)
    with opener(mailbox.home, SETTINGS)() as store:
        mailbox.deliver([("val", " ".join(text)), *fillers(5, 0)], store)
        (kept,) = (mailbox.home.root / "signatures" / "main").iterdir()
        before = kept.read_bytes()
        kept.write_bytes(before[:100])
        mailbox.deliver([*fillers(5, 20), ("train", " ".join(changed(text, 4, 5)))], store)
        assert list(mailbox.excluded(store)) == ["val"]
    assert kept.read_bytes() == before


def test_a_mail_copied_whole_into_a_longer_one_is_found() -> None:
    text = words(10, 60)
    seen = likeness(" ".join(text), " ".join([*words(11, 300), *text]))
    assert seen.jaccard < 0.3 and seen.contained == 1.0 and seen.near_copy
    assert not likeness(" ".join(words(12)), " ".join(words(13))).near_copy
    assert likeness("", "").jaccard == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_signatures_estimate_likeness_and_bands_find_it(seed: int) -> None:
    """One hundred pairs at Jaccard 0.7 to 0.95 among two thousand others: at least 98 become candidates."""
    texts = [words(seed * 10_000 + at, 150) for at in range(100)]
    copies = [changed(text, 1 + at % 5, at) for at, text in enumerate(texts)]
    true = [jaccard(text, copy) for text, copy in zip(texts, copies, strict=True)]
    assert min(true) >= 0.7
    ours = signatures([" ".join(text) for text in texts])
    theirs = signatures([" ".join(text) for text in [*copies, *(words(5_000_000 + at, 150) for at in range(2000))]])
    estimated = agreement(ours, theirs[:100])
    assert max(abs(a - b) for a, b in zip(estimated, true, strict=True)) < 0.2
    found = {(int(a), int(b)) for a, b in candidates(bands_of(ours), bands_of(theirs))}
    assert sum((at, at) in found for at in range(100)) >= 98
    assert sum(b >= 100 for _, b in found) <= 40


def jaccard(one: Sequence[str], other: Sequence[str]) -> float:
    ours, theirs = runs(words_of(" ".join(one)), RUN), runs(words_of(" ".join(other)), RUN)
    return len(ours & theirs) / len(ours | theirs)


def test_exclusions_say_which_are_copies(tmp_path: Path) -> None:
    path = tmp_path / "exclusions.parquet"
    write_exclusions(
        path,
        [("t", "t:w0:0", f"{NEAR_COPY}x"), ("t", "t:w0:1", f"{NEAR_COPY}x"), ("t", "t:w0:1", "erased"), ("u", None, "q")],
    )
    found = read_exclusions(path)
    assert found.copies == {"t:w0:0"}
    assert found.chunks == {"t:w0:0", "t:w0:1"} and found.threads == {"u"}
