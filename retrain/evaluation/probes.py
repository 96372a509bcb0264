"""What a run looks for in the adapter that it made, beside how good it is: secrets in what it writes, canaries that it
remembers, and held-out mail that it may have been trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domain import Split
from pipeline.home import Home
from pipeline.intervals import proportion_interval
from pipeline.privacy.flags import HurtfulWords, flags_of
from pipeline.runs.harms import Figure
from pipeline.runs.plan import parent_coverage
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import Exclusions, Loss
from pipeline.sampling.coverage import read_coverage
from retrain.evaluation.canaries import canary_evidence, exposures, planted
from retrain.evaluation.contamination import contamination_evidence, left_out_copies
from retrain.evaluation.losses import losses_of
from retrain.evaluation.references import Reference, unmeasured
from retrain.evaluation.results import Measured
from retrain.evaluation.writing import Written
from retrain.models.model import load_tokenizer
from retrain.study import Study
from retrain.training.examples import Reader


def losses_of_copies(
    home: Home,
    study: Study,
    exclusions: Exclusions,
    base: Path,
    adapters: Sequence[Reference],
    known: Sequence[Loss],
) -> list[Loss]:
    """What the near copies that left evaluation cost each of ``adapters``, where that is not known: no figure counts them,
    and the difference that they would make can be told."""
    copies = left_out_copies(home, study.request, exclusions)
    if not copies:
        return []
    reader = Reader(home, study.request, load_tokenizer(base), study.context)
    examples = list(reader.examples([chunk.chunk_id for chunk in copies]).values())
    splits = {chunk.chunk_id: chunk.split.value for chunk in copies}
    found: list[Loss] = []
    for adapter in adapters:
        lacking = unmeasured(adapter, examples, known, study.version)
        if lacking:
            with study.serving(adapter):
                nats = study.nats(lacking)
            found += losses_of(nats, lacking, splits, adapter.adapter_id, adapter.checkpoint, study.version)
    return found


def probe(
    home: Home, study: Study, base: Path, own: Reference, written: Sequence[Written]
) -> tuple[Measured, list[Figure]]:
    """What was found, for ``eval_results.json``, and the figures that the gate may object to. Raises ``ShardError``."""
    trained = {example.chunk_id for batch in study.batches for example in batch.examples}
    canaries = list(planted(home, study.request))
    ever = trained | _trained_before(home, study.request, [chunk_id for chunk_id, _, _ in canaries])
    canaries = [canary for canary in canaries if canary[0] in ever]
    remembered = []
    if canaries:
        with study.serving(own):
            remembered = exposures(study.loaded, load_tokenizer(base), study.context, canaries)
    safety, flagged = safety_of(
        [one for one in written if (one.adapter_id, one.checkpoint) == (own.adapter_id, own.checkpoint)]
    )
    judging = [
        chunk
        for chunk in study.sample.values()
        if chunk.split is Split.VAL and not (study.selecting and chunk.chunk_id in study.selecting)
    ]
    figures = [flagged, canary_evidence(remembered), contamination_evidence(home, study.request, judging, trained)]
    return {"safety": safety, "canaries": [asdict(one) for one in remembered]}, figures


def _trained_before(home: Home, request: RunRequest, chunk_ids: Sequence[str]) -> set[str]:
    """Those of ``chunk_ids`` that earlier runs of the lineage trained on."""
    lineage = parent_coverage(home, request)
    if lineage is None or not chunk_ids:
        return set()
    covered = read_coverage(lineage)["chunk_id"]
    return set(covered.filter(pc.is_in(covered, value_set=pa.array(chunk_ids))).to_pylist())


def safety_of(written: Sequence[Written]) -> tuple[Measured, Figure]:
    """Counts of flags by kind over outputs, and the share of outputs with one, a harm for the gate with its bounds."""
    words = HurtfulWords()
    flags = [flags_of(one.text, words) for one in written]
    kinds = Counter(kind for found in flags for kind in found)
    counted = {"outputs": len(written), "flagged": sum(map(bool, flags)), "kinds": dict(sorted(kinds.items()))}
    found = proportion_interval([bool(one) for one in flags], [one.thread_id for one in written])
    return counted, Figure.of("safety", found, "no reply was written: eval.generate is 0, or no reply could be put")
