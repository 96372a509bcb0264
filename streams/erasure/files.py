"""What an erasure takes from the files of a home. Each step may be repeated, after a kill or for good measure: the second
time is nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.chunking.archive import erase_from_archives
from pipeline.chunking.shards import TEXT, erase_texts
from pipeline.chunking.tokenised import erase_tokenised
from pipeline.home import Home
from registry.deploy.withdrawing import withdraw_adapters
from registry.indexes import WORDS, vectors_folder
from retrain.search.vector_file import read_vectors, write_vectors
from streams.erasure.plan import Plan
from streams.erasure.planning import CLAIMS
from streams.report.writing import REPORT
from streams.runs.reproduction import GIVEN
from streams.runs.withdrawal import RUNNING, WITHDRAWN

LEARNED = ("checkpoints", "attempts")
"""Of a run's folder: weights that may have learned from what goes."""

WROTE = ("written", "written.parquet")
"""Of a run's folder: what models wrote after reading it."""


def steps(home: Home, plan: Plan) -> list[tuple[str, Callable[[], None]]]:
    """What is to be done to files, by name, in order."""
    return [
        ("chunks", lambda: erase_chunks(home, plan)),
        ("runs", lambda: erase_from_runs(home, plan)),
        ("adapters", lambda: erase_adapters(home, plan)),
        ("indexes", lambda: erase_from_indexes(home, plan)),
        ("claim checks", lambda: erase_claims(home, plan)),
    ]


def erase_chunks(home: Home, plan: Plan) -> None:
    """Texts leave the shards and the training sets that runs keep; signatures of their windows and the mailbox's tokens are
    made anew without them."""
    for window_idx, ids in plan.chunks.items():
        if (home.shard(plan.mailbox, window_idx) / TEXT).is_file():
            erase_texts(home.shard(plan.mailbox, window_idx), ids)
        (home.root / "signatures" / plan.mailbox / f"window={window_idx:06d}.parquet").unlink(missing_ok=True)
    erase_from_archives(home, plan.chunk_ids)
    erase_tokenised(home, plan.mailbox)


def erase_from_runs(home: Home, plan: Plan) -> None:
    """Checkpoints and written replies of the runs that read it, all reports of the mailbox (made anew when asked for), and
    whatever a reproduction was about to compare and a spot check to show."""
    for run_id in plan.runs:
        _remove(home.run(run_id) / name for name in LEARNED)
    for run_id in plan.written:
        _remove(home.run(run_id) / name for name in WROTE)
    for run_id in plan.reports:
        _remove([home.run(run_id) / REPORT])
    if plan.withdrawn is not None:
        _remove(path for path in home.run(plan.withdrawn).glob("*") if path.name not in (*GIVEN, WITHDRAWN, RUNNING))
    _remove((home.root / "reproductions").glob("*"))
    _remove([home.spot_checks(plan.mailbox)])


def erase_adapters(home: Home, plan: Plan) -> None:
    """Weights: of the adapters, of the models they were merged into, of the bases. Deploy targets are told first."""
    withdraw_adapters(home, plan.adapters)
    for adapter_id in plan.adapters:
        _remove([home.adapter(adapter_id), home.merged(plan.mailbox) / adapter_id])
    if plan.withdrawn is not None:
        _remove([home.adapter(f"a{plan.withdrawn}")])
    for base_id in plan.bases:
        _remove([home.base(plan.mailbox, base_id)])


def erase_from_indexes(home: Home, plan: Plan) -> None:
    """The index of words is built anew by the next question; of the vectors only those of what goes are taken out."""
    _remove([home.index(plan.mailbox) / WORDS])
    folder = vectors_folder(home, plan.mailbox)
    vectors = read_vectors(folder)
    if vectors is None:
        _remove([folder])
        return
    if not set(plan.messages).isdisjoint(vectors.keys):
        write_vectors(folder, vectors.without(plan.messages))


def erase_claims(home: Home, plan: Plan) -> None:
    """The files of large mails on their way over a broker."""
    _remove(home.root / CLAIMS / name[:2] / name for name in plan.claims)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
