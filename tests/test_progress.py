"""How far a consumer is in a partition survives being written beside an offset."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.bus.progress import COUNTS, LONGEST, Progress

Step = tuple[str, int]
STEPS = st.lists(st.tuples(st.sampled_from(["finish", "refuse", "advance"]), st.integers(100, 160)), max_size=60)


def after(steps: list[Step], start: int = 100) -> Progress:
    progress = Progress(start)
    for what, offset in steps:
        if what == "advance":
            progress.advance(offset)
        elif not progress.finished(offset):
            getattr(progress, what)(offset)
    return progress


def state(progress: Progress) -> list[tuple[bool, int]]:
    return [(progress.finished(offset), progress.refusals(offset)) for offset in range(90, 170)]


def test_marks_are_readable() -> None:
    progress = after([("finish", 101), ("refuse", 100), ("refuse", 103), ("refuse", 103)])
    assert (progress.start, progress.marks) == (100, "mailtide:1+-2")
    progress.finish(100)
    progress.advance(102)
    assert (progress.start, progress.marks) == (102, "mailtide:-2")


@given(STEPS)
def test_what_is_written_is_read_again(steps: list[Step]) -> None:
    progress = after(steps)
    assert state(Progress(progress.start, progress.marks)) == state(progress)


@given(STEPS, STEPS)
def test_what_either_finished_is_finished(one: list[Step], other: list[Step]) -> None:
    merged, left, right = after(one), after(one), after(other)
    merged.learn(right)
    for offset in range(90, 170):
        assert merged.finished(offset) == (left.finished(offset) or right.finished(offset))
        if not merged.finished(offset):
            assert merged.refusals(offset) == max(left.refusals(offset), right.refusals(offset))


def test_marks_of_others_are_ignored() -> None:
    for marks in ("", "checkpoint 7", "++++", "\x00\x01 #", "mailtide"):
        assert state(Progress(100, marks)) == state(Progress(100))


def test_marks_stay_within_what_brokers_take() -> None:
    progress = Progress(0)
    for offset in range(1, 3 * LONGEST):
        progress.finish(offset)
    assert len(progress.marks) <= 4096
    again = Progress(0, progress.marks)
    assert again.finished(LONGEST - 1) and not again.finished(LONGEST)


def test_many_refusals_are_still_many() -> None:
    progress = Progress(0)
    for _ in range(100):
        progress.refuse(0)
    assert progress.refusals(0) == 100
    assert Progress(0, progress.marks).refusals(0) == len(COUNTS)
