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
from typing import Any

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

BEFORE_ALL = datetime(1997, 1, 1)
MAILS, ROUNDS, TOKENS = 600, 3, 16_000
DENSE_ROW = 512


def bench_training(data: Path, quick: bool = False) -> list[BenchRow]:
    """Predicted tokens per CPU-second of LoRA training on NF4: scheduled mail against rows without padding or context.

    Both sides are the default built-in model (with weights that know nothing, which changes no duration) and the same
    loop, in alternation on one thread.
    """
    from retrain.offline import keep_offline

    keep_offline()
    import torch

    from retrain.models.base import learn_tokenizer, new_network
    from retrain.models.model import choose_compute, fresh_adapter, load_base
    from retrain.training.batches import Batch, Example, Source, batches_of, encode
    from retrain.training.trainer import Recipe, fit

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
        rows = [tuple(stream[i : i + DENSE_ROW]) for i in range(0, len(stream) - DENSE_ROW, DENSE_ROW)]
        full = TrainSettings().batch_tokens // DENSE_ROW
        dense = [
            Batch(0, tuple(Example(f"{i + k}", row, 1, 0) for k, row in enumerate(rows[i : i + full])))
            for i in range(0, len(rows), full)
        ]
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
            fit(network, batches, recipe, compute=compute, pad=1, folder=root, on_step=lambda record: None)
            return sum(batch.n_labels for batch in batches) / (time.process_time() - started)

        source = random.Random(0)
        rate(some(dense, 2_000, source))  # warms caches up
        pairs = [
            (rate(some(mail, TOKENS, source)), rate(some(dense, TOKENS, source))) for _ in range(1 if quick else ROUNDS)
        ]
    useful, reference = (sorted(values)[len(pairs) // 2] for values in zip(*pairs, strict=True))
    ratio = sorted(first / second for first, second in pairs)[len(pairs) // 2]
    spread = ", ".join(f"{first / second:.2f}" for first, second in pairs)
    share = sum(len(example.ids) for batch in mail for example in batch.examples) / sum(
        max(len(example.ids) for example in batch.examples) * len(batch.examples) for batch in mail if batch.examples
    )
    return [
        BenchRow(
            "training on scheduled mail",
            useful,
            "predicted tokens per CPU-second",
            f"full rows of {DENSE_ROW} tokens, same model and loop",
            reference,
            ratio,
            "at least 0.75",
            ratio >= 0.75,
            f"NF4 and LoRA, {compute.dtype}, one thread, {len(pairs)} rounds ({spread}); {len(chunks)} chunks of real list "
            f"mail; a batch as the schedule cuts it, padded whole, would be {share:.0%} text",
        )
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
