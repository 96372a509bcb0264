"""What travels on the mail topics, without a broker: round trips, refusals, order, offsets, and who owns a partition."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.bus_settings import ParseSettings
from pipeline.domain import Address, Arrival, Attachment, DeadLetter, Item, Parsed, ParsedMail, Tick, TickKind
from pipeline.errors import BusError
from pipeline.home import Home
from pipeline.parsing.mail import parse_mail
from streams.bus.envelope import Record, RecordRefused
from streams.mailpath.answers import Answering
from streams.mailpath.claim_checks import ClaimChecks, ClaimMissing
from streams.mailpath.in_flight import FIRST_PATIENCE, LONGEST_PATIENCE, InFlight
from streams.mailpath.messages import answer_of, answer_record, handed_of, handed_record, unreadable
from streams.mailpath.notices import (
    AnnouncedFeed,
    Announcement,
    Progress,
    announcement_of,
    announcement_record,
    progress_of,
    progress_record,
)
from streams.mailpath.outlet import partition_of
from streams.mailpath.ownership import CLAIM, START, Claim, Standing, alone, store_name
from streams.mailpath.records import Kind
from streams.mailpath.sorting import Sorting
from streams.parsers.pool import ParserPool

AT = datetime(2026, 1, 2, 3, 4, 5, 678900)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))
NUMBERS = st.integers(1, 2**53)
ADDRESSES = st.builds(Address, TEXT, TEXT)
MAILS = st.builds(
    ParsedMail,
    message_id=st.none() | TEXT,
    sender=st.none() | ADDRESSES,
    to=st.lists(ADDRESSES, max_size=3).map(tuple),
    cc=st.lists(ADDRESSES, max_size=3).map(tuple),
    subject=TEXT,
    subject_norm=TEXT,
    reply_shaped=st.booleans(),
    date=st.none() | TIMES,
    references=st.lists(TEXT, max_size=3).map(tuple),
    in_reply_to=st.lists(TEXT, max_size=3).map(tuple),
    list_id=st.none() | TEXT,
    bulk=st.booleans(),
    auto=st.booleans(),
    text=TEXT,
    own_text=TEXT,
    attachments=st.lists(st.builds(Attachment, TEXT, TEXT, st.integers(0, 2**40)), max_size=2).map(tuple),
    defects=st.lists(TEXT, max_size=2).map(tuple),
)
ARRIVALS = st.builds(Arrival, TEXT, TEXT, NUMBERS, TEXT, TIMES, TEXT, st.binary(max_size=100))
TICKS = st.builds(Tick, TEXT, TEXT, NUMBERS, st.sampled_from(TickKind), TIMES)
DEAD = st.builds(DeadLetter, TEXT, TEXT, NUMBERS, TEXT, TIMES, TEXT, TEXT, st.integers(0, 100), st.binary(max_size=100))
PARSED = st.builds(Parsed, TEXT, TEXT, NUMBERS, TEXT, TIMES, MAILS)

RAW = b"Message-ID: <1@example.org>\nFrom: a@example.org\nSubject: One\n\nText.\n"
ARRIVAL = Arrival("main", "main.box", 7, "at 12", AT, hashlib.sha256(RAW).hexdigest(), RAW)


@given(ARRIVALS | TICKS | DEAD)
def test_what_a_feed_hands_on_comes_back(item: Arrival | Tick | DeadLetter) -> None:
    assert handed_of(handed_record(item)) == item


@given(PARSED | TICKS | DEAD)
def test_what_a_parser_answers_comes_back_under_the_key_of_its_mailbox(item: Item) -> None:
    record = answer_record(item)
    assert record.key == item.mailbox.encode()
    assert answer_of(record) == item


@given(st.binary(max_size=300), st.lists(st.tuples(st.text(max_size=12), st.binary(max_size=20)), max_size=6))
def test_what_is_not_ours_is_refused_and_nothing_else_happens(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    record = Record(b"", value, tuple(headers))
    for read in (handed_of, answer_of, announcement_of):
        with pytest.raises(RecordRefused):
            read(record)
    assert progress_of(record) is None


@given(st.sampled_from(["ce_number", "ce_time", "ce_mailbox", "ce_feed", "ce_cursor", "ce_type"]), st.binary(max_size=30))
def test_a_damaged_header_is_refused_or_read_and_never_fails_otherwise(name: str, value: bytes) -> None:
    record = handed_record(ARRIVAL)
    others = tuple(header for header in record.headers if header[0] != name)
    for headers in (others, (*others, (name, value))):
        with suppress(RecordRefused):
            assert isinstance(handed_of(replace(record, headers=headers)), Arrival | Tick | DeadLetter)


def test_a_mail_is_a_cloudevent_whose_data_are_the_mail() -> None:
    record = handed_record(ARRIVAL)
    assert (record.key, record.value) == (ARRIVAL.digest.encode(), RAW)
    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"message.received/main.box/7",
        "ce_source": b"mailtide",
        "ce_type": b"mail.message.received.v1",
        "ce_time": b"2026-01-02T03:04:05.678900Z",
        "content-type": b"message/rfc822",
        "ce_mailbox": b"main",
        "ce_feed": b"main.box",
        "ce_number": b"7",
        "ce_cursor": b"at 12",
        "ce_digest": ARRIVAL.digest.encode(),
    }


def with_header(record: Record, name: str, value: bytes) -> Record:
    return replace(record, headers=(*(header for header in record.headers if header[0] != name), (name, value)))


def test_a_newer_version_is_refused_with_what_to_do() -> None:
    record = with_header(handed_record(ARRIVAL), "ce_type", b"mail.message.received.v2")
    with pytest.raises(RecordRefused, match=r"newer version, mail\.message\.received\.v2, .*update mailtide"):
        handed_of(record)


def test_the_answer_of_a_parser_of_another_version_is_refused() -> None:
    answer = answer_record(Parsed("main", "main.box", 7, "", AT, parse_mail(RAW)))
    with pytest.raises(RecordRefused, match="parsed by version 999"):
        answer_of(with_header(answer, "ce_parseversion", b"999"))


def test_a_refusal_does_not_tell_what_a_field_held() -> None:
    answer = answer_record(Parsed("main", "main.box", 7, "", AT, parse_mail(RAW)))
    broken = replace(answer, value=answer.value.replace(b'"subject":"One"', b'"subject":["a secret"]'))
    assert broken.value != answer.value
    with pytest.raises(RecordRefused, match="subject") as refused:
        answer_of(broken)
    assert "secret" not in str(refused.value)


@given(TEXT, st.integers(0, 2**53))
def test_notices_come_back(feed: str, number: int) -> None:
    progress = Progress(mailbox="main", feed=feed, last_number=number)
    assert progress_of(progress_record(progress, AT)) == progress
    announcement = Announcement(mailbox="main", feeds=(AnnouncedFeed(name=feed, kind="mbox", source="/tmp/box"),))
    assert announcement_of(announcement_record(announcement, AT)) == announcement


def test_a_mailbox_that_would_be_a_path_elsewhere_is_no_mailbox() -> None:
    record = announcement_record(Announcement(mailbox="main", feeds=()), AT)
    with pytest.raises(RecordRefused, match="mailbox"):
        announcement_of(replace(record, value=record.value.replace(b'"main"', b'"../main"')))


# Large mail


def test_a_large_value_travels_as_a_file(tmp_path: Path) -> None:
    claims = ClaimChecks(Home(tmp_path), limit=len(RAW) - 1)
    record = claims.checked_in(handed_record(ARRIVAL))
    assert record.value == b""
    assert record.header("ce_dataref") == f"claims/{ARRIVAL.digest}"
    (file,) = (path for path in (tmp_path / "claims").rglob("*") if path.is_file())
    assert (file.name, file.read_bytes()) == (ARRIVAL.digest, RAW)
    assert file.stat().st_mode & 0o777 == 0o600
    assert {folder.stat().st_mode & 0o777 for folder in (file.parent, file.parent.parent)} == {0o700}
    assert handed_of(claims.redeemed(record)) == ARRIVAL


def test_a_value_within_the_limit_stays_where_it_is(tmp_path: Path) -> None:
    claims = ClaimChecks(Home(tmp_path), limit=len(RAW))
    record = handed_record(ARRIVAL)
    assert claims.redeemed(claims.checked_in(record)) == record
    assert not (tmp_path / "claims").exists()


@pytest.mark.parametrize("damage", ["removed", "changed", "elsewhere"])
def test_a_file_that_is_not_what_it_was_is_said_so(tmp_path: Path, damage: str) -> None:
    claims = ClaimChecks(Home(tmp_path), limit=10)
    record = claims.checked_in(handed_record(ARRIVAL))
    (file,) = (path for path in (tmp_path / "claims").rglob("*") if path.is_file())
    if damage == "removed":
        file.unlink()
    elif damage == "changed":
        file.write_bytes(RAW + b"x")
    else:
        record = with_header(record, "ce_dataref", b"claims/../../etc/passwd")
    with pytest.raises(ClaimMissing):
        claims.redeemed(record)
    with ParserPool(ParseSettings()) as pool:
        answer = answer_of(Answering(pool.submit, claims).answer(record).result(0))
    assert isinstance(answer, DeadLetter)
    assert (answer.number, answer.cursor, answer.stage, answer.raw) == (7, "at 12", "claim check", b"")
    assert answer == unreadable(record, "claim check", answer.reason)


def test_old_files_are_swept(tmp_path: Path) -> None:
    claims = ClaimChecks(Home(tmp_path), limit=10)
    claims.checked_in(handed_record(ARRIVAL))
    (tmp_path / "claims" / "00").mkdir()
    (tmp_path / "claims" / "00" / "gone").symlink_to(tmp_path / "nowhere")  # as a file that another sweep takes meanwhile
    assert claims.sweep(1.0) == 0
    assert claims.sweep(-1.0) == 1
    assert claims.sweep(-1.0) == 0


# Order and offsets


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[int, list[tuple[str, int]]]:
    """Numbers of two feeds in any order, some of them twice, and how many items one batch takes."""
    numbers = [(feed, number) for feed in ("a", "b") for number in range(1, draw(st.integers(1, 12)) + 1)]
    again = draw(st.lists(st.sampled_from(numbers), max_size=6))
    return draw(st.integers(1, 5)), draw(st.permutations(numbers + again))


@given(deliveries())
def test_items_are_taken_in_order_and_a_restart_misses_none(given: tuple[int, list[tuple[str, int]]]) -> None:
    every, log = given
    taken: dict[str, list[int]] = {"a": [], "b": []}
    restart = 0
    # After each batch the process dies, and what is left is read from the offset that was stored with the batch.
    while True:
        sorting = Sorting()
        for feed, numbers in taken.items():
            sorting.add_feed("main", feed, len(numbers))
        sorting.start(0, restart)
        found = None
        for offset in range(restart, len(log)):
            feed, number = log[offset]
            sorting.begin(0, offset)
            sorting.add(Tick("main", feed, number, TickKind.AGE, AT), 0, offset, 1)
            if sorting.ready >= every:
                break
        found = sorting.take()
        if found is None:
            break
        mailbox, ready, restart = found
        assert (mailbox, ready.partition, len(ready.items), sorting.ready) == ("main", 0, ready.size, 0)
        for item in ready.items:
            taken[item.feed].append(item.number)
    for feed, numbers in taken.items():
        assert numbers == list(range(1, max(number for name, number in log if name == feed) + 1))


def test_the_offset_of_one_mailbox_does_not_pass_what_another_holds_back() -> None:
    sorting = Sorting()
    sorting.start(0, 10)
    sorting.add_feed("one", "one.f", 0)
    sorting.add_feed("two", "two.f", 0)
    for offset, (mailbox, number) in enumerate([("two", 2), ("one", 1), ("two", 1)], 10):
        sorting.begin(0, offset)
        sorting.add(Tick(mailbox, f"{mailbox}.f", number, TickKind.AGE, AT), 0, offset, 1)
    first, second = sorting.take(), sorting.take()
    assert first is not None and second is not None
    assert [(found[0], found[2]) for found in (first, second)] == [("one", 10), ("two", 13)]


def test_a_feed_hands_on_again_what_nobody_took_ever_less_often() -> None:
    feed = InFlight(most=3)
    assert not feed.known
    feed.take(0, now=0.0)
    assert feed.known
    assert feed.room_for(3) and not feed.room_for(4)
    feed.hand(1, now=10.0)
    moments = [second for second in range(10, 100_000) if feed.overdue(float(second))]
    gaps = [later - sooner for sooner, later in zip([10, *moments], moments, strict=False)]
    assert gaps[:3] == [FIRST_PATIENCE, 2 * FIRST_PATIENCE, 4 * FIRST_PATIENCE]
    assert max(gaps) == LONGEST_PATIENCE
    assert not feed.take(1, now=100_000.0)
    assert not feed.overdue(1e9)
    assert feed.take(0, now=1e9), "an owner that was put back needs the rest again"


# Who owns a partition


def claim(store: str, session: str = "s", partition: int = 0) -> Claim:
    return Claim(partition=partition, store=store, session=session, host="h", home=f"/{store}")


@given(st.permutations(["a", "b", "c"]), st.data())
def test_of_stores_that_claim_at_once_exactly_one_is_let_in(order: list[str], data: st.DataObject) -> None:
    log = [claim(store) for store in order]
    winners = []
    for store in order:
        # Each has read at least up to its own claim.
        end = data.draw(st.integers(order.index(store) + 1, len(log)))
        standing = Standing(store, "s")
        for each in log[:end]:
            standing.read(CLAIM, each)
        try:
            standing.check("topic")
            winners.append(store)
        except BusError as error:
            assert f"/{order[0]}" in str(error)
    assert winners == order[:1]


def test_of_two_copies_of_a_home_the_later_one_stays() -> None:
    old, new = Standing("a", "old"), Standing("a", "new")
    for standing in (old, new):
        standing.read(CLAIM, claim("a", "earlier"))
        standing.read(START, claim("a", "earlier"))
        standing.read(START, claim("a", "old"))
        standing.check("topic")
        standing.read(START, claim("a", "new"))
    new.check("topic")
    with pytest.raises(BusError, match="a copy of this home"):
        old.check("topic")


def test_one_process_of_a_home_assigns(tmp_path: Path) -> None:
    with alone(Home(tmp_path)), pytest.raises(BusError, match="another process assigns"), alone(Home(tmp_path)):
        pass
    with alone(Home(tmp_path)):
        assert store_name(Home(tmp_path)) == store_name(Home(tmp_path))


def test_keys_go_where_kafkas_own_partitioner_puts_them() -> None:
    from aiokafka.partitioner import DefaultPartitioner

    for key in ("main", "", "a" * 64, "ü"):
        assert partition_of(key, 7) == DefaultPartitioner()(key.encode(), list(range(7)), [])


def test_kinds_end_with_their_version() -> None:
    assert all(kind.value.rpartition(".v")[2].isdigit() for kind in Kind)
