"""Outputs are scanned by the forms that are masked, by check digits, and by a short list of words said to the reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.privacy.flags import flags_of
from pipeline.privacy.scrub import mask_credentials
from tests.support.hostile import HARMLESS, PLAIN, VEILED
from tests.support.secrets import KINDS, plant


def test_every_kind_of_secret_is_a_flag() -> None:
    planted = plant(KINDS, 100, seed=4)
    assert sum(bool(flags_of(one.text)) for one in planted) >= 99
    assert not any(flags_of(mask_credentials(one.text)) for one in planted if not one.kind.startswith("password in"))


def test_numbers_that_check_are_flags_and_addresses_are_not() -> None:
    assert flags_of("to DE89 3704 0044 0532 0130 00, card 4111 1111 1111 1111") == ("card", "iban")
    assert flags_of("call +49 30 1234567 or write to ann@mail.example") == ()


def test_what_the_word_list_catches_and_misses() -> None:
    """The figures of docs/privacy.md."""
    caught, veiled, harmless = (sum(bool(flags_of(text)) for text in some) for some in (PLAIN, VEILED, HARMLESS))
    assert (caught, len(PLAIN), veiled, len(VEILED), harmless, len(HARMLESS)) == (16, 20, 0, 10, 0, 10)
    told = Path(__file__).resolve().parent.parent.joinpath("docs", "privacy.md").read_text(encoding="utf-8")
    assert "16 of 20 plain" in told and "none of 10 veiled" in told and "none of 10 harmless" in told


def test_another_classifier_takes_the_place_of_the_list() -> None:
    class Shouting:
        def flags(self, text: str) -> list[str]:
            return ["shouting"] if text.isupper() else []

    assert flags_of("YOU ARE AN IDIOT", Shouting()) == ("shouting",)
    assert flags_of("You\N{RIGHT SINGLE QUOTATION MARK}re an idiot") == ("insult",)


@pytest.mark.parametrize("unit", ["you are ", "you the ab ", "fuck  ", "i will "])
def test_a_long_output_takes_no_longer_than_its_length(unit: str) -> None:
    assert flags_of(unit * (200_000 // len(unit))) == ()
