"""Held-out chunks with near copies in training: what they would have said, and whether any is left among those that judge.

What the owner found is left out of evaluation; it is measured all the same, aside, so that every figure can be given with
and without it. What it may have missed is looked for by another method, long runs of words, among what this run trains on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.chunking.chunks import message_slices, read_slice
from pipeline.chunking.shards import read_rows, read_texts
from pipeline.copies.shingles import CONTAINED, LEAST_WORDS, LONG_RUN, held_in, runs, words_of
from pipeline.home import Home
from pipeline.intervals import proportion_interval
from pipeline.runs.harms import Figure
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import Exclusions
from retrain.evaluation.heldout import HeldOut, frozen_sample, held_out_chunks

MOST = 100
"""Near copies per split that are measured at most: enough to see an effect, and little work."""


def left_out_copies(home: Home, request: RunRequest, exclusions: Exclusions) -> list[HeldOut]:
    """The val and test chunks that left evaluation as near copies and for nothing else, at most :data:`MOST` per split."""
    if not exclusions.copies:
        return []
    every = held_out_chunks(home, request, Exclusions(threads=exclusions.threads))
    return frozen_sample(every.filter(pc.is_in(every["chunk_id"], value_set=pa.array(sorted(exclusions.copies)))), (), MOST)


def contamination_evidence(home: Home, request: RunRequest, judging: Sequence[HeldOut], trained: Collection[str]) -> Figure:
    """The share of the chunks that judge of which a message is held, nearly whole, in one that the run trains on.

    A harm for the gate, with its bounds by thread; None where no chunk judges. Raises ``ShardError``.
    """
    ids = {chunk.chunk_id for chunk in judging}
    messages: list[tuple[str, set[str]]] = []
    for chunk_id, words in _new_messages(home, request, ids):
        if len(words) >= LEAST_WORDS:
            messages.append((chunk_id, runs(words, LONG_RUN)))
    texts = (words for _, words in _new_messages(home, request, set(trained)))
    held = {messages[place][0] for place in held_in([long for _, long in messages], texts, CONTAINED)}
    found = proportion_interval([chunk.chunk_id in held for chunk in judging], [chunk.thread_id for chunk in judging])
    return Figure.of("contamination", found, "no val chunk may judge this run")


def _new_messages(home: Home, request: RunRequest, wanted: set[str]) -> Iterator[tuple[str, list[str]]]:
    """The new messages of chunks, as words, with the chunk's id."""
    for shard in request.shards:
        folder = home.root / shard.path
        rows = read_rows(folder, shard.sha256, wanted, columns=("chunk_id", "starts", "n_context")).to_pylist()
        texts = read_texts(folder, shard.sha256, [row["chunk_id"] for row in rows]) if rows else {}
        for row in rows:
            for part in message_slices(texts[row["chunk_id"]], row["starts"])[row["n_context"] :]:
                yield row["chunk_id"], words_of(read_slice(part).words)
