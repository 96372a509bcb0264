"""An mbox as a feed: every mail exactly as it was written, under the same number however often reading is cut short."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.domain import Arrival, DeadLetter, Tick, TickKind
from pipeline.errors import FeedError
from pipeline.home import Home
from streams.feeds.contract import Handed
from streams.feeds.handing import BATCH_MAILS, MAX_MAIL
from streams.feeds.mbox import MboxFeed
from streams.feeds.separators import separator, unescape
from streams.feeds.splitting import split
from tests.support.archives import SEPARATOR, mail, mboxrd

SEPARATOR_DATE = datetime(2015, 5, 22, 13, 38, 22)


def feed(root: Path, path: Path, **options: float) -> MboxFeed:
    return MboxFeed(Home(root / "home"), "main", path, settle=0, **options)  # type: ignore[arg-type]


def arrivals(items: list[Handed]) -> list[Arrival]:
    return [item for item in items if isinstance(item, Arrival)]


def raws(items: list[Handed]) -> list[bytes]:
    return [item.raw for item in arrivals(items)]


def archive(folder: Path, data: bytes, name: str = "archive.mbox") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# Separators


@pytest.mark.parametrize(
    ("line", "date"),
    [
        (b"From a@b Fri May 22 13:38:22 2015", SEPARATOR_DATE),
        (b"From edd at debian.org  Fri May 22 13:38:22 2015", SEPARATOR_DATE),
        (b"From - Fri May 22 13:38:22 2015", SEPARATOR_DATE),
        (b"From MAILER-DAEMON Fri May  2 3:08 2015", datetime(2015, 5, 2, 3, 8)),
        (b"From a@b Fri May 22 13:38:22 2015 +0200", datetime(2015, 5, 22, 11, 38, 22)),
        (b"From a@b Fri May 22 13:38:22 -0130 2015", datetime(2015, 5, 22, 15, 8, 22)),
        (b"From a@b Fri May 22 13:38:22 EDT 2015", datetime(2015, 5, 22, 17, 38, 22)),
        (b"From a@b Fri May 22 13:38:22 2015 QQQ", SEPARATOR_DATE),
        (b"From a@b Fri, 22 May 2015 13:38:22 +0000", SEPARATOR_DATE),
        (b"From a Fri May 22 13:38:22 2015 remote from uucphost", SEPARATOR_DATE),
        (b"From a@b Fri May 22 13:38:22 2015  ", SEPARATOR_DATE),
        (b"From mboxrd@z Thu Jan  1 00:00:00 1970", None),
        (b"From a@b Thu Dec 31 23:59:59 1970", None),
        (b"From a@b Mon Feb 30 00:00:00 2015", None),
        (b"From a@b Fri May 22 25:61:00 2015", None),
    ],
)
def test_a_separator_and_its_date(line: bytes, date: datetime | None) -> None:
    for ending in (b"", b"\n", b"\r\n"):
        data = line + ending
        assert separator(b"\n" + data + b"x" * len(ending), 1) == (1 + len(data), date)


@pytest.mark.parametrize(
    "line",
    [
        b"From here on 2001",
        b"From here on, Friday May 22 was fine",
        b"From a@b",
        b"From the R docs, if there is no 13:38:22 2015",
        b"From: a@b Fri May 22 13:38:22 2015",
        b"from a@b Fri May 22 13:38:22 2015",
        b">From a@b Fri May 22 13:38:22 2015",
        b"From a@b Fri May 22 13:38:22 2015 and so on",
        b"From 0123456789abcdef0123456789abcdef01234567 Mon Sep 17 00:00:00 2001",
    ],
)
def test_no_separator(line: bytes) -> None:
    assert separator(line + b"\n", 0) is None


def test_one_level_of_the_escape_is_taken_off() -> None:
    assert unescape(b">From x\n>>From y\n> From z\na >From b\r\n>>>From w") == (
        b"From x\n>From y\n> From z\na >From b\r\n>>From w"
    )


# Any mails, read back exactly

NASTY = [
    b"From here on 2001",
    b"From a@b Fri May 22 13:38:22 2015",
    b">From a@b Fri May 22 13:38:22 2015",
    b">>From",
    b"> From ",
    b"From ",
    b"Subject: x",
    b"",
    b"\xff\x00\r",
    b"\xe4\xb8\xad",
]


def any_mail(newline: bytes) -> st.SearchStrategy[bytes]:
    line = st.one_of(st.sampled_from(NASTY), st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"")))
    return st.lists(line, max_size=8).map(lambda lines: b"".join(line.rstrip(b"\r") + newline for line in lines))


@settings(max_examples=120, deadline=None)
@given(data=st.data(), newline=st.sampled_from([b"\n", b"\r\n"]), cut=st.booleans())
def test_mails_come_back_as_they_were_and_resume_at_any_point(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, newline: bytes, cut: bool
) -> None:
    mails = data.draw(st.lists(any_mail(newline), max_size=6))
    written = mboxrd(mails, newline)
    if cut and mails and mails[-1].strip():
        mails[-1] = mails[-1].rstrip(b"\r\n")
        written = written.rstrip(b"\r\n")
    root = tmp_path_factory.mktemp("any")
    path = archive(root, written)
    whole = list(feed(root, path).items(0))
    assert raws(whole) == mails
    assert [item.number for item in whole] == list(range(1, len(mails) + 2))
    assert [each.digest for each in arrivals(whole)] == [hashlib.sha256(each).hexdigest() for each in mails]
    for each in arrivals(whole):
        offset, length = map(int, each.cursor.split("+"))
        assert unescape(written[offset : offset + length]) == each.raw
    stop = data.draw(st.integers(0, len(whole)))
    assert list(feed(root, path).items(stop)) == whole[stop:]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_growth_gives_the_numbers_that_one_reading_would_have(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    mails = data.draw(st.lists(any_mail(b"\n"), min_size=1, max_size=6))
    known = data.draw(st.integers(0, len(mails)))
    root = tmp_path_factory.mktemp("growth")
    path = archive(root, mboxrd(mails[:known]))
    first = list(feed(root, path).items(0))
    with path.open("ab") as file:
        file.write(mboxrd(mails[known:]))
    second = list(feed(root, path).items(len(first)))
    assert raws(first + second) == mails
    assert [item.number for item in first + second] == list(range(1, len(first) + len(second) + 1))


@settings(max_examples=150, deadline=None)
@given(
    lines=st.lists(st.one_of(st.sampled_from([SEPARATOR, *NASTY]), st.binary(max_size=9)), max_size=12),
    size=st.integers(1, 40),
    limit=st.integers(1, 60),
)
@example(lines=[b"x" * 100, SEPARATOR], size=1, limit=10)
@example(lines=[b"From ", SEPARATOR, SEPARATOR], size=7, limit=10)
def test_no_byte_is_lost_however_the_blocks_fall(lines: list[bytes], size: int, limit: int) -> None:
    data = SEPARATOR + b"\n" + b"\n".join(lines)
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    pieces = list(split(blocks, 0, limit=limit, kept=limit))
    assert pieces == list(split([data], 0, limit=limit, kept=limit))
    lines_begin = [0, *(at + 1 for at, byte in enumerate(data) if byte == ord("\n"))]
    assert [piece.separator for piece in pieces] == [begin for begin in lines_begin if separator(data, begin)]
    ends = [piece.separator for piece in pieces[1:]] + [len(data)]
    for piece, end in zip(pieces, ends, strict=True):
        assert separator(data, piece.separator) == (piece.offset, piece.date)
        assert data[piece.offset + piece.length : end] in (b"", b"\n", b"\r\n")
        assert piece.head == data[piece.offset : piece.offset + min(piece.length, limit)]


def test_a_line_longer_than_a_block_is_no_burden() -> None:
    data = SEPARATOR + b"\n" + b"x" * 300_000 + b"\n" + SEPARATOR + b"\ny\n"
    blocks = [data[start : start + 50_000] for start in range(0, len(data), 50_000)]
    assert [piece.length for piece in split(blocks, 0, limit=MAX_MAIL, kept=1)] == [300_001, 2]


# What is handed on


def test_an_arrival_carries_everything_and_the_end_is_a_tick(tmp_path: Path) -> None:
    path = archive(tmp_path, mboxrd([mail(1), mail(2)]))
    noon = datetime(2026, 1, 1, 12)
    source = MboxFeed(Home(tmp_path / "home"), "main", path, now=lambda: noon, settle=0)
    first, second, tick = source.items(0)
    assert first == Arrival(
        "main", source.name, 1, f"50+{len(mail(1))}", SEPARATOR_DATE, hashlib.sha256(mail(1)).hexdigest(), mail(1)
    )
    assert isinstance(second, Arrival) and second.number == 2
    assert tick == Tick("main", source.name, 3, TickKind.CAUGHT_UP, noon)
    assert source.position == source.size == path.stat().st_size


def test_nothing_new_is_nothing_not_even_a_tick(tmp_path: Path) -> None:
    path = archive(tmp_path, mboxrd([mail(1)]))
    assert len(list(feed(tmp_path, path).items(0))) == 2
    assert list(feed(tmp_path, path).items(2)) == []
    with path.open("ab") as file:
        file.write(mboxrd([mail(2)]))
    more = list(feed(tmp_path, path).items(2))
    assert [(type(item), item.number) for item in more] == [(Arrival, 3), (Tick, 4)]
    assert raws(more) == [mail(2)]


def test_many_batches_are_one_row_of_numbers(tmp_path: Path) -> None:
    count = 2 * BATCH_MAILS + 3
    path = archive(tmp_path, mboxrd([mail(number) for number in range(count)]))
    items = list(feed(tmp_path, path).items(0))
    assert [item.number for item in items] == list(range(1, count + 2))
    assert raws(items) == [mail(number) for number in range(count)]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\r\n"])
def test_a_file_without_mail_is_read_to_its_end(tmp_path: Path, data: bytes) -> None:
    path = archive(tmp_path, data)
    (tick,) = feed(tmp_path, path).items(0)
    assert isinstance(tick, Tick) and tick.number == 1
    path.write_bytes(data + mboxrd([mail(1)]))
    assert raws(list(feed(tmp_path, path).items(1))) == [mail(1)]


def test_an_mboxo_archive_keeps_its_sentences(tmp_path: Path) -> None:
    body = b"Subject: x\n\nFrom here on 2001 we go.\n>From a quoted start.\n"
    path = archive(tmp_path, SEPARATOR + b"\n" + body + b"\n")
    assert raws(list(feed(tmp_path, path).items(0))) == [body.replace(b">From", b"From")]


def test_the_name_tells_mailbox_file_and_place(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    one = feed(tmp_path, archive(tmp_path, b"", "My Mail (old).mbox"))
    assert one.name.startswith("main.my-mail-old-.mbox-")
    other = feed(tmp_path, archive(tmp_path / "b", b"", "My Mail (old).mbox"))
    assert one.name != other.name
    assert MboxFeed(Home(tmp_path), "main", one.path, "main.inbox").name == "main.inbox"


# When mail arrived


def test_1970_is_no_date_newest_received_then_the_file_as_first_noted(tmp_path: Path) -> None:
    epoch = b"From mboxrd@z Thu Jan  1 00:00:00 1970"
    received = (
        b"Received: from b by c; Sat, 23 May 2015 10:00:00 +0200\n"
        b"Received: from a by b; Sat, 23 May 2015 09:00:00 +0200\nSubject: x\n\ny\n"
    )
    path = archive(tmp_path, mboxrd([received, mail(2)], separator=epoch))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    first, second = arrivals(list(feed(tmp_path, path).items(0)))
    assert first.received_at == datetime(2015, 5, 23, 8)
    assert second.received_at == datetime(2001, 9, 9, 1, 46, 40)
    with path.open("ab") as file:
        file.write(mboxrd([mail(3)], separator=epoch))
    (third,) = arrivals(list(feed(tmp_path, path).items(3)))
    assert third.received_at == second.received_at


# Gzip and its damage


def test_gzip_is_known_by_its_bytes_also_in_members(tmp_path: Path) -> None:
    mails = [mail(number) for number in range(40)]
    data = gzip.compress(mboxrd(mails[:17])) + gzip.compress(mboxrd(mails[17:])) + b"\0" * 512
    path = archive(tmp_path, data, "archive")
    items = list(feed(tmp_path, path).items(0))
    assert raws(items) == mails
    assert list(feed(tmp_path, path).items(12)) == items[12:]


def test_a_gzip_grows_by_a_member(tmp_path: Path) -> None:
    path = archive(tmp_path, gzip.compress(mboxrd([mail(1)])), "a.mbox.gz")
    assert len(list(feed(tmp_path, path).items(0))) == 2
    with path.open("ab") as file:
        file.write(gzip.compress(mboxrd([mail(2)])))
    assert raws(list(feed(tmp_path, path).items(2))) == [mail(2)]


def read_until_damage(source: MboxFeed, after: int = 0) -> tuple[list[Handed], FeedError | None]:
    items: list[Handed] = []
    try:
        for item in source.items(after):
            items.append(item)
    except FeedError as error:
        return items, error
    return items, None


def test_a_truncated_gzip_gives_every_whole_mail_and_goes_on_when_repaired(tmp_path: Path) -> None:
    mails = [mail(number, f"{hashlib.sha512(str(number).encode()).hexdigest()}\n") for number in range(300)]
    whole = gzip.compress(mboxrd(mails))
    path = archive(tmp_path, whole[: len(whole) // 2], "a.mbox.gz")
    items, error = read_until_damage(feed(tmp_path, path))
    assert error is not None and f"is damaged at byte {len(whole) // 2} of the compressed file" in str(error)
    assert all(isinstance(item, Arrival) for item in items)
    assert 100 < len(items) < 300 and raws(items) == mails[: len(items)]
    path.write_bytes(whole)
    rest = list(feed(tmp_path, path).items(len(items)))
    assert raws(rest) == mails[len(items) :]


def test_a_damaged_gzip_loses_no_mail_before_the_damage(tmp_path: Path) -> None:
    mails = [mail(number, f"{hashlib.sha512(str(number).encode()).hexdigest()}\n") for number in range(100)]
    member = gzip.compress(mboxrd(mails))
    broken = archive(tmp_path, member + b"\x1f\x8b\x08\x00garbage!!\xff\xff\xff", "a.mbox.gz")
    items, error = read_until_damage(feed(tmp_path, broken))
    # The last mail is whole only to those who know that nothing follows, so it waits for the repair.
    assert raws(items) == mails[:-1]
    assert error is not None and len(member) <= int(str(error).split("at byte ")[1].split()[0]) < len(member) + 20


def test_wrong_bytes_in_a_gzip_are_noticed(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(mboxrd([mail(number) for number in range(3)])))
    data[-6] ^= 1
    _, error = read_until_damage(feed(tmp_path, archive(tmp_path, bytes(data), "a.mbox.gz")))
    assert error is not None and f"at byte {len(data) - 5} " in str(error) and "incorrect data check" in str(error)


# A last mail that is still being written


def test_a_mail_that_grew_after_it_was_taken_is_handed_on_whole(tmp_path: Path) -> None:
    path = archive(tmp_path, mboxrd([mail(1)]) + SEPARATOR + b"\n" + mail(2, "First line.\n"))
    first = list(feed(tmp_path, path).items(0))
    with path.open("ab") as file:
        file.write(b"Second line.\n\n" + mboxrd([mail(3)]))
    more = list(feed(tmp_path, path).items(len(first)))
    assert raws(more) == [mail(2, "First line.\nSecond line.\n"), mail(3)]
    assert [item.number for item in more] == [4, 5, 6]


@pytest.mark.parametrize("cut", range(1, len(SEPARATOR) + 20))
def test_the_file_may_end_anywhere_between_two_readings(tmp_path: Path, cut: int) -> None:
    whole = mboxrd([mail(1), mail(2)])
    path = archive(tmp_path, whole[: len(mboxrd([mail(1)])) - 2 + cut])
    first = list(feed(tmp_path, path).items(0))
    path.write_bytes(whole)
    both = raws(first) + raws(list(feed(tmp_path, path).items(len(first))))
    assert both[0].startswith(mail(1).rstrip()) and both[-1] == mail(2)


def test_a_file_in_motion_is_waited_for(tmp_path: Path) -> None:
    path = archive(tmp_path, SEPARATOR + b"\n" + mail(1))
    source = MboxFeed(Home(tmp_path / "home"), "main", path, settle=0.3)
    begin = time.time()
    os.utime(path, (begin, begin))
    assert raws(list(source.items(0))) == [mail(1)]
    assert time.time() - begin >= 0.29
    with path.open("ab") as file:
        file.write(b"\n")
    begin = time.monotonic()
    list(MboxFeed(Home(tmp_path / "home"), "main", path, settle=100).items(0))
    assert time.monotonic() - begin < 50


# Files that are not what they were, or never were an mbox


def changed(tmp_path: Path, path: Path, after: int) -> str:
    items, error = read_until_damage(feed(tmp_path, path), after)
    assert items == [] and error is not None
    assert "copy it to a new name and import that" in error.hint
    return error.message


def test_a_file_that_shrank_or_was_replaced_is_refused(tmp_path: Path) -> None:
    mails = [mail(number, "Text. " * 300 + "\n") for number in range(5)]
    path = archive(tmp_path, mboxrd(mails))
    taken = len(list(feed(tmp_path, path).items(0)))
    path.write_bytes(mboxrd(mails[:1]))
    assert "it has shrunk" in changed(tmp_path, path, taken)
    path.write_bytes(mboxrd(mails[:4]))
    assert "mail 5 does not stand at byte" in changed(tmp_path, path, taken)
    path.write_bytes(mboxrd([mail(9, "Text. " * 300 + "\n"), *mails[1:]]))
    assert "it begins with other mail" in changed(tmp_path, path, taken)
    path.write_bytes(mboxrd([*mails[:3], mails[4], mails[3], *mails]))
    assert "mail 5 does not stand at byte" in changed(tmp_path, path, taken)
    path.write_bytes(mboxrd(mails))
    assert list(feed(tmp_path, path).items(taken)) == []


def test_noted_mail_that_is_gone_is_not_handed_on_as_another(tmp_path: Path) -> None:
    mails = [mail(number, "Text. " * 900 + "\n") for number in range(5)]
    path = archive(tmp_path, mboxrd(mails))
    list(feed(tmp_path, path).items(0))
    path.write_bytes(mboxrd([*mails[:2], mail(7, "Other " * 900 + "\n"), *mails[3:]]))
    items, error = read_until_damage(feed(tmp_path, path), 1)
    assert raws(items) == mails[1:2]
    assert error is not None and "mail 3 does not stand at byte" in str(error)


def test_a_small_file_is_known_better_as_it_grows(tmp_path: Path) -> None:
    path = archive(tmp_path, mboxrd([mail(1)]))
    assert len(list(feed(tmp_path, path).items(0))) == 2
    path.write_bytes(mboxrd([mail(1), mail(2, "x" * 5000)]))
    assert len(list(feed(tmp_path, path).items(2))) == 2
    path.write_bytes(mboxrd([mail(1), mail(3, "x" * 5000)]))
    assert "it begins with other mail" in changed(tmp_path, path, 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"Subject: a single mail\n\nText.\n", "is not an mbox: its first line is no 'From ADDRESS DATE'"),
        (b"From here on 2001\n", "is not an mbox"),
        (b"\x00" * 5000, "is not an mbox"),
        (gzip.compress(b"Not mail.", mtime=0), "is not an mbox"),
        (b"BZh91AY", "compressed with bzip2"),
        (b"\xfd7zXZ\0", "compressed with xz"),
        (b"PK\x03\x04", "a zip archive"),
    ],
)
def test_what_is_no_mbox_is_said_so_at_once(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(FeedError, match=message) as caught:
        feed(tmp_path, archive(tmp_path, data))
    assert caught.value.hint
    assert not (tmp_path / "home").exists()


def test_folders_and_missing_files_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="is a folder; name the mbox files in it"):
        feed(tmp_path, tmp_path)
    for name in ("cur", "new", "tmp"):
        (tmp_path / "maildir" / name).mkdir(parents=True)
    with pytest.raises(FeedError, match="is a Maildir, not an mbox; in the settings its kind is maildir"):
        feed(tmp_path, tmp_path / "maildir")
    with pytest.raises(FeedError, match="cannot be read: No such file"):
        feed(tmp_path, tmp_path / "missing")


# Size


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    peaks: list[int] = []
    for index, count in enumerate((1_000, 3_000)):
        path = tmp_path / f"{index}.mbox"
        with path.open("wb") as file:
            for number in range(count):
                file.write(mboxrd([mail(number, "A line of text.\n" * 600)]))
        source = feed(tmp_path, path)
        tracemalloc.start()
        assert sum(1 for _ in source.items(0)) == count + 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 24 << 20


def test_a_mail_of_40_mb_is_one_mail(tmp_path: Path) -> None:
    body = b"Subject: big\n\n" + b"0123456789abcde\n" * (40 << 16)
    path = archive(tmp_path, mboxrd([mail(1), body, mail(2)]))
    assert raws(list(feed(tmp_path, path).items(0))) == [mail(1), body, mail(2)]


def test_a_mail_beyond_the_limit_is_a_dead_letter_with_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "huge.mbox"
    with path.open("wb") as file:
        file.write(mboxrd([mail(1)]) + SEPARATOR + b"\nSubject: huge\n\n")
        file.truncate(64 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"\n\n" + mboxrd([mail(2)]))
    tracemalloc.start()
    items = list(feed(tmp_path, path, max_mail=100_000).items(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [type(item) for item in items] == [Arrival, DeadLetter, Arrival, Tick]
    assert raws(items) == [mail(1), mail(2)]
    dead = items[1]
    assert isinstance(dead, DeadLetter)
    assert dead.raw.startswith(b"Subject: huge\n\n\0\0") and len(dead.raw) == 100_000
    assert dead.stage == "feed" and "is above the limit of 100000; only its beginning is kept" in dead.reason
    assert peak < 8 << 20
    assert list(feed(tmp_path, path, max_mail=100_000).items(1)) == items[1:]


# Kills


def test_kill_9_between_note_and_hand_over(tmp_path: Path) -> None:
    """Dies with mail noted and not taken, each time a little later; what is handed on never changes its number."""
    count = 12
    path = archive(tmp_path, mboxrd([mail(number) for number in range(count)]))
    program = """
