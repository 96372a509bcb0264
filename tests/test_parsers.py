"""Parsing beside the main process: the same answers in the same order, whatever a mail or the system does to a parser."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.arrival.people import PeopleKey
from pipeline.config.bus_settings import ParseSettings
from pipeline.config.settings import MailboxSettings
from pipeline.domain import Arrival, DeadLetter, Parsed, Tick, TickKind
from pipeline.errors import FeedError, MailtideError
from pipeline.home import Home
from streams.demo.mailbox import write_mailbox
from streams.feeds.contract import Handed
from streams.parsers.frames import Orders, Refused
from streams.parsers.identified import Identified, Identify
from streams.parsers.link import ParserGone, ParserLink
from streams.parsers.pool import AHEAD_BYTES, AHEAD_MAILS, ParserPool, parsed
from tests.bench.corpora import everything
from tests.bench.parsing import mutate
from tests.conftest import REPOSITORY
from tests.support.archives import mail
from tests.support.dump import rows_of, shards_of
from tests.support.program import make, run

AT = datetime(2024, 1, 1)
BIG = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nText.\n--b\nContent-Type: image/png\n\n" + b"0" * (48 << 20)
LONG = b"In-Reply-To: <a@b>\n\n" + b"On Monday, Ann wrote:\n> a\nb\n" * 150_000


def arrival(number: int, raw: bytes) -> Arrival:
    return Arrival("main", "feed", number, str(number), AT, "", raw)


def tick(number: int) -> Tick:
    return Tick("main", "feed", number, TickKind.CAUGHT_UP, AT)


def letter(number: int) -> DeadLetter:
    return DeadLetter("main", "feed", number, str(number), AT, "read", "too large", 1, b"x")


def here(items: Sequence[Handed]) -> list[Parsed | Tick | DeadLetter]:
    return [parsed(item) if isinstance(item, Arrival) else item for item in items]


def gone(pid: int, seconds: float = 60.0) -> bool:
    """Whether a process ends within that time."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watch], [], [], seconds)[0])
    finally:
        os.close(watch)


@pytest.fixture(scope="module")
def two() -> Iterator[ParserPool]:
    with ParserPool(ParseSettings(processes=2)) as pool:
        yield pool


@pytest.mark.parametrize("processes", [0, 1, 3])
def test_answers_are_those_of_parsing_here_in_their_order(processes: int) -> None:
    items: list[Handed] = [arrival(n, mail(n, "Word. " * (n * 37 % 900))) for n in range(1, 401)]
    items[50], items[51], items[399] = letter(51), tick(52), tick(400)
    with ParserPool(ParseSettings(processes=processes)) as pool:
        assert list(pool.answers(items)) == here(items)
        assert pool.submit(arrival(1, mail(1))).result() == parsed(arrival(1, mail(1)))
        assert list(pool.answers([])) == []


