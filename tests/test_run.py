"""Whole runs on a tiny model: what they leave, that they continue each other, and that no crash changes a byte."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from safetensors import SafetensorError

from pipeline.config.settings import EvalSettings, ModelSettings
from pipeline.errors import RunError
from pipeline.home import sha256_file, sha256_folder
from pipeline.runs.replyfiles import Given, read_reply_losses, write_reply_losses
from pipeline.runs.requests import AdapterRef, RunRequest, RunResult
from pipeline.runs.runfiles import read_losses
from pipeline.sampling.coverage import read_coverage, windows_trained
from pipeline.sampling.halves import selects
from retrain.benchmarks.byhand import measure
from retrain.benchmarks.items import ITEMS, read_items, write_items
from retrain.benchmarks.tasks import read_tasks
from retrain.models.generate import Writer
from retrain.offline import OFFLINE
from retrain.progress import Progress
from retrain.run import execute
from retrain.training.metrics import read_metrics
from streams.runs.faults import tells_of_full_disk
from tests.conftest import REPOSITORY
from tests.support.disks import small_disk
from tests.support.mailroom import TINY, Mailroom, tiny_settings

SAME = (
    "manifest.parquet",
    "schedule.parquet",
    "losses.parquet",
    "replies.parquet",
    "written.parquet",
    "eval_results.json",
    "best_checkpoint.txt",
    "coverage.parquet",
)


def quiet(progress: Progress) -> None:
    """Hears nothing."""


def bytes_of(room: Mailroom, request: RunRequest) -> dict[str, str]:
    """Digests of everything that a run's outcome consists of, times apart."""
    folder = room.home.run(request.run_id)
    files = {name: sha256_file(folder / name) for name in SAME}
    return {**files, "adapter": sha256_folder(room.home.adapter(request.adapter_id))}


def first_run(root: Path, **train: Any) -> tuple[Mailroom, RunRequest]:
    settings = tiny_settings()
    room = Mailroom(root, settings.model_copy(update={"train": settings.train.model_copy(update=train)}))
    room.close()
    return room, room.ask()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mailroom, RunRequest, RunResult]:
    room, request = first_run(tmp_path_factory.mktemp("home"))
    return room, request, execute(room.home, request.run_id, quiet)


def test_a_run_leaves_all_of_its_evidence(uninterrupted: tuple[Mailroom, RunRequest, RunResult]) -> None:
    room, request, result = uninterrupted
    folder = room.home.run(request.run_id)
    assert json.loads((folder / "result.json").read_text())["adapter_sha256"] == result.adapter_sha256
    assert sha256_folder(room.home.adapter(request.adapter_id)) == result.adapter_sha256
    assert (folder / "best_checkpoint.txt").read_text().strip() == result.checkpoint == f"step-{result.steps:06d}"
    records = read_metrics(folder / "metrics.jsonl")
    assert [record.step for record in records] == list(range(1, result.steps + 1))
    assert records[-1].tokens == result.tokens
    assert windows_trained(read_coverage(folder / "coverage.parquet")) == {0}
    losses = read_losses(folder / "losses.parquet")
    assert {loss.adapter_id for loss in losses} == {request.adapter_id, f"base:{request.base.base_id}"}
    tested = {loss.checkpoint for loss in losses if loss.split == "test" and loss.adapter_id == request.adapter_id}
    assert tested == {result.checkpoint}
    assert str(room.home.root) not in (room.home.adapter(request.adapter_id) / "adapter_config.json").read_text()
    measured = json.loads((folder / "eval_results.json").read_text())["checkpoints"]
    assert {"bm25", request.adapter_id, f"base:{request.base.base_id}"} == {entry["adapter_id"] for entry in measured}


def test_it_says_where_the_time_of_training_went(uninterrupted: tuple[Mailroom, RunRequest, RunResult]) -> None:
    result = uninterrupted[2]
    assert set(result.training) == {"data", "forward", "backward", "optimizer", "measuring", "checkpoints"}
    assert all(seconds > 0 for seconds in result.training.values())
    assert sum(result.training.values()) <= result.seconds["train"] + 0.01


