"""Erasing people's mail: gone from every byte of a home, everything else intact, also after a kill at any step."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pipeline.arrival.people import PeopleKey
from pipeline.chunking.tokenised import TOKENISED, Tokenised
from pipeline.config.configuration import load, write_home
from pipeline.config.settings import Settings
from pipeline.domain import Split
from pipeline.errors import NothingToDo, RunError, UsageError
from pipeline.filelock import locked
from pipeline.home import Home, sha256_folder, write_atomic
from pipeline.runs.plan import prepare_run
from pipeline.runs.requests import RunRequest
from pipeline.store import Store
from pipeline.store.rows import DeadLetterRow, FeedbackRow, MessageRow, RawRow, TextRow
from pipeline.times import utc_now
from pipeline.versions import VERSIONS
from registry.answer import answer
from registry.decide import journal
from registry.journal import Status
from registry.verify import recorded, verify
from streams.cli.commands import cli
from streams.daemon.board import Board
from streams.deploying import deploy_pending
from streams.erasure.asked import Asked, Kind
from streams.erasure.carrying import erase, finish
from streams.erasure.intent import note
from streams.erasure.planning import plan_erasure, unfinished
from streams.erasure.receipt import path_of, read
from streams.erasure.verifying import verify_erasures
from streams.feeds.replay import EMPTY
from streams.homes import make_home
from streams.owning.held import HeldStore
from streams.owning.ingest import import_archives
from streams.owning.owner_socket import OwnerSocket
from streams.owning.stores import opener
from streams.runs.claims import ALL_WAITING, claim, undecided
from streams.runs.reproduction import reproduce
from streams.runs.withdrawal import RUNNING, is_withdrawn
from tests.conftest import REPOSITORY
from tests.support.daemons import daemon, rows, until
from tests.support.forgotten import (
    ADDRESS,
    ANSWERED,
    KEPT_MARK,
    MARKS,
    NAME,
    OTHER,
    thread_ids,
    traces,
    write_archive,
)
from tests.support.lives import lives
from tests.support.pretended import MAILBOX, START, run_on_next_window
from tests.support.program import ENVIRONMENT, mailtide

OF_HIM = (*MARKS, NAME, ADDRESS)
SEED = 5
SETTINGS = (
    f"seed={SEED}",
    "split.train=0.5",
    "split.val=0.4",
    "window.bootstrap=60",
    "window.count=40",
    "window.age=null",
    "chunk.max_tokens=256",
    "gate.max_loss=1.0",
    "gate.max_drift=1.0",
    "index.engine=bm25",
    f"mailboxes.{MAILBOX}.clock=header",
)
KILLS = 6
"""Spread over the effects there are, each followed by another life that may be killed too."""


@pytest.fixture(scope="module")
def ids() -> list[str]:
    return thread_ids(SEED, load(None, environment={}, overrides=SETTINGS).split, Split.TRAIN, len(MARKS))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> Path:
    path = tmp_path_factory.mktemp("archive") / "mail.mbox"
    write_archive(path, ids, seed=SEED, messages=160)
    return path


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load(None, environment={}, overrides=SETTINGS)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, archive: Path, settings: Settings) -> Path:
    """Two promoted adapters: he is in the first window's train split, so the base has read him as well."""
    home = Home(tmp_path_factory.mktemp("template") / "home")
    make_home(home, settings, PeopleKey(b"k" * 32))
    write_home(home, settings)
    with Store.open(home, settings, VERSIONS) as store:
        import_archives(store, home, settings, [archive], mailbox=MAILBOX, clock=None, on_progress=lambda *_: None)
        for number in range(2):
            decision = run_on_next_window(store, home, settings, number)
            assert decision.status == "promoted", decision.reasons
        answer(store, home, MAILBOX, "harbour wall")  # which makes the index of words
    # His words stand where chunks have their names, so that the search finds them: tokens are numbers.
    told = [[mark, [1, 2, 3], 1, 3, []] for mark in MARKS]
    Tokenised(home, MAILBOX, 1 << 20).add("0" * 32, pa.table([*map(list, zip(*told, strict=True))], schema=TOKENISED))
    deploy_pending(home, settings)
    return home.root


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Home:
    shutil.copytree(template, tmp_path / "home", symlinks=True)
    return Home(tmp_path / "home")


