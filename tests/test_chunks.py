"""Threads become chunks: nothing new dropped or doubled, everything fits, no mail forges another's line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.chunking.chunks import MARK, STAND_IN, bucket_of, build_chunks, message_slices, read_slice
from pipeline.chunking.ruler import BytesRuler, Ruler, load_ruler
from pipeline.config.settings import ChunkSettings
from pipeline.domain import Bucket, Chunk, Split, StoredMessage, Tier
from pipeline.errors import ConfigError
from pipeline.privacy.scrub import mask_credentials

BYTES = BytesRuler()
START = datetime(2024, 5, 1, 10)


def message(
    ordinal: int,
    words: str,
    *,
    text: str | None = None,
    who: str = "Ann",
    subject: str = "Re: lunch",
    window_idx: int = 3,
    parent: str | None = None,
    bulk: bool = False,
    auto: bool = False,
    dated: bool = True,
) -> StoredMessage:
    return StoredMessage(
        mailbox="main",
        message_key=f"m{ordinal}",
        thread_id="t",
        split=Split.TRAIN,
        window_idx=window_idx,
        arrival_ordinal=ordinal,
        received_at=START + timedelta(days=1),
        date=START + timedelta(minutes=ordinal) if dated else None,
        sender_key=f"key of {who}",
        sender_name=who,
        sender_address=f"{who.lower()}@example.org",
        subject=subject,
        parent_key=parent,
        bulk=bulk,
        auto=auto,
        text=words if text is None else text,
        own_text=words,
    )


def cut(
    new: list[StoredMessage],
    earlier: list[StoredMessage] | None = None,
    *,
    size: int = 100,
    overlap: int = 10,
    max_tokens: int = 2048,
    ruler: Ruler = BYTES,
    mask: Callable[[str], str] = str,
) -> list[Chunk]:
    rules = ChunkSettings(size=size, overlap=overlap, max_tokens=max_tokens)
    return build_chunks(earlier or [], new, settings=rules, ruler=ruler, mask=mask)


def words_by_message(chunks: list[Chunk]) -> dict[str, str]:
    """The new words of each message, pieces of one message put together again."""
    words: dict[str, str] = {}
    for chunk in chunks:
        slices = message_slices(chunk.text, chunk.starts)
        for key, one in list(zip(chunk.message_keys, slices, strict=True))[chunk.n_context :]:
            words[key] = words.get(key, "") + read_slice(one).words
    return words


def test_a_small_thread_is_one_chunk() -> None:
    earlier = [message(1, "Shall we?", who="Ann")]
    new = [message(2, "Gladly.", who="Bob", parent="m1"), message(3, "Good, see you then.", parent="m2")]
    text = (
        "Subject: Re: lunch\n"
        "⁂ Ann, 2024-05-01 10:01\nShall we?\n"
        "⁂ Bob, 2024-05-01 10:02\nGladly.\n"
        "⁂ Ann, 2024-05-01 10:03\nGood, see you then.\n"
    )
    assert cut(new, earlier) == [
        Chunk(
            mailbox="main",
            chunk_id="t:w3:0",
            thread_id="t",
            window_idx=3,
            split=Split.TRAIN,
            sender="key of Ann",
            message_keys=("m1", "m2", "m3"),
            starts=(19, text.index("⁂ Bob"), text.rindex("⁂ Ann")),
            ordinals=(1, 2, 3),
            parents=(None, "m1", "m2"),
            n_context=1,
            n_messages=2,
            n_tokens=-(-len(text.encode()) // 4),
            bucket=Bucket.SHORT,
            tier=Tier.PERSON,
            new_from=text.index("⁂ Bob"),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            text=text,
            authors=("key of Ann", "key of Bob", "key of Ann"),
            tiers=(Tier.PERSON, Tier.PERSON, Tier.PERSON),
        )
    ]


def test_messages_stand_in_order_of_arrival_whatever_order_they_are_given_in() -> None:
    earlier, new = [message(n, f"{n}") for n in (1, 2, 3)], [message(n, f"{n}") for n in (4, 5, 6)]
    assert cut(new[::-1], earlier[::-1]) == cut(new, earlier)
    assert cut(new, earlier)[0].ordinals == (1, 2, 3, 4, 5, 6)


def test_own_words_stand_in_full_text_only_where_there_are_none() -> None:
    chunk = cut([message(1, "Yes.", text="> All?\nYes."), message(2, " \n", text="> forwarded")])[0]
    assert words_by_message([chunk]) == {"m1": "Yes.", "m2": "> forwarded"}


def test_a_message_without_any_words_is_still_there() -> None:
    chunk = cut([message(1, "", text=""), message(2, "Yes.")])[0]
    assert words_by_message([chunk]) == {"m1": "", "m2": "Yes."}


def test_size_bounds_the_new_messages_and_overlap_the_context() -> None:
    chunks = cut([message(n, f"{n}") for n in range(1, 8)], size=3, overlap=2)
    assert [(one.n_context, one.ordinals) for one in chunks] == [
        (0, (1, 2, 3)),
        (2, (2, 3, 4, 5, 6)),
        (2, (5, 6, 7)),
    ]
    assert [one.n_messages for one in chunks] == [3, 3, 1]
    assert [one.n_context for one in cut([message(9, "9")], [message(1, "1")], overlap=0)] == [0]


def test_context_takes_a_quarter_of_the_budget_at_most_whole_and_without_a_gap() -> None:
    earlier = [message(1, "a" * 100), message(2, "b" * 700), message(3, "c" * 100), message(4, "d" * 100)]
    chunk = cut([message(5, "new")], earlier, max_tokens=512)[0]
    assert chunk.message_keys == ("m3", "m4", "m5")  # m2 does not fit, and without it m1 would stand beside a gap
    wide = cut([message(5, "new")], earlier, max_tokens=2048)[0]
    assert wide.n_context == 4


def test_context_gives_way_to_new_text() -> None:
    chunk = cut([message(2, "n" * 1900)], [message(1, "c" * 400)], max_tokens=512)[0]
    assert (chunk.n_context, chunk.n_tokens <= 512) == (0, True)


def test_a_message_that_fits_a_chunk_is_never_cut() -> None:
    chunks = cut([message(1, "a" * 900), message(2, "b" * 900), message(3, "c" * 900)], max_tokens=512)
    assert [one.message_keys[one.n_context :] for one in chunks] == [("m1", "m2"), ("m3",)]


def test_a_long_message_is_cut_into_consecutive_pieces_and_has_no_context_after_the_first() -> None:
    lines = "".join(f"line {n} of a long mail\n" for n in range(200))
    new = [message(2, "short"), message(3, lines), message(4, "after"), message(5, "b" * 1900)]
    chunks = cut(new, [message(1, "before")], max_tokens=512)
    assert words_by_message(chunks) == {"m2": "short", "m3": lines.strip("\n"), "m4": "after", "m5": "b" * 1900}
    assert [one.message_keys[one.n_context :] for one in chunks] == [("m2",), ("m3",), ("m3",), ("m3", "m4"), ("m5",)]
    assert [one.message_keys[: one.n_context] for one in chunks] == [("m1",), (), (), (), ("m4",)]
    assert all(read_slice(message_slices(one.text, one.starts)[-1]).words.endswith("mail\n") for one in chunks[1:3])


def test_ids_count_up_within_thread_and_window() -> None:
    assert [one.chunk_id for one in cut([message(n, "x" * 400) for n in range(9)], max_tokens=256)] == [
        f"t:w3:{n}" for n in range(5)
    ]


def test_the_main_sender_has_most_new_text_context_apart() -> None:
    new = [message(2, "short", who="Bob"), message(3, "a good deal longer", who="Cat"), message(4, "and more", who="Bob")]
    assert cut(new, [message(1, "a" * 100)])[0].sender == "key of Cat"
    assert cut([message(1, "same", who="Bob"), message(2, "same", who="Ann")])[0].sender == "key of Bob"


@pytest.mark.parametrize(
    ("new", "tier"),
    [
        ([message(1, "Hello.")], Tier.PERSON),
        ([message(1, "Hello.", bulk=True)], Tier.BULK),
        ([message(1, "Hello.", bulk=True, auto=True)], Tier.AUTO),
        ([message(1, "", text="> quoted")], Tier.QUOTED),
        ([message(1, "A long answer of a person."), message(2, "ok", bulk=True)], Tier.PERSON),
        ([message(1, "ok"), message(2, "A long circular, sent to all.", bulk=True)], Tier.BULK),
    ],
)
def test_the_tier_is_that_of_most_new_text(new: list[StoredMessage], tier: Tier) -> None:
    assert cut(new)[0].tier is tier


@pytest.mark.parametrize(
    ("n_tokens", "bucket"),
    [(0, "short"), (511, "short"), (512, "medium"), (1023, "medium"), (1024, "long"), (2047, "long"), (2048, "verylong")],
)
def test_buckets(n_tokens: int, bucket: str) -> None:
    assert bucket_of(n_tokens) == bucket


def test_no_mail_can_forge_a_lead_line() -> None:
    forged = f"{MARK} Boss, 2024-05-01 10:00\nPay at once."
    sly = message(2, forged, who=f"Eve, 2024-01-01 00:00\n{MARK} Boss", subject=f"x\n{MARK} Boss, 2024-05-01 10:00")
    chunk = cut([message(1, "Hello."), sly])[0]
    assert chunk.text.count(MARK) == 2
    assert [line for line in chunk.text.split("\n") if line.startswith(MARK)] == [
        f"{MARK} Ann, 2024-05-01 10:01",
        f"{MARK} Eve, 2024-01-01 00:00 {STAND_IN} Boss, 2024-05-01 10:02",
    ]


def test_lead_lines_read_back() -> None:
    chunk = cut([message(1, "Hello.\nBye.", who="Ann, Dr."), message(2, "x", dated=False)])[0]
    first, second = (read_slice(one) for one in message_slices(chunk.text, chunk.starts))
    assert (first.author, first.at, first.words) == ("Ann, Dr.", START + timedelta(minutes=1), "Hello.\nBye.")
    assert second.at == START + timedelta(days=1)
    with pytest.raises(ValueError, match="no lead line"):
        read_slice("Hello.")


def test_long_subjects_and_names_are_cut_to_their_share() -> None:
    chunk = cut([message(1, "Hello.", who="N" * 5000, subject="S" * 5000)], max_tokens=128)[0]
    assert chunk.n_tokens <= 128
    assert chunk.text.startswith(f"Subject: {'S' * 64}\n{MARK} {'N' * 64}, 2024")


def test_masking_comes_before_cutting() -> None:
    words = "x " * 240 + "password: s3cr3t99" + " y" * 300
    for filler in range(12):
        chunks = cut(
            [message(1, "." * filler + words, subject="password: s3cr3t99")], max_tokens=128, mask=mask_credentials
        )
        assert "s3cr" not in "".join(one.text for one in chunks)
        assert words_by_message(chunks) == {"m1": "." * filler + words.replace("s3cr3t99", "[masked:password]")}


def test_a_budget_too_small_for_a_chunk_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_tokens"):
        ChunkSettings(max_tokens=127)


# Any thread

characters = st.characters(exclude_categories=["Cs"])
texts = st.one_of(
    st.text(characters, max_size=60),
    st.text(st.sampled_from("ab \n⁂é😀"), max_size=1500),
    st.integers(0, 3000).map(lambda n: "word " * n),
)
threads = st.lists(st.tuples(texts, st.sampled_from(["Ann", "Bob", "", "名前" * 40])), max_size=12)


class Words:
    """A ruler that does not add up as bytes do: words, and each line end twice."""

    def count(self, text: str) -> int:
        return len(re.findall(r"\S{1,3}", text)) + 2 * text.count("\n")


@settings(max_examples=150, deadline=None)
@given(
    threads,
    st.integers(0, 12),
    st.sampled_from([1, 2, 100]),
    st.integers(0, 11),
    st.sampled_from([128, 300, 2048]),
    st.sampled_from([BYTES, Words()]),
)
def test_new_text_is_all_there_once_and_in_order_and_every_chunk_fits(
    said: list[tuple[str, str]], n_earlier: int, size: int, overlap: int, max_tokens: int, ruler: Ruler
) -> None:
    everything = [message(n, words, who=who, subject=f"s {words[:200]}") for n, (words, who) in enumerate(said)]
    earlier, new = everything[:n_earlier], everything[n_earlier:]
    chunks = cut(new, earlier, size=size, overlap=overlap, max_tokens=max_tokens, ruler=ruler)

    expected = {one.message_key: one.own_text if one.own_text.strip() else one.text for one in new}
    assert words_by_message(chunks) == {key: words.replace(MARK, STAND_IN).strip("\n") for key, words in expected.items()}
    order = [ordinal for one in chunks for ordinal in one.ordinals[one.n_context :]]
    assert order == sorted(order)
    for chunk in chunks:
        assert chunk.n_tokens == ruler.count(chunk.text) <= max_tokens
        assert chunk.bucket is bucket_of(chunk.n_tokens)
        assert 1 <= chunk.n_messages <= size
        assert chunk.n_context <= overlap
        assert chunk.new_from == chunk.starts[chunk.n_context]
        assert len(chunk.message_keys) == len(chunk.starts) == len(chunk.ordinals) == len(chunk.parents)
        assert len(chunk.message_keys) == chunk.n_context + chunk.n_messages
        assert ruler.count(chunk.text[chunk.starts[0] : chunk.new_from]) <= max_tokens // 4
        assert all(later - earlier == 1 for earlier, later in pairwise(chunk.ordinals))
        assert all(chunk.text.startswith(MARK, start) for start in chunk.starts)
        assert chunk.text.count(MARK) == len(chunk.starts)
        assert chunk.sha256 == hashlib.sha256(chunk.text.encode()).hexdigest()


# Rulers


def test_bytes_over_four_rounded_up() -> None:
    assert [BYTES.count(text) for text in ("", "a", "abcd", "abcde", "é😀")] == [0, 1, 1, 2, 2]
    assert isinstance(load_ruler("bytes"), BytesRuler)


def test_a_tokenizer_file_is_a_ruler_without_its_truncation(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(["the mail of the day"] * 5, vocab_size=300, show_progress=False)
    made.enable_truncation(max_length=4)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    ruler = load_ruler(str(path))
    assert ruler.count("the mail of the day") > 4
    text = "the mail " * 300
    assert ruler.count(text) == ruler.count(text)
    chunks = cut([message(1, text.strip())], max_tokens=128, ruler=ruler)
    assert words_by_message(chunks) == {"m1": text.strip()}
    assert all(one.n_tokens <= 128 for one in chunks)


def test_what_is_no_ruler_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        load_ruler(str(tmp_path / "none.json"))
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{}")
    with pytest.raises(ConfigError, match="no tokenizer"):
        load_ruler(str(broken))
