"""`mailtide data report`: every figure is what counting the views by hand gives, per window and ever."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from itertools import pairwise

import pytest

from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import ExclusionRow
from streams.cli.commands import carry_out
from streams.demo.mailbox import write_mailbox
from streams.inspecting.data_report import NAMES, Figures, data_report


def mailtide(home: Home, *arguments: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert carry_out(["--home", str(home.root), *arguments]) == 0
    return said.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("report")
    home = Home(folder / "home")
    write_mailbox(folder / "archive.mbox", seed=3, months=6, messages=400)
    mailtide(home, "init", "--set", "window.count=100", "--set", "window.age=null", "--set", "window.bootstrap=100")
    mailtide(home, "import", str(folder / "archive.mbox"), "--clock", "header")
    return home


def test_figures_are_what_counting_gives(home: Home) -> None:
    with Store.open(home, None, None) as store:
        report = data_report(store, "main")
        mails = store.query("SELECT window_idx, split, sender, thread_id, n_tokens FROM messages ORDER BY arrival_ordinal")
        chunks = store.query("SELECT window_idx, tier, bucket FROM assignments WHERE mailbox = 'main'")
        repeats = store.query("SELECT m.window_idx FROM duplicates d JOIN messages m USING (mailbox, message_key)")
    assert len(report.windows) > 3
    seen: set[str] = set()
    started: set[str] = set()
    for window in report.windows:
        own = [mail for mail in mails if mail[0] == window.window_idx]
        tiers = Counter(tier for index, tier, _ in chunks if index == window.window_idx)
        buckets = Counter(bucket for index, _, bucket in chunks if index == window.window_idx)
        splits = Counter(split for _, split, *_ in own)
        figures = window.figures
        assert (figures.mails, figures.tokens) == (len(own), sum(mail[4] for mail in own))
        assert [figures.train, figures.val, figures.test] == [splits[name] for name in ("train", "val", "test")]
        assert (figures.senders, figures.threads) == (len({mail[2] for mail in own}), len({mail[3] for mail in own}))
        assert figures.new_senders == len({mail[2] for mail in own} - seen)
        assert figures.from_new_senders == sum(mail[2] not in seen for mail in own)
        assert figures.new_threads == len({mail[3] for mail in own} - started)
        assert figures.longest_tokens == max(mail[4] for mail in own) >= figures.p95_tokens >= figures.median_tokens > 0
        assert [figures.person, figures.bulk, figures.auto, figures.quoted] == [
            tiers[name] for name in ("person", "bulk", "auto", "quoted")
        ]
        assert [figures.short, figures.medium, figures.long, figures.verylong] == [
            buckets[name] for name in ("short", "medium", "long", "verylong")
        ]
        assert figures.repeats == sum(index == window.window_idx for (index,) in repeats)
        seen |= {mail[2] for mail in own}
        started |= {mail[3] for mail in own}
    assert report.ever.mails == len(mails) and report.ever.senders == report.ever.new_senders == len(seen)
    assert report.ever.threads == report.ever.new_threads == len(started)
    assert report.ever.repeats == len(repeats) > 0
    assert report.ever.chunks == len(chunks) == sum(window.figures.chunks for window in report.windows)


def test_what_changed_is_the_difference_to_the_window_before(home: Home) -> None:
    found = json.loads(mailtide(home, "data", "report", "--json"))
    windows = found["windows"]
    assert windows[0]["change"] is None
    for before, window in pairwise(windows):
        assert window["change"] == {name: window["figures"][name] - before["figures"][name] for name in NAMES}
    told = mailtide(home, "data", "report", "--last", "2")
    assert "the newest 2 of" in told and "could not be read" not in told


def test_exclusions_count_where_they_began_and_other_mailboxes_do_not(home: Home) -> None:
    with Store.open(home, None, None) as store:
        before = data_report(store, "main")
        at = store.scalar("SELECT max(received_at) FROM message_rows")
        rows = (("main", None), ("main", "c"), ("x", None))
        store.append([ExclusionRow(mailbox, "t1", chunk, "test", 2, at) for mailbox, chunk in rows])
        report = data_report(store, "main")
        more = [
            after.figures.excluded - window.figures.excluded
            for window, after in zip(before.windows, report.windows, strict=True)
        ]
        assert (sum(more), more[2]) == (2, 2)
        assert report.ever.excluded == before.ever.excluded + 2
        assert data_report(store, "nobody").ever == Figures()
        assert data_report(store, "nobody").windows == ()
