"""The short chaos: both installations are struck at random, and what comes out is what comes out in peace."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from random import Random

import pytest

from pipeline.home import Home
from pipeline.store import Store
from tests.chaos.ordeal import Kill, Mails
from tests.chaos.plan import Deck, blows
from tests.chaos.post import GrowingFile, generated
from tests.chaos.report import UNHARMED, Outcome, percentile, recoveries, section, with_section
from tests.chaos.systems import settings
from tests.chaos.trial import trial
from tests.chaos.verdict import differences, faults_of_mail, faults_of_runs
from tests.conftest import REPOSITORY
from tests.support.daemons import make_home
from tests.support.program import run

pytestmark = pytest.mark.slow

MAILS = 500
WINDOW = 100


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("bus", "kills"), [("embedded", 12), ("kafka", 16)])
def test_whatever_dies_the_rows_are_those_of_an_undisturbed_run(tmp_path: Path, bus: str, kills: int) -> None:
    outcome = trial(tmp_path / "t", bus=bus, seed=1, kills=kills, mails=MAILS, window=WINDOW, say=_say)
    assert outcome.faults == ()
    assert len(outcome.kills) == kills
    assert outcome.messages > 0.9 * MAILS
    assert outcome.windows >= 4
    assert outcome.runs >= 2


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Mails]:
    """A home that has read a file in peace."""
    root = tmp_path_factory.mktemp("read")
    post = Mails(GrowingFile(root / "growing.mbox"), generated(3, 120))
    post.source.deliver(post.mails)
    home = make_home(root / "home", settings([post.source], 50))
    done = run(home.root, "run", "--until-idle")
    assert done.returncode == 0, done.stderr
    return home, post


def test_a_lost_mail_is_named(read: tuple[Home, Mails]) -> None:
    home, post = read
    assert faults_of_mail(home, [post]) == []
    (absent,) = generated(4, 1)
    (fault,) = faults_of_mail(home, [replace(post, mails=[*post.mails, absent])])
    assert fault == f"mbox: lost (1): {absent.key}"


def test_what_differs_is_named(read: tuple[Home, Mails], tmp_path: Path) -> None:
    home, post = read
    assert differences(home, home) == []
    fewer = make_home(tmp_path / "home", settings([post.source], 50))
    faults = differences(home, fewer)
    assert any(fault.startswith("store.message_rows: rows that the undisturbed run does not have (") for fault in faults)
    assert any(fault.startswith("shards that differ (") for fault in faults)
    faults = differences(fewer, home)
    assert any(fault.startswith("bodies.texts: rows that only the undisturbed run has (") for fault in faults)


def test_closings_without_a_run_are_named(read: tuple[Home, Mails]) -> None:
    home, _ = read
    with Store.open(home, None, None) as store:
        closed = store.scalar("SELECT count(*) FROM closings")
    (fault,) = faults_of_runs(home)
    assert fault.startswith(f"closings without a run ({closed}): window.closed/mbox/0")


def test_kills_are_drawn_from_the_seed_and_spare_nobody() -> None:
    assert blows(Random(1), 50) == blows(Random(1), 50) != blows(Random(2), 50)
    assert sum(blow.parts for blow in blows(Random(1), 50)) == 50
    deck = Deck(Random(1), ("feed", "parser", "broker"))
    assert sorted(str(deck.deal(lambda name: True)) for _ in range(6)) == ["broker"] * 2 + ["feed"] * 2 + ["parser"] * 2
    deck = Deck(Random(1), ("feed", "trainer"))
    assert [deck.deal(lambda name: name == "feed") for _ in range(3)] == ["feed"] * 3
    assert deck.deal(lambda name: True) == "trainer"
    assert deck.deal(lambda name: False) is None


def test_recoveries_are_told_by_part() -> None:
    kills = [Kill("feed", seconds) for seconds in (1.0, 2.0, 3.0)] + [Kill("broker", None)]
    broker, feed = recoveries(kills)
    assert (broker.part, broker.kills, broker.timed, broker.p50) == ("broker", 1, 0, None)
    assert (feed.part, feed.kills, feed.timed, feed.p50) == ("feed", 3, 3, 2.0)
    assert percentile([float(number) for number in range(101)], 99) == 99.0
    assert percentile([4.0], 50) == 4.0


def test_the_page_has_a_place_for_what_was_measured() -> None:
    outcome = Outcome("kafka", 7, 100, 98, 3, 2, (Kill("feed", 1.25), Kill("feed", None)), {}, (), 90.0)
    page = (REPOSITORY / "docs" / "chaos.md").read_text(encoding="utf-8")
    changed = with_section(page, "kafka", section([outcome], "python -m tests.chaos --seed 7", date(2026, 11, 21)))
    assert "`python -m tests.chaos --seed 7` on 2026-11-21:" in changed
    assert f"| 7 | 2 | 100 | 98 | 3 | 2 | 0 | {UNHARMED} | 2 |" in changed
    assert "| feed | 2 | 1 | 1.2 s | 1.2 s |" in changed
    assert changed.count("<!-- measured: ") == 2
    bad = replace(outcome, faults=("mbox: lost (1): x",))
    assert "| mbox: lost (1): x |" in section([bad], "", date(2026, 11, 21))
    with pytest.raises(ValueError, match="no place for carrier pigeons"):
        with_section(page, "carrier pigeons", "")
