"""The indexes of a mailbox: they follow the mail, say how far behind they are, and are made anew where damaged."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from pipeline.arrival.people import PeopleKey
from pipeline.config.index_settings import IndexSettings
from pipeline.config.settings import Settings
from pipeline.domain import StoredMessage
from pipeline.errors import MailtideError
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import MailboxRow
from pipeline.versions import VERSIONS
from registry import finding
from registry.answer import answer
from registry.finding import Engine, Search, chosen_engine, find
from registry.indexes import open_words, standings, stored_vectors, writing
from streams.cli.commands import carry_out
from streams.indexing import rebuild
from streams.owning.stores import opener
from tests.support.embedding import TrigramEmbedder
from tests.support.stored import empty_mailbox, store_mail

FACT = "The gateway transmits its beacon on a frequency of 868.3 megahertz."
FILLER = "We met on Monday and nobody had read the notes."


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with empty_mailbox(home) as made:
        yield made


def test_vectors_find_what_shares_no_word_and_quote_the_passage_that_fits(store: Store, home: Home) -> None:
    store_mail(store, 0, FILLER, subject="Notes")
    text = f"{FILLER} It rained. It was cold.\n\n{FACT}\n\nBest, Maurice"
    store_mail(store, 1, text, subject="Licence")
    embedder = TrigramEmbedder()
    asked = "frequencies of gateways transmitting beacons"
    assert answer(store, home, "main", "frequencies gateways beacons").citations == ()
    engines: tuple[Engine, ...] = ("vectors", "hybrid")
    for engine in engines:
        found = answer(store, home, "main", asked, 1, Search(engine, embedder))
        assert [mail.message_id for mail in found.citations] == ["1@example.org"]
        assert FACT in found.passage
        assert found.unknown == 0


def test_both_rank_what_words_and_vectors_agree_on_first(store: Store, home: Home) -> None:
    for ordinal in range(6):
        store_mail(store, ordinal, FACT if ordinal == 3 else f"{FILLER} A beacon, number {ordinal}.")
    found = find(store, home, "main", "gateway beacon frequency", 4, Search("hybrid", TrigramEmbedder()))
    assert found.hits[0].message_key == "3@example.org"
    assert found.hits[0].passage == (0, len(FACT))
    assert len({hit.message_key for hit in found.hits}) == 4


def test_only_new_mail_is_embedded(store: Store, home: Home) -> None:
    embedder = TrigramEmbedder()
    for ordinal in range(3):
        store_mail(store, ordinal, f"{FILLER} Number {ordinal}.")
    find(store, home, "main", "notes", 1, Search("vectors", embedder))
    assert embedder.read == 3 + 1
    store_mail(store, 3, FACT)
    assert find(store, home, "main", "beacon", 1, Search("vectors", embedder)).hits[0].message_key == "3@example.org"
    assert embedder.read == 3 + 1 + 1 + 1
    assert [(one.index, one.state, one.lag) for one in standings(store, home, "main")][1] == ("vectors", "current", 0)


def test_a_little_new_mail_is_found_beside_the_words_of_the_rest(store: Store, home: Home) -> None:
    """Where each new mail had the next question read, and index, the whole mailbox again."""
    for ordinal in range(60):
        store_mail(store, ordinal, f"{FILLER} Number {ordinal}.")
    assert find(store, home, "main", "beacon", 3).hits == ()
    (built,) = (home.index("main") / "bm25").iterdir()
    for ordinal in (60, 61, 62):
        store_mail(store, ordinal, f"{FACT} {ordinal}")
        hits = find(store, home, "main", "beacon notes", 3).hits
        assert hits[0].message_key == f"{ordinal}@example.org"
        assert list((home.index("main") / "bm25").iterdir()) == [built]
    store_mail(store, 63, FACT)
    assert len(find(store, home, "main", "beacon", 9).hits) == 4
    assert list((home.index("main") / "bm25").iterdir()) != [built]


class Arriving(Store):
    """A store into which one more mail comes whenever mail is read, as a daemon's does."""

    def __init__(self, store: Store, ordinal: int) -> None:
        super().__init__(store._connection, store.people)
        self.next = ordinal

    def all_messages(self, mailbox: str, first: int = 0) -> Iterator[StoredMessage]:
        store_mail(self, self.next, f"{FACT} {self.next}")
        self.next += 1
        yield from super().all_messages(mailbox, first)


def test_mail_that_comes_while_the_index_is_made_is_found_once(store: Store, home: Home) -> None:
    for ordinal in range(100):
        store_mail(store, ordinal, f"{FILLER} Number {ordinal}.")
    arriving = Arriving(store, 100)
    for expected in range(4):
        assert len(find(arriving, home, "main", "beacon", 9).hits) == expected
    names = [name for name, _ in open_words(store, home, "main").search("beacon", 99)]
    assert len(names) == len(set(names)) == 4


def test_much_new_mail_is_not_waited_for_but_told(store: Store, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "AT_ONCE", 2)
    embedder = TrigramEmbedder()
    for ordinal in range(2):
        store_mail(store, ordinal, FILLER)
    find(store, home, "main", "notes", 1, Search("hybrid", embedder))
    for ordinal in range(2, 5):
        store_mail(store, ordinal, f"{FACT} {ordinal}")
    found = find(store, home, "main", "gateway beacon", 5, Search("hybrid", embedder))
    assert found.unknown == 3
    assert found.hits[0].message_key.startswith(("2@", "3@", "4@")), "words find it all the same"
    assert [one.lag for one in standings(store, home, "main")] == [0, 3]


