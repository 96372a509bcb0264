"""Receipts: canonical, signed, and of every byte of theirs one that counts."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RegistryError
from pipeline.home import sha256_file
from registry.receipt import FILES, RECEIPT, Receipt, build_receipt
from registry.signing import SigningKey, is_signed
from tests.support.finished import Finished


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Finished]:
    made = Finished.at(tmp_path / "home")
    yield made
    made.store.close()


def test_it_says_what_the_run_read_and_left(runs: Finished) -> None:
    first, _, _ = runs.step()
    second, result, _ = runs.step()
    folder = runs.home.run(second.run_id)
    receipt = Receipt.from_bytes((folder / RECEIPT).read_bytes())
    assert receipt.parent is not None
    assert (receipt.parent.run_id, receipt.adapter_id) == (first.run_id, second.adapter_id)
    assert receipt.parent.receipt_sha256 == sha256_file(runs.home.run(first.run_id) / RECEIPT)
    assert receipt.verdict["outcome"] == "promoted" and receipt.verdict["policy"]["max_loss"] == 0.03
    assert receipt.environment["torch"] == "2.13.0"
    assert receipt.files == {name: sha256_file(folder / name) for name in FILES}
    assert receipt.adapter.sha256 == result.adapter_sha256
    assert set(receipt.adapter.files) == {"adapter_model.safetensors"}
    assert receipt.base is not None and set(receipt.base.files) == {"model.safetensors"}
    assert receipt.shards == second.shards


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


def test_a_receipt_is_that_of_the_homes_key_which_is_drawn_once_and_private(runs: Finished) -> None:
    first, _, _ = runs.step()
    path = runs.home.signing_key
    key = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second, _, _ = runs.step()
    assert path.read_bytes() == key
    for asked in (first, second):
        receipt = Receipt.from_bytes((runs.home.run(asked.run_id) / RECEIPT).read_bytes())
        assert receipt.signed_by == SigningKey.read(path).public


def test_one_changed_and_signed_again_is_whole_and_of_another_key(runs: Finished) -> None:
    asked, _, _ = runs.step()
    receipt = Receipt.from_bytes((runs.home.run(asked.run_id) / RECEIPT).read_bytes())
    forged = receipt.model_copy(update={"environment": {"torch": "1.0"}})
    with pytest.raises(ValueError, match="not as it was written"):
        Receipt.from_bytes(forged.to_bytes())
    other = SigningKey(b"o" * 32)
    assert Receipt.from_bytes(forged.signed(other).to_bytes()).signed_by == other.public != receipt.signed_by


def test_one_of_another_version_says_so(runs: Finished) -> None:
    asked, _, _ = runs.step()
    fields = json.loads((runs.home.run(asked.run_id) / RECEIPT).read_bytes())
    with pytest.raises(ValueError, match="of version 1, this program reads 2"):
        Receipt.from_bytes(json.dumps({**fields, "version": 1}).encode())
    with pytest.raises(ValueError):
        Receipt.from_bytes(b"[]")


def test_what_is_missing_when_it_is_written_is_named(runs: Finished) -> None:
    asked, result, decision = runs.step()
    (runs.home.run(asked.run_id) / "metrics.jsonl").unlink()
    assert decision.verdict is not None
    with pytest.raises(RegistryError, match=r"lacks metrics\.jsonl"):
        build_receipt(runs.home, asked, result, decision.verdict, runs.now)


@pytest.mark.parametrize("content", ["", "no key", "ab" * 31, "ab" * 33])
def test_a_key_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "signing.key"
    path.write_text(content)
    with pytest.raises(RegistryError, match=r"signing\.key"):
        SigningKey.read(path)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100), st.integers(min_value=0), st.data())
def test_a_signature_is_of_these_bytes_by_this_key(seed: bytes, told: bytes, place: int, data: st.DataObject) -> None:
    key = SigningKey(seed)
    signature = key.sign(told)
    assert is_signed(told, key.public, signature)
    assert key.sign(told) == signature
    assert not is_signed(told + b"x", key.public, signature)
    assert not is_signed(told, SigningKey(bytes(31) + b"1").public, signature) or seed == bytes(31) + b"1"
    other = data.draw(st.sampled_from("0123456789abcdefABCDEF ").filter(lambda digit: digit != signature[place % 128]))
    assert not is_signed(told, key.public, signature[: place % 128] + other + signature[place % 128 + 1 :])


def test_the_signature_is_that_of_the_standard() -> None:
    """RFC 8032, section 7.1, test 2."""
    key = SigningKey(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert key.public == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.sign(b"\x72").startswith("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da")
