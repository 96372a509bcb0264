"""The page on scaling says what its rates make of it, and the arithmetic is what its words say."""

from __future__ import annotations

import pytest

from tests.bench.scaling import MAILBOXES, PAGE, POLICIES, Policy, Rate, Rates, benchmark, filled, size, training


def rate(value: float) -> Rate:
    return Rate(value, "", "")


ROUND = Rates(
    mails_a_day=rate(24),
    busiest_hour=rate(0.25),
    kept_years=rate(1),
    used=rate(0.5),
    store_mails=rate(876_000),
    connections=rate(100),
    take_alone=rate(0.03),
    parse=rate(10),
    mail_bytes=rate(1_000),
    run_bytes=rate(1_000_000),
    train_share=rate(0.5),
    chunk_tokens=rate(100),
    epochs=rate(2),
    rehearsal=rate(0.25),
    cpu_tokens=rate(100),
    cpu_beside=rate(10),
    gpu_tokens=rate(1_000),
    gpu_beside=rate(350),
)


def test_the_page_is_what_its_rates_make_of_it() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text, Rates()) == text, "run `python -m tests.bench.scaling --write docs/scaling.md`, then read the page"


def test_mail_by_hand() -> None:
    found = size(1_000, ROUND)
    assert found.mails_a_second == pytest.approx(1_000 * 6 / 3600)
    assert (found.feeds, found.parsers) == (10, 1)
    assert found.stores_by_size == 10, "8.76 million mails a year"
    assert found.stores_by_rate == 1
    assert size(1_000_000, ROUND).stores_by_rate == 100, "1,667 mails a second, 33 a core, half used"
    assert found.mail_tb == pytest.approx(0.00876)


def test_training_by_hand() -> None:
    found = training(Policy("", 80), ROUND)
    assert found.runs == pytest.approx(109.5)
    assert found.tokens_a_run == pytest.approx(80 * 0.5 * 100 * 1.25 * 2)
    assert found.cpu_hours == pytest.approx(109.5 * 110 / 3600)
    assert found.gpu_hours == pytest.approx(109.5 * 360 / 3600)
    assert found.gigabytes == pytest.approx(0.1095)


def test_what_the_page_says_in_words() -> None:
    rates = Rates()
    small, middle, large = (size(mailboxes, rates) for mailboxes in MAILBOXES)
    assert small.stores < 10
    assert middle.stores_by_rate == 2 < middle.stores_by_size
    assert 10_000 < large.stores < 100_000
    default, weekly = (training(policy, rates) for policy in POLICIES)
    assert 0.2 < weekly.gpu_hours / default.gpu_hours < 0.33, "about a quarter"
    assert rates.take_alone.value / rates.take_in_batch.value > 20, "tens of times"
    assert default.gigabytes > 10 * rates.mails_a_day.value * 365 * rates.mail_bytes.value / 1e9, "runs outgrow the mail"


def test_a_benchmark_that_is_gone_is_noticed() -> None:
    with pytest.raises(LookupError):
        benchmark("import by pigeon", "mails a second")
