"""Threading on real archives: how many threads and bridges, what is quarantined, and that nothing leaks."""

from __future__ import annotations

import gzip
import random
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations
from pathlib import Path

import pytest

from pipeline.arrival.identity import incoming
from pipeline.arrival.splits import split_of
from pipeline.arrival.threads import Placement, short
from pipeline.config.settings import SplitSettings
from pipeline.domain import ParsedMail, Split
from pipeline.parsing.mail import parse_mail
from tests.support.leaks import find_leaks
from tests.support.letters import NOON, PEOPLE, Shelf, letter

pytestmark = pytest.mark.data
SEPARATOR = re.compile(rb"^From (?:mboxrd@z|\S.{0,80}\d\d:\d\d:\d\d \d{4}).*\n", re.MULTILINE)
EARLY, LATE, PACKAGES = "linux-mips-1996-2001.mbox.gz", "linux-mips-2006-2007.mbox.gz", "r-package-devel-2015-2026.mbox.gz"
LISTS = frozenset(
    {"linux-mips@linux-mips.org", "linux-mips@oss.sgi.com", "linux-mips@fnet.fr", "linux@cthulhu.engr.sgi.com"}
)


@cache
def archive(path: Path) -> list[ParsedMail]:
    parts = SEPARATOR.split(gzip.decompress(path.read_bytes()))[1:]
    return [parse_mail(re.sub(rb"^>(>*From )", rb"\1", part, flags=re.MULTILINE)) for part in parts]


def drawn(thread_id: str) -> Split:
    return split_of(0, thread_id, SplitSettings())


@dataclass(frozen=True)
class Outcome:
    threads: int
    duplicates: int
    bridging: int
    quarantined: int


def outcome(box: Shelf, placements: list[Placement]) -> Outcome:
    return Outcome(
        threads=len(box.threads),
        duplicates=len(box.duplicates),
        bridging=sum(bool(one.bridges) for one in placements),
        quarantined=sum(one.split is Split.QUARANTINE and one.duplicate_of is None for one in placements),
    )


@pytest.mark.parametrize(
    ("name", "mails", "expected"),
    [
        (EARLY, 6000, Outcome(threads=1798, duplicates=7, bridging=42, quarantined=11)),
        (LATE, 4000, Outcome(threads=1042, duplicates=0, bridging=10, quarantined=0)),
        (PACKAGES, 11114, Outcome(threads=2531, duplicates=3, bridging=0, quarantined=0)),
    ],
)
def test_threads_of_an_archive(real_mail: Path, name: str, mails: int, expected: Outcome) -> None:
    sent = archive(real_mail / name)
    assert len(sent) == mails
    box = Shelf(drawn, lists=LISTS)
    assert outcome(box, box.take(sent, batch=500)) == expected
    assert leaks(box) == []


def test_people_named_in_in_reply_to_would_tie_threads_together(real_mail: Path) -> None:
    views = [incoming(mail, PEOPLE, frozenset(), LISTS) for mail in archive(real_mail / EARLY)]
    box = Shelf(drawn, lists=LISTS)
    naive = outcome(box, box.take_views([replace(view, token_people={}) for view in views]))
    assert (naive.bridging, naive.quarantined) == (84, 21)


@pytest.mark.parametrize("seed", [1, 2])
def test_any_order_of_an_archive_is_split_pure(real_mail: Path, seed: int) -> None:
    sent = list(archive(real_mail / EARLY))
    random.Random(seed).shuffle(sent)
    box = Shelf(drawn, lists=LISTS)
    box.take(sent, batch=700)
    assert sum(message.split == Split.QUARANTINE for message in box.messages) > 0
    assert leaks(box) == []


def test_nothing_slips_past_quarantine(real_mail: Path) -> None:
    box = Shelf(drawn, lists=LISTS)
    box.take(archive(real_mail / EARLY))
    quarantined = [message for message in box.messages if message.split == Split.QUARANTINE]
    ids = {message.incoming.base_key: message.ordinal for message in quarantined}
    later = [
        message
        for message in box.messages
        if any(ids.get(id_, message.ordinal) < message.ordinal for id_ in message.incoming.references)
    ]
    assert later
    assert all(message.split == Split.QUARANTINE for message in later)
    replies = [letter(f"reply-{n}@x", in_reply_to=[id_]) for n, id_ in enumerate(ids)]
    assert {one.split for one in box.take(replies)} == {Split.QUARANTINE}


