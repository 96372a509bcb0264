"""A thread's split follows from seed and id alone."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.arrival.splits import split_of, unit
from pipeline.config.settings import SplitSettings
from pipeline.domain import Split


def test_unit_is_the_first_eight_bytes_of_sha256() -> None:
    digest = hashlib.sha256(b"7:0123456789abcdef").hexdigest()
    assert unit(7, "0123456789abcdef") == int(digest[:16], 16) / 2**64


@pytest.mark.parametrize(
    ("thread_id", "expected"),
    [("0000000000000000", Split.VAL), ("0000000000000001", Split.TRAIN), ("0000000000000004", Split.TEST)],
)
def test_splits_never_move(thread_id: str, expected: Split) -> None:
    """Stored splits were drawn so: another result here would disagree with every store there is."""
    assert split_of(0, thread_id, SplitSettings()) is expected


@given(st.integers(0, 2**32), st.text(max_size=20))
def test_below_train_below_val_else_test(seed: int, thread_id: str) -> None:
    ratios = SplitSettings(train=0.5, val=0.3, test=0.2)
    drawn = unit(seed, thread_id)
    expected = Split.TRAIN if drawn < 0.5 else Split.VAL if drawn < 0.8 else Split.TEST
    assert 0 <= drawn <= 1
    assert split_of(seed, thread_id, ratios) is expected


def test_shares_come_out_near_the_ratios() -> None:
    drawn = [split_of(3, f"{number:016x}", SplitSettings()) for number in range(20_000)]
    assert abs(drawn.count(Split.TRAIN) / 20_000 - 0.8) < 0.01
    assert abs(drawn.count(Split.VAL) / 20_000 - 0.1) < 0.01


def test_another_seed_draws_otherwise() -> None:
    ids = [f"{number:016x}" for number in range(200)]
    assert [split_of(0, one, SplitSettings()) for one in ids] != [split_of(1, one, SplitSettings()) for one in ids]
