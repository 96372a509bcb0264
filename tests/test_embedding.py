"""Mail is embedded in the daemon's idle time: what is new, nothing twice, and never beside training."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from pipeline.config.index_settings import IndexSettings
from pipeline.config.settings import Settings
from pipeline.home import Home
from pipeline.store import Store
from registry.embedding import carry_out
from registry.indexes import stored_vectors, vectors_folder, writing
from retrain.search.vector_file import read_note
from streams.daemon.board import Board, EmbeddingState, FeedState, TrainingState
from streams.daemon.embedding import Embedding, Patience, embedding_parts
from streams.owning.batch import Taken
from streams.owning.held import HeldStore
from tests.support.embedding import TrigramEmbedder
from tests.support.stored import empty_mailbox, store_mail

AT_ONCE = Patience(mails=1, seconds=0.0, quiet=0.0)
LONG = 60.0


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with empty_mailbox(home) as made:
        yield made


class Watched(Board):
    """A board whose watchers wait for a state instead of for time to pass."""

    def __init__(self) -> None:
        super().__init__(1, datetime(2026, 1, 1), ())
        self._changed = threading.Condition()

    def embedding_is(self, embedding: EmbeddingState) -> None:
        super().embedding_is(embedding)
        with self._changed:
            self._changed.notify_all()

    def until(self, right: Callable[[EmbeddingState], bool]) -> EmbeddingState:
        with self._changed:
            assert self._changed.wait_for(lambda: right(self.state.embedding), LONG), self.state.embedding
        return self.state.embedding


def settings(engine: str = "hybrid", model: str = "trigrams") -> Settings:
    return Settings(index=IndexSettings.model_validate({"engine": engine, "model": model}))


@contextmanager
def embedding(
    home: Home, held: HeldStore, board: Board, told: Settings | None = None, patience: Patience = AT_ONCE
) -> Iterator[threading.Thread]:
    """The part as the daemon runs it, stopped as it stops it."""
    stop = threading.Event()
    own = Embedding(home, told or settings(), held, board, stop, patience, "tests.support.embedding_process")
    thread = threading.Thread(target=own.run)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        own.stop()
        thread.join(LONG)
        assert not thread.is_alive()


def documents_of(home: Home) -> int:
    note = read_note(vectors_folder(home, "main"))
    return 0 if note is None else note.documents


def mails(store: Store, first: int, last: int) -> None:
    for ordinal in range(first, last):
        store_mail(store, ordinal, f"Letter {ordinal} about the harbour.")


def test_new_mail_is_embedded_once_it_has_come(store: Store, home: Home) -> None:
    held, board = HeldStore(store), Watched()
    mails(store, 0, 5)
    with embedding(home, held, board):
        board.until(lambda state: state.embedded == 5 and state.doing == "idle")
        assert documents_of(home) == 5
        with held.writing() as owned:
            mails(owned, 5, 8)
        board.add_feed(FeedState("main", "one", "somewhere"))
        board.taken("one", Taken(read=3, new=3), datetime(2026, 1, 2))
        state = board.until(lambda state: state.embedded == 8 and state.doing == "idle")
    assert documents_of(home) == 8 and state.behind == 0
    assert stored_vectors(home, "main", TrigramEmbedder()).keys[-1] == "7@example.org"


def test_a_few_mails_wait_for_more(store: Store, home: Home) -> None:
    held, board = HeldStore(store), Watched()
    mails(store, 0, 3)
    with embedding(home, held, board, patience=Patience(mails=5, seconds=3600.0, quiet=0.0)):
        board.until(lambda state: (state.doing, state.behind) == ("waiting", 3))
        assert documents_of(home) == 0
        with held.writing() as owned:
            mails(owned, 3, 5)
        held.announce()
        board.until(lambda state: state.embedded == 5)


def test_while_a_run_trains_nothing_is_embedded(store: Store, home: Home) -> None:
    held, board = HeldStore(store), Watched()
    mails(store, 0, 3)
    board.training_is(TrainingState("training", "r1"))
    with embedding(home, held, board):
        board.until(lambda state: state.doing == "waiting")
        assert documents_of(home) == 0
        board.training_is(TrainingState())
        board.until(lambda state: state.embedded == 3 and state.doing == "idle")
        board.training_is(TrainingState("training", "r2"))
        board.until(lambda state: state.doing == "waiting")


def test_auto_follows_only_where_vectors_were_asked_for(store: Store, home: Home) -> None:
    held, board = HeldStore(store), Watched()
    mails(store, 0, 3)
    with embedding(home, held, board, settings("auto")):
        board.until(lambda state: state.doing == "idle")
        assert documents_of(home) == 0
        embedder = TrigramEmbedder()
        first = [["0@example.org", 0, "as it was"]]
        assert carry_out(home, embedder, {"mailbox": "main", "after": -1, "documents": first})["read"] == 1
        held.announce()
        board.until(lambda state: state.embedded == 2 and state.doing == "idle")
    assert documents_of(home) == 3


def test_another_model_begins_anew(store: Store, home: Home) -> None:
    held, board = HeldStore(store), Watched()
    mails(store, 0, 3)
    with embedding(home, held, board):
        board.until(lambda state: state.embedded == 3 and state.doing == "idle")
    mails(store, 3, 4)
    board = Watched()
    with embedding(home, held, board, settings(model="another")):
        board.until(lambda state: state.embedded == 4 and state.doing == "idle")
    note = read_note(vectors_folder(home, "main"))
    assert note is not None and (note.model, note.documents) == ("another", 4)


def test_a_missing_model_is_said_once_with_the_way_on(store: Store, home: Home, caplog: pytest.LogCaptureFixture) -> None:
    held, board = HeldStore(store), Watched()
    mails(store, 0, 3)
    with caplog.at_level(logging.WARNING), embedding(home, held, board, settings(model="missing")) as thread:
        state = board.until(lambda state: state.doing == "stuck")
        thread.join(LONG)
        assert not thread.is_alive()
        held.announce()
        with held.writing() as owned:  # mail goes on
            mails(owned, 3, 4)
    assert "there is no such model" in state.trouble and "index.model to minilm" in state.trouble
    assert len(caplog.records) == 1


def test_vectors_that_another_process_writes_are_left_alone(home: Home) -> None:
    embedder = TrigramEmbedder()
    job = {"mailbox": "main", "after": -1, "documents": [["a", 0, "one"], ["b", 1, "two"]]}
    with writing(home, "main"):
        assert carry_out(home, embedder, job)["busy"]
    assert carry_out(home, embedder, job) == {"newest": 1, "read": 2}
    assert carry_out(home, embedder, job) == {"newest": 1, "read": 0}, "what ends elsewhere is told, not written"
    assert carry_out(home, embedder, {"mailbox": "main", "after": 1, "documents": [["c", 5, "one"]]}) == {
        "newest": 5,
        "read": 0,  # the text is known
    }
    assert documents_of(home) == 3


@pytest.mark.parametrize(
    ("index", "parts"),
    [({"engine": "bm25"}, 0), ({"embed_when_idle": False}, 0), ({}, 1), ({"engine": "hybrid"}, 1)],
)
def test_it_is_a_part_of_the_daemon_where_the_engine_searches_by_vectors(
    store: Store, home: Home, index: dict[str, object], parts: int
) -> None:
    told = Settings(index=IndexSettings.model_validate(index))
    assert len(embedding_parts(home, told, HeldStore(store), Watched(), threading.Event())) == parts


def test_the_process_ends_with_the_daemon(store: Store, home: Home, tmp_path: Path) -> None:
    held, board = HeldStore(store), Watched()
    mails(store, 0, 400)
    with embedding(home, held, board):
        board.until(lambda state: state.doing == "embedding")
    assert documents_of(home) in (0, 128, 256, 384, 400)  # whole batches, or none
