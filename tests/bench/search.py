"""How long an exact search by vectors takes, and whether embedding keeps up with the library that it uses."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from retrain.search.embedder import load_embedder
from retrain.search.vectors import VectorIndex, Vectors, embed_documents
from retrain.search.weaviate import Address, Object, connected
from tests.bench.corpora import archive
from tests.bench.rows import BenchRow
from tests.support.embedding import TrigramEmbedder
from tests.support.weaviate import running

DIMENSION = 384
LIMIT_MS = 30.0


def bench_search(*, quick: bool = False) -> list[BenchRow]:
    """p95 of a search for ten among unit vectors, those that had arrived before a random moment alone being candidates."""
    count, asked = (10_000, 50) if quick else (100_000, 400)
    source = np.random.default_rng(0)
    matrix = source.standard_normal((count, DIMENSION), dtype=np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    keys = tuple(f"m{place}" for place in range(count))
    index = VectorIndex(Vectors("random", keys, tuple(range(count)), keys, matrix), TrigramEmbedder(dimension=DIMENSION))
    ours, plain = [], []
    for _ in range(asked):
        vector, before = matrix[source.integers(count)], int(source.integers(count // 2, count))
        started = time.perf_counter()
        index.nearest(vector, 10, before=before)
        between = time.perf_counter()
        matrix @ vector
        ours.append(1000 * (between - started))
        plain.append(1000 * (time.perf_counter() - between))
    p95, reference = float(np.quantile(ours, 0.95)), float(np.quantile(plain, 0.95))
    name = f"exact search among {count:,} vectors of {DIMENSION}, filtered by arrival, p95"
    note = f"{asked} searches, candidates between half and all, median {np.median(ours):.1f} ms"
    return [
        BenchRow(
            name, p95, "ms", "numpy, all products alone", reference, p95 / reference, f"under {LIMIT_MS:g} ms",
            p95 < LIMIT_MS, note,
        )
    ]  # fmt: skip


def bench_weaviate(*, quick: bool = False) -> list[BenchRow]:
    """The same search on a real Weaviate server, beside the exact one: how long it takes, and how much of it it finds."""
    count, asked = (2_000, 50) if quick else (100_000, 400)
    source = np.random.default_rng(0)
    # Random directions have no neighbourhoods, which no graph index can find its way in; texts do: mixtures of topics.
    topics = source.standard_normal((200, DIMENSION), dtype=np.float32)
    matrix = topics[source.integers(200, size=count)] + 0.7 * source.standard_normal((count, DIMENSION), dtype=np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    keys = tuple(f"m{place}" for place in range(count))
    embedder = TrigramEmbedder(dimension=DIMENSION)
    exact = VectorIndex(Vectors("random", keys, tuple(range(count)), keys, matrix), embedder)
    ours, theirs, found, wanted = [], [], 0, 0
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as server:
        address = Address(server.url, server.grpc_port, "Bench", None, 60.0)
        with connected(address, embedder) as there:
            index = there.index("bench", "main")
            began = time.perf_counter()
            index.put(Object(key, place, key, row) for place, (key, row) in enumerate(zip(keys, matrix, strict=True)))
            filled = time.perf_counter() - began
            for _ in range(asked):
                vector, before = matrix[source.integers(count)], int(source.integers(count // 2, count))
                started = time.perf_counter()
                near = exact.nearest(vector, 10, before=before)
                between = time.perf_counter()
                told = index.nearest(vector, 10, before=before)
                theirs.append(1000 * (time.perf_counter() - between))
                ours.append(1000 * (between - started))
                wanted += len(near)
                found += len({key for key, _ in near} & {key for key, _ in told})
    p95, reference = float(np.quantile(theirs, 0.95)), float(np.quantile(ours, 0.95))
    name = f"Weaviate among {count:,} vectors of {DIMENSION}, filtered by arrival"
    note = f"HNSW with the server's defaults, {asked} searches, median {np.median(theirs):.1f} ms; filled in {filled:.0f} s"
    return [
        BenchRow(f"{name}, p95", p95, "ms", "our exact search", reference, p95 / reference, "", None, note),
        BenchRow(f"{name}, recall@10", found / wanted, "", "our exact search", 1.0, found / wanted, "", None, note),
    ]


def bench_embedding(data: Path, *, quick: bool = False) -> list[BenchRow]:
    """Mails embedded per CPU-second, beside sentence-transformers' own encode on the same texts."""
    count = 64 if quick else 500
    texts = [raw.partition(b"\n\n")[2].decode("utf-8", "replace") for raw in archive(data, "linux-mips-2006-2007")[:count]]
    embedder = load_embedder("minilm")
    embedder.embed(texts[:8])  # warms up
    started = time.process_time()
    done = embed_documents([(f"m{place}", place, text) for place, text in enumerate(texts)], embedder)
    ours = time.process_time() - started
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(embedder.folder), local_files_only=True)
    distinct = list(dict.fromkeys(texts))
    model.encode(distinct[:8])
    started = time.process_time()
    model.encode(distinct, normalize_embeddings=True, show_progress_bar=False)
    theirs = time.process_time() - started
    rate, reference = done.read / ours, len(distinct) / theirs
    return [
        BenchRow(
            "embedding mails with MiniLM", rate, "mails per CPU-second", "SentenceTransformer.encode", reference,
            rate / reference, "at least 0.9 of it", rate >= 0.9 * reference, f"{done.read} texts of real list mail",
        )
    ]  # fmt: skip
