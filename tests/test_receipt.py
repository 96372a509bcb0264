"""Receipts: whole when nothing changed, and one changed byte anywhere is found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import RegistryError
from pipeline.shards import erase_texts
from registry.decide import recorded_receipt
from registry.receipt import FILES, RECEIPT, Receipt, build_receipt, verify
from tests.support.finished import Finished, flip_a_byte
from tests.support.lineage import MAILBOX


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Finished]:
    made = Finished.at(tmp_path / "home")
    yield made
    made.store.close()


def test_what_was_not_touched_is_whole_up_to_the_base(runs: Finished) -> None:
    first, _, _ = runs.step()
    second, _, _ = runs.step()
    third, _, _ = runs.step(old=0.2)
    for asked in (first, second, third):
        assert verify(runs.home, asked.run_id, recorded=recorded_receipt(runs.store, asked.run_id)) == []
    receipt = Receipt.from_bytes((runs.home.run(second.run_id) / RECEIPT).read_bytes())
    assert receipt.parent is not None
    assert (receipt.parent.run_id, receipt.adapter_id) == (first.run_id, second.adapter_id)
    assert receipt.verdict["outcome"] == "promoted"
    assert receipt.environment["torch"] == "2.13.0"


def test_one_changed_byte_is_found_wherever_it_is(runs: Finished) -> None:
    runs.step()
    asked, _, _ = runs.step()
    home, folder = runs.home, runs.home.run(asked.run_id)
    covered = [folder / name for name in (*FILES, RECEIPT)]
    covered.append(home.adapter(asked.adapter_id) / "adapter_model.safetensors")
    covered.append(home.base(MAILBOX, "base") / "model.safetensors")
    covered += [home.shard(MAILBOX, window) / name for window in (0, 1) for name in ("chunks.parquet", "text.parquet")]
    assert len(covered) == 18
    for path in covered:
        whole = path.read_bytes()
        flip_a_byte(path)
        problems = verify(home, asked.run_id)
        assert problems, f"{path.name} was changed"
        assert any(path.name in problem or path.parent.name in problem for problem in problems)
        path.write_bytes(whole)
    assert verify(home, asked.run_id) == []


def test_every_byte_of_the_receipt_counts(runs: Finished) -> None:
    asked, _, _ = runs.step()
    whole = (runs.home.run(asked.run_id) / RECEIPT).read_bytes()
    assert Receipt.from_bytes(whole).run_id == asked.run_id
    for position in range(len(whole)):
        for mask in (0x01, 0x20):
            data = bytearray(whole)
            data[position] ^= mask
            with pytest.raises(ValueError):
                Receipt.from_bytes(bytes(data))


def test_a_receipt_forged_with_its_files_is_found_by_the_stores_record(runs: Finished) -> None:
    asked, _, _ = runs.step()
    path = runs.home.run(asked.run_id) / RECEIPT
    forged = Receipt.from_bytes(path.read_bytes())
    path.write_bytes(forged.model_copy(update={"environment": {"torch": "1.0"}}).to_bytes())
    assert verify(runs.home, asked.run_id) == []
    problems = verify(runs.home, asked.run_id, recorded=recorded_receipt(runs.store, asked.run_id))
    assert problems == [f"{path} is not the one that the store recorded"]


def test_a_changed_receipt_up_the_lineage_breaks_the_chain(runs: Finished) -> None:
    first, _, _ = runs.step()
    runs.step()
    third, _, _ = runs.step()
    path = runs.home.run(first.run_id) / RECEIPT
    path.write_bytes(Receipt.from_bytes(path.read_bytes()).model_copy(update={"environment": {}}).to_bytes())
    assert verify(runs.home, third.run_id) == [f"{path} was changed: its sha256 is not the one in the receipt"]
    path.unlink()
    assert verify(runs.home, third.run_id) == [f"{path} is missing"]


def test_erased_text_is_no_change_and_missing_text_is(runs: Finished) -> None:
    asked, _, _ = runs.step()
    gone = "train0-0:w0:0"
    erase_texts(runs.home.shard(MAILBOX, 0), [gone])
    (problem,) = verify(runs.home, asked.run_id)
    assert "lacks the text of 1 chunks" in problem
    assert verify(runs.home, asked.run_id, erased=[gone]) == []


def test_what_is_missing_is_named(runs: Finished) -> None:
    asked, result, decision = runs.step()
    path = runs.home.run(asked.run_id) / "metrics.jsonl"
    path.unlink()
    assert verify(runs.home, asked.run_id) == [f"{path} is missing"]
    assert verify(runs.home, "0" * 12) == [f"{runs.home.run('0' * 12) / RECEIPT} is missing"]
    assert decision.verdict is not None
    with pytest.raises(RegistryError, match=r"lacks metrics\.jsonl"):
        build_receipt(runs.home, asked, result, decision.verdict, runs.now)
