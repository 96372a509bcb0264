"""The request that fixes one retraining run. The owner writes it once; everything in a run follows from it and shards."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.capacity.passes import Change
from pipeline.config.settings import (
    EvalSettings,
    ModelSettings,
    ReplaySettings,
    TrainSettings,
)
from pipeline.errors import RunError
from pipeline.runs.attempts import Attempt
from pipeline.strict import Strict

REQUEST, RESULT = "request.json", "result.json"
"""Of a run's folder: what it was asked, and what came of it once it has ended well."""

LATER: dict[tuple[str, str], object] = {
    ("replay", "tier_caps"): {},
    ("replay", "tier_weights"): {},
    ("model", "attention"): "auto",
    ("model", "kernels"): "torch",
    ("train", "pass_tokens"): None,
    ("train", "lora"): {},
    ("train", "checkpoint_gib"): None,
    ("train", "retry"): {"attempts": 0, "threshold": 0.01, "factor": 0.5},
    ("eval", "max_replies"): 12,
    ("eval", "rag_k"): 3,
    ("eval", "rag_tokens"): 512,
    ("eval", "generate"): 4,
    ("eval", "generate_tokens"): 24,
    ("eval", "latency"): 0,
    ("eval", "benchmarks"): [],
    ("eval", "weights"): "ppl:0.4,rag:0.4,recall:0.2",
    ("eval", "thresholds"): "",
}
"""Settings that did not exist when the first runs were made, as (group, name), with the value that a request from before
them is read with. At this value they are left out of a run's id, so that no request ever changes its name."""


ROUNDING = (("train", "processes"), ("train", "machines"), ("train", "address"), ("train", "shard"))
"""Settings of the machine that trains, as (group, name): like its device they change rounding alone, so they are left out
of a run's id, and whatever their value it has the same schedule."""


BESIDE = (("train", "report_to"), ("train", "keep_sets"), ("train", "token_cache_gib"))
"""Settings that change what is told of a run or kept beside it, as (group, name), and no byte of what it makes."""


class ShardRef(Strict):
    """A closed window's shard: ``path`` is relative to the home, ``sha256`` that of ``chunks.parquet``."""

    window_idx: int
    path: str
    sha256: str


class BaseRef(Strict):
    """The base model. ``base_id`` names it in losses; ``path`` is relative to the home for the built-in one."""

    kind: Literal["builtin", "external"]
    base_id: str
    path: str


class AdapterRef(Strict):
    """An adapter that a run continues or compares with; ``path`` is relative to the home."""

    adapter_id: str
    run_id: str
    path: str
    sha256: str


class RunSettings(Strict):
    """The settings that change a run's bytes."""

    seed: int
    rolling: int
    min_threads: int
    replay: ReplaySettings
    model: ModelSettings
    train: TrainSettings
    eval: EvalSettings


class RunRequest(Strict):
    """One end-to-end retraining pass.

    ``new_windows`` are trained as new; ``old_windows`` are all windows that the champion's lineage trained as new.
    ``shards`` lists every closed window so far, in order. ``parent`` is the adapter to continue (None: from the base),
    ``champion`` the one to compare with (None: the bare base), ``best`` the best untainted adapter ever (None: no other
    than the champion). ``owner`` are the keyed addresses whose replies are learned (none under ``cpt``).
    ``failed_before`` counts the runs on just this evidence that failed: asked for again, it is another run, with a verdict
    of its own.
    ``coverage_sha256`` is of the parent run's ``coverage.parquet`` ("" without a parent) and
    ``exclusions_sha256`` of the run folder's ``exclusions.parquet``.
    """

    version: Literal[1] = 1
    mailbox: str
    new_windows: tuple[int, ...]
    old_windows: tuple[int, ...]
    shards: tuple[ShardRef, ...]
    base: BaseRef
    parent: AdapterRef | None
    champion: AdapterRef | None
    best: AdapterRef | None
    coverage_sha256: str
    exclusions_sha256: str
    settings: RunSettings
    owner: tuple[str, ...] = ()
    failed_before: int = 0

    @property
    def run_id(self) -> str:
        """First 12 hex digits of sha256 over the canonical JSON of what the run trains on and continues.

        What it is compared with is left out: it changes no byte of the adapter, so after a rollback the same training is
        the same run, which was decided.
        """
        trained = self.model_dump(mode="json", exclude={"champion", "best", "old_windows"})
        for (group, name), before in LATER.items():
            if trained["settings"][group][name] == before:
                del trained["settings"][group][name]
        for name in ("owner", "failed_before"):
            if not trained[name]:
                del trained[name]
        for group, name in (*ROUNDING, *BESIDE):
            del trained["settings"][group][name]
        canonical = json.dumps(trained, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def adapter_id(self) -> str:
        """The adapter that this run produces."""
        return f"a{self.run_id}"


class RunResult(Strict):
    """What a finished run leaves in ``result.json``, written last: its presence means that all else is there.

    ``adapter_sha256`` is :func:`pipeline.home.sha256_folder` of the adapter's folder; ``tokens`` are those trained, by the
    model's tokenizer; ``seconds`` says where the time went (base, data, train, evaluate), ``training`` where that of train
    went, as far as this process trained itself; ``environment`` names versions, device and threads; ``passes`` what a run
    went on with where memory ran out, ``attempts`` what each came to where it might try again.
    """

    run_id: str
    adapter_id: str
    adapter_sha256: str
    checkpoint: str
    started_at: datetime
    finished_at: datetime
    steps: int
    tokens: int
    new_chunks: int
    rehearsal_chunks: int
    seconds: dict[str, float]
    training: dict[str, float] = Field(default_factory=dict)
    environment: dict[str, str]
    passes: tuple[Change, ...] = ()
    attempts: tuple[Attempt, ...] = ()


def read_request(folder: Path) -> RunRequest:
    """What the run in ``folder`` was asked. Raises ``RunError`` when that cannot be read, or is another run's: a folder is
    named by its run."""
    path, hint = folder / REQUEST, "restore it from a backup, or ask for the run again: `mailtide retrain --confirm`"
    try:
        request = RunRequest.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({str(error).splitlines()[0]})", hint=hint) from error
    if request.run_id != folder.name:
        raise RunError(f"{path} was changed: it asks for run {request.run_id}, not for {folder.name}", hint=hint)
    return request


def read_result(folder: Path) -> RunResult:
    """What came of the run in ``folder``; raises ``RunError`` when that cannot be read."""
    path = folder / RESULT
    try:
        return RunResult.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} cannot be read ({str(error).splitlines()[0]})", hint="restore the run's folder from a backup"
        ) from error