def test_who_finds_another_at_work_uses_what_is_there(store: Store, home: Home) -> None:
    store_mail(store, 0, FACT)
    with writing(home, "main") as allowed:
        assert allowed
        found = find(store, home, "main", "beacon", 1, Search("vectors", TrigramEmbedder()))
        assert (found.hits, found.unknown) == ((), 1)
        with pytest.raises(MailtideError, match="another process is indexing main"):
            _rebuild(home, store, TrigramEmbedder())


def test_damage_is_seen_and_made_good(store: Store, home: Home) -> None:
    store_mail(store, 0, FACT)
    embedder = TrigramEmbedder()
    assert [one.state for one in standings(store, home, "main")] == ["missing", "missing"]
    find(store, home, "main", "beacon", 1, Search("hybrid", embedder))
    assert [one.state for one in standings(store, home, "main")] == ["current", "current"]
    for file in (*(home.index("main") / "bm25").glob("*/*.npy"), home.index("main") / "vectors" / "vectors.parquet"):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    assert [one.state for one in standings(store, home, "main")] == ["damaged", "damaged"]
    assert find(store, home, "main", "beacon", 1, Search("hybrid", embedder)).hits
    assert [one.state for one in standings(store, home, "main")] == ["current", "current"]


def _rebuild(home: Home, store: Store, embedder: TrigramEmbedder, *, fresh: bool = False) -> list[tuple[str, int, int]]:
    settings = Settings(index=IndexSettings(engine="hybrid"))
    done = rebuild(home, settings, lambda: contextlib.nullcontext(store), None, fresh=fresh, embedder=embedder)
    return [(one.index, one.documents, one.embedded) for one in done]


def test_rebuilding_embeds_only_what_no_vector_is_kept_for(store: Store, home: Home) -> None:
    embedder = TrigramEmbedder()
    store_mail(store, 0, FACT)
    store_mail(store, 1, FILLER)
    assert _rebuild(home, store, embedder) == [("bm25", 2, 0), ("vectors", 2, 2)]
    assert _rebuild(home, store, embedder) == [("bm25", 2, 0), ("vectors", 2, 0)]
    assert _rebuild(home, store, embedder, fresh=True) == [("bm25", 2, 0), ("vectors", 2, 2)]
    assert _rebuild(home, store, TrigramEmbedder("another")) == [("bm25", 2, 0), ("vectors", 2, 2)]
    assert stored_vectors(home, "main", embedder).keys == ()


def test_auto_is_words_until_there_are_vectors_and_a_model(store: Store, home: Home, tmp_path: Path) -> None:
    model = tmp_path / "model"
    settings = IndexSettings(model=str(model))
    assert chosen_engine(IndexSettings(engine="vectors"), home, "main") == "vectors"
    assert chosen_engine(settings, home, "main") == "bm25"
    store_mail(store, 0, FACT)
    find(store, home, "main", "beacon", 1, Search("vectors", TrigramEmbedder()))
    assert chosen_engine(settings, home, "main") == "bm25", "the model is not there"


def mailtide(home: Home, *arguments: str) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = carry_out(["--home", str(home.root), *arguments])
    return code, said.getvalue()


def test_the_commands_tell_and_do(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert mailtide(home, "init", "--set", "index.engine=bm25")[0] == 0
    assert mailtide(home, "index", "status") == (0, f"No mailbox yet: mailtide --home {home.root} import PATH\n")
    assert mailtide(home, "index", "rebuild")[0] == 3
    archive = tmp_path / "one.mbox"
    archive.write_bytes(b"From a@example.org Mon Jan  5 10:00:00 2026\nMessage-ID: <1@x>\nSubject: hi\n\nA beacon.\n")
    assert mailtide(home, "import", str(archive))[0] == 0
    code, told = mailtide(home, "index", "status", "--json")
    found = json.loads(told)
    assert (code, found["engines"]) == (0, {"main": "bm25"})
    assert [(one["index"], one["state"], one["lag"]) for one in found["indexes"]] == [("bm25", "missing", 1)]
    assert json.loads(mailtide(home, "index", "rebuild", "--json")[1])[0]["documents"] == 1
    assert "current" in mailtide(home, "index", "status")[1]
    assert mailtide(home, "index", "rebuild", "--mailbox", "other")[0] == 2
    assert "beacon" in mailtide(home, "ask", "beacon?")[1]


def test_a_model_that_is_missing_is_a_clear_line_and_auto_goes_on_with_words(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    settings = Settings(index=IndexSettings(model=str(tmp_path / "nowhere")))
    with Store.create(home, settings, PeopleKey(b"k" * 32), VERSIONS) as store:
        store.append([MailboxRow("main", "arrival", datetime(2026, 1, 1))])
        store_mail(store, 0, FACT)
    (done,) = rebuild(home, settings, opener(home, settings), None)
    assert (done.index, done.documents) == ("bm25", 1)
    assert "is no folder of a sentence-transformers model" in done.missing
    strict = Settings(index=IndexSettings(engine="hybrid", model=str(tmp_path / "nowhere")))
    with pytest.raises(MailtideError, match=r"set index\.engine to bm25"):
        rebuild(home, strict, opener(home, strict), None)
