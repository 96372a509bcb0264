"""Passes: their size by step, halved from the checkpoint on when memory runs out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capacity.passes import PASSES, Change, Passes, halved, read_changes, write_changes
from pipeline.errors import RunError


def test_the_size_changes_after_the_step_named() -> None:
    passes = Passes(4096, (Change(after_step=10, tokens=2048), Change(after_step=40, tokens=1024)))
    assert [passes.at(step) for step in (1, 10, 11, 40, 41, 999)] == [4096, 4096, 2048, 2048, 1024, 1024]
    assert Passes().at(1) is None


def test_a_size_that_nobody_set_is_halved_from_the_largest_batch() -> None:
    less = Passes().smaller(0, largest=9000, longest=700)
    assert less is not None and less.changes == (Change(after_step=0, tokens=4500),)


def test_a_second_failure_from_the_same_checkpoint_replaces_the_first() -> None:
    once = Passes(4096).smaller(10, largest=9000, longest=700)
    assert once is not None
    twice = once.smaller(10, largest=9000, longest=700)
    assert twice is not None and twice.changes == (Change(after_step=10, tokens=1024),)
    later = twice.smaller(30, largest=9000, longest=700)
    assert later is not None and later.changes == (Change(after_step=10, tokens=1024), Change(after_step=30, tokens=700))
    assert later.smaller(30, largest=9000, longest=700) is None


@given(
    first=st.none() | st.integers(1, 1 << 16),
    longest=st.integers(1, 4096),
    more=st.integers(0, 1 << 16),
    checkpoints=st.lists(st.integers(0, 500), max_size=30),
)
def test_sizes_only_fall_and_end_at_the_longest_example(
    first: int | None, longest: int, more: int, checkpoints: list[int]
) -> None:
    largest = longest + more
    passes = Passes(first)
    for checkpoint in sorted(checkpoints):
        before = min(passes.at(checkpoint + 1) or largest, largest)
        less = passes.smaller(checkpoint, largest, longest)
        if less is None:
            assert before <= longest
            break
        after = less.at(checkpoint + 1)
        assert after is not None and longest <= after < before
        assert all(less.at(step) == passes.at(step) for step in range(1, checkpoint + 1)), "what was trained stays"
        passes = less


@given(tokens=st.integers(1, 1 << 20), longest=st.integers(1, 1 << 14))
def test_halving_ends_at_the_longest_example(tokens: int, longest: int) -> None:
    less = halved(tokens, longest)
    if tokens <= longest:
        assert less is None
    else:
        assert less is not None and longest <= less < tokens


def test_changes_are_kept_and_damage_is_told(tmp_path: Path) -> None:
    assert read_changes(tmp_path) == ()
    changes = (Change(after_step=4, tokens=100),)
    write_changes(tmp_path, changes)
    assert read_changes(tmp_path) == changes
    (tmp_path / PASSES).write_text("[{")
    with pytest.raises(RunError, match=r"passes\.json is damaged"):
        read_changes(tmp_path)
