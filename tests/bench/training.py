"""How much of the training loop's work is useful: real mail through the real schedule, against nothing but full rows."""

from __future__ import annotations

import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pipeline.chunking.chunks import build_chunks
from pipeline.chunking.ruler import load_ruler
from pipeline.config.settings import BuiltinModel, ChunkSettings, EvalSettings, ModelSettings, ReplaySettings, TrainSettings
from pipeline.domain import Chunk, Split, StoredMessage
from pipeline.parsing.mail import parse_mail
from pipeline.runs.requests import RunRequest, RunSettings
from pipeline.runs.runfiles import Exclusions
from pipeline.sampling.manifest import build_manifest
from pipeline.sampling.replay import build_schedule
from tests.bench.corpora import archive
from tests.bench.rows import BenchRow
from tests.support.lineage import MAILBOX, Lineage, sender_key

if TYPE_CHECKING:
    from retrain.training.batches import Batch

BEFORE_ALL = datetime(1997, 1, 1)
MAILS, ROUNDS, TOKENS = 600, 5, 16_000
SHORT_ROW = 512
"""Tokens of the other reference: attention costs less in a shorter row, and mail has no choice of its length."""
LEAST = 0.9


def bench_training(data: Path, quick: bool = False) -> list[BenchRow]:
    """Predicted tokens per CPU-second of LoRA training on NF4: scheduled mail against rows without padding or context.

    The default built-in model (with weights that know nothing, which changes no duration) and one loop for all, in turn on
    one thread. Full rows are those of the model's context, as packing makes them, and shorter ones.
    """
    from retrain.offline import keep_offline

    keep_offline()
    import torch

    from retrain.models.base import learn_tokenizer, new_network
    from retrain.models.loaded import Loaded
    from retrain.models.model import choose_compute, fresh_adapter, load_base
    from retrain.training.batches import Source, batches_of, encode
    from retrain.training.recipe import Recipe
    from retrain.training.trainer import Training, fit

    model = ModelSettings()
    shape = model.builtin
    compute = choose_compute(model, 1)
    chunks = real_chunks(archive(data, "linux-mips-1996-2001")[:MAILS])
    texts = [chunk.text for chunk in chunks]
    tokenizer = learn_tokenizer(texts, shape)
    examples = encode(tokenizer, [Source(chunk.chunk_id, chunk.text, chunk.new_from) for chunk in chunks], shape.context)
    by_id = {example.chunk_id: example for example in examples}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        plan = scheduled(chunks, root / "home")
        mail = batches_of(plan, by_id)
        stream = [token for example in examples for token in example.ids]
        dense = {length: full_rows(stream, length, TrainSettings().batch_tokens) for length in (shape.context, SHORT_ROW)}
        base = root / "base"
        torch.manual_seed(0)
        new_network(shape, tokenizer).save_pretrained(str(base))
        recipe = Recipe(2e-3, 0.1, 0.0, 1.0, 1, "adamw_torch_fused", 0.999, 1)
        network: Any = fresh_adapter(
            load_base(base, compute, quantize=True),
            TrainSettings(),
            builtin=True,
            quantize=True,
            checkpointing=False,
            seed=0,
        )

        def rate(batches: Sequence[Batch]) -> float:
            started = time.process_time()
            fit(Training(Loaded(network, compute, 1), batches, recipe, root, lambda record: None))
            return sum(batch.n_labels for batch in batches) / (time.process_time() - started)

        source = random.Random(0)
        rate(some(dense[SHORT_ROW], 2_000, source))  # warms caches up
        rounds = [
            (rate(some(mail, TOKENS, source)), {length: rate(some(rows, TOKENS, source)) for length, rows in dense.items()})
            for _ in range(1 if quick else ROUNDS)
        ]
    note = (
        f"NF4 and LoRA, {compute.dtype}, one thread; {len(chunks)} chunks of real list mail, "
        f"{sum(batch.n_labels for batch in mail) / sum(len(one.ids) for batch in mail for one in batch.examples):.1%} of "
        f"their tokens predicted, the others read before them; {len(rounds)} rounds"
    )
    return [_against(length, rounds, note) for length in dense]


def _against(length: int, rounds: Sequence[tuple[float, dict[int, float]]], note: str) -> BenchRow:
    ratios = [useful / full[length] for useful, full in rounds]
    return BenchRow(
        f"training on scheduled mail, against full rows of {length:,}",
        median(useful for useful, _ in rounds),
        "predicted tokens per CPU-second",
        f"full rows of {length:,} tokens, same model and loop",
        median(full[length] for _, full in rounds),
        median(ratios),
        f"at least {LEAST}",
        median(ratios) >= LEAST,
        f"{note} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
    )


def full_rows(stream: Sequence[int], length: int, batch_tokens: int) -> list[Batch]:
    """Batches of ``batch_tokens`` tokens, in rows of ``length`` without padding, all predicted but the first of each."""
    from retrain.training.batches import Batch, Example

    rows = [tuple(stream[start : start + length]) for start in range(0, len(stream) - length, length)]
    each = batch_tokens // length
    return [
        Batch(0, tuple(Example(f"{start + place}", row, 1, 0) for place, row in enumerate(rows[start : start + each])))
        for start in range(0, len(rows), each)
    ]


def real_chunks(raws: Sequence[bytes]) -> list[Chunk]:
    """One window's chunks of real mails, threads told by subject alone, which is enough for lengths."""
    threads: dict[str, list[StoredMessage]] = defaultdict(list)
    for ordinal, raw in enumerate(raws):
        mail = parse_mail(raw)
        sender = mail.sender.address if mail.sender else "unknown"
        at = (mail.date or BEFORE_ALL).replace(microsecond=0)
        threads[mail.subject_norm or f"mail {ordinal}"].append(
            StoredMessage(
                MAILBOX, f"m{ordinal}", f"t{ordinal}", Split.TRAIN, 0, ordinal, at, at, sender_key(sender), sender, sender,
                mail.subject, None, mail.bulk, mail.auto, mail.text, mail.own_text,
            )
        )  # fmt: skip
    ruler = load_ruler("bytes")
    found: list[Chunk] = []
    for messages in threads.values():
        thread_id = messages[0].thread_id
        whole = [replace(message, thread_id=thread_id) for message in messages]
        found += build_chunks([], whole, settings=ChunkSettings(), ruler=ruler, mask=str)
    return found


def scheduled(chunks: Sequence[Chunk], root: Path) -> list[tuple[int, tuple[str, ...]]]:
    """The batches of one epoch with the default settings."""
    settings = RunSettings(
        seed=0,
        rolling=1,
        min_threads=20,
        replay=ReplaySettings(),
        model=ModelSettings(builtin=BuiltinModel()),
        train=TrainSettings(epochs=1),
        eval=EvalSettings(),
    )
    lineage = Lineage.at(root, settings)
    lineage.close(chunks)
    request: RunRequest = lineage.request()
    manifest = build_manifest(lineage.home, request, Exclusions(), None)
    schedule = build_schedule(manifest, seed=0, context="bench", replay=settings.replay, train=settings.train)
    return [(batch.epoch, batch.chunk_ids) for batch in schedule.batches()]


def some(batches: Sequence[Any], tokens: int, source: random.Random) -> list[Any]:
    """Batches drawn at random until they predict ``tokens``."""
    chosen: list[Any] = []
    for batch in source.sample(list(batches), len(batches)):
        if sum(one.n_labels for one in chosen) >= tokens:
            break
        chosen.append(batch)
    return chosen