@pytest.fixture
def store(home: Home, settings: Settings) -> Iterator[Store]:
    with Store.open(home, settings, VERSIONS) as opened:
        yield opened


def forget(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--home", str(home.root), "forget", *arguments])


def erased(home: Home, settings: Settings, kind: Kind, value: str) -> None:
    erase(home, settings, opener(home, settings), Asked(MAILBOX, kind, value), "test")


def test_nothing_is_left_of_a_sender_and_everything_of_the_others(home: Home, settings: Settings, ids: list[str]) -> None:
    assert {place.split(": ")[1] for place in traces(home.root, OF_HIM)} == set(OF_HIM), "the search finds what is there"
    with Store.open(home, settings, VERSIONS) as store:
        others = {one.message_key: one for one in store.all_messages(MAILBOX) if one.message_key not in ids}
    assert forget(home, "--sender", ADDRESS.upper(), "--confirm").exit_code == 0
    assert traces(home.root, OF_HIM) == []
    with Store.open(home, settings, VERSIONS) as store:
        for message in store.all_messages(MAILBOX):
            if message.message_key in ids:
                assert (message.text, message.own_text, message.sender_address, message.subject) == ("", "", "", "")
            elif message.message_key == ANSWERED:
                assert (message.text, message.own_text) == ("", others[ANSWERED].own_text), (
                    "the quotes went, his words stay"
                )
            else:
                assert message == others[message.message_key]
        rows = store.query("SELECT sender, subject, split FROM messages WHERE message_key = ?", [ids[0]])
        assert rows == [(None, None, "train")], "what was assigned stays assigned"
    assert traces(home.root, [KEPT_MARK, OTHER])


def test_what_learned_from_it_is_tainted_and_gone_and_the_receipts_still_hold(home: Home, settings: Settings) -> None:
    erased(home, settings, Kind.SENDER, ADDRESS)
    with Store.open(home, settings, VERSIONS) as store:
        state = journal(store)
        assert {one.status for one in state.adapters.values()} == {Status.TAINTED}
        assert state.champion(MAILBOX) is None
        (plan,) = [read(home, row[0]).plan for row in store.query("SELECT erasure_id FROM erasures")]
        runs = [row[0] for row in store.query("SELECT run_id FROM run_results")]
        assert len(plan.adapters) == len(runs) == 2
        assert [verify(home, run_id, recorded(store, run_id)) for run_id in runs] == [[], []]
        assert verify_erasures(store, home) == {plan.erasure_id: []}
        request = undecided(store, MAILBOX)
    assert not any(home.adapter(one).exists() for one in plan.adapters)
    assert not any(home.base(MAILBOX, one).exists() for one in plan.bases)
    assert not home.champion_link(MAILBOX).is_symlink() or deploy_pending(home, settings) == []
    assert not home.champion_link(MAILBOX).is_symlink()
    assert request is not None and request.parent is None and request.base.base_id not in plan.bases
    manifest = prepare_run(home, request, home.run(request.run_id)).manifest
    trained = set(manifest.table["chunk_id"].to_pylist())
    assert trained and trained.isdisjoint(plan.chunk_ids)
    with pytest.raises(RunError, match=f"run {runs[0]} cannot be made again.*erased"):
        reproduce(home, runs[0], lambda step: None)


def test_a_message_of_the_second_window_leaves_the_first_adapter_to_answer(
    home: Home, settings: Settings, ids: list[str]
) -> None:
    with Store.open(home, settings, VERSIONS) as store:
        first = store.scalar("SELECT adapter_id FROM adapters ORDER BY created_at LIMIT 1")
        second = journal(store).champion(MAILBOX)
        (window,) = store.query("SELECT window_idx FROM message_rows WHERE message_key = ?", [ids[1]])[0]
    assert window == 1
    done = forget(home, "--message", f"<{ids[1]}>", "--confirm", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["plan"]
    assert (told["champion"], told["successor"], told["adapters"], told["bases"]) == (second, first, [second], [])
    assert traces(home.root, [MARKS[1]]) == []
    assert traces(home.root, [MARKS[0]]), "his other mail stays"
    assert home.champion_link(MAILBOX).resolve() == home.adapter(first).resolve()
    with Store.open(home, settings, VERSIONS) as store:
        assert journal(store).champion(MAILBOX) == first
        request = undecided(store, MAILBOX)
        assert request is not None and request.parent is not None and request.parent.adapter_id == first


def test_a_thread_goes_with_all_its_mails(home: Home, settings: Settings, ids: list[str], store: Store) -> None:
    (thread,) = store.query("SELECT thread_id FROM message_rows WHERE message_key = ?", [ids[0]])[0]
    store.close()
    erased(home, settings, Kind.THREAD, thread)
    assert traces(home.root, [MARKS[0], KEPT_MARK]) == []


def test_importing_it_again_restores_nothing(home: Home, settings: Settings, archive: Path, tmp_path: Path) -> None:
    erased(home, settings, Kind.SENDER, ADDRESS)
    copy = shutil.copyfile(archive, tmp_path / "copy.mbox")
    with Store.open(home, settings, VERSIONS) as store:
        summary = import_archives(store, home, settings, [copy], mailbox=MAILBOX, clock=None, on_progress=lambda *_: None)
        assert (summary.new, summary.duplicates) == (0, summary.read)
        found = answer(store, home, MAILBOX, f"the {MARKS[0]} beside the harbour wall")
        assert all(ADDRESS not in citation.sender_address for citation in found.citations)
    assert traces(home.root, OF_HIM) == []


def test_his_name_in_new_mail_does_not_come_back_to_what_was_erased(home: Home, settings: Settings, ids: list[str]) -> None:
    erased(home, settings, Kind.MESSAGE, ids[0])
    with Store.open(home, settings, VERSIONS) as store:
        assert store.query("SELECT sender FROM messages WHERE message_key = ?", [ids[1]]) == [(ADDRESS,)]
        assert store.query("SELECT sender FROM messages WHERE message_key = ?", [ids[0]]) == [(None,)]


def test_a_body_that_two_share_goes_with_its_last_owner(home: Home, settings: Settings, ids: list[str]) -> None:
    with Store.open(home, settings, VERSIONS) as store:
        (own,) = store.fetch(MessageRow, "message_key = ?", [ids[2]])
        twin = "twin@vex.example"
        store.append([replace(own, message_key=twin, base_key=twin, arrival_ordinal=10_000)])
    erased(home, settings, Kind.MESSAGE, ids[2])
    with Store.open(home, settings, VERSIONS) as store:
        messages = store.messages_by_key(MAILBOX, [ids[2], twin])
        assert (messages[ids[2]].text, MARKS[2] in messages[twin].text) == ("", True)
    erased(home, settings, Kind.MESSAGE, twin)
    assert traces(home.root, [MARKS[2]]) == []


def test_dead_letters_claim_checks_sheets_and_corrections_go_too(home: Home, settings: Settings, ids: list[str]) -> None:
    raw = f"From: {NAME} <{ADDRESS}>\nMessage-ID: <lost@vex.example>\nSubject: x\n\nthe lostmarkword\n".encode()
    other = b"From: ann@example.org\nMessage-ID: <a@example.org>\n\nthe keptmarkword\n"
    name = "ab" * 32
    write_atomic(home.root / "claims" / name[:2] / name, raw)
    write_atomic(home.spot_checks(MAILBOX) / "a-b.json", b"the lostmarkword")
    with Store.open(home, settings, VERSIONS) as store:
        champion = journal(store).champion(MAILBOX) or ""
        letters = [("f/1", "1" * 64, raw), ("f/2", "2" * 64, other)]
        store.append(
            [
                *(RawRow(sha, body) for _, sha, body in letters),
                *(
                    DeadLetterRow(letter, MAILBOX, "f", "c", START, "parse", "broken", 1, sha, START)
                    for letter, sha, _ in letters
                ),
                DeadLetterRow("f/3", MAILBOX, "f", "c", START, "parse", "gone", 1, EMPTY, START),
                TextRow("3" * 64, "better: the correctionmarkword"),
                FeedbackRow("fb", "an", MAILBOX, champion, None, "corrected", "3" * 64, START),
            ]
        )
    erased(home, settings, Kind.SENDER, ADDRESS)
    assert traces(home.root, ["lostmarkword", "correctionmarkword"]) == []
    assert traces(home.root, ["keptmarkword"])


def test_a_run_that_would_read_it_is_withdrawn(home: Home, settings: Settings, ids: list[str]) -> None:
    from streams.runs.runner import Runner

    with Store.open(home, settings, VERSIONS) as store:
        request = claim(store, home, settings, MAILBOX, ALL_WAITING, utc_now())
    erased(home, settings, Kind.SENDER, ADDRESS)
    with Store.open(home, settings, VERSIONS) as store:
        assert store.query("SELECT status FROM runs WHERE run_id = ?", [request.run_id]) == [("failed",)]
        later = undecided(store, MAILBOX)
    assert later is not None and later.run_id != request.run_id
    with Runner(home) as runner, pytest.raises(RunError, match="withdrawn"):
        runner.run(request.run_id, lambda step: None)


def test_unknown_and_erased_are_told_apart_and_nothing_is_done(home: Home, settings: Settings, ids: list[str]) -> None:
    before = sha256_folder(home.root / "shards")
    for option, value in (("--sender", "nobody@vex.example"), ("--message", "none@vex.example"), ("--thread", "0" * 16)):
        refused = forget(home, option, value, "--confirm")
        assert isinstance(refused.exception, UsageError) and value in refused.exception.message
        assert "mailtide sql" in refused.exception.hint
    for wrong in (("--confirm",), ("--sender", ADDRESS, "--thread", "x"), ("--message", " ")):
        assert isinstance(forget(home, *wrong).exception, UsageError)
    unsure = forget(home, "--sender", ADDRESS)
    assert isinstance(unsure.exception, UsageError) and "--confirm" in unsure.exception.hint
    looked = forget(home, "--sender", ADDRESS, "--dry-run", "--json")
    assert json.loads(looked.stdout)["messages"] == ids
    assert sha256_folder(home.root / "shards") == before and not (home.root / "erasures").exists()
    erased(home, settings, Kind.MESSAGE, ids[0])
    assert isinstance(forget(home, "--message", ids[0], "--confirm").exception, NothingToDo)


def test_the_receipt_names_nobody_and_one_changed_byte_is_found(home: Home, settings: Settings) -> None:
    erased(home, settings, Kind.SENDER, ADDRESS)
    with Store.open(home, settings, VERSIONS) as store:
        (erasure_id,) = store.query("SELECT erasure_id FROM erasures")[0]
        path = path_of(home, erasure_id)
        kept = path.read_bytes()
        assert not any(word.encode() in kept for word in OF_HIM)
        path.write_bytes(kept.replace(b'"version": 1', b'"version": 2'))
        assert verify_erasures(store, home)[erasure_id]
        path.write_bytes(kept)
        window = min(read(home, erasure_id).texts)
        text = home.shard(MAILBOX, window) / "text.parquet"
        pq.write_table(pq.read_table(text), text, compression="none")
        assert "text.parquet" in verify_erasures(store, home)[erasure_id][0]


def test_through_the_process_that_holds_the_store(home: Home, settings: Settings) -> None:
    def open_store() -> Store:
        return Store.open(home, settings, VERSIONS)

    held = HeldStore(open_store(), open_store)
    door = OwnerSocket(home, held, lambda: Board(1, START, ()).state)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "streams.cli", "--home", str(home.root), "forget", "--sender", ADDRESS, "--confirm"],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            cwd=REPOSITORY,
        )
        assert done.returncode == 0, done.stderr
        with held.writing() as store:
            assert store.query("SELECT count(*) FROM erasures WHERE finished_at IS NOT NULL") == [(1,)]
    finally:
        door.close()
        held.close()
    assert traces(home.root, OF_HIM) == []