def test_every_thread_that_a_merge_touches_leaves_evaluation(real_mail: Path) -> None:
    box = Shelf(drawn, lists=LISTS)
    placements = box.take(archive(real_mail / EARLY))
    merges = [one for one in placements if one.split is Split.QUARANTINE and one.is_new_thread]
    assert merges
    for one in merges:
        others = {bridge.other_thread_id: drawn(bridge.other_thread_id) for bridge in one.bridges}
        assert len(set(others.values())) > 1
        assert set(one.excluded_threads) == {thread for thread, split in others.items() if split is not Split.TRAIN}


def test_a_planted_leak_is_found_in_an_archive(real_mail: Path) -> None:
    box = Shelf(drawn, lists=LISTS)
    box.take(archive(real_mail / LATE))
    assert find_leaks(box.messages, drawn) == []
    victim = next(n for n, one in enumerate(box.messages) if one.split == Split.VAL and one.parent_key)
    planted = list(box.messages)
    planted[victim] = replace(planted[victim], placement=replace(planted[victim].placement, split=Split.TRAIN))
    assert planted[victim].message_key in [leak.message_key for leak in find_leaks(planted, drawn)]


def leaks(box: Shelf) -> list[str]:
    """What the checker finds in the rows, and messages that refer across splits by the headers themselves."""
    stored: dict[str, set[str]] = {}
    for message in box.messages:
        stored.setdefault(message.incoming.base_key, set()).add(message.split)
    across = [
        message.message_key
        for message in box.messages
        if message.split != Split.QUARANTINE
        for id_ in message.incoming.references
        if stored.get(id_, set()) - {message.split, Split.QUARANTINE}
    ]
    return across + [leak.message_key for leak in find_leaks(box.messages, drawn)]


# Small cases that mail programs get wrong


@pytest.fixture(scope="module")
def oddities(real_mail: Path) -> Callable[[str], list[ParsedMail]]:
    with tarfile.open(real_mail / "threading-notmuch.tar.gz") as tar:
        files = {member.name: tar.extractfile(member) for member in tar.getmembers() if member.isfile()}
        found = {name: parse_mail(file.read()) for name, file in files.items() if file is not None}
    return lambda prefix: [found[name] for name in sorted(found) if name.startswith(prefix)]


def by_root(thread_id: str) -> Split:
    return Split.TRAIN


def test_a_reference_to_mail_that_never_came_keeps_a_thread_together(oddities: Callable[[str], list[ParsedMail]]) -> None:
    mails = [mail for mail in oddities("threading/ghost-root/") if (mail.message_id or "").endswith("example.org")]
    assert len(mails) == 6
    for order in list(permutations(mails))[::37]:
        box = Shelf(by_root)
        box.take(order)
        assert {thread: len(keys) for thread, keys in box.threads.items()} == {short("000-real-root@example.org"): 6}
        parents = {message.message_key: message.parent_key for message in box.messages}
        assert parents["001-child@example.org"] in ("000-real-root@example.org", None)


def test_a_ticket_that_was_never_mailed_joins_what_refers_to_it(oddities: Callable[[str], list[ParsedMail]]) -> None:
    mails = [mail for mail in oddities("threading/ghost-root/1") if mail.message_id]
    assert len(mails) == 3
    box = Shelf(by_root)
    box.take(mails)
    assert list(box.threads) == [short("87bmc6lp3h.fsf@len.workgroup")]


def test_in_reply_to_goes_before_references(oddities: Callable[[str], list[ParsedMail]]) -> None:
    mails = sorted(oddities("threading/parent-priority/"), key=lambda mail: mail.date or NOON)
    box = Shelf(by_root)
    box.take(mails)
    assert {message.message_key: message.parent_key for message in box.messages} == {
        "B00-root@example.org": None,
        "B01-child@example.org": "B00-root@example.org",
        "B01-grand-child@example.org": "B01-child@example.org",
    }
    assert len(box.threads) == 1


def test_copies_that_lists_rewrote_are_duplicates_in_any_order(oddities: Callable[[str], list[ParsedMail]]) -> None:
    mails = oddities("duplicate/")
    assert len(mails) == 9
    for seed in range(20):
        order = list(mails)
        random.Random(seed).shuffle(order)
        box = Shelf(by_root)
        box.take(order)
        assert (len(box.messages), len(box.duplicates)) == (3, 6)


def test_mails_that_answer_each_other_are_one_thread_without_a_circle(oddities: Callable[[str], list[ParsedMail]]) -> None:
    for order in permutations(oddities("broken/loop/")):
        box = Shelf(by_root)
        box.take(order)
        assert len(box.threads) == 1
        assert [message.parent_key for message in box.messages] == [None, order[0].message_id]