Kind = st.sampled_from(["mail", "mail", "mail", "large", "empty", "tick", "letter"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(Kind, max_size=150), kills=st.lists(st.integers(0, 149), max_size=2), which=st.integers(0, 1))
def test_kills_from_outside_lose_and_reorder_nothing(
    two: ParserPool, kinds: list[str], kills: list[int], which: int
) -> None:
    items: list[Handed] = []
    for number, kind in enumerate(kinds, 1):
        if kind == "tick":
            items.append(tick(number))
        elif kind == "letter":
            items.append(letter(number))
        else:
            raw = {"mail": mail(number), "large": mail(number, "Many words. " * 20_000), "empty": b""}[kind]
            items.append(arrival(number, raw))

    def handed() -> Iterator[Handed]:
        for place, item in enumerate(items):
            yield item
            for _ in range(kills.count(place)):
                for pid in two.pids[which:]:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    assert list(two.answers(handed())) == here(items)


def test_mutilated_real_mail_is_parsed_as_here_and_breaks_no_parser(real_mail: Path) -> None:
    rng = random.Random(4)
    mails = everything(real_mail, 200)
    items = [arrival(number, mutate(rng.choice(mails), rng, mails)) for number in range(1, 2_001)]
    with ParserPool(ParseSettings(processes=2)) as pool:
        first = list(pool.answers(items[:1_000]))
        before = set(pool.pids)
        assert before
        assert first + list(pool.answers(items[1_000:])) == here(items)
        assert before <= set(pool.pids)


def test_a_mail_that_needs_too_much_memory_is_set_aside_and_the_others_go_on() -> None:
    raws = [*(mail(n) for n in range(40)), BIG, *(mail(n) for n in range(40, 80))]
    items = [arrival(n, raw) for n, raw in enumerate(raws, 1)]
    with ParserPool(ParseSettings(processes=1, memory_mb=64)) as pool:
        answers = list(pool.answers(items))
    assert answers[:40] + answers[41:] == here(items[:40] + items[41:])
    poison = answers[40]
    assert isinstance(poison, DeadLetter)
    assert (poison.number, poison.stage, poison.raw) == (41, "parse", BIG)
    assert (poison.reason, poison.attempts) == ("parsing needed more than 64 MB of memory", 3)
    with ParserPool(ParseSettings(processes=1, memory_mb=1_024)) as pool:
        assert pool.submit(items[40]).result() == parsed(items[40])


def test_a_mail_that_takes_too_long_is_set_aside_and_the_others_go_on() -> None:
    items = [arrival(1, mail(1)), arrival(2, LONG), arrival(3, mail(3)), arrival(4, mail(4))]
    with ParserPool(ParseSettings(processes=1, seconds=0.25)) as pool:
        answers = list(pool.answers(items))
    assert [answers[0], *answers[2:]] == here([items[0], *items[2:]])
    poison = answers[1]
    assert isinstance(poison, DeadLetter)
    assert (poison.reason, poison.attempts, poison.raw) == ("parsing took longer than 0.25 s", 3, LONG)


def test_a_process_that_hangs_is_replaced_and_its_mails_are_answered() -> None:
    with ParserPool(ParseSettings(processes=1, seconds=0.5)) as pool:
        pool.submit(arrival(1, mail(1))).result()
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)
        items = [arrival(n, mail(n)) for n in range(1, 30)]
        assert list(pool.answers(items)) == here(items)
        assert gone(pid)


def test_closing_ends_a_process_that_hangs_and_cancels_its_mails() -> None:
    with ParserPool(ParseSettings(processes=1)) as pool:
        pool.submit(arrival(1, mail(1))).result()
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)
        futures = [pool.submit(arrival(n, mail(n))) for n in range(1, 30)]
    assert gone(pid)
    assert pool.pids == ()
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(timeout=60)


def test_signals_to_everyone_are_left_to_the_parent() -> None:
    items = [arrival(n, mail(n)) for n in range(1, 200)]
    with ParserPool(ParseSettings(processes=2)) as pool:
        list(pool.answers(items))
        before = set(pool.pids)
        assert before
        for pid in before:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        assert list(pool.answers(items)) == here(items)
        assert before <= set(pool.pids)


def test_mails_larger_than_any_pipe_pass_both_ways() -> None:
    items = [arrival(n, mail(n, "All work and no play. " * 150_000)) for n in range(1, 9)]
    with ParserPool(ParseSettings(processes=2)) as pool:
        assert list(pool.answers(items)) == here(items)


