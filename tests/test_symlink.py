"""The champion's link: one whole adapter or the other, never an older one, whatever arrives how often."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RegistryError
from pipeline.events import AdapterPromoted
from pipeline.home import Home, private_dir, sha256_folder, write_atomic
from registry.deploy.symlink import note_path, take

WEIGHTS = "adapter_model.safetensors"


def promotion(home: Home, adapter_id: str, ordinal: int, mailbox: str = "main") -> AdapterPromoted:
    folder = private_dir(home.adapter(adapter_id))
    if not (folder / WEIGHTS).exists():
        write_atomic(folder / WEIGHTS, adapter_id.encode())
    return AdapterPromoted(
        mailbox=mailbox,
        adapter_id=adapter_id,
        path=folder.relative_to(home.root).as_posix(),
        sha256=sha256_folder(folder),
        journal_ordinal=ordinal,
    )


def serving(home: Home, mailbox: str = "main") -> str:
    return (home.champion_link(mailbox) / WEIGHTS).read_text()


def test_the_link_is_relative_so_that_a_home_can_be_moved(home: Home, tmp_path: Path) -> None:
    assert take(home, promotion(home, "a1", 3))
    assert serving(home) == "a1"
    home.root.rename(tmp_path / "moved")
    assert serving(Home(tmp_path / "moved")) == "a1"


def test_again_is_nothing_and_older_is_refused_quietly(home: Home) -> None:
    older, newer = promotion(home, "a1", 3), promotion(home, "a2", 6)
    assert take(home, older) and take(home, newer) and take(home, newer)
    assert not take(home, older)
    assert serving(home) == "a2"


def test_a_rollback_is_a_newer_promotion_of_an_older_adapter(home: Home) -> None:
    for adapter_id, ordinal in (("a1", 3), ("a2", 6), ("a1", 7)):
        assert take(home, promotion(home, adapter_id, ordinal))
    assert serving(home) == "a1"


def test_mailboxes_have_links_of_their_own(home: Home) -> None:
    take(home, promotion(home, "a1", 3))
    take(home, promotion(home, "b1", 2, mailbox="work"))
    assert (serving(home), serving(home, "work")) == ("a1", "b1")


def test_a_damaged_or_missing_adapter_never_serves(home: Home) -> None:
    take(home, promotion(home, "a1", 3))
    damaged = promotion(home, "a2", 6)
    (home.adapter("a2") / WEIGHTS).write_text("other weights")
    with pytest.raises(RegistryError, match="a2 was promoted"):
        take(home, damaged)
    assert serving(home) == "a1"
    assert take(home, promotion(home, "a3", 7))


def test_a_crash_between_note_and_link_is_mended_by_the_next_delivery(home: Home) -> None:
    older, newer = promotion(home, "a1", 3), promotion(home, "a2", 6)
    take(home, older)
    taken = note_path(home, "main").read_bytes()
    take(home, newer)
    link = home.champion_link("main")
    link.unlink()
    link.symlink_to(Path("../adapters/a1"))
    assert note_path(home, "main").read_bytes() != taken
    assert not take(home, older)
    assert take(home, newer)
    assert serving(home) == "a2"


def test_what_stands_in_the_way_is_left_alone(home: Home) -> None:
    private_dir(home.champion_link("main"))
    with pytest.raises(RegistryError, match="in the way"):
        take(home, promotion(home, "a1", 3))
    note_path(home, "main").write_text("not json")
    with pytest.raises(RegistryError, match="cannot be read"):
        take(home, promotion(home, "a1", 3))


def test_a_reader_always_finds_a_whole_adapter(home: Home) -> None:
    events = [promotion(home, f"a{number % 2}", number) for number in range(1, 120)]
    take(home, events[0])
    done, seen = threading.Event(), set()

    def read() -> None:
        while not done.is_set():
            seen.add(serving(home))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for event in events:
            take(home, event)
    finally:
        done.set()
        reader.join()
    assert seen == {"a0", "a1"}


@given(deliveries=st.lists(st.integers(1, 8), min_size=1, max_size=10))
@settings(max_examples=25, deadline=None)
def test_whatever_the_order_and_repetition_the_newest_delivered_serves(
    tmp_path_factory: pytest.TempPathFactory, deliveries: list[int]
) -> None:
    home = Home(tmp_path_factory.mktemp("homes"))
    for place, ordinal in enumerate(deliveries):
        taken = take(home, promotion(home, f"a{ordinal}", ordinal))
        newest = max(deliveries[: place + 1])
        assert taken == (ordinal == newest)
        assert serving(home) == f"a{newest}"
