"""What it costs to evaluate a checkpoint, and whether the intervals it comes with hold what they state."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.config.settings import ModelSettings
from pipeline.domain import Split
from pipeline.intervals import ratio_interval
from tests.bench.corpora import archive
from tests.bench.rows import BenchRow
from tests.bench.training import real_chunks

MAILS, CHUNKS, REPLIES = 1_500, 200, 100
MAILBOXES = 1_000
THREADS = 20


def bench_evaluation(data: Path, quick: bool = False) -> list[BenchRow]:
    """Seconds of processor for one checkpoint of the default built-in model: losses of 200 val and 200 test chunks of real
    list mail, 100 real replies given nothing, found mail, random mail and their parents, and the search that finds it."""
    from retrain.offline import keep_offline

    keep_offline()
    import torch

    from retrain.evaluation.asking import Asking, choose_replies, given_mails
    from retrain.evaluation.losses import nats_of
    from retrain.models.base import learn_tokenizer, new_network
    from retrain.models.loaded import Loaded
    from retrain.models.model import choose_compute, load_base
    from retrain.search.gold import Mail
    from retrain.search.retrieval import evaluate_index, index_of
    from retrain.training.batches import Source, encode

    model = ModelSettings()
    shape = model.builtin
    compute = choose_compute(model, 1)
    chunks = real_chunks(archive(data, "linux-mips-2006-2007")[: 300 if quick else MAILS])
    chunks_each, replies = (20, 10) if quick else (CHUNKS, REPLIES)
    tokenizer = learn_tokenizer([chunk.text for chunk in chunks], shape)
    held_out = [chunk for chunk in chunks if chunk.n_messages][: 2 * chunks_each]
    mails: list[Mail] = []
    for chunk in chunks:
        bodies = chunk.text.split("⁂ ")[1 + chunk.n_context :]
        for key, ordinal, body in zip(
            chunk.message_keys[chunk.n_context :], chunk.ordinals[chunk.n_context :], bodies, strict=False
        ):
            lead, _, words = body.partition("\n")
            parent = mails[-1].key if mails and mails[-1].thread_id == chunk.thread_id else None
            subject = chunk.text.partition("\n")[0].removeprefix("Subject: ")
            mails.append(Mail(key, ordinal, parent, chunk.thread_id, Split.VAL, subject, words, lead=f"⁂ {lead}\n"))
    mails.sort(key=lambda mail: mail.ordinal)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        torch.manual_seed(0)
        new_network(shape, tokenizer).save_pretrained(str(base))
        loaded = Loaded(load_base(base, compute, quantize=True), compute, pad=1)
    started = time.process_time()
    examples = encode(tokenizer, [Source(c.chunk_id, c.text, c.new_from) for c in held_out], shape.context)
    nats_of(loaded, examples, 8192)
    of_chunks = time.process_time() - started
    started = time.process_time()
    index = index_of(mails)
    evaluate_index(index, mails, Split.VAL, replies)
    of_search = time.process_time() - started
    started = time.process_time()
    asking = Asking(tokenizer, shape.context, 512, 24)
    chosen = choose_replies(mails, Split.VAL, replies, asking.fits).replies
    put = [
        asking.put(reply, what, some)
        for reply, parent in chosen
        for what, some in given_mails(reply, parent, mails, index, 3).items()
    ]
    unlike = {one.example.chunk_id: one.example for one in put}
    nats_of(loaded, list(unlike.values()), 8192)
    of_replies = time.process_time() - started
    total = of_chunks + of_search + of_replies
    return [
        BenchRow(
            "evaluation of one checkpoint",
            total,
            "processor seconds, one thread",
            "",
            None,
            None,
            "under 60",
            total < 60 if not quick else None,
            f"default built-in model in NF4, {compute.dtype}; {len(held_out)} chunks {of_chunks:.1f} s, "
            f"{len(chosen)} replies given four things {of_replies:.1f} s, search {of_search:.1f} s",
        )
    ]


def bench_intervals(quick: bool = False) -> list[BenchRow]:
    """How often 95 % intervals by thread hold the truth, over simulated mailboxes of 20 threads with a known one: threads
    have levels of their own and lengths with a heavy tail, as a list's have."""
    rng = np.random.default_rng(2026)
    draws = 100 if quick else MAILBOXES
    clustered = plain = 0
    for _ in range(draws):
        threads = np.repeat(np.arange(THREADS), np.minimum(rng.zipf(2.0, THREADS), 30))
        level = rng.normal(0, 0.1, THREADS)[threads]
        tokens = rng.integers(40, 1500, len(threads)).astype(float)
        nats = tokens * (level + rng.normal(0, 0.1, len(threads)))
        names = [str(thread) for thread in threads]
        found = ratio_interval(nats.tolist(), tokens.tolist(), names)
        alone = ratio_interval(nats.tolist(), tokens.tolist(), [str(place) for place in range(len(threads))])
        clustered += found is not None and found.low <= 0 <= found.high
        plain += alone is not None and alone.low <= 0 <= alone.high
    share, without = clustered / draws, plain / draws
    return [
        BenchRow(
            "95 % intervals hold the truth",
            100 * share,
            "% of simulated mailboxes",
            "the same, as if chunks of a thread were independent",
            100 * without,
            share / without if without else None,
            "93 to 97 %",
            0.93 <= share <= 0.97 if not quick else None,
            f"{draws:,} mailboxes of {THREADS} threads; the share itself is known to within "
            f"{100 * 1.96 * math.sqrt(share * (1 - share) / draws):.1f} points",
        )
    ]