def test_it_reads_ahead_of_its_reader_within_bounds(two: ParserPool) -> None:
    for raw, most in ((mail(1), AHEAD_MAILS), (mail(1, "x" * (4 << 20)), AHEAD_BYTES // (4 << 20) + 1)):
        read: list[int] = []

        def source(raw: bytes = raw, read: list[int] = read) -> Iterator[Handed]:
            for number in range(1, AHEAD_MAILS + 500):
                read.append(number)
                yield arrival(number, raw)

        answers = two.answers(source())
        for taken in range(3):
            assert next(answers).number == taken + 1
            assert len(read) - taken <= most
        answers.close()
        assert two.submit(arrival(1, raw)).result(timeout=60) == parsed(arrival(1, raw))


def test_what_a_failing_feed_gave_before_is_answered_first(two: ParserPool) -> None:
    items = [arrival(n, mail(n)) for n in range(1, 100)]

    def source() -> Iterator[Handed]:
        yield from items
        raise FeedError("the disk is gone")

    answers = two.answers(source())
    assert [next(answers) for _ in items] == here(items)
    with pytest.raises(FeedError, match="the disk is gone"):
        next(answers)


def test_parsers_that_cannot_start_are_an_error_and_no_dead_letter() -> None:
    with ParserPool(ParseSettings(processes=1, memory_mb=1)) as pool:
        first = pool.submit(arrival(1, mail(1)))
        with pytest.raises(MailtideError, match=r"no parser process can be started: .*; raise parse\.memory_mb"):
            first.result()
        with pytest.raises(MailtideError, match="no parser process"):
            list(pool.answers([arrival(2, mail(2))]))


def test_an_exception_is_an_answer_that_names_its_kind_alone() -> None:
    link = ParserLink(Orders(bytes.decode, 1 << 30, 0.02))
    try:
        assert link.receive(60) == []
        link.send([b"secret \xff", b"fine"])
        answers: list[object] = []
        while len(answers) < 2:
            answers += link.receive(60)
        assert answers == [Refused("parsing raised UnicodeDecodeError"), "fine"]
        os.kill(link.pid, signal.SIGKILL)
        with pytest.raises(ParserGone, match="killed by SIGKILL"):
            link.receive(60)
    finally:
        link.close()


PARENT = """
import sys
from pipeline.config.bus_settings import ParseSettings
from streams.parsers.pool import ParserPool
from tests.test_parsers import arrival
pool = ParserPool(ParseSettings(processes=2))
for _ in pool.answers(arrival(n, b"Subject: x") for n in range(1, 500)):
    pass
print(*pool.pids, flush=True)
"""


@pytest.mark.parametrize("ending", ["killed", "forgotten"])
def test_parsers_end_with_their_parent(ending: str) -> None:
    wait = "sys.stdin.read()\n" if ending == "killed" else ""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT + wait], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert pids
    if ending == "killed":
        parent.kill()
    parent.communicate()
    assert all(gone(pid) for pid in pids)
    assert parent.returncode == (-signal.SIGKILL if ending == "killed" else 0)


def test_a_parser_identifies_a_mail_as_its_owner_would() -> None:
    mailbox = MailboxSettings(owner=("Me@example.org",), lists=("list@example.org",))
    identify = Identify.of(PeopleKey.draw(), mailbox)
    raw = b"From: Me@example.org\nTo: list@example.org, b@example.org\nIn-Reply-To: <c@example.org>\n" + mail(1)
    one = arrival(1, raw)
    with ParserPool(ParseSettings(processes=1), identify) as pool:
        found = pool.submit(one).result()
    assert isinstance(found, Identified)
    assert (found.mail, found.view) == (parsed(one).mail, identify.view(parsed(one)))
    assert len(found.view.participants) == 3 and len(found.view.strangers) == 1


def test_an_import_with_parsers_gives_the_same_rows_and_shards(tmp_path: Path) -> None:
    archive = tmp_path / "demo.mbox"
    write_mailbox(archive, seed=5, messages=600)
    homes: list[Home] = []
    for processes in (0, 2):
        home = make(
            tmp_path / f"home{processes}", "window.bootstrap=200", "window.count=40", f"parse.processes={processes}"
        )
        done = run(home, "import", str(archive), "--clock", "header", "--json")
        assert done.returncode == 0, done.stderr
        homes.append(Home(home))
    assert rows_of(homes[0]) == rows_of(homes[1])
    shards = shards_of(homes[0])
    assert len(shards) > 4
    assert shards_of(homes[1]) == shards
