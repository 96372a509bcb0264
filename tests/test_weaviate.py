"""The index on a real Weaviate server: it holds what the vectors hold, finds what they find, and its faults are told."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.index_settings import IndexSettings, WeaviateSettings
from pipeline.config.settings import Settings
from pipeline.errors import MailtideError
from pipeline.home import Home
from pipeline.store import Store
from registry.answer import answer
from registry.finding import Search, find
from registry.indexes import stored_vectors
from registry.remote_indexes import Remote, held_up_to
from retrain.search.engines import rank
from retrain.search.gold import Query
from retrain.search.vectors import VectorIndex, embed_documents
from retrain.search.weaviate import NOTHING, Address, Held, Object, WeaviateIndex, connected
from streams.indexing import rebuild, server_standing
from tests.support.embedding import TrigramEmbedder
from tests.support.ports import free_ports
from tests.support.stored import empty_mailbox, store_mail
from tests.support.weaviate import Weaviate, running

pytestmark = pytest.mark.timeout(1_800)  # the first run on a machine builds the server

FACT = "The gateway transmits its beacon on a frequency of 868.3 megahertz."
FILLER = "We met on Monday and nobody had read the notes."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weaviate]:
    with running(tmp_path_factory.mktemp("weaviate")) as found:
        yield found


@pytest.fixture
def address(server: Weaviate, request: pytest.FixtureRequest) -> Address:
    """With a collection of the test's own."""
    return _address(server, f"T{abs(hash(request.node.name))}")


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with empty_mailbox(home) as made:
        yield made


def test_words_or_vectors_alone_are_enough_and_only_earlier_mail_is_found(address: Address) -> None:
    embedder = TrigramEmbedder()
    texts = [FACT, "Beacons of gateways are transmitted.", *(f"{FILLER} Number {number}." for number in range(30))]
    with connected(address, embedder) as server:
        index = server.index("store", "main")
        assert index.held() == NOTHING
        assert index.search("beacon", 3) == []
        assert index.put(_objects(embedder, texts)) == 32
        assert index.held() == Held(32, 31, sum(range(32)))
        found = [key for key, _ in index.search("transmitting gateways beacon", 2)]
        assert set(found) == {"0@example.org", "1@example.org"}
        assert [key for key, _ in index.search("transmitting gateways beacon", 2, before=1)] == ["0@example.org"]
        assert index.search("beacon", 5, before=0) == []
        scores = [score for _, score in index.search("notes of Monday", 20)]
        assert scores == sorted(scores, reverse=True)


def test_what_is_put_twice_is_there_once_and_the_last_counts(address: Address) -> None:
    embedder = TrigramEmbedder()
    with connected(address, embedder) as server:
        index = server.index("store", "main")
        index.put(_objects(embedder, [FILLER, FILLER]))
        index.put(_objects(embedder, [FACT, FILLER]))
        assert index.held() == Held(2, 1, 1)
        assert index.search("megahertz", 1)[0][0] == "0@example.org"


def test_mailboxes_and_stores_do_not_see_each_other(address: Address) -> None:
    embedder = TrigramEmbedder()
    with connected(address, embedder) as server:
        server.index("one", "main").put(_objects(embedder, [FACT]))
        for store, mailbox in (("one", "other"), ("two", "main")):
            assert server.index(store, mailbox).held() == NOTHING
            assert server.index(store, mailbox).search("megahertz", 1) == []
        assert server.index("one", "main").held().documents == 1
        assert server.index("one", "main", empty=True).held() == NOTHING


def test_the_server_finds_the_nearest_that_the_exact_search_finds(address: Address) -> None:
    embedder = TrigramEmbedder()
    source = np.random.default_rng(1)
    words = [f"w{number}" for number in range(200)]
    texts = [" ".join(source.choice(words, 12)) for _ in range(400)]
    documents = [(f"{place}@example.org", place, text) for place, text in enumerate(texts)]
    exact = VectorIndex(embed_documents(documents, embedder).vectors, embedder)
    with connected(address, embedder) as server:
        index = server.index("store", "main")
        index.put(_objects(embedder, texts))
        wanted = found = 0
        for place in range(200, 300):
            vector = embedder.embed([texts[place]])[0]
            near = {key for key, _ in exact.nearest(vector, 10, before=place)}
            theirs = index.nearest(vector, 10, before=place)
            assert all(int(key.partition("@")[0]) < place for key, _ in theirs)
            wanted += len(near)
            found += len(near & {key for key, _ in theirs})
    assert found >= 0.95 * wanted


