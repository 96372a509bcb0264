"""Who a mail is: its key, its versions, and the hashes that stand for people."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.arrival.identity import base_key, content_sha, id_key, incoming, needs_of
from pipeline.domain import Attachment, ParsedMail
from tests.support.letters import NOON, PEOPLE, letter

NOBODY: frozenset[str] = frozenset()


@pytest.mark.parametrize("token", ["a@b", "<a@b>", " <a@b> ", "<a@\n b>", "a@ b"])
def test_the_key_is_the_id_without_brackets_and_folding(token: str) -> None:
    assert base_key(letter(token)) == "a@b"


@pytest.mark.parametrize("message_id", [None, "", "<>", "  "])
def test_without_an_id_the_key_is_a_hash_of_date_sender_subject_and_body(message_id: str | None) -> None:
    mail = letter(message_id, text="Same words.")
    key = base_key(mail)
    assert key.startswith("sha256:")
    assert len(key) == len("sha256:") + 64
    others = [
        replace(mail, date=None),
        replace(mail, sender=None),
        replace(mail, subject="dinner"),
        replace(mail, text="Other words."),
    ]
    assert len({key, *map(base_key, others)}) == 5
    assert base_key(replace(mail, references=("x@y",), defects=("charset",))) == key


@given(st.sampled_from(["sha256:" + "0" * 64, "a@b#0123456789abcdef", "a@b#" + "f" * 16]))
def test_an_id_in_the_shape_of_our_own_keys_is_hashed(forged: str) -> None:
    assert id_key(forged) != forged
    assert id_key(forged) == id_key(f"<{forged}>")
    assert id_key(id_key(forged)) != id_key(forged)


def test_an_ordinary_id_with_a_hash_sign_is_kept() -> None:
    assert id_key("issue#12@tracker") == "issue#12@tracker"


FOOTER = "\n_______________________________________________\nlist mailing list\nlist@example.org"


@pytest.mark.parametrize("tail", ["", "\n\n", FOOTER, "\n----------\nChecked by scanner"])
def test_what_lists_rewrite_is_no_content(tail: str) -> None:
    mail = letter("a@b", text="Shall we\nmeet?")
    rewritten = replace(letter("a@b", subject="[list] lunch", sender="list@x", text=f"Shall  we meet?{tail}"), date=NOON)
    assert content_sha(rewritten) == content_sha(mail)


def test_other_words_are_other_content() -> None:
    assert content_sha(letter("a@b", text="Yes.")) != content_sha(letter("a@b", text="No."))


def test_content_is_the_own_words_then_the_text_then_the_attachments() -> None:
    mail = letter("a@b", text="> quoted\nYes.")
    assert content_sha(replace(mail, own_text="Yes.")) == content_sha(replace(mail, own_text="Yes.", text="Yes."))
    assert content_sha(replace(mail, own_text=" ")) == content_sha(mail)
    empty = replace(mail, own_text="", text="")
    report, photo = Attachment("report.pdf", "application/pdf", 9), Attachment("photo.jpg", "image/jpeg", 9)
    assert content_sha(replace(empty, attachments=(report,))) != content_sha(replace(empty, attachments=(photo,)))


def test_a_text_of_nothing_but_a_rule_and_below_keeps_its_words() -> None:
    assert content_sha(letter("a@b", text="==========\nA")) != content_sha(letter("a@b", text="==========\nB"))


def test_participants_are_everyone_and_strangers_neither_owner_nor_lists() -> None:
    mail = letter(
        "a@b",
        sender="Ann@example.org",
        to=["me@home", "devs@lists.org"],
        cc=["bob@example.org"],
        list_id="Devs <devs.lists.org>",
    )
    view = incoming(mail, PEOPLE, frozenset({"ME@home"}), NOBODY)

    def keys(*addresses: str) -> frozenset[str]:
        return frozenset(PEOPLE.of("address", address) for address in addresses)

    assert view.participants == keys("ann@example.org", "me@home", "devs@lists.org", "bob@example.org")
    assert view.strangers == keys("ann@example.org", "bob@example.org")
    named = incoming(mail, PEOPLE, NOBODY, frozenset({"bob@example.org"}))
    assert named.strangers == keys("ann@example.org", "me@home")


def test_ids_are_keys_without_repeats_and_without_the_own() -> None:
    view = incoming(
        letter("a@b", references=["<r@1>", "r@2", "r@1", "<a@b>", ""], in_reply_to=["<a@b>", "joe@x"]),
        PEOPLE,
        NOBODY,
        NOBODY,
    )
    assert view.references == ("r@1", "r@2")
    assert view.in_reply_to == ("joe@x",)
    assert view.token_people == {"joe@x": PEOPLE.of("address", "joe@x")}


def test_no_subject_no_subject_key() -> None:
    assert incoming(letter("a@b", subject=""), PEOPLE, NOBODY, NOBODY).subject_norm_key is None


def test_needs_name_all_that_placing_asks_for() -> None:
    first = incoming(letter("a@b", references=["r@1"], in_reply_to=["joe@x"]), PEOPLE, NOBODY, NOBODY)
    second = incoming(letter("c@d", date=NOON + timedelta(1), subject="tea", reply=True), PEOPLE, NOBODY, NOBODY)
    needs = needs_of([first, second])
    assert needs.ids == needs.base_keys == {"a@b", "r@1", "joe@x", "c@d"}
    assert needs.subject_keys == {PEOPLE.of("subject", "tea")}
    assert needs.person_keys == {PEOPLE.of("address", one) for one in ("joe@x", "ann@example.org", "bob@example.org")}


@pytest.mark.parametrize(
    ("mail", "asks"),
    [
        (letter("a@b", reply=True), True),
        (letter("a@b", reply=True, in_reply_to=["joe@x"]), True),  # joe may be a person, and then it refers to nothing
        (letter("a@b"), False),
        (letter("a@b", reply=True, date=None), False),
        (letter("a@b", reply=True, references=["r@1"]), False),
        (letter("a@b", reply=True, in_reply_to=["joe@x", "id-without-host"]), False),
    ],
)
def test_earlier_uses_of_a_subject_are_asked_for_by_replies_that_refer_to_nothing(mail: ParsedMail, asks: bool) -> None:
    assert bool(needs_of([incoming(mail, PEOPLE, NOBODY, NOBODY)]).subject_keys) is asks
