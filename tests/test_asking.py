"""Real replies as questions: what is given had arrived before, the reply is never cut, and the figures are paired."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Split
from pipeline.runs.replyfiles import Given, ReplyLoss, read_reply_losses, unlike, write_reply_losses
from retrain.evaluation.asking import Asking, choose_replies, given_mails
from retrain.evaluation.rag import reply_figures
from retrain.search.gold import Mail
from retrain.search.retrieval import index_of

LEAD = "⁂ Ann, 2024-05-01 10:00\n"


class Words:
    """A tokenizer whose tokens are words, so that a test can read them."""

    bos_token_id = 0

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def __call__(self, text: str, **how: object) -> dict[str, list[int]]:
        return {"input_ids": [self.known.setdefault(word, len(self.known) + 1) for word in text.split()]}

    def spell(self, ids: Sequence[int]) -> list[str]:
        by_id = {number: word for word, number in self.known.items()}
        return [by_id[number] for number in ids if number]


def mail(number: int, parent: int | None, subject: str, words: str, split: Split = Split.VAL) -> Mail:
    above = None if parent is None else f"m{parent}"
    return Mail(f"m{number}", number, above, f"t{subject}", split, subject, words, lead=LEAD)


def mailbox(count: int) -> list[Mail]:
    """Threads of two, a question and its answer, that arrive one after another."""
    return [mail(i, i - 1 if i % 2 else None, f"topic{i // 2}", f"word{i} talk of topic{i // 2}") for i in range(count)]


def all_fit(reply: Mail) -> bool:
    return True


@pytest.mark.parametrize("k", [1, 3])
def test_nothing_is_given_that_came_after_the_reply(k: int) -> None:
    mails = mailbox(40)
    index = index_of(mails)
    by_key = {one.key: one for one in mails}
    chosen = choose_replies(mails, Split.VAL, 20, all_fit)
    assert len(chosen.replies) == 20
    for reply, parent in chosen.replies:
        given_to = given_mails(reply, parent, mails, index, k)
        assert all(one.ordinal < reply.ordinal for some in given_to.values() for one in some)
        assert given_to[Given.PARENT] == (by_key[reply.parent or ""],)
        assert given_to[Given.RETRIEVED][-1].subject == reply.subject, "the best stands next to the reply"
        assert len(given_to[Given.RANDOM]) == min(k, reply.ordinal)
        assert given_mails(reply, parent, [*mails, mail(99, None, "later", "later")], index, k) == given_to


@given(st.integers(2, 60), st.integers(0, 60), st.integers(1, 15))
def test_what_leaves_the_sample_does_not_come_back(older: int, newer: int, most: int) -> None:
    mails = mailbox(older + newer)
    before = {reply.key for reply, _ in choose_replies(mails[:older], Split.VAL, most, all_fit).replies}
    after = {reply.key for reply, _ in choose_replies(mails, Split.VAL, most, all_fit).replies}
    assert after & {one.key for one in mails[:older]} <= before
    assert len(after) <= most


def test_other_splits_are_not_asked_about() -> None:
    mails = [mail(0, None, "a", "x", Split.TRAIN), mail(1, 0, "a", "y", Split.TRAIN), mail(2, 1, "a", "z")]
    assert choose_replies(mails, Split.VAL, 5, all_fit).replies == ()
    assert choose_replies([], Split.VAL, 5, all_fit).replies == ()


def test_the_reply_stands_whole_whatever_is_given_and_mails_are_cut_at_their_ends() -> None:
    tokenizer = Words()
    asking = Asking(tokenizer, context=60, most=1_000, reserve=4)
    reply = mail(9, 8, "boat", " ".join(f"r{i}" for i in range(20)))
    long = [mail(i, None, "boat", " ".join(f"w{i}.{j}" for j in range(100))) for i in range(3)]
    put = asking.put(reply, Given.RETRIEVED, long)
    said = tokenizer.spell(put.example.ids)
    assert said[-20:] == reply.words.split() and put.example.n_labels == 20
    assert len(put.example.ids) <= 60
    assert put.prompt == put.example.ids[: put.example.label_from]
    for one in long:
        kept = [word for word in said if word.startswith(f"w{one.ordinal}.")]
        assert kept == [f"w{one.ordinal}.{j}" for j in range(len(kept))] and kept
    alone = asking.put(reply, Given.NOTHING, [])
    assert tokenizer.spell(alone.example.ids)[-20:] == reply.words.split()
    assert alone.example.chunk_id != put.example.chunk_id


def test_a_reply_longer_than_half_the_context_is_passed_over_and_counted() -> None:
    asking = Asking(Words(), context=20, most=100, reserve=2)
    mails = [mail(0, None, "a", "x"), mail(1, 0, "a", " ".join("y" * 11)), mail(2, 1, "a", "short")]
    chosen = choose_replies(mails, Split.VAL, 5, asking.fits)
    assert [reply.key for reply, _ in chosen.replies] == ["m2"]
    assert chosen.too_long == 1


def loss(number: int, given: Given, nats: float) -> ReplyLoss:
    return ReplyLoss(
        "a", "s", f"m{number}", f"t{number // 2}", "val", given.value, ("m0",), f"{number}{given}", nats, 10, 2
    )


def test_a_gain_is_paired_and_its_interval_is_of_the_differences() -> None:
    level = [float(20 + 7 * i) for i in range(12)]
    losses = [loss(i, Given.NOTHING, nats) for i, nats in enumerate(level)]
    losses += [loss(i, Given.RETRIEVED, nats - 1) for i, nats in enumerate(level)]
    figures = reply_figures(losses)
    gain = figures["rag_gain"]
    assert gain.value == pytest.approx(0.1)
    assert gain.high - gain.low < 1e-9, "what all replies share cancels"
    assert figures["reply_loss"].high - figures["reply_loss"].low > 1
    assert (gain.n, gain.n_clusters) == (12, 6)
    assert "rag_gain_parent" not in figures and math.isfinite(gain.error)
    assert reply_figures([]) == {}


def test_reply_losses_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "replies.parquet"
    assert read_reply_losses(path) == []
    losses = [loss(i, what, 1.5 * i) for i in range(3) for what in Given]
    write_reply_losses(path, [*losses, *losses])
    assert unlike(read_reply_losses(path)) == losses
