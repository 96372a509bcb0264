"""The forgetting study: orders of rehearsal and figures by hand, and a small study from archives to a page."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.settings import ReplaySettings, TrainSettings
from pipeline.domain import Role
from pipeline.errors import UsageError
from pipeline.runs.runfiles import Loss
from pipeline.sampling.manifest import MANIFEST_SCHEMA, Manifest
from pipeline.sampling.replay import build_schedule
from retrain.forgetting.arms import ARMS, Arm, parse_arm
from retrain.forgetting.figures import Senders, ValChunk, draw_threads, figures, matrix, rare_senders
from retrain.forgetting.orders import by_forgetting, by_sender, by_window, equal, in_place, late, silent_first
from streams.cli.commands import carry_out
from streams.demo.mailbox import write_mailbox
from streams.forgetting.report import write_part
from streams.forgetting.windows import shares

Row = tuple[str, Role, int, str, int]
"""Id, role, window, sender and tokens of a chunk."""


def manifest_of(rows: Sequence[Row]) -> Manifest:
    ranks: Counter[Role] = Counter()
    listed = []
    for chunk_id, role, window, sender, tokens in rows:
        ranks[role] += 1
        constant = {"bucket": "short", "tier": "person", "rehearsed": 0, "thread_id": f"thread of {chunk_id}"}
        listed.append(
            {
                **constant,
                "chunk_id": chunk_id,
                "role": role.value,
                "window_idx": window,
                "sender": sender,
                "n_tokens": tokens,
                "rank": ranks[role],
            }
        )
    return Manifest("run", (9,), pa.Table.from_pylist(listed, schema=MANIFEST_SCHEMA))


def rehearsal(manifest: Manifest) -> list[str]:
    table = manifest.of(Role.REHEARSAL)
    assert table["rank"].to_pylist() == list(range(1, table.num_rows + 1))
    return list(table["chunk_id"].to_pylist())


def past(sizes: dict[int, int], tokens: int = 100) -> list[Row]:
    return [(f"{window}.{n}", Role.REHEARSAL, window, "ann", tokens) for window, size in sizes.items() for n in range(size)]


NEW: list[Row] = [(f"new.{n}", Role.NEW, 9, "ann", 100) for n in range(10)]


def test_windows_take_turns_however_large_they_are() -> None:
    found = rehearsal(equal(manifest_of([*NEW, *past({0: 50, 1: 4, 2: 4})])))
    assert Counter(chunk_id[0] for chunk_id in found[:12]) == {"0": 4, "1": 4, "2": 4}
    assert [chunk_id for chunk_id in found if chunk_id[0] == "0"] == [f"0.{n}" for n in range(50)]


def test_weights_count_tokens_not_chunks() -> None:
    long = [(f"1.{n}", Role.REHEARSAL, 1, "ann", 300) for n in range(6)]
    found = rehearsal(by_window(manifest_of([*NEW, *past({0: 18}), *long]), {0: 2.0, 1: 1.0}))
    tokens = Counter({"0": 0, "1": 0})
    for chunk_id in found[:14]:
        tokens[chunk_id[0]] += 300 if chunk_id[0] == "1" else 100
    assert tokens == {"0": 1200, "1": 600}


def test_what_was_forgotten_most_comes_most_and_nothing_is_left_out() -> None:
    manifest = manifest_of([*NEW, *past({0: 40, 1: 40})])
    found = rehearsal(by_forgetting(manifest, {0: 0.3, 1: 0.0}))
    assert Counter(chunk_id[0] for chunk_id in found[:20]) == {"0": 15, "1": 5}
    assert rehearsal(by_forgetting(manifest, {0: 0.0, 1: -0.1})) == rehearsal(equal(manifest))


def test_who_is_silent_comes_first() -> None:
    rows = [(name[0], Role.REHEARSAL, window, name, 9) for window, name in enumerate(("ann", "ben", "cid"))]
    assert rehearsal(silent_first(manifest_of([*NEW, *rows]))) == ["b", "c", "a"]


def test_senders_take_turns_and_nothing_is_remembered() -> None:
    rows = [(f"{sender}{n}", Role.REHEARSAL, 0, sender, 9) for sender in "abc" for n in range(1 if sender == "c" else 20)]
    manifest = manifest_of([*NEW, *rows])
    first, second = (rehearsal(by_sender(manifest, seed)) for seed in (1, 2))
    assert sorted(chunk_id[0] for chunk_id in first[:3]) == ["a", "b", "c"]
    assert sorted(first) == sorted(second) == sorted(row[0] for row in rows)
    assert first != second


def test_in_place_of_new_mail_as_many_tokens_are_trained() -> None:
    kept = in_place(manifest_of([*NEW, *past({0: 5})]), 0.2)
    assert kept.of(Role.NEW).num_rows == 8
    assert kept.of(Role.REHEARSAL).num_rows == 5


def test_late_rehearsal_is_the_same_after_the_middle() -> None:
    manifest = manifest_of([*NEW, *past({0: 8})])
    replay = ReplaySettings(strategy="uniform", ratio=0.5, max_share=0.4)
    schedule = build_schedule(manifest, seed=0, context="", replay=replay, train=TrainSettings(batch_tokens=100))
    moved = late(schedule)
    batches, before = list(moved.batches()), list(schedule.batches())
    assert sorted(batch.chunk_ids for batch in batches) == sorted(batch.chunk_ids for batch in before)
    assert [batch for batch in batches if batch.role is Role.NEW] == [batch for batch in before if batch.role is Role.NEW]
    assert moved.table["batch"].to_pylist() == sorted(moved.table["batch"].to_pylist())
    early = [batch.role for batch in batches[: schedule.n_batches // 3]]
    assert Role.REHEARSAL not in early
    assert Role.REHEARSAL in [batch.role for batch in before[: schedule.n_batches // 3]]


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_arms_are_read_as_they_are_written(arm: Arm) -> None:
    assert parse_arm(arm.name) == arm


@pytest.mark.parametrize("text", ["", "uniform@0%", "uniform@100%", "none@20%", "best@20%", "uniform@x%", "full/in-place"])
def test_what_is_no_arm_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_arm(text)


def test_archives_share_the_windows() -> None:
    assert shares(8, 3) == [2, 3, 3]
    assert shares(8, 1) == [8]


CHUNKS = [ValChunk(f"{window}", f"t{window}", "ann" if window else "ben", window) for window in range(3)]


def losses(window: int, *nats: float) -> list[Loss]:
    return [Loss("a", "", str(at), "val", value * 10, 10, 40, 2) for at, value in enumerate(nats)][: window + 1]


def test_forgetting_is_the_rise_above_the_best_ever() -> None:
    seed = {0: losses(0, 4.0), 1: losses(1, 4.5, 3.0), 2: losses(2, 4.2, 3.6, 5.0)}
    found = figures(
        matrix(CHUNKS, 3, [seed]),
        CHUNKS,
        Senders(frozenset({"ben"}), frozenset({"ben", "ann"})),
        draw_threads(CHUNKS, draws=50),
    )
    assert found.forgetting is not None and found.new is not None and found.rare is not None
    assert found.forgetting.value == pytest.approx(np.mean([0.5, np.mean([0.2, 0.6])]))
    assert found.new.value == pytest.approx(np.mean([3.0, 5.0]))
    assert found.rare.value == pytest.approx(np.mean([4.5, 4.2]))
    assert found.rarer is not None
    assert found.rarer.value == pytest.approx(np.mean([(4.5 + 3.0) / 2, (4.2 + 3.6 + 5.0) / 3]))
    assert found.end.value == pytest.approx(np.mean([4.2, 3.6, 5.0]))


def test_a_difference_between_arms_is_paired() -> None:
    """Threads differ by nats, the arms by a constant: the difference is sure though neither figure is."""
    chunks = [ValChunk(str(n), f"t{n}", "ann", n % 2) for n in range(40)]
    mine = {
        training: [Loss("a", "", str(n), "val", 10 * (n + training), 10, 40, 2) for n in range(40) if n % 2 <= training]
        for training in (0, 1)
    }
    other = {at: [Loss("b", "", one.chunk_id, "val", one.nll + 1, 10, 40, 2) for one in each] for at, each in mine.items()}
    counts = draw_threads(chunks, draws=200)
    senders = Senders(frozenset({"ann"}), frozenset({"ann"}))
    first, second = (figures(matrix(chunks, 2, [seed]), chunks, senders, counts).end for seed in (mine, other))
    low, high = second.minus(first).interval()
    assert (low, high) == pytest.approx((0.1, 0.1))
    assert np.diff(first.interval()) > 1


def test_the_rarest_senders_are_those_that_can_be_rehearsed() -> None:
    chunks = [ValChunk(str(n), f"t{n}", f"s{n}", 0) for n in range(21)]
    train = pa.table({"sender": [f"s{n}" for n in range(1, 21)], "n_tokens": list(range(1, 21))})
    assert rare_senders(chunks, train) == Senders(frozenset({"s1", "s2"}), frozenset(f"s{n}" for n in range(1, 11)))


def test_a_page_keeps_what_stands_around_a_study(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- study a -->\nold\n<!-- /study a -->\n\nEnd.\n")
    write_part(page, "a", "new")
    write_part(page, "b", "other")
    assert page.read_text() == (
        "# Title\n\n<!-- study a -->\nnew\n<!-- /study a -->\n\nEnd.\n\n<!-- study b -->\nother\n<!-- /study b -->\n"
    )


SMALL = ("model.builtin.base_tokens=6000", "model.builtin.width=32", "model.builtin.layers=1", "train.epochs=1")
SIZES = {"windows": 2, "mails": 50, "bootstrap": 120, "train-chunks": 8, "val-chunks": 5, "seeds": 1}
ARMS_HERE = ("none", "uniform@20%", "forgetting@20%", "full")


def study(folder: Path, *more: str, arms: Sequence[str] = ARMS_HERE, **sizes: int) -> int:
    """The command, in this process: imports of torch and peft cost more than the study."""
    options = [f"--{name}={value}" for name, value in {**SIZES, **sizes}.items()]
    options += [f"--arm={name}" for name in arms]
    options += [part for setting in SMALL for part in ("--set", setting)]
    archives = [str(folder / "one.mbox"), str(folder / "two.mbox")]
    keep = ["--keep", str(folder / "study")]
    return carry_out(["--home", str(folder / "home"), "study", "forgetting", *archives, *keep, *options, *more])


def rows_of(printed: str) -> dict[str, Any]:
    document = json.loads(printed)
    assert document["windows"] == ["one", "one", "two"]
    return {row["arm"]: row for row in document["arms"]}


def without_times(rows: dict[str, Any]) -> dict[str, Any]:
    return {name: {key: row[key] for key in row if not key.endswith("_s")} for name, row in rows.items()}


def test_a_small_study_from_archives_to_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mailbox(tmp_path / "one.mbox", seed=3, months=3, messages=230)
    write_mailbox(tmp_path / "two.mbox", seed=4, months=2, messages=70)
    assert study(tmp_path, mails=1000) == 3
    assert "ends before its windows are full" in capsys.readouterr().err, "and what is asked next takes its place"
    page = tmp_path / "docs" / "page.md"
    assert study(tmp_path, "--json", "--into", str(page), "--name", "shift") == 0
    rows = rows_of(capsys.readouterr().out)
    uniform, none, full = rows["uniform@20%"], rows["none"], rows["full"]
    assert none["rehearsal_tokens"] == 0
    assert uniform["new_tokens"] == none["new_tokens"]
    assert 0.05 < uniform["rehearsal_tokens"] / uniform["new_tokens"] < 0.4
    assert full["new_tokens"] > 2 * none["new_tokens"]
    assert full["forgetting"] is None
    assert uniform["forgetting"]["low"] <= uniform["forgetting"]["value"] <= uniform["forgetting"]["high"]
    for kind in ("matrix", "curve"):
        picture = page.parent / f"forgetting-shift-{kind}.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert f"(forgetting-shift-{kind}.png)" in page.read_text()

    trainings = tmp_path / "study" / "trainings"
    for arm, window in (("none", 1), ("forgetting-20", 2)):
        shutil.rmtree(trainings / arm / "seed=0" / f"window={window:03d}")
    kept = trainings / "uniform-20" / "seed=0" / "window=002" / "cost.json"
    before = kept.stat().st_mtime_ns
    assert study(tmp_path, "--json") == 0
    assert without_times(rows_of(capsys.readouterr().out)) == without_times(rows)
    assert kept.stat().st_mtime_ns == before

    assert study(tmp_path, arms=("none",)) == 0
    assert "as no such arm was asked for: add --arm uniform@20%." in " ".join(capsys.readouterr().out.split())
    assert study(tmp_path, arms=("full",)) == 0
    assert "Drawn" not in capsys.readouterr().out, "one training has no course to draw"

    assert study(tmp_path, "--val-chunks=4") == 2
    assert "other sizes" in capsys.readouterr().err
    with (tmp_path / "two.mbox").open("ab") as archive:
        archive.write(b"From a@b.example Mon Mar  2 10:00:00 2026\nSubject: more\n\nmore\n")
    assert study(tmp_path) == 2
    assert "other mail" in capsys.readouterr().err