def test_its_figures_keep_the_schema_and_cover_every_checkpoint(
    uninterrupted: tuple[Mailroom, RunRequest, RunResult],
) -> None:
    room, request, result = uninterrupted
    folder = room.home.run(request.run_id)
    results = json.loads((folder / "eval_results.json").read_text())
    schema = json.loads((REPOSITORY / "docs" / "eval_results.schema.json").read_text())
    jsonschema.Draft202012Validator({**schema, "additionalProperties": True}).validate(results)
    (chosen,) = [row for row in results["summary"] if row["chosen"]]
    assert chosen["checkpoint"] == result.checkpoint == results["selection"]["chosen"]
    assert {row["checkpoint"] for row in results["summary"] if row["role"] == "run"} == {
        path.name for path in (folder / "checkpoints").iterdir()
    }
    asked = read_reply_losses(folder / "replies.parquet")
    assert {(loss.split, loss.given) for loss in asked} == {(split, what) for split in ("val", "test") for what in Given}
    counts = {split: len({loss.message_key for loss in asked if loss.split == split}) for split in ("val", "test")}
    assert max(counts.values()) == request.settings.eval.max_replies
    assert all(row["rag_gain_at_k"]["n"] == counts["val"] for row in results["summary"])


def test_the_adapter_has_learned_its_window(uninterrupted: tuple[Mailroom, RunRequest, RunResult]) -> None:
    room, request, result = uninterrupted
    losses = read_losses(room.home.run(request.run_id) / "losses.parquet")

    def mean(adapter_id: str, checkpoint: str) -> float:
        own = [x for x in losses if (x.adapter_id, x.checkpoint, x.split) == (adapter_id, checkpoint, "val")]
        return sum(x.nll for x in own) / sum(x.n_tokens for x in own)

    assert mean(request.adapter_id, result.checkpoint) < mean(f"base:{request.base.base_id}", "") - 0.01


def test_a_finished_run_is_not_run_again(uninterrupted: tuple[Mailroom, RunRequest, RunResult]) -> None:
    room, request, result = uninterrupted

    def unexpected(progress: Progress) -> None:
        raise AssertionError(progress)

    assert execute(room.home, request.run_id, unexpected) == result


ROOM = 60_000
"""Bytes more, each time, that a disk has left to keep checkpoints on."""


class Crash(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(lambda p: p.step == "base", id="base"),
        pytest.param(lambda p: p.step == "train" and p.done == 1, id="first-step"),
        pytest.param(lambda p: p.step == "train" and p.done == 7, id="between-checkpoints"),
        pytest.param(lambda p: p.step == "evaluate" and p.text.startswith("base:"), id="measuring"),
        pytest.param(lambda p: p.step == "retrieval", id="retrieval"),
        pytest.param(lambda p: p.step == "finish", id="finish"),
    ],
)
def test_a_crash_anywhere_changes_no_byte(
    uninterrupted: tuple[Mailroom, RunRequest, RunResult], moment: Callable[[Progress], bool], tmp_path: Path
) -> None:
    room, request = first_run(tmp_path)

    def fall(progress: Progress) -> None:
        if moment(progress):
            raise Crash

    with pytest.raises(Crash):
        execute(room.home, request.run_id, fall)
    execute(room.home, request.run_id, quiet)
    reference, original, _ = uninterrupted
    assert request == original
    assert bytes_of(room, request) == bytes_of(reference, original)


