"""The training set beside a run: exact, what the run trains from, bounded in number, and within reach of erasing."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.chunking.archive import (
    TRAINING_SET,
    archived_texts,
    drop_older,
    erase_from_archives,
    training_set,
    write_training_set,
)
from pipeline.chunking.shards import CHUNKS, TEXT, read_texts, verify_shard
from pipeline.config.settings import EvalSettings, ModelSettings, ReplaySettings
from pipeline.errors import ShardError, UsageError
from pipeline.home import Home, sha256_file
from pipeline.runs.plan import prepare_run
from pipeline.runs.requests import RunRequest
from retrain.run import execute
from streams.runs.reproduction import compare, made_again
from tests.support.lineage import Lineage, make_chunk, run_settings
from tests.support.mailroom import TINY, Mailroom, tiny_settings


def unheard(step: object) -> None:
    """Hears nothing."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, RunRequest]:
    model = ModelSettings(builtin=TINY.model_copy(update={"base_tokens": 2048}))
    room = Mailroom(
        tmp_path_factory.mktemp("home"), tiny_settings(model=model, evaluate=EvalSettings(max_replies=0, generate=0))
    )
    room.close(12)
    request = room.ask()
    execute(room.home, request.run_id, unheard)
    return room.home, request


def test_a_run_is_made_again_from_it_when_the_shards_texts_are_damaged(trained: tuple[Home, RunRequest]) -> None:
    home, request = trained
    with made_again(home, request.run_id, unheard, archived=True) as other:
        assert (other.run(request.run_id) / TRAINING_SET).is_symlink()
        assert compare(home, other, request.run_id).identical
    assert training_set(home, request.run_id) is not None, "what was borrowed is still there"


def test_what_is_not_kept_cannot_be_asked_for(tmp_path: Path, trained: tuple[Home, RunRequest]) -> None:
    home, request = trained
    folder = home.run(request.run_id) / TRAINING_SET
    folder.rename(tmp_path / "away")
    try:
        with pytest.raises(UsageError, match="is not kept"), made_again(home, request.run_id, unheard, archived=True):
            raise AssertionError("nothing to make it from")
    finally:
        (tmp_path / "away").rename(folder)


def archived_runs(root: Path, count: int) -> tuple[Home, list[str]]:
    """Training sets of so many runs, without training; the newest run first."""
    lineage = Lineage.at(root, run_settings(replay=ReplaySettings(ratio=1.0, max_share=0.5)))
    runs: list[str] = []
    for window in range(count):
        lineage.close([make_chunk(f"t{window}-{place}", window) for place in range(3)])
        request = lineage.request()
        prepared = prepare_run(lineage.home, request, lineage.home.run(request.run_id))
        write_training_set(lineage.home, request, set(prepared.schedule.table["chunk_id"].to_pylist()))
        lineage.finish(request)
        runs.insert(0, request.run_id)
    return lineage.home, runs


def test_it_holds_just_what_the_schedule_names_new_and_rehearsed(tmp_path: Path) -> None:
    home, runs = archived_runs(tmp_path, 2)
    folder = training_set(home, runs[0])
    assert folder is not None
    scheduled = pq.read_table(home.run(runs[0]) / "schedule.parquet")
    ids = set(scheduled["chunk_id"].to_pylist())
    assert set(scheduled["role"].to_pylist()) == {"new", "rehearsal"}
    texts = {chunk_id: make_chunk(chunk_id.partition(":")[0], int(chunk_id[1])).text for chunk_id in ids}
    assert archived_texts(folder, ids) == texts
    assert verify_shard(folder, sha256_file(folder / CHUNKS)).n_chunks == len(ids)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    home, runs = archived_runs(tmp_path, 4)
    assert drop_older(home, runs, 2) == runs[2:]
    assert [training_set(home, run_id) is not None for run_id in runs] == [True, True, False, False]
    assert drop_older(home, runs, 2) == []
    assert drop_older(home, runs, 0) == runs[:2]


def test_erasing_reaches_every_set_that_holds_the_chunk(tmp_path: Path) -> None:
    home, runs = archived_runs(tmp_path, 3)
    gone = "t0-1:w0:0"
    holding = [run_id for run_id in runs if gone in read_everything(home, run_id)]
    assert len(holding) > 1, "it was rehearsed"
    rewritten = erase_from_archives(home, [gone])
    assert {folder.parent.name for folder in rewritten} == set(holding)
    assert all(gone not in read_everything(home, run_id) for run_id in runs)
    text = make_chunk("t0-1", 0).text.encode()
    assert all(text not in (folder / TEXT).read_bytes() for folder in rewritten)
    assert erase_from_archives(home, [gone]) == []


def read_everything(home: Home, run_id: str) -> set[str]:
    folder = training_set(home, run_id)
    assert folder is not None
    held = pq.read_table(folder / CHUNKS)["chunk_id"].to_pylist()
    return set(read_texts(folder, sha256_file(folder / CHUNKS), held, excluded=held))


def test_a_forged_set_is_refused(tmp_path: Path) -> None:
    home, (run_id,) = archived_runs(tmp_path, 1)
    folder = training_set(home, run_id)
    assert folder is not None
    rows = pq.read_table(folder / TEXT)
    forged = ["something else", *rows["text"].to_pylist()[1:]]
    pq.write_table(rows.set_column(1, "text", [forged]), folder / TEXT)
    with pytest.raises(ShardError, match="is not the one recorded"):
        archived_texts(folder, rows["chunk_id"].to_pylist())
