"""What a receipt speaks of is whole when nothing changed, and one changed byte anywhere is found and its file named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.chunking.shards import CHUNKS, TEXT, erase_texts
from pipeline.errors import UsageError
from pipeline.store.rows import ExclusionRow
from registry.receipt import FILES, RECEIPT, Receipt
from registry.signing import SigningKey
from registry.verify import Recorded, recorded, verify
from streams.cli.commands import cli
from tests.support.finished import Finished, flip_a_byte
from tests.support.lineage import MAILBOX


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Finished]:
    made = Finished.at(tmp_path / "home")
    yield made
    made.store.close()


def problems(runs: Finished, run_id: str) -> list[str]:
    return verify(runs.home, run_id, recorded(runs.store, run_id))


def rewritten(runs: Finished, run_id: str, **fields: object) -> Path:
    """The run's receipt with other fields, signed with the home's own key."""
    path = runs.home.run(run_id) / RECEIPT
    receipt = Receipt.from_bytes(path.read_bytes()).model_copy(update=fields)
    path.write_bytes(receipt.signed(SigningKey.of(runs.home)).to_bytes())
    return path


def test_what_was_not_touched_is_whole_up_to_the_base(runs: Finished) -> None:
    for asked in (runs.step()[0], runs.step()[0], runs.step(old=0.2)[0]):
        assert problems(runs, asked.run_id) == []
        assert verify(runs.home, asked.run_id) == []


def test_one_changed_byte_is_found_in_every_file_and_the_file_is_named(runs: Finished) -> None:
    first, _, _ = runs.step()
    asked, _, _ = runs.step()
    home, folder = runs.home, runs.home.run(asked.run_id)
    covered = [folder / name for name in (*FILES, RECEIPT)]
    covered.append(home.adapter(asked.adapter_id) / "adapter_model.safetensors")
    covered.append(home.base(MAILBOX, "base") / "model.safetensors")
    covered += [home.shard(MAILBOX, window) / name for window in (0, 1) for name in (CHUNKS, TEXT)]
    covered.append(home.run(first.run_id) / RECEIPT)
    covered.append(home.signing_key)
    assert len(covered) == 20
    kept = recorded(runs.store, asked.run_id)
    for path in covered:
        whole = path.read_bytes()
        size = len(whole.rstrip())
        for place in {0, size // 4, size // 2, size - 1}:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x01]) + whole[place + 1 :])
            found = verify(home, asked.run_id, kept)
            assert any(str(path) in problem for problem in found), f"byte {place} of {path.name}: {found}"
        path.write_bytes(whole)
    assert verify(home, asked.run_id, kept) == []


def test_only_the_culprit_is_named(runs: Finished) -> None:
    asked, _, _ = runs.step()
    weights = runs.home.adapter(asked.adapter_id) / "adapter_model.safetensors"
    flip_a_byte(weights)
    assert problems(runs, asked.run_id) == [f"{weights} was changed: its sha256 is not the one in the receipt"]


def test_what_is_missing_or_was_added_is_named(runs: Finished) -> None:
    asked, _, _ = runs.step()
    metrics = runs.home.run(asked.run_id) / "metrics.jsonl"
    metrics.unlink()
    added = runs.home.adapter(asked.adapter_id) / "more" / "pickle.bin"
    added.parent.mkdir()
    added.write_bytes(b"code")
    assert problems(runs, asked.run_id) == [
        f"{metrics} is missing",
        f"{added} was added: the receipt does not know it",
    ]
    assert verify(runs.home, "0" * 12) == [f"{runs.home.run('0' * 12) / RECEIPT} is missing"]
    with pytest.raises(UsageError, match="there is no run"):
        recorded(runs.store, "0" * 12)


def test_a_receipt_forged_with_the_homes_own_key_is_found_by_the_stores_record(runs: Finished) -> None:
    asked, _, _ = runs.step()
    path = rewritten(runs, asked.run_id, environment={"torch": "1.0"})
    assert verify(runs.home, asked.run_id) == []
    assert problems(runs, asked.run_id) == [f"{path} is not the one that the store recorded"]


def test_a_verdict_and_a_request_that_differ_from_the_stores_are_found(runs: Finished) -> None:
    asked, _, decision = runs.step()
    assert decision.verdict is not None
    told = {**json.loads(decision.verdict.to_json()), "outcome": "rejected"}
    path = rewritten(runs, asked.run_id, verdict=told)
    assert f"{path} holds another verdict than the store" in problems(runs, asked.run_id)
    request = runs.home.run(asked.run_id) / "request.json"
    request.write_text(asked.model_copy(update={"mailbox": "other"}).model_dump_json())
    assert f"{request} is not the request that the store recorded" in problems(runs, asked.run_id)


def test_one_signed_by_another_key_is_found_without_a_store(runs: Finished) -> None:
    asked, _, _ = runs.step()
    path = runs.home.run(asked.run_id) / RECEIPT
    other = SigningKey(b"o" * 32)
    path.write_bytes(Receipt.from_bytes(path.read_bytes()).signed(other).to_bytes())
    (problem,) = verify(runs.home, asked.run_id)
    assert problem.startswith(f"{path} was signed by {other.public[:16]}")
    runs.home.signing_key.unlink()
    (problem,) = verify(runs.home, asked.run_id)
    assert problem.startswith(f"{runs.home.signing_key} is missing")
    assert not runs.home.signing_key.exists()


def test_a_changed_receipt_up_the_lineage_breaks_the_chain(runs: Finished) -> None:
    first, _, _ = runs.step()
    runs.step()
    third, _, _ = runs.step()
    path = rewritten(runs, first.run_id, environment={})
    assert problems(runs, third.run_id) == [f"{path} was changed: its sha256 is not the one in the receipt"]
    path.unlink()
    assert problems(runs, third.run_id) == [f"{path} is missing"]


def test_a_receipt_of_an_earlier_version_is_no_forgery(runs: Finished) -> None:
    asked, _, _ = runs.step()
    path = runs.home.run(asked.run_id) / RECEIPT
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "version": 1}))
    assert verify(runs.home, asked.run_id) == [f"{path} is of version 1, this program reads 2"]


def test_erased_text_is_no_change_and_missing_text_is(runs: Finished) -> None:
    asked, _, _ = runs.step()
    erase_texts(runs.home.shard(MAILBOX, 0), ["train0-0:w0:0"])
    (problem,) = problems(runs, asked.run_id)
    assert "lacks the text of 1 chunks" in problem
    runs.store.append([ExclusionRow(MAILBOX, "train0-0", None, "erased", 0, runs.now)])
    assert problems(runs, asked.run_id) == []


def test_an_exclusion_excuses_no_other_change_of_texts(runs: Finished) -> None:
    asked, _, _ = runs.step()
    runs.store.append([ExclusionRow(MAILBOX, "train0-0", None, "duplicate", 0, runs.now)])
    text = runs.home.shard(MAILBOX, 0) / TEXT
    whole = text.read_bytes()
    at = whole.rindex(b"parquet-cpp")
    text.write_bytes(whole[:at] + b"q" + whole[at + 1 :])
    assert problems(runs, asked.run_id) == [f"{text} was changed: its sha256 is not the one in the store"]
    assert verify(runs.home, asked.run_id, Recorded()) == []


def test_the_command_names_the_file_and_fails(runs: Finished) -> None:
    first, _, _ = runs.step()
    second, _, _ = runs.step()
    runs.store.close()
    asked = ["--home", str(runs.home.root), "registry", "verify"]
    done = CliRunner().invoke(cli, asked, catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (
        0,
        f"{first.run_id}  all as recorded\n{second.run_id}  all as recorded\n",
    )
    weights = runs.home.adapter(second.adapter_id) / "adapter_model.safetensors"
    flip_a_byte(weights)
    by_run = CliRunner().invoke(cli, [*asked, second.run_id], standalone_mode=False, catch_exceptions=False)
    by_adapter = CliRunner().invoke(cli, [*asked, second.adapter_id], standalone_mode=False, catch_exceptions=False)
    problem = f"{weights} was changed: its sha256 is not the one in the receipt"
    assert by_run.stdout == by_adapter.stdout == f"{second.run_id}  not as recorded:\n  {problem}\n"
    assert by_run.return_value == 1
    told = CliRunner().invoke(cli, [*asked, "--json"], standalone_mode=False, catch_exceptions=False)
    assert json.loads(told.stdout) == {first.run_id: [], second.run_id: [problem]}
    with pytest.raises(UsageError, match="there is no adapter or run nobody"):
        CliRunner().invoke(cli, [*asked, "nobody"], catch_exceptions=False)
