"""Commands use the store through the process that holds it, with the same answers, one writer at a time."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.config.configuration import read_home
from pipeline.config.settings import Settings
from pipeline.errors import ConfigError, StoreError, StoreHeldError, UsageError
from pipeline.home import Home
from pipeline.store import Store
from pipeline.store.rows import MailboxRow
from pipeline.times import utc_now
from pipeline.versions import VERSIONS
from streams.demo.mailbox import write_mailbox
from streams.owning import owner_socket
from streams.owning.held import HeldStore
from streams.owning.owner_socket import OwnerSocket
from streams.owning.remote_store import RemoteStore
from streams.owning.stores import kept_store, opener, store_of
from tests.support.dump import rows_of
from tests.support.program import make, run


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "demo.mbox"
    write_mailbox(path, seed=4, messages=120)
    return path


@pytest.fixture(scope="module")
def filled(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = make(tmp_path_factory.mktemp("filled") / "home", "window.bootstrap=60")
    done = run(home, "import", str(archive), "--clock", "header")
    assert done.returncode == 0, done.stderr
    return Home(home)


@contextmanager
def held(home: Home) -> Iterator[HeldStore]:
    """The home's store, held and answering, as by a daemon."""
    holder = HeldStore(Store.open(home, Settings(), None))
    door = OwnerSocket(home, holder, lambda: {"feeds": 2})
    try:
        yield holder
    finally:
        door.close()
        holder.close()


def reached(home: Home, *, writes: bool = False) -> RemoteStore:
    store = RemoteStore.reach(home, None, None, writes=writes)
    assert store is not None
    return store


def test_commands_answer_alike_with_and_without_an_owner(filled: Home, tmp_path: Path) -> None:
    commands = (
        ["windows", "--json"],
        ["sql", "SELECT * FROM messages ORDER BY arrival_ordinal", "--json"],
        ["quarantine", "list", "--json"],
        ["ask", "When does the ferry leave?", "--json"],
        ["export", "messages", "--format", "csv", "--output", str(tmp_path / "a.csv")],
    )
    standing = json.loads(run(filled.root, "status", "--json").stdout)
    alone = [run(filled.root, *command) for command in commands]
    exported = (tmp_path / "a.csv").read_bytes()
    with held(filled):
        through = [run(filled.root, *command) for command in commands]
        told = json.loads(run(filled.root, "status", "--json").stdout)
    assert told == {**standing, "daemon": {"feeds": 2}}
    for one, other in zip(alone, through, strict=True):
        assert (one.returncode, one.stdout) == (other.returncode, other.stdout), other.stderr
        assert one.stdout
    assert (tmp_path / "a.csv").read_bytes() == exported


