"""How long runs take on this machine, from those that it has finished: so much per token, so much per run."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.compute as pc

from pipeline.config.settings import Settings
from pipeline.home import Home
from pipeline.runs.plan import SCHEDULE
from pipeline.runs.requests import RESULT, RunRequest, read_result
from pipeline.sampling.replay import read_schedule
from pipeline.store import Store
from pipeline.store.rows import RequestRow, ShardRow
from streams.runs.bases import base_of

RUNS = 20
"""The newest finished runs that a pace is taken from."""


@dataclass(frozen=True, slots=True)
class Pace:
    """``tokens_per_second`` while training, by the ruler; ``seconds_per_run`` for all else that each run does (reading its
    data, measuring), the making of the base apart. ``runs`` are how many it was taken from."""

    tokens_per_second: float
    seconds_per_run: float
    runs: int

    def seconds(self, tokens: int, runs: int = 1) -> float:
        return tokens / self.tokens_per_second + self.seconds_per_run * runs


def measured_pace(store: Store, home: Home, settings: Settings, mailbox: str) -> Pace | None:
    """The pace of the mailbox's runs on the base that the settings name; None before the first.

    Policies differ in how many runs the same mail takes, so what does not grow with the tokens is counted per run, as a
    plan does with what the last run took.
    """
    shards = store.fetch(ShardRow, "mailbox = ?", [mailbox], "window_idx LIMIT 1")
    if not shards:
        return None
    base = base_of(store, home, settings, mailbox, shards[0])
    finished = store.fetch(
        RequestRow, "mailbox = ? AND run_id IN (SELECT run_id FROM run_results)", [mailbox], f'"at" DESC LIMIT {RUNS}'
    )
    tokens, training, rest, runs = 0, 0.0, 0.0, 0
    for row in finished:
        folder = home.run(row.run_id)
        if RunRequest.model_validate_json(row.request).base != base or not (folder / RESULT).is_file():
            continue
        seconds = read_result(folder).seconds
        tokens += pc.sum(read_schedule(folder / SCHEDULE).table["n_tokens"]).as_py() or 0
        training += seconds.get("train", 0.0)
        rest += sum(value for stage, value in seconds.items() if stage not in ("base", "train"))
        runs += 1
    return Pace(tokens / training, rest / runs, runs) if tokens and training else None
