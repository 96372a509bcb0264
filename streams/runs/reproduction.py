"""A run made again from its shards, and what of it came out the same.

Base, manifest, schedule, weights and losses are derived anew in a folder of its own, from the request, the texts and the
adapter that was continued; nothing of the run is touched. The same hardware and software give the same bytes; where they
do not, the environment that was recorded says what is different.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.capacity.passes import PASSES
from pipeline.chunking.archive import TRAINING_SET, training_set
from pipeline.errors import RunError, UsageError
from pipeline.home import Home, private_dir, sha256_file, sha256_folder
from pipeline.runs.plan import EXCLUSIONS
from pipeline.runs.requests import REQUEST, RunRequest, RunResult, read_request, read_result
from pipeline.runs.runfiles import read_exclusions
from registry.named import no_run
from registry.receipt import RECEIPT
from streams.erasure.receipt import receipts
from streams.runs.lease import right_to_train
from streams.runs.runner import OnStep, Runner

GIVEN = (REQUEST, "exclusions.parquet", "known_losses.parquet")
"""Written at the claim; besides, what a run went on with where memory ran out."""

DERIVED = (
    "manifest.parquet",
    "schedule.parquet",
    "losses.parquet",
    "replies.parquet",
    "questions.parquet",
    "eval_results.json",
    "best_checkpoint.txt",
    "coverage.parquet",
)
"""Files of a run's folder that hold no times, so that another derivation gives the same bytes."""

LATER = ("replies.parquet", "questions.parquet")
"""Those that runs of earlier versions did not leave."""


@dataclass(frozen=True, slots=True)
class Derived:
    """One thing, by sha256: as ``recorded`` in the receipt (without one, as it lies there), as it lies there now (``kept``,
    "" where it is missing), and as made ``again``."""

    name: str
    recorded: str
    kept: str
    again: str

    @property
    def same(self) -> bool:
        return self.recorded == self.kept == self.again


