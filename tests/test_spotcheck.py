"""A spot check: judged blind, kept as it is said, gone on with after a stop, counted with care, and heard by the gate."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import termios
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pipeline.arrival.people import PeopleKey
from pipeline.config.settings import Settings
from pipeline.errors import NothingToDo, StoreError, UsageError
from pipeline.runs.spotsheet import Check, Line, Sheet, read_sheet, sheet_path, write_sheet, written_before
from pipeline.store.rows import ExclusionRow, MailboxRow, SpotRow
from registry.decided import decided, request_of
from registry.explain import explain
from registry.objections import Says, objections
from registry.spotcheck import Judged, Said, note, preference, preferences, spot_figure, standing
from streams.spotcheck.judging import Pairing, Sitting, pairings
from streams.spotcheck.pairing import Wish, check_of
from streams.spotcheck.terminal import clean
from tests.support.daemons import until
from tests.support.finished import Finished
from tests.support.lineage import MAILBOX
from tests.support.program import ENVIRONMENT, complaint, mailtide, run

NOW = datetime(2026, 3, 1)
HOSTILE = '<script>document.title="caught"</script><img src="http://tracker.example/x.png"> \x1b[2J\u202e'


def line(place: int, one: str, other: str, *, same: bool = False) -> Line:
    written = {one: f"{HOSTILE} says one {place}", other: f"says two {place}"}
    return Line(
        message_key=f"m{place}@mail.example",
        thread_id=f"t{place // 2}",
        subject=f"Subject {place} {HOSTILE}",
        asked_lead="Ann Archer, 2026-01-02 10:00",
        asked=f"Shall we? {HOSTILE}",
        real_lead="Bob Barker, 2026-01-02 10:20",
        real="Gladly.",
        read_sha256=f"digest {place}",
        written=dict.fromkeys(written, "the same") if same else written,
    )


class Checked:
    """A home with a champion and a candidate that challenges it, and a sheet of replies as if they had been written."""

    def __init__(self, root: Path, lines: int = 5, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.runs = Finished.at(root, self.settings)
        self.champion, _, first = self.runs.step()
        if first.status != "promoted":
            self.runs.adopt(self.champion, self.runs.finish(self.champion, new=-0.2))
        self.runs.close_window(val=2)
        self.candidate = self.runs.request()
        decision = self.runs.decide(self.candidate, self.runs.finish(self.candidate, new=-0.2))
        assert decision.status == "abstained", "two threads are too few"
        self.runs.store.append([MailboxRow(MAILBOX, "arrival", NOW)])
        self.check = self.asked(n=lines)
        self.names = (self.candidate.adapter_id, self.champion.adapter_id)
        self.lines = tuple(line(place, *self.names) for place in range(lines))
        self.sheet = Sheet(digest=self.check.digest, tokens=96, lines=self.lines)
        write_sheet(sheet_path(self.runs.home.spot_checks(MAILBOX), self.check.sides), self.sheet)

    def asked(self, adapter: str | None = None, against: str | None = None, n: int = 5) -> Check:
        store, home = self.runs.store, self.runs.home
        return check_of(store, home, self.settings, MAILBOX, Wish(adapter, against, n, None, 96))

    def judge(self, verdicts: str, *, start: int = 0) -> None:
        """A verdict a letter, of one thread each: ``+`` for the candidate, ``-`` for the champion, ``=`` a tie, ``0`` both
        bad; who stands first takes turns."""
        own, other = self.names
        for place, letter in enumerate(verdicts, start):
            shown = (own, other) if place % 2 else (other, own)
            preferred = {"+": own, "-": other}.get(letter)
            said: Said = "both_bad" if letter == "0" else "tie"
            if preferred is not None:
                said = "first" if shown[0] == preferred else "second"
            judged = Judged(MAILBOX, f"m{place}@mail.example", f"t{place}", *shown, said, "ann")
            note(self.runs.store, judged, NOW + timedelta(minutes=place))


@pytest.fixture
def checked(tmp_path: Path) -> Iterator[Checked]:
    made = Checked(tmp_path / "home")
    yield made
    made.runs.store.close()


def test_verdicts_are_counted_whichever_stood_first_and_the_newest_counts(checked: Checked) -> None:
    own, other = checked.names
    store = checked.runs.store
    checked.judge("++-+=0-+")
    found = preference(standing(store, MAILBOX, own, other), MAILBOX, own, other)
    assert (found.judged, found.won, found.lost, found.tied, found.both_bad, found.threads) == (8, 4, 2, 1, 1, 6)
    assert found.win_rate == pytest.approx(4 / 6)
    assert found.low is not None and found.high is not None
    assert 0.2 < found.low < 4 / 6 < found.high < 1.0
    turned = preference(standing(store, MAILBOX, other, own), MAILBOX, other, own)
    assert (turned.won, turned.lost) == (2, 4)
    assert turned.win_rate == pytest.approx(2 / 6)
    checked.judge("-", start=0)
    assert preference(standing(store, MAILBOX, own, other), MAILBOX, own, other).won == 3
    assert len(store.fetch(SpotRow)) == 9
    assert [(one.adapter_id, one.against) for one in preferences(store)] == [(own, other)], "of the newer one is told"
    with pytest.raises(StoreError, match="append-only"):
        store.query("DELETE FROM spot_rows")
    assert store.query("SELECT count(*) FROM spot_checks WHERE preferred = ?", [own]) == [(4,)]


def test_one_thread_that_is_judged_often_counts_as_what_it_is(checked: Checked) -> None:
    own, other = checked.names
    rows = [SpotRow(str(i), MAILBOX, f"m{i}", "t0", own, other, "first", "ann", NOW) for i in range(20)]
    apart = [replace(row, thread_id=f"t{i}") for i, row in enumerate(rows)]
    together, spread = (preference(some, MAILBOX, own, other) for some in (rows, apart))
    assert (together.low, together.high) == (0.0, 1.0)
    assert spread.low is not None and spread.low > 0.7


def test_the_gate_hears_of_enough_and_objects_to_what_is_shown_to_be_worse(checked: Checked) -> None:
    gate = checked.settings.gate

    def rule() -> tuple[Says, str]:
        figure = spot_figure(checked.runs.store, MAILBOX, *checked.names, gate)
        (told,) = [one for one in objections([figure], gate) if one.name == "spot_check"]
        return told.verdict, told.reason

    champion = checked.champion.adapter_id
    assert rule() == (Says.ABSENT, f"spot_check: not asked, as nobody judged its replies beside those of {champion}")
    checked.judge("=0")
    assert rule()[1].endswith("neither reply was preferred in any of 2 judged pairs")
    checked.judge("-" * 15, start=2)
    assert rule()[0] is Says.ABSENT, "17 are not enough"
    checked.judge("-" * 5, start=17)
    assert rule()[0] is Says.OBJECTS
    checked.judge("+" * 20, start=22)
    assert rule()[0] is Says.PASSES, "20 of 40 are not shown to be more than half"


def test_a_candidate_that_people_judged_is_put_to_the_gate_again(tmp_path: Path) -> None:
    """The policy waits for people: where they prefer the champion the gate rejects, where the candidate, it promotes."""
    for verdicts, outcome, status in (("-" * 20, "rejected", 0), ("+" * 20, "promoted", 0), ("+" * 3, "abstained", 3)):
        home = tmp_path / outcome
        gate = Settings().gate.model_copy(update={"require": ("spot_check",), "min_new_threads": 2, "max_loss": 1.0})
        settings = Settings().model_copy(update={"gate": gate})
        runs = Finished.at(home, settings)
        asked, _, decision = runs.step()
        assert decision.status == "abstained"
        assert any("the policy requires it" in reason for reason in decision.reasons)
        base = f"base:{asked.base.base_id}"
        for place, letter in enumerate(verdicts):
            said: Said = "first" if letter == "+" else "second"
            judged = Judged(MAILBOX, f"m{place}", f"t{place}", asked.adapter_id, base, said, "ann")
            note(runs.store, judged, runs.now)
        told = explain(runs.store, runs.home, decided(runs.store, runs.home, request_of(runs.store, asked.run_id)), gate)
        assert [one.name for one in told.since] == ["spot_check"]
        runs.store.append([MailboxRow(MAILBOX, "arrival", runs.now)])
        runs.store.close()
        (home / "config.yaml").write_text(
            "gate:\n  require: [spot_check]\n  min_new_threads: 2\n  max_loss: 1.0\n", encoding="utf-8"
        )
        done = run(home, "registry", "decide", asked.adapter_id, "--json")
        assert (done.returncode, json.loads(done.stdout)["outcome"]) == (status, outcome), done.stderr
        explained = run(home, "registry", "explain", asked.adapter_id)
        assert "Since then: spot_check: " in explained.stdout
        assert ("the gate, asked again: " in explained.stdout) == (status == 0)
        if status == 0:
            assert "is " in complaint(run(home, "registry", "decide", asked.adapter_id)), "it is decided now"


def test_who_is_compared(checked: Checked) -> None:
    own, other = checked.names
    base = f"base:{checked.candidate.base.base_id}"

    def names(adapter: str | None = None, against: str | None = None) -> tuple[str, str]:
        first, second = checked.asked(adapter, against).sides
        return first.name, second.name

    assert names() == (own, other)
    assert names(other) == (other, base), "the champion, beside what it challenged"
    assert names(own, "base") == (own, base)
    assert names(other, own) == (other, own)
    with pytest.raises(UsageError, match="no adapter a0"):
        names("a0")
    with pytest.raises(UsageError, match="itself"):
        names(own, own)
    checked.runs.store.append([ExclusionRow(MAILBOX, "val0-0", None, "a bridge", 0, NOW)])
    assert checked.asked().digest != checked.check.digest, "what is excluded leaves the sheet"


def test_before_the_first_adapter_there_is_nothing_to_judge(tmp_path: Path) -> None:
    runs = Finished.at(tmp_path / "home")
    runs.close_window()
    with pytest.raises(NothingToDo, match="neither a candidate nor a champion"):
        check_of(runs.store, runs.home, Settings(), MAILBOX, Wish(None, None, 5, None, 96))
    runs.store.close()


def test_the_order_is_drawn_under_a_secret_and_stays(checked: Checked) -> None:
    key, own = PeopleKey(b"k" * 32), checked.names[0]
    sheet = checked.sheet.model_copy(update={"lines": tuple(line(place, *checked.names) for place in range(200))})

    def first(check: Check, secret: PeopleKey) -> list[str]:
        return [pair.first_name for pair in pairings(check, sheet, secret)]

    drawn = first(checked.check, key)
    assert drawn == first(checked.check, key)
    assert drawn == first(replace(checked.check, sides=(checked.check.sides[1], checked.check.sides[0])), key)
    assert 70 < drawn.count(own) < 130
    assert drawn != first(checked.check, PeopleKey(b"x" * 32))
    assert drawn != first(replace(checked.check, seed=99), key)
    alike = sheet.model_copy(update={"lines": (line(0, *checked.names, same=True), line(1, *checked.names))})
    assert [pair.line.message_key for pair in pairings(checked.check, alike, key)] == ["m1@mail.example"]


def test_a_sitting_goes_back_skips_and_takes_nothing_twice(checked: Checked) -> None:
    kept: list[tuple[str, Said]] = []
    failing = [False]

    def keep(pair: Pairing, said: Said) -> None:
        if failing[0]:
            raise StoreError("the disk is full")
        kept.append((pair.line.message_key[:2], said))

    pairs = pairings(checked.check, checked.sheet, PeopleKey(b"k" * 32))
    sitting = Sitting(pairs, {"m2@mail.example"}, keep)
    assert (sitting.number, sitting.total) == (2, 5)
    assert sitting.take(2, "1") and not sitting.take(2, "1"), "a second press of a key is of the pair before"
    assert sitting.take(3, "back") and sitting.take(2, "tie") and sitting.take(3, "skip")
    failing[0] = True
    with pytest.raises(StoreError):
        sitting.take(4, "2")
    failing[0] = False
    assert sitting.number == 4
    assert sitting.take(4, "2") and sitting.take(5, "bad") and sitting.current is None
    assert not sitting.take(6, "1")
    assert kept == [("m0", "first"), ("m0", "tie"), ("m3", "second"), ("m4", "both_bad")]


def test_a_sheet_is_private_and_a_damaged_one_is_made_anew(checked: Checked) -> None:
    folder = checked.runs.home.spot_checks(MAILBOX)
    path = sheet_path(folder, checked.check.sides)
    assert (path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    known = written_before(folder, {checked.names[0]}, 96)
    assert len(known) == 5 and {name for name, _ in known} == {checked.names[0]}
    assert not written_before(folder, {checked.names[0]}, 24), "of another length"
    path.write_text("{", encoding="utf-8")
    assert read_sheet(path) is None


def test_what_a_terminal_would_obey_is_left_out() -> None:
    assert clean(f"a\tb\n{HOSTILE}\r\x07") == "a\tb\n" + HOSTILE.replace("\x1b", "").replace("\u202e", "")


@contextmanager
def judging(home: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command with its page, until the end of the block; the address that it printed."""
    command = mailtide(home, "spotcheck", "--n", "5", "--json", *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+/\S+/", said)
            assert found is not None, said
            yield process, found.group()
        finally:
            process.kill()


def call(address: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, str, dict[str, str]]:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(address, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


def test_a_whole_judgement_in_the_browser_gone_on_with_after_a_kill(checked: Checked) -> None:
    home, names = checked.runs.home, checked.names
    checked.runs.store.close()
    seen: list[str] = []
    with judging(home.root) as (process, address):
        token = address.split("/")[3]
        status, page, headers = call(address)
        assert status == 200 and "http" not in page.replace("http-equiv", "") and "Ann Archer" not in page
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
        for strange in (address.replace(token, "x" * len(token)), address.replace(f"{token}/", ""), f"{address}/../state"):
            assert call(strange)[0] in (403, 404)
        wrong = address.replace(token, token[:-1])
        assert call(f"{wrong}verdict", {"number": 1, "choice": "1"})[0] == 403
        assert call(f"{address}state", headers={"Host": "tracker.example:80"})[0] == 403
        bad: list[object] = [
            {},
            [],
            {"number": "1", "choice": "1"},
            {"number": 1, "choice": "3"},
            {"number": True, "choice": "1"},
        ]
        for nonsense in bad:
            assert call(f"{address}verdict", nonsense)[0] == 400
        state = json.loads(call(f"{address}state")[1])
        assert (state["number"], state["total"], state["pair"]["asked"]) == (1, 5, checked.lines[0].asked)
        assert {state["pair"]["first"], state["pair"]["second"]} == set(checked.lines[0].written.values())
        for number, choice in ((1, "1"), (2, "tie"), (2, "2"), (3, "back"), (2, "bad")):
            seen.append(call(f"{address}verdict", {"number": number, "choice": choice})[1])
        assert json.loads(seen[-1])["number"] == 3
        process.kill()
        assert process.wait(60) < 0
    with judging(home.root) as (process, address):
        state = json.loads(call(f"{address}state")[1])
        assert (state["number"], state["pair"]["asked"], state["pair"]["real"]) == (3, checked.lines[2].asked, "Gladly.")
        for number in (3, 4):
            seen.append(call(f"{address}verdict", {"number": number, "choice": "2"})[1])
        assert not any(name in said for said in seen for name in names), "who wrote what is told at the end alone"
        last = json.loads(call(f"{address}verdict", {"number": 5, "choice": "skip"})[1])
        assert last["pair"] is None and names[0] in last["result"][0]
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    told = json.loads(out)
    assert (told["adapter_id"], told["against"], told["judged"], told["both_bad"]) == (*names, 4, 1)
    assert (told["won"] + told["lost"], told["gate"]["verdict"], told["same"]) == (3, "absent", 0)
    shown = run(home.root, "sql", "SELECT verdict, shown_first, preferred FROM spot_checks", "--json")
    rows = json.loads(shown.stdout)
    assert [row["verdict"] for row in rows] == ["first", "tie", "both_bad", "second", "second"]
    first = pairings(checked.check, checked.sheet, PeopleKey.read(home.people_key))[0]
    assert (rows[0]["shown_first"], rows[0]["preferred"]) == (first.first_name, first.first_name)
    listed = json.loads(run(home.root, "spotcheck", "--show", "--json").stdout)
    assert [(one["adapter_id"], one["judged"]) for one in listed] == [(names[0], 4)]


def test_a_port_that_is_taken_is_told_with_the_next_step(checked: Checked) -> None:
    home = checked.runs.home.root
    checked.runs.store.close()
    with judging(home) as (_, address):
        port = address.split(":")[2].split("/")[0]
        refused = run(home, "spotcheck", "--n", "5", "--port", port)
    assert refused.returncode == 2
    assert f"port {port}" in complaint(refused) and "--port" in refused.stderr


def test_in_the_terminal_by_lines_and_by_keys(checked: Checked) -> None:
    home = checked.runs.home.root
    checked.runs.store.close()
    command = mailtide(home, "spotcheck", "--n", "5", "--terminal")
    by_lines = subprocess.run(
        command, input="1\nx\nt\nu\nb\nq\n", capture_output=True, text=True, timeout=120, env=ENVIRONMENT, check=False
    )
    assert by_lines.returncode == 0, by_lines.stderr
    assert "'x' is none of these" in by_lines.stdout and "2 judged: " in by_lines.stdout
    assert "\x1b" not in by_lines.stdout and "<script>" in by_lines.stdout
    shown = by_lines.stdout.partition("2 judged: ")[0]
    assert not any(name in shown for name in checked.names)
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        for key in (b"1", b"2", b"0"):
            said = ""
            while not said.endswith("q stop: "):
                letter = process.stdout.read(1)
                assert letter, said
                said += letter
            until(
                lambda: not termios.tcgetattr(ours)[3] & termios.ICANON
            )  # what comes before it waits for a key is dropped
            os.write(ours, key)
        out = process.stdout.read()
    os.close(theirs)
    os.close(ours)
    assert process.returncode == 0
    assert "5 judged: " in out and "For the gate: spot_check: not asked" in out
