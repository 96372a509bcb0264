"""Chunks tokenised once: the same examples with and without, and nothing that is damaged, foreign or forgotten."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.chunking.shards import TEXT
from pipeline.chunking.tokenised import LOCK, TOKENISED, Tokenised, erase_tokenised
from pipeline.config.settings import TrainSettings
from pipeline.domain import Split
from pipeline.errors import ShardError
from pipeline.filelock import locked
from pipeline.home import Home
from pipeline.runs.requests import RunRequest
from retrain.models.base import learn_tokenizer
from retrain.training.examples import Reader
from retrain.training.token_cache import way_of
from tests.support.lineage import MAILBOX, Lineage, sender_key
from tests.support.mailroom import PEOPLE, TINY, letters, tiny_settings

CONTEXT = 250
KEY, OTHER = "0" * 32, "1" * 32


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return learn_tokenizer([chunk.text for chunk in letters(0) if chunk.split is Split.TRAIN], TINY)


def request_of(root: Path, **changes: Any) -> RunRequest:
    """Of a home with two windows."""
    settings = tiny_settings(train=TrainSettings(**changes))
    lineage = Lineage.at(root, settings)
    for window in range(2):
        lineage.close(letters(window, 16))
    return lineage.request()


IDS = [chunk.chunk_id for window in range(2) for chunk in letters(window, 16)]


def files(home: Home) -> list[Path]:
    return sorted(home.tokenised.glob("*/*"))


def without_texts(home: Home) -> None:
    """From here on nothing can be tokenised: what is read, was kept."""
    for path in home.root.glob(f"shards/*/*/{TEXT}"):
        path.unlink()


@pytest.mark.parametrize("objective", ["cpt", "reply"])
def test_examples_are_the_same_with_and_without(objective: str, tokenizer: Any, tmp_path: Path) -> None:
    def ask(root: Path, gib: float) -> RunRequest:
        asked = request_of(root, token_cache_gib=gib)
        model = asked.settings.model.model_copy(update={"objective": objective})
        owner = tuple(sender_key(name) for name in PEOPLE[:2]) if objective == "reply" else ()
        return asked.model_copy(update={"settings": asked.settings.model_copy(update={"model": model}), "owner": owner})

    off, home = Home(tmp_path / "off"), Home(tmp_path / "on")
    plain = Reader(off, ask(off.root, 0.0), tokenizer, CONTEXT).examples(IDS)
    assert not off.tokenised.exists()
    reader = Reader(home, ask(home.root, 0.1), tokenizer, CONTEXT)
    some = reader.examples(IDS[::3])
    assert some == {chunk_id: plain[chunk_id] for chunk_id in IDS[::3]}
    all_of_them = reader.examples(IDS)
    without_texts(home)
    again = reader.examples(IDS[::-1])
    assert plain == all_of_them == again and list(plain) == list(all_of_them) == list(again) == IDS
    assert any(example.unlabelled for example in plain.values()) is (objective == "reply")
    assert len(files(home)) == 2, "one of each shard"
    assert {path.stat().st_mode & 0o777 for path in files(home)} == {0o600}
    with pytest.raises(ShardError):
        Reader(home, ask(tmp_path / "off", 0.1), tokenizer, CONTEXT - 1).examples(IDS)


def test_it_is_no_part_of_what_a_run_is_named_by(tmp_path: Path) -> None:
    names = {request_of(tmp_path / str(gib), token_cache_gib=gib).run_id for gib in (0.0, 0.5)}
    assert len(names) == 1


def test_another_way_of_making_examples_is_another_file(tokenizer: Any) -> None:
    other = learn_tokenizer(["boats and harbours"], TINY)
    ways = [
        way_of(tokenizer, 96),
        way_of(tokenizer, 95),
        way_of(other, 96),
        way_of(tokenizer, 96, template="t", owner=["a"]),
        way_of(tokenizer, 96, template="t", owner=["b"]),
        way_of(tokenizer, 96, template="u", owner=["a"]),
    ]
    assert len(set(ways)) == len(ways)
    tokenizer(["boat", "a long harbour"], padding=True, truncation=True, max_length=2)
    assert way_of(tokenizer, 96) == ways[0], "how it was called before is no part of it"


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def another_ones(path: Path) -> None:
    """A whole file of somebody else's, under the name of ours."""
    table = pq.read_table(path)
    ids = pa.array([[1, 2, 3]] * table.num_rows, TOKENISED.field("ids").type)
    pq.write_table(table.set_column(1, TOKENISED.field("ids"), ids), path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [cut_short, one_bit, another_ones, a_folder])
