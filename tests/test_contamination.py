"""Near copies across splits leave evaluation when a window closes; copies within a split, and short mails, do not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.copies.minhash import agreement, bands_of, candidates, signatures
from pipeline.copies.shingles import RUN, likeness, runs, words_of
from pipeline.runs.runfiles import NEAR_COPY, read_exclusions, write_exclusions
from pipeline.store import Store
from pipeline.store.rows import ExclusionRow, LossRow
from streams.cli.commands import cli
from streams.inspecting.data_report import data_report
from streams.owning.stores import opener
from tests.support.deliveries import Mailbox, changed, fillers, words


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path)


def excluded(store: Store) -> dict[str, str]:
    """Reasons by the split of the chunk that left evaluation."""
    rows = store.fetch(ExclusionRow, "mailbox = ?", ["main"])
    splits = dict(store.query("SELECT chunk_id, split FROM chunk_rows"))
    return {splits[row.chunk_id]: row.reason for row in rows if row.chunk_id is not None}


def test_a_copy_in_the_same_window_leaves_evaluation(mailbox: Mailbox) -> None:
    text = words(1)
    with opener(mailbox.home, mailbox.settings)() as store:
        mails = [("val", " ".join(text)), ("train", " ".join(changed(text, 3, 2))), *fillers(4, 0)]
        mailbox.deliver(mails, store)
        (split, reason), *others = excluded(store).items()
    assert (split, others) == ("val", [])
    assert reason.startswith(NEAR_COPY) and "(train)" in reason


@pytest.mark.parametrize(
    ("first", "second", "left"), [("val", "train", "val"), ("train", "test", "test"), ("test", "val", "test")]
)
def test_a_copy_in_a_later_window_is_found_whichever_came_first(
    mailbox: Mailbox, first: str, second: str, left: str
) -> None:
    text = words(3)
    with opener(mailbox.home, mailbox.settings)() as store:
        mailbox.deliver([(first, " ".join(text)), *fillers(5, 0)], store)
        assert excluded(store) == {}
        mailbox.deliver([*fillers(5, 20), (second, " ".join(changed(text, 4, 5)))], store)
        assert list(excluded(store)) == [left]
        mailbox.deliver([*fillers(5, 40), (second, " ".join(changed(text, 2, 6)))], store)
        assert list(excluded(store)) == [left]  # once, and not again


def test_a_copy_is_found_behind_many_of_the_same_split(mailbox: Mailbox) -> None:
    """As a circular has: the first few copies, all val, say nothing of the one that is trained on."""
    circular, notice = " ".join(words(31)), " ".join(words(33))
    with opener(mailbox.home, mailbox.settings)() as store:
        mailbox.deliver([*[("val", circular)] * 5, *fillers(1, 0)], store)
        assert excluded(store) == {}
        mailbox.deliver([*fillers(5, 20), ("train", circular)], store)
        assert store.query("SELECT count(*) FROM exclusion_rows") == [(5,)]
        mailbox.deliver([*[("test", notice)] * 5, ("train", notice)], store)
        assert store.query("SELECT count(*) FROM exclusion_rows") == [(10,)]


def test_copies_within_a_split_and_short_mails_are_no_leak(mailbox: Mailbox) -> None:
    text, short = " ".join(words(7)), "applied, thanks a lot"
    with opener(mailbox.home, mailbox.settings)() as store:
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
        assert excluded(store) == {}


def test_lost_signatures_are_made_anew(mailbox: Mailbox) -> None:
    text = words(9)
    with opener(mailbox.home, mailbox.settings)() as store:
        mailbox.deliver([("val", " ".join(text)), *fillers(5, 0)], store)
        (kept,) = (mailbox.home.root / "signatures" / "main").iterdir()
        before = kept.read_bytes()
        kept.write_bytes(before[:100])
        mailbox.deliver([*fillers(5, 20), ("train", " ".join(changed(text, 4, 5)))], store)
        assert list(excluded(store)) == ["val"]
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


def test_the_command_lists_them_with_their_effect(mailbox: Mailbox) -> None:
    text = words(15)
    with opener(mailbox.home, mailbox.settings)() as store:
        mails = [
            ("val", " ".join(text)),
            ("val", " ".join(words(16))),
            ("train", " ".join(changed(text, 3, 2))),
            *fillers(3, 0),
        ]
        mailbox.deliver(mails, store)
        chunks = dict(store.query("SELECT thread_id, chunk_id FROM chunk_rows WHERE split = 'val'"))
        copy = store.query("SELECT thread_id FROM exclusion_rows")[0][0]
        store.append(
            [
                LossRow("a1", "step-1", "main", id_, "val", 1.0 if thread == copy else 8.0, 4, 16, 2)
                for thread, id_ in chunks.items()
            ]
        )
    outcome = CliRunner().invoke(cli, ["--home", str(mailbox.home.root), "contamination", "--json"])
    told = json.loads(outcome.output)
    assert told["held_out"] == 2 and [one["split"] for one in told["copies"]] == ["val"]
    (effect,) = told["effects"]
    assert (effect["without"], effect["with_copies"], effect["copies_alone"]) == (2.0, 9 / 8, 0.25)
    shown = CliRunner().invoke(cli, ["--home", str(mailbox.home.root), "contamination"]).output
    assert "1 of 2 held-out chunks (50.0 %)" in shown and "near copy of" in shown


def test_canaries_are_chunks_and_no_mail(tmp_path: Path) -> None:
    planted = Mailbox(tmp_path, "privacy.canaries=2")
    with opener(planted.home, planted.settings)() as store:
        planted.deliver([*fillers(5, 0), ("train", "password: hunter22 and password: tr0mbone9")], store)
        rows = store.query("SELECT chunk_id, split, message_keys, n_messages FROM assignments WHERE tier = 'canary'")
        assert sorted(rows) == [(f"canary:w0:{place}", "train", [], 0) for place in range(2)]
        assert store.query("SELECT count(*) FROM messages") == [(6,)]
        assert data_report(store, "main").ever.chunks == 6
        assert store.query("SELECT kind, n FROM masked") == [("password", 2)]


def test_exclusions_say_which_are_copies(tmp_path: Path) -> None:
    path = tmp_path / "exclusions.parquet"
    write_exclusions(
        path,
        [("t", "t:w0:0", f"{NEAR_COPY}x"), ("t", "t:w0:1", f"{NEAR_COPY}x"), ("t", "t:w0:1", "erased"), ("u", None, "q")],
    )
    found = read_exclusions(path)
    assert found.copies == {"t:w0:0"}
    assert found.chunks == {"t:w0:0", "t:w0:1"} and found.threads == {"u"}
