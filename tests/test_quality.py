"""What a chunk's text and columns say of it, and the tier that follows."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chunking.languages import language_of
from pipeline.chunking.quality import Quality, quality_of, signals_of
from pipeline.domain import Tier, TierName

ENGLISH = "We have seen that the driver does not work with this board, but it was fine before you changed the clock."
GERMAN = "Wir haben gesehen, dass der Treiber mit dem Board nicht geht, und es ist auch nicht die Uhr, die das macht."
ANSWER = "I think that it was the clock, and you have fixed it."
CODE = (
    "diff --git a/clock.c b/clock.c\n+\tu32 rate = 33 * MHZ;\n-static int probe(struct device *dev)\n-\treturn -ENODEV;\n"
)

Mail = tuple[str, str | None, str, str]
"""Key, parent, class, words."""


def chunk(*mails: Mail, context: int = 0, tier: Tier = Tier.PERSON, recorded: bool = True) -> tuple[dict[str, Any], str]:
    text, starts = "Subject: clocks\n", []
    for _, _, _, words in mails:
        starts.append(len(text))
        text += f"⁂ Ann Example, 2024-05-01 10:00\n{words}\n"
    row = {
        "chunk_id": "c",
        "message_keys": [key for key, *_ in mails],
        "parents": [parent for _, parent, *_ in mails],
        "starts": starts,
        "n_context": context,
        "tier": tier.value,
        "tiers": [kind for _, _, kind, _ in mails] if recorded else None,
    }
    return row, text


def tier_of(*mails: Mail, context: int = 0, tier: Tier = Tier.PERSON) -> Quality:
    return quality_of(tier, signals_of(*chunk(*mails, context=context)))


@pytest.mark.parametrize(
    ("mails", "tier"),
    [
        ([("a", None, "person", ENGLISH)], Quality.PERSON),
        ([("a", None, "person", ENGLISH), ("b", "a", "person", ANSWER)], Quality.DIALOGUE),
        ([("b", "elsewhere", "person", ENGLISH)], Quality.DIALOGUE),
        ([("a", None, "bulk", ENGLISH)], Quality.BULK),
        ([("a", None, "auto", ENGLISH), ("b", "a", "person", "Yes.")], Quality.AUTO),
        ([("a", None, "quoted", ENGLISH)], Quality.QUOTED),
        ([("a", None, "person", "> " + ENGLISH.replace(" the ", "\n> the "))], Quality.QUOTED),
        ([("a", None, "person", "\n".join([ENGLISH] * 4))], Quality.REPETITIVE),
        ([("a", None, "person", f"{ENGLISH}\n\n{GERMAN}")], Quality.MIXED),
        ([("a", None, "person", GERMAN)], Quality.PERSON),
        ([("a", None, "person", CODE)], Quality.MATERIAL),
    ],
    ids=lambda value: value.value if isinstance(value, Quality) else "",
)  # fmt: skip
def test_a_chunk_is_of_the_first_tier_that_it_fits(mails: list[Mail], tier: Quality) -> None:
    assert tier_of(*mails) is tier


def test_only_the_new_text_counts_save_for_what_it_repeats_and_answers() -> None:
    before: Mail = ("a", None, "bulk", ENGLISH)
    signals = signals_of(*chunk(before, ("b", "a", "person", f"Yes, I have.\n{ENGLISH}"), context=1))
    assert (signals.bulk, signals.own, signals.depth) == (0.0, 1.0, 2)
    assert signals.repetition > 0.7
    assert signals_of(*chunk(before, context=0)).repetition == 0.0


def test_a_shard_of_the_first_format_is_told_by_the_chunks_own_class() -> None:
    row, text = chunk(("a", None, "person", ENGLISH), tier=Tier.BULK, recorded=False)
    assert signals_of(row, text).bulk == 1.0


def test_a_planted_canary_is_no_mail() -> None:
    assert tier_of(("a", None, "person", ENGLISH), tier=Tier.CANARY) is Quality.CANARY


def test_a_parent_that_came_later_does_not_lengthen_a_chain() -> None:
    loop: list[Mail] = [("a", "b", "person", ENGLISH), ("b", "a", "person", ENGLISH)]
    assert signals_of(*chunk(*loop)).depth == 3  # b answers a, which answers something not yet there


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"),
        (GERMAN, "de"),
        ("Je ne sais pas si vous avez vu ce message, mais il est dans la liste et je suis sûr que c'est le bon.", "fr"),
        ("Добрый день, проверьте пожалуйста сервер", "Cyrillic"),
        ("サーバーを確認してください。よろしくお願いします。", "Kana"),
        ("请检查一下服务器，谢谢。", "Han"),
        (CODE, ""),
        ("Applied, thanks.", ""),
        ("NA NA NA NA do do na na", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_small_words_and_scripts_tell_a_language(text: str, language: str) -> None:
    assert language_of(text) == language


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.sampled_from(["a", "b", "z", None]),
            st.sampled_from(["person", "bulk", "auto", "quoted"]),
            st.text(max_size=80),
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 4),
)
def test_any_text_has_signals_within_bounds(mails: list[Mail], context: int) -> None:
    row, text = chunk(*mails, context=min(context, len(mails) - 1))
    signals = signals_of(row, text)
    shares = (signals.own, signals.bulk, signals.auto, signals.repetition, signals.prose, signals.mix)
    assert all(0 <= share <= 1 for share in shares)
    assert 1 <= signals.depth <= len(mails) + 1
    assert signals == signals_of(row, text)
    assert quality_of("person", signals) is not Quality.CANARY


def test_settings_may_name_every_tier_of_mail() -> None:
    assert set(get_args(TierName)) == set(Quality) - {Quality.CANARY}
