"""Where mails go: each sentence of the rules, and the invariants for any graph, order, repetition and batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.arrival.splits import split_of
from pipeline.arrival.threads import SUBJECT_USES, Bridge, Needs, short
from pipeline.config.settings import SplitSettings
from pipeline.domain import ParsedMail, Split
from tests.support.leaks import find_leaks
from tests.support.letters import NOON, Shelf, letter

DAY = timedelta(days=1)


def always(split: Split) -> Callable[[str], Split]:
    return lambda _: split


def by_root(**splits: Split) -> Callable[[str], Split]:
    """Splits by the id that a thread was named after; train for the rest."""
    named = {short(f"{root}@x"): split for root, split in splits.items()}
    return lambda thread_id: named.get(thread_id, Split.TRAIN)


def shelf(**splits: Split) -> Shelf:
    return Shelf(by_root(**splits))


# Identity: duplicates and versions


def test_the_same_id_with_the_same_date_is_a_duplicate_whatever_it_says() -> None:
    box = shelf()
    box.take([letter("a@x"), letter("a@x", subject="[list] lunch", text="Other words.", references=["r@x"])])
    assert box.duplicates == ["a@x"]
    assert len(box.messages) == 1
    assert box.lookup(Needs(ids={"r@x"})).links == {}


def test_the_same_id_with_another_date_and_the_same_content_is_a_duplicate() -> None:
    box = shelf()
    box.take([letter("a@x"), letter("a@x", date=NOON + DAY), letter("a@x", date=None)])
    assert box.duplicates == ["a@x", "a@x"]


def test_the_same_id_with_another_date_and_other_content_is_another_message() -> None:
    box = shelf()
    first, second = box.take([letter("a@x"), letter("a@x", date=NOON + DAY, text="Other words.")])
    assert second.message_key.startswith("a@x#")
    assert len(second.message_key) == len("a@x#") + 16
    assert second.thread_id == first.thread_id
    again = box.take([letter("a@x", date=NOON + DAY, text="Rewritten.")])[0]
    assert again.duplicate_of == second.message_key
    assert again.thread_id == second.thread_id


def test_without_dates_only_content_tells() -> None:
    box = shelf()
    box.take([letter("a@x", date=None), letter("a@x", date=None, text="Other words."), letter("a@x", date=None)])
    assert len(box.messages) == 2
    assert box.duplicates == ["a@x"]


# Threads


def test_a_new_thread_is_named_after_the_oldest_reference_else_the_own_id() -> None:
    box = shelf()
    alone, answer, bare = box.take(
        [letter("a@x"), letter("c@x", references=["r@x", "b@x"]), letter("d@x", in_reply_to=["p@x"])]
    )
    assert alone.thread_id == hashlib.sha256(b"a@x").hexdigest()[:16]
    assert answer.thread_id == short("r@x")
    assert answer.new_links == ("c@x", "r@x", "b@x")
    assert bare.thread_id == short("p@x")
    assert alone.is_new_thread and answer.is_new_thread and bare.is_new_thread


def test_mail_before_its_parent_lands_in_the_same_thread() -> None:
    box = shelf()
    child, parent = box.take([letter("b@x", in_reply_to=["a@x"]), letter("a@x")])
    assert parent.thread_id == child.thread_id == short("a@x")
    assert not parent.is_new_thread
    other = shelf()
    assert [one.thread_id for one in other.take([letter("a@x"), letter("b@x", in_reply_to=["a@x"])])] == [
        child.thread_id
    ] * 2


def test_the_first_to_name_an_id_gives_it_its_thread() -> None:
    """``b`` arrives after ``a`` named its id, and refers to a later thread of the same split: it joins the earlier."""
    box = shelf()
    box.take([letter("a@x", references=["b@x"]), letter("t@x")])
    b = box.take([letter("b@x", references=["t@x", "u@x"])])[0]
    assert b.thread_id == short("b@x")
    assert b.bridges == (Bridge(short("t@x"), same_split=True),)
    assert b.new_links == ("u@x",)
    assert box.take([letter("v@x", references=["u@x"])])[0].thread_id == b.thread_id


def test_several_of_one_split_join_the_earliest_not_the_first_named() -> None:
    box = shelf()
    box.take([letter("a@x"), letter("b@x"), letter("c@x")])
    joined = box.take([letter("d@x", references=["c@x", "b@x"], in_reply_to=["a@x"])])[0]
    assert joined.thread_id == short("a@x")
    assert set(joined.bridges) == {Bridge(short("c@x"), True), Bridge(short("b@x"), True)}
    assert joined.excluded_threads == ()


def test_a_message_across_splits_is_quarantined_in_a_thread_of_its_own() -> None:
    box = shelf(b=Split.VAL, c=Split.TEST)
    box.take([letter("a@x"), letter("b@x"), letter("c@x")])
    merged = box.take([letter("d@x", references=["a@x", "b@x", "c@x", "u@x"])])[0]
    assert merged.split is Split.QUARANTINE
    assert merged.thread_id == "q" + short("d@x")
    assert merged.is_new_thread
    assert merged.quarantined_ids == ("d@x",)
    assert merged.new_links == ()
    assert merged.excluded_threads == (short("b@x"), short("c@x"))
    assert merged.bridges == tuple(Bridge(short(one), same_split=False) for one in ("a@x", "b@x", "c@x"))
    assert merged.parent_key is None


def test_its_unknown_references_are_not_linked() -> None:
    box = shelf(b=Split.VAL)
    box.take([letter("a@x"), letter("b@x"), letter("d@x", references=["a@x", "b@x", "u@x"])])
    unknown = box.take([letter("u@x")])[0]
    assert unknown.thread_id == short("u@x")
    assert unknown.split is Split.TRAIN


def test_what_builds_on_quarantined_mail_is_quarantined_in_turn() -> None:
    box = shelf(b=Split.VAL, e=Split.TEST)
    box.take([letter("a@x"), letter("b@x"), letter("e@x"), letter("d@x", references=["a@x", "b@x"])])
    reply = box.take([letter("r@x", references=["a@x", "d@x", "w@x"], in_reply_to=["e@x"])])[0]
    assert (reply.thread_id, reply.split) == ("q" + short("d@x"), Split.QUARANTINE)
    assert reply.quarantined_ids == ("r@x",)
    assert reply.new_links == ()
    assert reply.excluded_threads == (short("e@x"),)
    assert reply.parent_key == "d@x"
    assert box.take([letter("s@x", in_reply_to=["r@x"])])[0].thread_id == reply.thread_id
    assert box.take([letter("w@x")])[0].thread_id == short("w@x")


def test_a_referenced_id_that_arrives_across_splits_excludes_both_sides() -> None:
    """``a`` in val named ``d`` before ``d`` came; ``d`` answers ``t`` in test, so it connects the two."""
    box = shelf(a=Split.VAL, t=Split.TEST)
    box.take([letter("t@x"), letter("a@x"), letter("c@x", references=["a@x", "d@x"])])
    late = box.take([letter("d@x", references=["t@x"])])[0]
    assert late.split is Split.QUARANTINE
    assert set(late.excluded_threads) == {short("a@x"), short("t@x")}
    assert box.take([letter("e@x", references=["a@x", "d@x"])])[0].split is Split.QUARANTINE


def test_two_quarantined_threads_join_the_first_named() -> None:
    box = shelf(b=Split.VAL)
    box.take(
        [letter("a@x"), letter("b@x"), letter("d@x", references=["a@x", "b@x"]), letter("e@x", references=["b@x", "a@x"])]
    )
    both = box.take([letter("f@x", references=["e@x", "d@x"])])[0]
    assert both.thread_id == "q" + short("e@x")
    assert both.bridges == (Bridge("q" + short("d@x"), same_split=True),)


# In-Reply-To that names people


def test_the_address_of_a_known_correspondent_is_no_id() -> None:
    box = shelf()
    box.take([letter("a@x", sender="joe@example.org")])
    one, two = box.take([letter("b@x", in_reply_to=["JOE@example.org"]), letter("c@x", in_reply_to=["joe@example.org"])])
    assert one.thread_id == short("b@x")
    assert two.thread_id == short("c@x")
    assert one.new_links == ("b@x",)


@pytest.mark.parametrize("where", ["sender", "to", "cc"])
def test_nor_is_the_address_of_someone_on_the_mail_itself(where: str) -> None:
    people = {"sender": letter("b@x", sender="joe@y"), "to": letter("b@x", to=["joe@y"]), "cc": letter("b@x", cc=["joe@y"])}
    placed = shelf().take([replace(people[where], in_reply_to=("joe@y",))])[0]
    assert placed.new_links == ("b@x",)


def test_an_address_of_nobody_known_is_an_id() -> None:
    assert shelf().take([letter("b@x", in_reply_to=["joe@y"])])[0].new_links == ("b@x", "joe@y")


# The subject fallback


def reply(message_id: str, **changes: object) -> ParsedMail:
    mail = letter(message_id, date=NOON + DAY, sender="bob@example.org", to=["ann@example.org"], reply=True)
    return replace(mail, **changes)  # type: ignore[arg-type]


def test_a_reply_without_ids_joins_by_subject() -> None:
    box = shelf()
    box.take([letter("a@x")])
    joined = box.take([reply("b@x")])[0]
    assert joined.thread_id == short("a@x")
    assert joined.new_links == ("b@x",)


@pytest.mark.parametrize(
    "mail",
    [
        reply("b@x", reply_shaped=False),
        reply("b@x", date=None),
        reply("b@x", date=NOON + 30 * DAY + timedelta(seconds=1)),
        reply("b@x", date=NOON - 31 * DAY),
        reply("b@x", references=("gone@x",)),
        reply("b@x", in_reply_to=("gone@x",)),
        reply("b@x", subject_norm="dinner"),
        reply("b@x", sender=None, to=()),
    ],
    ids=["not a reply", "no date", "too late", "too early", "reference", "in-reply-to", "other subject", "nobody shared"],
)
def test_otherwise_it_does_not(mail: ParsedMail) -> None:
    box = shelf()
    box.take([letter("a@x")])
    assert box.take([mail])[0].thread_id != short("a@x")


def test_thirty_days_are_near_enough_and_an_undated_mail_is_no_candidate() -> None:
    box = shelf()
    box.take([letter("a@x"), letter("u@x", date=None)])
    assert box.take([reply("b@x", date=NOON + 30 * DAY)])[0].thread_id == short("a@x")


def test_owner_and_lists_are_no_shared_participant() -> None:
    box = Shelf(by_root(), owner=frozenset({"bob@example.org"}), lists=frozenset({"ann@example.org"}))
    box.take([letter("a@x")])
    assert box.take([reply("b@x")])[0].thread_id == short("b@x")


def test_the_newest_thread_by_header_time_wins() -> None:
    box = shelf()
    box.take([letter("a@x", date=NOON), letter("b@x", date=NOON - 3 * DAY), letter("c@x", date=NOON - 40 * DAY)])
    assert box.take([reply("r@x")])[0].thread_id == short("a@x")


def test_an_address_in_in_reply_to_leaves_the_fallback_open() -> None:
    box = shelf()
    box.take([letter("a@x")])
    assert box.take([reply("b@x", in_reply_to=("ann@example.org",))])[0].thread_id == short("a@x")


def test_an_own_id_already_named_goes_before_the_subject() -> None:
    box = shelf()
    box.take([letter("a@x"), letter("t@x", references=["b@x"], subject="tea")])
    assert box.take([reply("b@x")])[0].thread_id == short("b@x")


def test_joining_a_quarantined_thread_by_subject_quarantines_too() -> None:
    box = shelf(b=Split.VAL)
    box.take([letter("a@x", subject="tea"), letter("b@x", subject="tea"), letter("d@x", references=["a@x", "b@x"])])
    joined = box.take([reply("r@x")])[0]
    assert (joined.thread_id, joined.split) == ("q" + short("d@x"), Split.QUARANTINE)
    assert joined.quarantined_ids == ("r@x",)
    assert joined.new_links == ()


def test_the_fallback_sees_a_bounded_past() -> None:
    crowd = [letter(f"{number}@x", sender="eve@example.org", to=["eve@example.org"]) for number in range(SUBJECT_USES)]
    for batch in (1, 1000):
        assert shelf().take([letter("a@x"), *crowd[:-1], reply("near@x")], batch)[-1].thread_id == short("a@x")
        assert shelf().take([letter("a@x"), *crowd, reply("far@x")], batch)[-1].thread_id == short("far@x")


# Parents


def test_the_parent_is_the_nearest_stored_message_in_the_thread() -> None:
    box = shelf()
    box.take([letter("a@x"), letter("b@x", references=["a@x"]), letter("other@x")])
    replied, referred, gone = box.take(
        [
            letter("c@x", references=["a@x", "b@x"], in_reply_to=["a@x"]),
            letter("d@x", references=["a@x", "b@x", "gone@x"]),
            letter("e@x", in_reply_to=["nowhere@x"]),
        ]
    )
    assert replied.parent_key == "a@x"
    assert referred.parent_key == "b@x"
    assert gone.parent_key is None


def test_the_parent_is_the_newest_version() -> None:
    box = shelf()
    newer = box.take([letter("a@x"), letter("a@x", date=NOON + DAY, text="Second thoughts.")])[1]
    assert box.take([letter("b@x", in_reply_to=["a@x"])])[0].parent_key == newer.message_key


# Any graph, order, repetition and batch

IDS = [f"{letter_}@id" for letter_ in "abcdefgh"]
ADDRESSES = ["ann@p", "bob@p", "cat@p", "me@p"]
SEEDED = SplitSettings(train=0.4, val=0.3, test=0.3)

mails = st.builds(
    letter,
    st.sampled_from([*IDS, None]),
    references=st.lists(st.sampled_from(IDS), max_size=3),
    in_reply_to=st.lists(st.sampled_from([*IDS, *ADDRESSES]), max_size=2),
    date=st.none() | st.integers(0, 40).map(lambda days: datetime(2024, 1, 1) + days * DAY),
    sender=st.sampled_from(ADDRESSES),
    to=st.lists(st.sampled_from(ADDRESSES), max_size=2),
    subject=st.sampled_from(["", "lunch", "tea"]),
    reply=st.booleans(),
    text=st.sampled_from(["", "One.", "Two.", "Three."]),
)


def seeded(seed: int) -> Shelf:
    return Shelf(lambda thread_id: split_of(seed, thread_id, SEEDED), owner=frozenset({"me@p"}))


@settings(max_examples=300, deadline=None)
@given(st.data(), st.lists(mails, max_size=14), st.integers(0, 50))
def test_no_order_and_no_repetition_brings_mail_of_two_splits_together(
    data: st.DataObject, sent: list[ParsedMail], seed: int
) -> None:
    box = seeded(seed)
    box.take(data.draw(st.permutations(sent + sent[: len(sent) // 2])), data.draw(st.integers(1, 5)))
    stored: dict[str, list[str]] = {}
    for message in box.messages:
        stored.setdefault(message.incoming.base_key, []).append(message.split)
    for message in box.messages:
        if message.split == Split.QUARANTINE:
            continue
        mail = message.incoming.mail
        for id_ in (*mail.references, *(token for token in mail.in_reply_to if token not in ADDRESSES)):
            assert set(stored.get(id_, [])) <= {message.split, Split.QUARANTINE}
    assert find_leaks(box.messages, lambda thread_id: split_of(seed, thread_id, SEEDED)) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(mails, min_size=6, max_size=14), st.integers(0, 50))
def test_nothing_builds_on_quarantined_mail_outside_quarantine(sent: list[ParsedMail], seed: int) -> None:
    box = seeded(seed)
    box.take(sent)
    quarantined: set[str] = set()
    for message in box.messages:
        if quarantined & {message.incoming.base_key, *message.incoming.references}:
            assert message.split == Split.QUARANTINE
        if message.split == Split.QUARANTINE:
            quarantined.add(message.incoming.base_key)


@settings(max_examples=200, deadline=None)
@given(st.lists(mails, max_size=14), st.integers(0, 50), st.integers(1, 6))
def test_batches_of_any_size_place_alike(sent: list[ParsedMail], seed: int, batch: int) -> None:
    assert seeded(seed).take(sent, batch) == seeded(seed).take(sent)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.lists(mails, max_size=12), st.integers(0, 50))
def test_repeats_are_duplicates_and_change_nothing(data: st.DataObject, sent: list[ParsedMail], seed: int) -> None:
    once, often = seeded(seed), seeded(seed)
    once.take(sent)
    repeated: list[ParsedMail] = []
    for number, mail in enumerate(sent):
        repeated.append(mail)
        repeated += data.draw(st.lists(st.sampled_from(sent[: number + 1]), max_size=2))
    often.take(repeated, batch=3)
    assert often.messages == once.messages
    assert len(often.duplicates) == len(once.duplicates) + len(repeated) - len(sent)


@settings(max_examples=200, deadline=None)
@given(st.lists(mails, max_size=14), st.integers(0, 50))
def test_rows_are_never_written_twice_and_threads_are_made_once(sent: list[ParsedMail], seed: int) -> None:
    box = seeded(seed)
    placements = [one for one in box.take(sent) if one.duplicate_of is None]
    for rows in (
        [one.message_key for one in placements],
        [id_ for one in placements for id_ in one.new_links],
        [id_ for one in placements for id_ in one.quarantined_ids],
        [one.thread_id for one in placements if one.is_new_thread],
    ):
        assert len(rows) == len(set(rows))
    first = {one.thread_id: one.is_new_thread for one in reversed(placements)}
    assert all(first.values())
    assert {one.split is Split.QUARANTINE for one in placements if one.thread_id.startswith("q")} <= {True}


# The checker itself


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_planted_leak_is_found(position: int) -> None:
    box = Shelf(always(Split.VAL))
    box.take([letter("a@x"), letter("b@x", in_reply_to=["a@x"]), letter("c@x", in_reply_to=["b@x"])])
    assert find_leaks(box.messages) == []
    planted = list(box.messages)
    planted[position] = replace(planted[position], placement=replace(planted[position].placement, split=Split.TRAIN))
    assert find_leaks(planted) != []
    found = find_leaks(planted, always(Split.VAL))
    assert planted[position].message_key in [leak.message_key for leak in found]


def test_a_planted_leak_in_a_thread_of_one_is_found_by_the_draw() -> None:
    box = Shelf(always(Split.VAL))
    box.take([letter("a@x")])
    planted = [replace(one, placement=replace(one.placement, split=Split.TRAIN)) for one in box.messages]
    assert [leak.reason for leak in find_leaks(planted, always(Split.VAL))] == ["is in train, its thread in val"]


@dataclass(frozen=True)
class Row:
    message_key: str
    thread_id: str
    split: str
    parent_key: str | None = None


@pytest.mark.parametrize(("split", "found"), [("val", []), ("quarantine", []), ("train", ["b@x"]), ("test", ["b@x"])])
def test_an_answer_across_threads_must_be_in_one_split_quarantine_apart(split: str, found: list[str]) -> None:
    rows = [Row("b@x", "2", split, "a@x"), Row("a@x", "1", "val"), Row("c@x", "3", "train", "gone@x")]
    assert [leak.message_key for leak in find_leaks(rows)] == found
    assert [leak.message_key for leak in find_leaks(rows[::-1])] == found
