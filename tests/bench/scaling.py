"""What so many mailboxes need; ``python -m tests.bench.scaling --write docs/scaling.md`` writes the tables of that page.

Rates are measured, assumed or reckoned, and say so; the rest is arithmetic on them.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from tests.conftest import REPOSITORY

BENCHMARKS = REPOSITORY / "docs" / "benchmarks.md"
PAGE = REPOSITORY / "docs" / "scaling.md"
MAILBOXES = (100, 10_000, 1_000_000)
DAYS = 365


@dataclass(frozen=True, slots=True)
class Rate:
    """A number that the arithmetic rests on; ``source`` says where it comes from."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True, slots=True)
class Rates:
    """Everything that is not arithmetic."""

    mails_a_day: Rate = Rate(40, "mails a day and mailbox", "assumed")
    busiest_hour: Rate = Rate(0.15, "of a day's mail", "assumed")
    kept_years: Rate = Rate(3, "years of mail in a store", "assumed")
    used: Rate = Rate(0.5, "of a process that is planned with; the rest is room", "assumed")
    store_mails: Rate = Rate(2_000_000, "mails in one store", "assumed: ten times the 200,000 that were measured")
    connections: Rate = Rate(500, "IMAP connections of a feed process", "assumed, a thread each")
    take_alone: Rate = Rate(0.036, "CPU-seconds for a mail that comes alone", "measured (below)")
    take_in_batch: Rate = Rate(0.00077, "CPU-seconds for a mail in a batch of 2,000", "measured (below)")
    parse: Rate = Rate(1_000, "mails a second and parser", "assumed: parsing alone is ten times as fast; to be measured")
    mail_bytes: Rate = Rate(3_530, "bytes a mail takes in a home", "measured (below)")
    run_bytes: Rate = Rate(5_000_000, "bytes a run leaves, adapter of the built-in model included", "measured (below)")
    train_share: Rate = Rate(0.8, "of mail is trained on", "`split.train`")
    chunk_tokens: Rate = Rate(476, "tokens to train per train mail, context included", "measured (below)")
    epochs: Rate = Rate(2, "epochs", "`train.epochs`")
    rehearsal: Rate = Rate(0.5, "rehearsal tokens per new token", "`replay.ratio`, `replay.max_share`")
    cpu_tokens: Rate = field(
        default_factory=lambda: benchmark(
            "training on scheduled mail, against full rows of 1,024", "tokens a second and core, built-in model"
        )
    )
    cpu_beside: Rate = Rate(7.3, "seconds of a run beside training, built-in model", "measured (below)")
    gpu_tokens: Rate = Rate(
        2_380, "tokens a second and GPU, 7 B parameters", "reckoned: 6 x 7e9 operations a token at 100e12 a second"
    )
    gpu_beside: Rate = Rate(
        160,
        "seconds of a run beside training, 7 B parameters",
        "reckoned: loading 60 s; 720,000 tokens evaluated at 14e9 operations each",
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """Windows of so many mails."""

    name: str
    mails: float


POLICIES = (Policy("50 mails (the default)", 50), Policy("a week (`window.count=null`, `window.age=7`)", 280))


def benchmark(name: str, unit: str) -> Rate:
    """A rate as the table of benchmarks has it."""
    for line in BENCHMARKS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == name:
            number = re.match(r"[\d,.]+", cells[1])
            assert number is not None, cells[1]
            return Rate(float(number[0].replace(",", "")), unit, "measured ([benchmarks](benchmarks.md))")
    raise LookupError(f"{BENCHMARKS} has no row {name!r}")


@dataclass(frozen=True, slots=True)
class Size:
    """What so many mailboxes need, but for training."""

    mailboxes: int
    mails_a_second: float
    feeds: int
    parsers: int
    stores_by_size: int
    stores_by_rate: int
    mail_tb: float

    @property
    def stores(self) -> int:
        """Also the assigners, and the least number of partitions: each store has partitions of its own."""
        return max(self.stores_by_size, self.stores_by_rate)


def size(mailboxes: int, rates: Rates) -> Size:
    """The busiest hour decides on rates, the years kept on stores."""
    peak = mailboxes * rates.mails_a_day.value * rates.busiest_hour.value / 3600
    kept = mailboxes * rates.mails_a_day.value * DAYS * rates.kept_years.value
    return Size(
        mailboxes=mailboxes,
        mails_a_second=peak,
        feeds=math.ceil(mailboxes / rates.connections.value),
        parsers=math.ceil(peak / (rates.parse.value * rates.used.value)),
        stores_by_size=math.ceil(kept / rates.store_mails.value),
        stores_by_rate=math.ceil(peak * rates.take_alone.value / rates.used.value),
        mail_tb=kept * rates.mail_bytes.value / 1e12,
    )


@dataclass(frozen=True, slots=True)
class Training:
    """Training of one mailbox for a year, under one policy."""

    runs: float
    tokens_a_run: float
    cpu_hours: float
    gpu_hours: float
    gigabytes: float


def training(policy: Policy, rates: Rates) -> Training:
    """Every closing one run, none waiting for another."""
    runs = rates.mails_a_day.value * DAYS / policy.mails
    new = policy.mails * rates.train_share.value * rates.chunk_tokens.value
    tokens = new * (1 + rates.rehearsal.value) * rates.epochs.value
    return Training(
        runs=runs,
        tokens_a_run=tokens,
        cpu_hours=runs * (tokens / rates.cpu_tokens.value + rates.cpu_beside.value) / 3600,
        gpu_hours=runs * (tokens / rates.gpu_tokens.value + rates.gpu_beside.value) / 3600,
        gigabytes=runs * rates.run_bytes.value / 1e9,
    )


def all_of(rates: Rates) -> list[Rate]:
    return [getattr(rates, one.name) for one in fields(rates)]


def tables(rates: Rates) -> dict[str, str]:
    """The tables of the page, by the name of their mark."""
    sizes = [size(mailboxes, rates) for mailboxes in MAILBOXES]
    found = {
        "rates": table(
            ("rate", "of what", "from"),
            ((f"{rate.value:,.10g}", rate.unit, rate.source) for rate in all_of(rates)),
        ),
        "sizes": table(
            ("", *(f"{one.mailboxes:,} mailboxes" for one in sizes)),
            [
                ("mails a second in the busiest hour", *(f"{one.mails_a_second:,.2f}" for one in sizes)),
                ("feed processes", *(f"{one.feeds:,}" for one in sizes)),
                ("parsers", *(f"{one.parsers:,}" for one in sizes)),
                ("stores that the mail's amount asks for", *(f"{one.stores_by_size:,}" for one in sizes)),
                ("stores that its rate asks for", *(f"{one.stores_by_rate:,}" for one in sizes)),
                ("**stores, assigners, partitions at least**", *(f"**{one.stores:,}**" for one in sizes)),
                ("mail kept, TB", *(rounded(one.mail_tb) for one in sizes)),
            ],
        ),
    }
    rows: list[tuple[str, ...]] = []
    for policy in POLICIES:
        one = training(policy, rates)
        hours = [(one.cpu_hours * n / DAYS, one.gpu_hours * n / DAYS) for n in MAILBOXES]
        rows.append((f"**windows of {policy.name}**: runs a year and mailbox", *(f"{one.runs:,.0f}" for _ in hours)))
        rows.append(("core hours a day, built-in model", *(rounded(cpu) for cpu, _ in hours)))
        rows.append(("**GPU hours a day, 7 B**", *(f"**{rounded(gpu)}**" for _, gpu in hours)))
        rows.append(("GPUs, used half the time", *(f"{math.ceil(gpu / 24 / rates.used.value):,}" for _, gpu in hours)))
        rows.append(("runs kept, TB a year", *(rounded(one.gigabytes * n / 1e3) for n in MAILBOXES)))
    found["training"] = table(("", *(f"{mailboxes:,} mailboxes" for mailboxes in MAILBOXES)), rows)
    return found


def rounded(value: float) -> str:
    """Three digits, or whole."""
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---", *("---:" if column[:1].isdigit() else "---" for column in columns[1:])]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [*lines, *rows]) + "\n"


def rewrite(page: Path) -> None:
    """Fills the tables of the page anew, from the rates as they stand now."""
    page.write_text(filled(page.read_text(encoding="utf-8"), Rates()), encoding="utf-8")


def filled(text: str, rates: Rates) -> str:
    """The page with its tables as the rates make them."""
    for name, body in tables(rates).items():
        before, opening, rest = text.partition(f"<!-- {name} -->\n")
        _, closing, after = rest.partition(f"<!-- /{name} -->")
        assert opening and closing, f"the page has no place for the table {name}"
        text = before + opening + body + closing + after
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the tables of the page on scaling.")
    parser.add_argument("--write", type=Path, required=True, metavar="FILE")
    rewrite(parser.parse_args().write)


if __name__ == "__main__":
    main()