def test_what_is_damaged_or_foreign_is_made_anew(damage: Callable[[Path], None], tokenizer: Any, tmp_path: Path) -> None:
    home = Home(tmp_path)
    reader = Reader(home, request_of(tmp_path), tokenizer, CONTEXT)
    before = reader.examples(IDS)
    for path in files(home):
        damage(path)
    assert reader.examples(IDS) == before
    if damage is not a_folder:
        without_texts(home)
        assert reader.examples(IDS) == before, "and kept again"


def rows(*names: str, length: int = 10) -> pa.Table:
    columns = [list(names), *([[value] * len(names) for value in ([7] * length, 1, 3, [])])]
    return pa.table(columns, schema=TOKENISED)


def ids_of(table: pa.Table | None) -> list[str]:
    return [] if table is None else table["chunk_id"].to_pylist()


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    home = Home(tmp_path)
    roomy = Tokenised(home, MAILBOX, 1 << 20)
    keys = [str(number) * 32 for number in range(4)]
    for age, key in enumerate(keys[:3]):
        roomy.add(key, rows(f"c{key}"))
        for path in home.tokenised.glob(f"*/{key}.*"):
            os.utime(path, (1_000_000 + age, 1_000_000 + age))
    size = max(path.stat().st_size for path in files(home))
    assert ids_of(roomy.read(keys[0])) == [f"c{keys[0]}"], "which is a use"
    Tokenised(home, "another", 3 * size + 10).add(keys[3], rows(f"c{keys[3]}"))
    assert [bool(ids_of(roomy.read(key))) for key in keys[:3]] == [True, False, True]
    assert sum(path.stat().st_size for path in files(home)) <= 3 * size + 10


def test_what_is_larger_than_all_that_is_allowed_is_not_kept(tmp_path: Path) -> None:
    small = Tokenised(Home(tmp_path), MAILBOX, 10)
    small.add(KEY, rows("a"))
    assert small.read(KEY) is None and files(Home(tmp_path)) == []


def test_what_a_kill_has_left_goes_with_the_next_write(tmp_path: Path) -> None:
    home = Home(tmp_path)
    kept = Tokenised(home, MAILBOX, 1 << 20)
    kept.add(KEY, rows("a"))
    (home.tokenised / MAILBOX / f".{OTHER}.{'a' * 64}.parquet.tmp").write_bytes(b"half of a fi")
    kept.add(KEY, rows("b"))
    assert len(files(home)) == 1
    assert sorted(ids_of(kept.read(KEY))) == ["a", "b"]


def test_processes_that_write_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    kept = Tokenised(Home(tmp_path), MAILBOX, 1 << 24)
    names = [f"c{number}" for number in range(24)]

    def write(some: list[str]) -> None:
        for name in some:
            kept.add(KEY, rows(name, "all"))

    writers = [threading.Thread(target=write, args=(names[part::3],)) for part in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(ids_of(kept.read(KEY))) == ["all", *sorted(names)]
    assert len(files(Home(tmp_path))) == 1


def test_a_disk_that_takes_nothing_stops_nobody(tokenizer: Any, tmp_path: Path) -> None:
    home = Home(tmp_path)
    reader = Reader(home, request_of(tmp_path), tokenizer, CONTEXT)
    home.tokenised.write_bytes(b"in the way")
    assert list(reader.examples(IDS)) == IDS


def test_erasing_takes_all_of_a_mailbox_and_waits_for_who_writes(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ours, theirs = Tokenised(home, MAILBOX, 1 << 20), Tokenised(home, "another", 1 << 20)
    ours.add(KEY, rows("a"))
    theirs.add(KEY, rows("a"))
    with locked(home.tokenised / LOCK):
        eraser = threading.Thread(target=erase_tokenised, args=(home, MAILBOX))
        eraser.start()
        assert ours.read(KEY) is not None
    eraser.join()
    assert not (home.tokenised / MAILBOX).exists() and ids_of(theirs.read(KEY)) == ["a"]
    erase_tokenised(home, MAILBOX)
    ours.add(KEY, rows("b"))
    assert ids_of(ours.read(KEY)) == ["b"], "what was erased does not come back with what is written later"