@dataclass(frozen=True, slots=True)
class Condition:
    """A part of the environment that was another: a version, the device, the number of threads."""

    name: str
    recorded: str
    now: str


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of making a run again. ``identical`` when everything has the bytes that were recorded."""

    run_id: str
    identical: bool
    derived: tuple[Derived, ...]
    conditions: tuple[Condition, ...]


def reproduce(home: Home, run_id: str, on_step: OnStep, *, archived: bool = False) -> Reproduction:
    """Makes the run again beside the home's own and compares. Takes as long as the run did, and the right to train.
    ``archived``: trains from the training set that was kept with the run instead of the shards' texts.

    Raises ``UsageError`` for a run that is not there, ``RunError`` for one that did not finish, or whose texts were erased.
    """
    with right_to_train(home), made_again(home, run_id, on_step, archived=archived) as other:
        return compare(home, other, run_id)


@contextmanager
def made_again(home: Home, run_id: str, on_step: OnStep, *, archived: bool = False) -> Iterator[Home]:
    """A home that holds nothing but the run, made again, until it is removed. Shards and earlier adapters are links."""
    request = _request(home, run_id)
    _require_nothing_erased(home, request)
    other = Home(home.root / "reproductions" / run_id)
    shutil.rmtree(other.root, ignore_errors=True)
    try:
        _prepare(home, other, request)
        if archived:
            kept = training_set(home, run_id)
            if kept is None:
                raise UsageError(
                    f"the training set of run {run_id} is not kept", hint="leave out --archived; see train.keep_sets"
                )
            (other.run(run_id) / TRAINING_SET).symlink_to(kept)
        with Runner(other) as runner:
            runner.run(run_id, on_step)
        yield other
    finally:
        shutil.rmtree(other.root, ignore_errors=True)


def compare(home: Home, other: Home, run_id: str) -> Reproduction:
    """The run in ``home`` beside the same run in ``other``."""
    request = _request(home, run_id)
    folder, again = home.run(run_id), other.run(run_id)
    recorded = _receipt(folder)
    derived = []
    for name in DERIVED:
        if name in LATER and not (folder / name).is_file():
            continue
        if name == "eval_results.json" and request.settings.eval.latency:
            continue  # it holds times
        kept = sha256_file(folder / name) if (folder / name).is_file() else ""
        derived.append(Derived(name, recorded.get(name, kept), kept, sha256_file(again / name)))
    noted = _noted(folder)
    steps = _steps(folder, noted)
    derived.append(Derived("losses of the steps", steps, steps, _steps(again, noted)))
    if request.base.kind == "builtin":
        kept = _folder(home.root / request.base.path)
        again_made = _folder(other.root / request.base.path)
        derived.insert(0, Derived(f"base {request.base.base_id}", recorded.get("base", kept), kept, again_made))
    result, anew = _result(home, run_id), _result(other, run_id)
    kept = _folder(home.adapter(request.adapter_id))
    derived.append(Derived(f"adapter {request.adapter_id}", result.adapter_sha256, kept, anew.adapter_sha256))
    names = sorted({*result.environment, *anew.environment})
    pairs = [(name, result.environment.get(name, ""), anew.environment.get(name, "")) for name in names]
    conditions = tuple(Condition(name, before, now) for name, before, now in pairs if before != now)
    return Reproduction(run_id, all(one.same for one in derived), tuple(derived), conditions)


def _prepare(home: Home, other: Home, request: RunRequest) -> None:
    folder = private_dir(other.run(request.run_id))
    for name in (*GIVEN, PASSES):
        if (home.run(request.run_id) / name).is_file():
            shutil.copyfile(home.run(request.run_id) / name, folder / name)
    if home.external_bases.is_file():  # what a large base is need not be read again
        shutil.copyfile(home.external_bases, other.external_bases)
    (other.root / "shards").symlink_to(home.root / "shards")
    private_dir(other.adapters)
    for adapter in {ref.adapter_id: ref for ref in (request.parent, request.champion, request.best) if ref}.values():
        other.adapter(adapter.adapter_id).symlink_to(home.adapter(adapter.adapter_id))
        other.run(adapter.run_id).symlink_to(home.run(adapter.run_id))


def _request(home: Home, run_id: str) -> RunRequest:
    if not (home.run(run_id) / REQUEST).is_file():
        raise no_run(run_id)
    request = read_request(home.run(run_id))
    _result(home, run_id)
    return request


def _require_nothing_erased(home: Home, request: RunRequest) -> None:
    """Raises ``RunError`` when something that the run read was erased since: it can never be made again."""
    left_out = read_exclusions(home.run(request.run_id) / EXCLUSIONS, request.exclusions_sha256)
    windows = {shard.window_idx for shard in request.shards}
    named = {ref.adapter_id for ref in (request.parent, request.champion, request.best) if ref}
    for receipt in receipts(home):
        plan = receipt.plan
        if plan.mailbox != request.mailbox:
            continue
        read = [
            one for window, ids in plan.chunks.items() if window in windows for one in ids if one not in left_out.chunks
        ]
        gone = [f"text that it read ({len(read)} of its chunks)"] if read else []
        gone += [f"adapter {adapter_id}" for adapter_id in sorted(named.intersection(plan.adapters))]
        if gone:
            raise RunError(
                f"run {request.run_id} cannot be made again: {' and '.join(gone)} was erased ({plan.erasure_id})",
                hint="what was erased is gone for good; its receipt says what it was made of",
            )


def _result(home: Home, run_id: str) -> RunResult:
    try:
        return read_result(home.run(run_id))
    except RunError as error:
        raise RunError(f"run {run_id} left no result that can be compared", hint="see `mailtide runs`") from error


def _receipt(folder: Path) -> dict[str, str]:
    """The digests that the run's receipt names, by file, and under "base" that of the built-in base; none without one.

    Whether a receipt is itself as it was written is for ``mailtide registry verify`` to say.
    """
    path = folder / RECEIPT
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_bytes())
        base = {"base": str(document["base"]["sha256"])} if document["base"] else {}
        return {**document["files"], **base}
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read ({error})", hint="see `mailtide registry verify`") from error


def _folder(path: Path) -> str:
    return sha256_folder(path) if path.is_dir() else ""


def _noted(folder: Path) -> frozenset[str]:
    """What a run noted of each step, its time apart: a later version may note more."""
    return frozenset(name for step in _each_step(folder)[:1] for name in step) - {"seconds"}


def _steps(folder: Path, noted: frozenset[str]) -> str:
    """A digest of ``metrics.jsonl``, as far as it is about what is ``noted``."""
    told = [{name: value for name, value in step.items() if name in noted} for step in _each_step(folder)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest() if told else ""


def _each_step(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