def test_a_disk_that_fills_while_a_checkpoint_is_saved_is_told_and_changes_no_byte(
    uninterrupted: tuple[Mailroom, RunRequest, RunResult], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", megabytes=64) as disk:
        room, request = first_run(disk / "home")
        ballast = disk / "ballast"
        told: list[Exception] = []

        def fill(progress: Progress) -> None:
            if progress.step == "train" and progress.done == 1:
                ballast.write_bytes(bytes(shutil.disk_usage(disk).free - (len(told) + 1) * ROOM))

        # Room for nothing, for the weights, then for more: the disk fills in one file after another.
        while True:
            try:
                execute(room.home, request.run_id, fill)
            except (OSError, SafetensorError) as error:
                told.append(error)
                ballast.unlink()
            else:
                break
        assert all(tells_of_full_disk(str(error)) for error in told)
        assert {type(error) for error in told} == {SafetensorError, OSError}, "the weights, and what torch writes"
        reference, _, _ = uninterrupted
        assert bytes_of(room, request) == bytes_of(reference, request)


def test_a_checkpoint_that_was_changed_on_the_disk_is_made_again(
    uninterrupted: tuple[Mailroom, RunRequest, RunResult], tmp_path: Path
) -> None:
    room, request = first_run(tmp_path, token_cache_gib=0.0)  # all others go on from tokens that were kept

    def fall(progress: Progress) -> None:
        if progress.step == "evaluate" and progress.text.startswith("base:"):
            raise Crash

    with pytest.raises(Crash):
        execute(room.home, request.run_id, fall)
    weights = room.home.run(request.run_id) / "checkpoints" / "step-000008" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    told: list[Progress] = []
    execute(room.home, request.run_id, told.append)
    assert "step-000008 or one before it was changed on the disk" in "\n".join(progress.text for progress in told)
    assert min(progress.done for progress in told if progress.step == "train" and progress.total) == 5
    reference, original, _ = uninterrupted
    assert reference.home.tokenised.exists() and not room.home.tokenised.exists()
    assert bytes_of(room, request) == bytes_of(reference, original)


def test_a_killed_process_changes_no_byte(uninterrupted: tuple[Mailroom, RunRequest, RunResult], tmp_path: Path) -> None:
    room, request = first_run(tmp_path)
    worker = subprocess.Popen(
        [sys.executable, "-m", "retrain.worker", "--home", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, **OFFLINE},
    )
    with worker:
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write(json.dumps({"run_id": request.run_id}) + "\n")
        worker.stdin.flush()
        for line in worker.stdout:
            said = json.loads(line)
            if said.get("step") == "train" and said["done"] == 6:
                worker.kill()
                break
    assert worker.returncode == -9
    assert not (room.home.run(request.run_id) / "result.json").exists()
    execute(room.home, request.run_id, quiet)
    reference, original, _ = uninterrupted
    assert bytes_of(room, request) == bytes_of(reference, original)


def test_a_run_continues_its_parent_and_measures_only_what_is_unknown(tmp_path: Path) -> None:
    asks = EvalSettings(max_replies=3, generate=1, generate_tokens=4, benchmarks=("plain_text", "mail_facts"))
    room = Mailroom(tmp_path, tiny_settings(evaluate=asks))
    room.close()
    request = room.ask()
    first = execute(room.home, request.run_id, quiet)
    scored = read_items(room.home.run(request.run_id) / ITEMS)
    write_items(room.home.run(request.run_id) / ITEMS, [replace(item, value=0.0) for item in scored])
    replies = room.home.run(request.run_id) / "replies.parquet"
    planted = [replace(loss, nll=1e6) for loss in read_reply_losses(replies)]
    write_reply_losses(replies, planted)
    room.promote(request, first)
    room.close()
    later = room.ask()
    second = execute(room.home, later.run_id, quiet)
    assert later.parent is not None and later.parent.adapter_id == first.adapter_id
    assert (second.new_chunks, second.rehearsal_chunks) == (18, second.rehearsal_chunks)
    assert second.rehearsal_chunks > 0
    losses = read_losses(room.home.run(later.run_id) / "losses.parquet")
    of_parent = [loss for loss in losses if loss.adapter_id == first.adapter_id]
    assert of_parent and all(":w1:" in loss.chunk_id for loss in of_parent)  # window 0 was measured by the run before
    of_base = [loss for loss in losses if loss.adapter_id.startswith("base:")]
    assert of_base and all(":w1:" in loss.chunk_id for loss in of_base)
    known = {(loss.adapter_id, loss.read_sha256) for loss in planted}
    asked = read_reply_losses(room.home.run(later.run_id) / "replies.parquet")
    again = [loss for loss in asked if (loss.adapter_id, loss.read_sha256) in known]
    assert again and all(loss.nll == 1e6 for loss in again), "what the run before measured is taken from it"
    assert all(loss.nll < 1e6 for loss in asked if loss.adapter_id == later.adapter_id)
    results = json.loads((room.home.run(later.run_id) / "eval_results.json").read_text())
    measured = results["checkpoints"]
    schema = json.loads((REPOSITORY / "docs" / "eval_results.schema.json").read_text())
    jsonschema.Draft202012Validator({**schema, "additionalProperties": True}).validate(results)
    text, facts = results["benchmarks"]["tasks"]
    assert (text["score_against"], facts["score_against"]) == (0.0, 0.0), "scores of the champion come from its own run"
    assert text["score"] > 0 and text["n"] == 40 and facts["n"] == 58
    (harm,) = [figure for figure in results["gate_evidence"] if figure["name"] == "benchmarks"]
    assert harm["figure"] == results["benchmarks"]["points_lost"] and harm["low"] <= harm["figure"] <= harm["high"]
    of_tasks = {e["adapter_id"]: e["n_items"] for e in measured if e["split"] == "benchmarks"}
    assert of_tasks == {first.adapter_id: 98, later.adapter_id: 98}
    (parent,) = [e for e in measured if e["adapter_id"] == first.adapter_id and e["split"] == "val"]
    assert parent["n_chunks"] == 6  # of both windows, from stored and new losses together


def test_benchmarks_need_no_network_and_leave_a_bare_base_bare(
    uninterrupted: tuple[Mailroom, RunRequest, RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, request, result = uninterrupted

    def refuse(*address: object) -> None:
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    own = AdapterRef(
        adapter_id=result.adapter_id,
        run_id=request.run_id,
        path=f"adapters/{result.adapter_id}",
        sha256=result.adapter_sha256,
    )
    tasks = read_tasks(["plain_text", "instructions"], room.home)
    asked: list[tuple[str, str]] = []

    def of(*adapters: AdapterRef | None) -> list[list[float]]:
        found = measure(
            room.home, request.base, adapters, request.settings.model, tasks, 4096, lambda *one: asked.append(one)
        )
        return [[item.value for item in items] for items in found]

    (alone,) = of(None)
    adapted, bare = of(own, None)
    assert (
        len(alone) == 40 + 56
        and bare == pytest.approx(alone, rel=1e-6)
        and adapted[:40] != pytest.approx(bare[:40], rel=1e-3)
    )
    assert asked[0] == ("plain_text", f"base:{request.base.base_id}") and len(asked) == 6


def test_with_enough_val_threads_one_half_chooses(tmp_path: Path) -> None:
    room = Mailroom(tmp_path, tiny_settings(min_threads=1, model=ModelSettings(builtin=TINY)))
    room.close(64)
    request = room.ask()
    result = execute(room.home, request.run_id, quiet)
    folder = room.home.run(request.run_id)
    val = [loss for loss in read_losses(folder / "losses.parquet") if loss.split == "val"]

    def mean(checkpoint: str) -> float:
        own = [x for x in val if x.checkpoint == checkpoint and selects(x.chunk_id.partition(":")[0])]
        return sum(x.nll for x in own) / sum(x.n_tokens for x in own)

    names = sorted({loss.checkpoint for loss in val if loss.adapter_id == request.adapter_id})
    assert len(names) > 1
    assert result.checkpoint == min(names, key=lambda name: (mean(name), name))


def test_a_changed_parent_is_refused(tmp_path: Path) -> None:
    room, request = first_run(tmp_path)
    room.promote(request, execute(room.home, request.run_id, quiet))
    room.close()
    later = room.ask()
    (room.home.adapter(request.adapter_id) / "adapter_config.json").write_text("{}")
    with pytest.raises(RunError, match="not the one recorded"):
        execute(room.home, later.run_id, quiet)


def test_a_request_of_another_run_is_refused(tmp_path: Path) -> None:
    room, request = first_run(tmp_path)
    folder = room.home.run(request.run_id)
    other = request.model_copy(update={"settings": tiny_settings(evaluate=EvalSettings(max_chunks=3))})
    (folder / "request.json").write_text(other.model_dump_json())
    with pytest.raises(RunError, match=f"not for {request.run_id}"):
        execute(room.home, request.run_id, quiet)


def test_answers_come_from_base_or_adapter(uninterrupted: tuple[Mailroom, RunRequest, RunResult]) -> None:
    room, request, result = uninterrupted
    room_after = Mailroom(room.home.root)
    room_after.promote(request, result)
    adapter = room_after.lineage.parent
    settings = request.settings.model
    writer = Writer(room.home, request.base, None, settings)
    plain = writer.write("Subject: boat", 12)
    assert plain == writer.write([{"role": "user", "content": "Subject: boat"}], 12)
    assert Writer(room.home, request.base, adapter, settings).write("Subject: boat " * 300, 12)
    assert writer.fits("Subject: boat", 12)
    assert not writer.fits("Subject: boat", TINY.context)
    assert writer.answer_tokens(1_000) == TINY.context // 4
    with pytest.raises(RunError, match="leave no room"):
        writer.write("x", TINY.context)
