"""From a finished run's folder to what the gate may look at: paired losses on val, by thread, exclusions left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from pipeline.domain import Split
from pipeline.errors import RegistryError, RunError
from pipeline.home import Home
from pipeline.runs.harms import Figure, read_figures
from pipeline.runs.requests import AdapterRef, RunRequest, RunResult, read_result
from pipeline.runs.runfiles import Exclusions, Loss, read_exclusions, read_losses
from pipeline.sampling.halves import gating_threads
from pipeline.sampling.objectives import read_examples
from registry.gate import Comparison, Evidence
from registry.objections import Objection


@dataclass(frozen=True, slots=True)
class ValChunk:
    """Where a held-out chunk belongs."""

    thread_id: str
    window_idx: int


def base_name(request: RunRequest) -> str:
    """How losses name the bare base."""
    return f"base:{request.base.base_id}"


def gather(
    home: Home,
    request: RunRequest,
    result: RunResult,
    champion_now: str | None,
    *,
    objections: Sequence[Objection] = (),
    late: Sequence[Figure] = (),
) -> Evidence:
    """Reads the run's evidence; ``champion_now`` is the mailbox's champion as the verdict falls (None: the base), ``late``
    are figures that the run did not measure itself.

    Raises ``RunError`` or ``ShardError`` when a file is missing or not the one recorded, ``RegistryError`` when the run
    left no loss of its own adapter where there are val chunks to have one of.
    """
    folder = home.run(request.run_id)
    val = judging_chunks(home, request)
    losses = [*read_losses(folder / "known_losses.parquet"), *read_losses(folder / "losses.parquet")]
    challenger = _by_chunk(
        losses, lambda loss: (loss.adapter_id, loss.checkpoint) == (result.adapter_id, result.checkpoint)
    )
    old_windows = frozenset(request.old_windows)
    new_windows = frozenset(request.new_windows) - old_windows
    if not challenger and any(chunk.window_idx in old_windows | new_windows for chunk in val.values()):
        raise RegistryError(
            f"run {request.run_id} left no loss of {result.adapter_id} at {result.checkpoint}",
            hint="delete its losses.parquet and result.json, and run `mailtide retrain --confirm` again",
        )
    champion = request.champion.adapter_id if request.champion else base_name(request)
    versions = {loss.eval_version for loss in challenger.values()}
    losses = [loss for loss in losses if loss.eval_version in versions]  # a reference may have been measured by others too
    of_champion = _of_reference(home, losses, request.champion, base_name(request))
    drift = None
    if old_windows and request.best is not None and request.best.adapter_id != champion:
        of_best = _of_reference(home, losses, request.best, base_name(request))
        drift = _pair(val, old_windows, challenger, of_best, request.best.adapter_id)
    return Evidence(
        challenger=result.adapter_id,
        champion=champion,
        champion_now=champion_now or base_name(request),
        new=_pair(val, new_windows, challenger, of_champion, champion),
        old=_pair(val, old_windows, challenger, of_champion, champion) if old_windows else None,
        drift=drift,
        objections=tuple(objections),
        figures=(*read_figures(folder / "eval_results.json"), *late),
    )


def judging_chunks(home: Home, request: RunRequest) -> dict[str, ValChunk]:
    """The val chunks that may judge the run, measured or not, by chunk id.

    Raises ``RunError`` or ``ShardError`` when a file is missing or not the one recorded.
    """
    exclusions = read_exclusions(home.run(request.run_id) / "exclusions.parquet", request.exclusions_sha256)
    val = val_chunks(home, request, exclusions)
    judging = gating_threads((chunk.thread_id for chunk in val.values()), request.settings.min_threads)
    return {id_: chunk for id_, chunk in val.items() if judging is None or chunk.thread_id in judging}


def val_chunks(home: Home, request: RunRequest, exclusions: Exclusions) -> dict[str, ValChunk]:
    """The val chunks of the request's shards that are examples of its objective, by chunk id, exclusions left out; each
    shard is checked as it is read."""
    found: dict[str, ValChunk] = {}
    for shard in request.shards:
        meta = read_examples(home, request, shard, columns=("chunk_id", "thread_id", "window_idx", "split"))
        rows = meta.filter(pc.equal(meta["split"], Split.VAL.value)).to_pylist()
        for row in rows:
            if not exclusions.hold(row["thread_id"], row["chunk_id"]):
                found[row["chunk_id"]] = ValChunk(row["thread_id"], row["window_idx"])
    return found


def _by_chunk(losses: Iterable[Loss], wanted: Callable[[Loss], bool]) -> dict[str, Loss]:
    """Val losses by chunk; of several, the one computed last."""
    return {loss.chunk_id: loss for loss in losses if loss.split == Split.VAL and wanted(loss)}


def _of_reference(home: Home, losses: Sequence[Loss], adapter: AdapterRef | None, base: str) -> dict[str, Loss]:
    """Losses of the adapter as it serves, not of its earlier checkpoints; those of the base where there is no adapter."""
    if adapter is None:
        return _by_chunk(losses, lambda loss: loss.adapter_id == base)
    checkpoints = {loss.checkpoint for loss in losses if loss.adapter_id == adapter.adapter_id}
    if len(checkpoints) > 1:
        checkpoints = {_selected_checkpoint(home, adapter)}
    return _by_chunk(losses, lambda loss: loss.adapter_id == adapter.adapter_id and loss.checkpoint in checkpoints)


def _selected_checkpoint(home: Home, adapter: AdapterRef) -> str:
    try:
        return read_result(home.run(adapter.run_id)).checkpoint
    except RunError as error:
        raise RegistryError(
            f"{adapter.adapter_id} has losses at several checkpoints, and which one serves is not known: {error.message}",
            hint=error.hint,
        ) from error


def _pair(
    val: Mapping[str, ValChunk],
    windows: frozenset[int],
    challenger: Mapping[str, Loss],
    reference: Mapping[str, Loss],
    name: str,
) -> Comparison:
    """Differences on the chunks of ``windows`` that both were scored on, over the same text by the same evaluation."""
    threads: list[str] = []
    differences: list[float] = []
    tokens: list[int] = []
    nats: list[float] = []
    unpaired = 0
    for chunk_id, chunk in val.items():
        ours = challenger.get(chunk_id)
        if chunk.window_idx not in windows or ours is None or ours.n_tokens == 0:
            continue
        theirs = reference.get(chunk_id)
        if theirs is None or (theirs.eval_version, theirs.n_bytes) != (ours.eval_version, ours.n_bytes):
            unpaired += 1
            continue
        threads.append(chunk.thread_id)
        differences.append(ours.nll - theirs.nll)
        tokens.append(ours.n_tokens)
        nats.append(theirs.nll)
    return Comparison(name, tuple(threads), tuple(differences), tuple(tokens), tuple(nats), unpaired)
