"""The benchmark driver's own arithmetic, and that it shows a failure instead of dying of it."""

from __future__ import annotations

import email
import math
import sys
from pathlib import Path

import pytest

from tests.bench.__main__ import Benchmark, benchmarks
from tests.bench.ingest import rate_of, renamed, write_repeated
from tests.bench.kept import Measured, read, write
from tests.bench.machine import describe
from tests.bench.program import run
from tests.bench.report import cells, figure, markdown
from tests.bench.rows import BenchRow
from tests.bench.transcript import thinned
from tests.support.archives import mail
from tests.support.live import Said

ROW = BenchRow("import", 1234.5, "mails/s", "other | thing", 500.0, 2.469, "twice it", True, "")
REPLY = (
    b"Message-ID: <b@example.org>\nReferences: <a@example.org>\n\t<c@example.org>\nin-reply-to: <a@example.org>\n"
    b"Subject: <kept@example.org>\n\n<also@kept.example.org>\n"
)


def test_every_round_of_mails_has_ids_of_its_own_and_keeps_its_threads() -> None:
    first, second = (email.message_from_bytes(next(renamed([REPLY], number))) for number in (0, 1))
    assert first["Message-ID"] == "<r0.b@example.org>"
    assert second["References"].split() == ["<r1.a@example.org>", "<r1.c@example.org>"]
    assert second["In-Reply-To"] == "<r1.a@example.org>"
    assert second["Subject"] == "<kept@example.org>"
    assert second.get_payload() == "<also@kept.example.org>\n"


def test_repeated_mails_are_whole_rounds(tmp_path: Path) -> None:
    box = tmp_path / "large.mbox"
    assert write_repeated(box, [mail(number) for number in range(3)], 7) == 9
    assert box.read_bytes().count(b"\nMessage-ID: <r2.") == 3


def test_rates_are_of_the_first_and_last_tenth_of_the_mails() -> None:
    batches = [(10, 1.0), *[(10, 5.0)] * 8, (10, 2.0)]
    assert rate_of(batches, first=True) == 10.0
    assert rate_of(batches, first=False) == 5.0


def test_a_failing_benchmark_is_a_row() -> None:
    def bench_nothing() -> list[BenchRow]:
        raise RuntimeError("no luck today")

    (row,) = Benchmark("nothing", bench_nothing).rows(None, quick=True)
    assert row.met is False and "no luck today" in row.note


def test_a_benchmark_gets_what_it_asks_for(tmp_path: Path) -> None:
    def bench_something(data: Path, *, quick: bool) -> list[BenchRow]:
        return [BenchRow(str(data), float(quick), "", "", None, None, "", None, "")]

    benchmark = Benchmark("something", bench_something)
    assert benchmark.rows(tmp_path, quick=True)[0].name == str(tmp_path)
    assert "MAILTIDE_DATA" in benchmark.rows(None, quick=True)[0].note


def test_the_driver_finds_the_benchmarks() -> None:
    assert {"import-rate", "commands", "malformed", "delivery", "training-start", "idle"} <= {
        benchmark.name for benchmark in benchmarks()
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (math.nan, ""), (7.0, "7"), (12345.6, "12,346"), (0.1174, "0.117"), (3.14159, "3.14"), (45.67, "45.7")],
)
def test_figures_have_three_digits(value: float | None, text: str) -> None:
    assert figure(value) == text


def test_the_page_holds_command_machine_and_rows() -> None:
    page = markdown([Measured("2026-11-21", 0.34, (ROW,))], describe())
    assert "| Python | " in page
    expected = (
        "| import | 1,234 mails/s | other \\| thing | 500 mails/s | 2.47 | twice it | yes |  | 2026-11-21, load 0.3 |"
    )
    assert expected in page
    assert cells(ROW)[6] == "yes"


def test_what_was_measured_is_kept_until_the_machine_is_another(tmp_path: Path) -> None:
    file = tmp_path / "benchmarks.json"
    machine = [("processor", "2 cores")]
    assert read(file, machine) == {}
    unknown = BenchRow("failed", math.nan, "", "", None, None, "", False, "no luck")
    write(file, machine, {"import": Measured("2026-11-20", 0.3, (ROW,)), "other": Measured("2026-11-21", 12.0, (unknown,))})
    kept = read(file, machine)
    assert list(kept) == ["import", "other"]
    assert kept["import"] == Measured("2026-11-20", 0.3, (ROW,))
    assert math.isnan(kept["other"].rows[0].value) and kept["other"].rows[0].note == "no luck"
    assert read(file, [("processor", "4 cores")]) == {}


def test_a_transcript_keeps_all_but_what_repeats() -> None:
    lines = [Said(f"2026-11-21T10:00:0{second}.000Z", "feed", f"handed on up to number {second}") for second in range(5)]
    closed = Said("2026-11-21T10:00:06.000Z", "assign", "window 0 of main closed")
    kept = list(thinned([*lines, closed, *lines[:3]]))
    assert kept[:2] == lines[:2] and kept[3:] == [closed, *lines[:3]]
    assert kept[2].message == "3 more lines of mail handed on and taken, to 10:00:04.000"


def test_a_program_is_measured_and_its_failure_told() -> None:
    took = run([sys.executable, "-c", "x = bytearray(120_000_000); print(sum(range(4_000_000)))"])
    assert took.output == "7999998000000\n"
    assert took.seconds >= took.cpu_seconds * 0.5 > 0
    with pytest.raises(RuntimeError, match="ended with 3: too bad"):
        run([sys.executable, "-c", "import sys; print('too bad', file=sys.stderr); sys.exit(3)"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_peak_memory_of_a_program_is_seen() -> None:
    script = "import threading; x = bytearray(120_000_000); threading.Event().wait(0.6)"
    assert 120 < run([sys.executable, "-c", script]).peak_mb < 200