def test_what_a_crash_left_is_finished_by_the_next(home: Home, settings: Settings) -> None:
    with Store.open(home, settings, VERSIONS) as store:
        plan = plan_erasure(store, home, Asked(MAILBOX, Kind.SENDER, ADDRESS), utc_now())
        note(store, home, plan, "test")
        assert [one.erasure_id for one in unfinished(store)] == [plan.erasure_id]
        found = answer(store, home, MAILBOX, f"the {MARKS[0]} beside the harbour wall")
        assert all(MARKS[0] not in citation.passage for citation in found.citations), "it is not quoted any more"
    (receipt,) = finish(home, settings, opener(home, settings))
    assert receipt.plan == plan and traces(home.root, OF_HIM) == []
    assert finish(home, settings, opener(home, settings)) == []


def test_daemon_and_command_killed_while_a_run_trains_the_next_daemon_finishes(
    home: Home, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "inbox" / "new").mkdir(parents=True)
    (tmp_path / "inbox" / "cur").mkdir()
    feed = f"mailboxes.{MAILBOX}.feeds=[{{kind: maildir, path: {tmp_path / 'inbox'}}}]"
    write_home(home, load(None, environment={}, overrides=(*SETTINGS, feed)))
    with Store.open(home, settings, VERSIONS) as store:
        request = claim(store, home, settings, MAILBOX, ALL_WAITING, utc_now())
    # Whoever trains has the run's lock, and here does not let go of it: the erasure is decided, and gets no further.
    with locked(home.run(request.run_id) / RUNNING), daemon(home) as first:
        asked = mailtide(home.root, "forget", "--sender", ADDRESS, "--confirm")
        forgetting = subprocess.Popen(asked, cwd=REPOSITORY, env=ENVIRONMENT)
        try:
            until(lambda: is_withdrawn(home, request.run_id) or forgetting.poll() is not None)
            assert forgetting.poll() is None
            first.kill()
        finally:
            forgetting.kill()
            forgetting.wait()
    assert traces(home.root, OF_HIM)
    with daemon(home):
        ((finished,),) = [tuple(row.values()) for row in rows(home, "SELECT finished_at FROM erasures")]
        assert finished is not None
        assert rows(home, f"SELECT status FROM runs WHERE run_id = '{request.run_id}'") == [{"status": "failed"}]
    assert traces(home.root, OF_HIM) == []


def test_kills_at_any_step_leave_something_that_the_next_life_finishes(
    template: Path, home: Home, settings: Settings
) -> None:
    with lives("tests.support.forgetting_lives", str(home.root), ADDRESS) as doomed_ones:
        live = doomed_ones.live
        code, effects = live(0)
        assert code == 0 and effects > 20
        killed = 0
        for number in range(KILLS):
            shutil.rmtree(home.root)
            shutil.copytree(template, home.root, symlinks=True)
            for doomed in (1 + number * effects // KILLS, 3 + number):
                code, _ = live(doomed)
                assert code in (0, -9)
                killed += code == -9
            assert live(0)[0] == 0
            assert traces(home.root, OF_HIM) == []
            with Store.open(home, settings, VERSIONS) as store:
                ((erasure_id, finished),) = store.query("SELECT erasure_id, finished_at FROM erasures")
                assert finished is not None and verify_erasures(store, home) == {erasure_id: []}
                request: RunRequest | None = undecided(store, MAILBOX)
                assert request is not None and request.parent is None
        assert killed >= KILLS