def test_who_is_to_keep_the_store_waits_for_one_that_has_it_for_a_moment(
    filled: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Store.open(filled, Settings(), None)
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        server.close()

    monkeypatch.setattr("streams.owning.stores.time.sleep", wait)
    with kept_store(filled, read_home(filled, environment={})) as store:
        assert store.fetch(MailboxRow)
    assert len(waits) == 1


def test_who_keeps_the_store_and_answers_is_not_waited_for(filled: Home) -> None:
    with held(filled), pytest.raises(StoreHeldError):
        kept_store(filled, read_home(filled, environment={}))


def test_who_reads_is_waited_for_before_the_store_closes(filled: Home) -> None:
    holder = HeldStore(Store.open(filled, Settings(), None))
    reading, told, counted = threading.Event(), threading.Event(), []

    def read() -> None:
        with holder.reading() as store:
            reading.set()
            told.wait(60)
            counted.append(store.scalar("SELECT count(*) FROM message_rows"))

    reader = threading.Thread(target=read)
    reader.start()
    assert reading.wait(60)
    closer = threading.Thread(target=holder.close)
    closer.start()
    told.set()
    for thread in (reader, closer):
        thread.join(60)
    assert counted[0] > 0
    with pytest.raises(StoreError, match="closed"), holder.reading():
        pass


def test_people_cannot_write_through_the_owner_either(filled: Home) -> None:
    with held(filled), reached(filled) as store, pytest.raises(UsageError, match="DELETE"):
        store.answer_sql("DELETE FROM message_rows")


def test_an_import_through_the_owner_gives_the_same_rows(archive: Path, filled: Home, tmp_path: Path) -> None:
    home = make(tmp_path / "home", "window.bootstrap=60")
    with held(Home(home)):
        done = run(home, "import", str(archive), "--clock", "header", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["new"] > 100
    assert rows_of(Home(home)) == rows_of(filled)


def test_a_window_is_closed_through_the_owner(filled: Home, archive: Path, tmp_path: Path) -> None:
    home = make(tmp_path / "home", "window.bootstrap=600")
    assert run(home, "import", str(archive)).returncode == 0
    with held(Home(home)) as holder:
        before = holder.guests
        done = run(home, "close", "main")
        assert done.returncode == 0, done.stderr
        assert holder.guests > before
        with holder.reading() as store:
            assert store.query("SELECT window_idx, reason FROM windows WHERE closed_at IS NOT NULL") == [(0, "manual")]


def test_one_writes_at_a_time_and_others_read(filled: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_socket, "BUSY_SECONDS", 0.1)
    with held(filled) as holder, reached(filled, writes=True) as writer:
        writer.append([MailboxRow("other", "arrival", utc_now())])
        with reached(filled) as reader:
            assert reader.scalar("SELECT count(*) FROM mailbox_rows WHERE mailbox = 'other'") == 1
        with pytest.raises(StoreHeldError, match="in use"):
            reached(filled, writes=True)
        writer.close()
        assert holder.changed.wait(30)
        with reached(filled, writes=True) as another:
            assert another.scalar("SELECT count(*) FROM mailbox_rows") == 2


def test_readers_in_many_threads(filled: Home) -> None:
    counts: list[int] = []

    def read() -> None:
        with reached(filled) as store:
            counts.extend(len(list(store.all_messages("main"))) for _ in range(3))

    with held(filled):
        threads = [threading.Thread(target=read) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(counts) == 18
    assert len(set(counts)) == 1


def test_what_froze_is_checked_by_the_owner(filled: Home) -> None:
    with held(filled), pytest.raises(ConfigError, match="seed is 5 in the settings"), opener(filled, Settings(seed=5))():
        pass


def test_a_command_of_another_version_is_refused(filled: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(filled):
        monkeypatch.setattr("streams.owning.remote_store.program", lambda: "0.0.1")
        with pytest.raises(StoreError, match="another version"):
            reached(filled)


def test_what_a_dead_owner_left_is_no_owner(filled: Home) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(filled.owner_socket))
    with store_of(filled, None, VERSIONS, writes=False) as store:
        assert not isinstance(store, RemoteStore)
    with held(filled):
        remote = reached(filled)
        assert remote.owner_state() == {"feeds": 2}
        remote.close()
    assert not filled.owner_socket.exists()


def test_an_owner_that_stops_is_told_as_such(filled: Home) -> None:
    with held(filled):
        store = reached(filled)
    assert not [thread for thread in threading.enumerate() if thread.name == "owner-client"]
    with pytest.raises(StoreError, match="has stopped; run the same command again"):
        store.query("SELECT 1")
    store.close()


def test_who_reads_goes_on_when_the_owner_stops_and_another_one_starts(filled: Home) -> None:
    count = "SELECT count(*) FROM messages"
    with store_of(filled, None, None, writes=False) as alone:
        expected, keys = alone.scalar(count), [message.message_key for message in alone.all_messages("main")]
    with held(filled):
        store = store_of(filled, None, None, writes=False)
        assert isinstance(store, RemoteStore)
        writer = store_of(filled, None, None, writes=True)
    with store:
        assert store.scalar(count) == expected
        assert store.owner_state() is None
        assert store.schema_version > 0
    with held(filled):
        store = store_of(filled, None, None, writes=False)
    with held(filled), store:
        assert [message.message_key for message in store.all_messages("main")] == keys
        assert isinstance(store, RemoteStore)
        assert store.owner_state() == {"feeds": 2}, "of the one that has it now"
    with held(filled):
        store = store_of(filled, None, None, writes=False)
        messages = store.all_messages("main")
        begun = [next(messages).message_key]
    with store:
        assert begun + [message.message_key for message in messages] == keys
    with writer, pytest.raises(StoreError, match="has stopped; run the same command again"):
        writer.query("SELECT 1")  # whoever writes cannot know what was written


@contextmanager
def hanging_up(home: Home) -> Iterator[threading.Event]:
    """An owner that stops: it takes one client and hangs up. The event is set once it has."""
    done = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.bind(str(home.owner_socket))
        door.listen()

        def hang_up() -> None:
            client, _ = door.accept()
            home.owner_socket.unlink()
            client.close()
            done.set()

        thread = threading.Thread(target=hang_up)
        thread.start()
        yield done
        thread.join(60)


@pytest.mark.parametrize("writes", [False, True])
def test_an_owner_that_is_just_stopping_is_no_reason_to_fail(filled: Home, writes: bool) -> None:
    with hanging_up(filled) as done, store_of(filled, None, None, writes=writes) as store:
        assert done.is_set()
        assert not isinstance(store, RemoteStore)
        assert store.fetch(MailboxRow)


def test_a_daemon_starts_while_another_one_stops(filled: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = Store.open(filled, Settings(), None)
    monkeypatch.setattr("streams.owning.stores.time.sleep", lambda _: stopping.close())
    with hanging_up(filled) as done, kept_store(filled, read_home(filled, environment={})) as store:
        assert done.is_set()
        assert store.fetch(MailboxRow)


def test_a_home_with_a_long_path_has_a_socket_too(tmp_path: Path) -> None:
    (tmp_path / ("long" * 30)).mkdir()
    home = make(tmp_path / ("long" * 30) / "home")
    with held(Home(home)), reached(Home(home)) as store:
        assert store.schema_version > 0