def test_queries_of_an_evaluation_never_find_themselves_or_later_mail(address: Address) -> None:
    embedder = TrigramEmbedder()
    texts = [f"{FACT} Question {number}." for number in range(12)]
    with connected(address, embedder) as server:
        index = server.index("store", "main")
        index.put(_objects(embedder, texts))
        asked = [Query(f"{place}@example.org", texts[place], {}, "thread", place) for place in range(12)]
        for place, found in enumerate(rank(index, asked, 20)):
            assert sorted(found) == sorted(f"{earlier}@example.org" for earlier in range(place))


def test_an_answer_rests_on_the_server_which_is_kept_level(store: Store, home: Home, address: Address) -> None:
    embedder, remote = TrigramEmbedder(), Remote(address, "store")
    store_mail(store, 0, FILLER, subject="Notes")
    store_mail(store, 1, f"{FILLER}\n\n{FACT}\n\nBest, Maurice", subject="Licence")
    asked = "frequencies of gateways transmitting beacons"
    found = answer(store, home, "main", asked, 1, Search("weaviate", embedder, remote))
    assert [mail.message_id for mail in found.citations] == ["1@example.org"]
    assert FACT in found.passage
    store_mail(store, 2, "Zephyr is the name of the new printer.")
    later = find(store, home, "main", "zephyr", 1, Search("weaviate", embedder, remote))
    assert [hit.message_key for hit in later.hits] == ["2@example.org"]
    vectors = stored_vectors(home, "main", embedder)
    with connected(address, embedder) as server:
        assert server.index("store", "main").held() == held_up_to(vectors, vectors.newest) == Held(3, 2, 3)


def test_what_was_not_put_there_is_noticed_and_made_anew(store: Store, home: Home, server: Weaviate) -> None:
    for ordinal in range(3):
        store_mail(store, ordinal, f"{FILLER} Number {ordinal}.")
    settings = _settings(server, "Foreign")
    embedder = TrigramEmbedder()
    assert [
        one.sent
        for one in rebuild(home, settings, lambda: contextlib.nullcontext(store), None, embedder=embedder)
        if one.sent
    ] == [3]
    assert [
        one.sent
        for one in rebuild(home, settings, lambda: contextlib.nullcontext(store), None, embedder=embedder)
        if one.sent
    ] == []
    with connected(_address(server, "Foreign"), embedder) as there:
        from streams.indexing import remote_of

        index = there.index(remote_of(home, settings.index.weaviate).store, "main")
        index.put([Object("stranger@example.org", 1, FACT, embedder.embed([FACT])[0])])
        assert index.held().documents == 4
    assert [
        one.sent
        for one in rebuild(home, settings, lambda: contextlib.nullcontext(store), None, embedder=embedder)
        if one.sent
    ] == [3]


def test_a_collection_of_another_model_or_of_others_is_left_alone(server: Weaviate) -> None:
    address = _address(server, "Shared")
    with connected(address, TrigramEmbedder()) as there:
        there.index("store", "main").put(_objects(TrigramEmbedder(), [FACT]))
    with connected(address, TrigramEmbedder("other", 32)) as there, pytest.raises(MailtideError) as told:
        there.index("store", "main")
    assert "trigrams, 64 dimensions" in told.value.message
    assert "other, 32 dimensions" in told.value.message
    assert "index.weaviate.collection" in str(told.value.hint)
    import weaviate

    with weaviate.connect_to_local("127.0.0.1", server.port, server.grpc_port) as client:
        client.collections.create("Foreigner")
    foreign = replace(address, collection="Foreigner")
    with connected(foreign, TrigramEmbedder()) as there, pytest.raises(MailtideError, match="not one of mailtide's"):
        there.index("store", "main")


def test_a_huge_mail_and_one_without_words_are_taken(address: Address) -> None:
    embedder = TrigramEmbedder()
    with connected(address, embedder) as server:
        index = server.index("store", "main")
        vector = embedder.embed([FACT])[0]
        index.put([Object("huge@example.org", 0, f"{FACT} " + "words and words " * 130_000, vector)])
        index.put([Object("empty@example.org", 1, "", vector)])
        assert index.held() == Held(2, 1, 1)
        assert index.search("megahertz", 1)[0][0] == "huge@example.org"