import os, signal, sys
from pathlib import Path
from tests.test_mbox import feed
for item in feed(Path(sys.argv[1]), Path(sys.argv[2])).items(int(sys.argv[3])):
    if item.number == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    print(item.number, getattr(item, "digest", "tick"), flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    handed: list[str] = []
    for die_at in (1, 5, count + 1):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path), str(path), str(len(handed)), str(die_at)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        handed += done.stdout.splitlines()
    handed += [f"{item.number} tick" for item in feed(tmp_path, path).items(len(handed))]
    expected = [f"{number + 1} {hashlib.sha256(mail(number)).hexdigest()}" for number in range(count)]
    assert handed == [*expected, f"{count + 1} tick"]


def test_a_lost_journal_reads_again_under_new_numbers(tmp_path: Path) -> None:
    path = archive(tmp_path, mboxrd([mail(1), mail(2)]))
    assert len(list(feed(tmp_path, path).items(0))) == 3
    shutil.rmtree(tmp_path / "home")
    again = list(feed(tmp_path, path).items(3))
    assert [item.number for item in again] == [4, 5, 6]
    assert raws(again) == [mail(1), mail(2)]


# Real archives


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("linux-mips-1996-2001.mbox.gz", 6_000),
        ("linux-mips-2006-2007.mbox.gz", 4_000),
        ("r-package-devel-2015-2026.mbox.gz", 11_114),
    ],
)
def test_real_archives_give_every_mail(tmp_path: Path, real_mail: Path, name: str, count: int) -> None:
    source = feed(tmp_path, real_mail / name)
    digests: list[str] = []
    years: Counter[int] = Counter()
    for item in source.items(0):
        if isinstance(item, Arrival):
            digests.append(item.digest)
            years[item.received_at.year] += 1
    assert len(digests) == count
    assert [noted.digest for noted in arrivals(list(feed(tmp_path, real_mail / name).items(count - 100)))] == digests[-100:]
    first, last = (int(part[:4]) for part in name.removesuffix(".mbox.gz").split("-")[-2:])
    assert sum(years[year] for year in range(first, last + 1)) > 0.99 * count