def test_an_empty_mailbox_finds_nothing(store: Store, home: Home, address: Address) -> None:
    remote = Remote(address, "store")
    found = find(store, home, "main", "anything", 3, Search("weaviate", TrigramEmbedder(), remote))
    assert found.hits == ()


def test_a_server_that_is_away_is_named_with_the_way_on(server: Weaviate) -> None:
    nobody = replace(_address(server, "T"), url=f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(MailtideError) as told, connected(nobody, TrigramEmbedder()):
        pass
    assert nobody.url in told.value.message
    assert "index.engine: hybrid" in str(told.value.hint)


def test_a_server_that_never_answers_is_given_up(server: Weaviate) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slow = replace(_address(server, "T"), url=f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.3)
        with pytest.raises(MailtideError, match="cannot be used"), connected(slow, TrigramEmbedder()):
            pass


class _Old(BaseHTTPRequestHandler):
    """A server of a version that the client does not speak with any more."""

    def do_GET(self) -> None:
        known = self.path == "/v1/meta"
        body = json.dumps({"hostname": "old", "version": "1.10.0", "modules": {}}).encode() if known else b""
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_a_server_of_an_old_version_is_refused(server: Weaviate) -> None:
    with HTTPServer(("127.0.0.1", 0), _Old) as there:
        answering = threading.Thread(target=there.serve_forever, kwargs={"poll_interval": 0.01})
        answering.start()
        try:
            old = replace(_address(server, "T"), url=f"http://127.0.0.1:{there.server_port}")
            with pytest.raises(MailtideError, match="version"), connected(old, TrigramEmbedder()):
                pass
        finally:
            there.shutdown()
            answering.join()


def test_a_key_is_asked_for_and_never_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store, home: Home
) -> None:
    store_mail(store, 0, FACT)
    embedder = TrigramEmbedder()
    with running(tmp_path / "locked", key="open-sesame") as locked:
        monkeypatch.setenv("INDEX_KEY", "open-sesame")
        settings = _settings(locked, "Locked", secret={"env": "INDEX_KEY"})
        assert [
            one.sent
            for one in rebuild(home, settings, lambda: contextlib.nullcontext(store), None, embedder=embedder)
            if one.sent
        ] == [1]
        monkeypatch.setenv("INDEX_KEY", "wrong-word")
        with pytest.raises(MailtideError) as told:
            rebuild(home, settings, lambda: contextlib.nullcontext(store), None, embedder=embedder)
        assert "wrong-word" not in str(told.value)
        assert "Weaviate" in told.value.message


def test_status_says_how_the_server_stands(
    store: Store, home: Home, server: Weaviate, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = TrigramEmbedder()
    monkeypatch.setattr("streams.indexing.load_embedder", lambda model: embedder)
    settings = _settings(server, "Status")
    for ordinal in range(2):
        store_mail(store, ordinal, f"{FILLER} Number {ordinal}.")
    before = server_standing(home, settings, "main", lambda: contextlib.nullcontext(store))
    assert (before.state, before.documents, before.lag) == ("behind", 0, 2)
    rebuild(home, settings, lambda: contextlib.nullcontext(store), None, embedder=embedder)
    after = server_standing(home, settings, "main", lambda: contextlib.nullcontext(store))
    assert (after.state, after.documents, after.lag) == ("current", 2, 0)


def test_a_server_that_was_killed_has_kept_what_it_took(tmp_path: Path) -> None:
    embedder = TrigramEmbedder()
    with running(tmp_path / "killed") as server:
        address = _address(server, "Kept")
        with connected(address, embedder) as there:
            there.index("store", "main").put(_objects(embedder, [FACT, FILLER]))
        server.kill()
        server.start()
        with connected(address, embedder) as there:
            index = there.index("store", "main")
            assert isinstance(index, WeaviateIndex)
            assert index.held() == Held(2, 1, 1)
            assert index.search("megahertz", 1)[0][0] == "0@example.org"


def _objects(embedder: TrigramEmbedder, texts: list[str]) -> list[Object]:
    return [
        Object(f"{place}@example.org", place, text, vector)
        for place, (text, vector) in enumerate(zip(texts, embedder.embed(texts), strict=True))
    ]


def _address(server: Weaviate, collection: str) -> Address:
    return Address(server.url, server.grpc_port, collection, None, 10.0)


def _settings(server: Weaviate, collection: str, **more: Any) -> Settings:
    there = WeaviateSettings(url=server.url, grpc_port=server.grpc_port, collection=collection, **more)
    return Settings(index=IndexSettings(engine="weaviate", weaviate=there))
