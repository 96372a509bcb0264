"""The demo as a stranger runs it, cut to its first two windows: it trains, decides and cites for real."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from streams.demo.facts import FACTS
from tests.support.program import execute, mailtide, run

VERDICTS = {"promoted", "rejected", "abstained"}


def told(home: Path, query: str) -> list[dict[str, str]]:
    done = run(home, "sql", query, "--json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, str]] = json.loads(done.stdout)
    return rows


@pytest.mark.slow
def test_the_demo_keeps_what_it_promises(tmp_path: Path) -> None:
    home = tmp_path / "kept"
    command = mailtide(tmp_path / "other", "demo", "--keep", str(home), "--windows", "2")
    done = execute(command, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "other").exists()
    assert "Traceback" not in done.stderr
    assert "kernels" not in done.stderr

    lines = done.stdout.splitlines()
    head = next(place for place, line in enumerate(lines) if line.split()[:2] == ["windows", "mails"])
    rows = [line.split() for line in lines[head + 2 : head + 4]]
    assert [row[0] for row in rows] == ["0", "1"]
    verdicts = [row[-2] for row in rows]
    assert set(verdicts) <= VERDICTS
    assert "promoted" in verdicts
    new_before, new_after = float(rows[0][4]), float(rows[0][5])
    assert verdicts[0] != "promoted" or new_after < new_before

    asked = re.search(r"^Question: (.+)$", done.stdout, re.MULTILINE)
    assert asked is not None
    (fact,) = [fact for fact in FACTS if fact.question == asked[1]]
    quoted = " ".join(line.removeprefix("  > ") for line in lines if line.startswith("  > "))
    assert fact.answer in quoted
    cited = re.findall(r"^ \[\d+\] .* (\S+@\S+) *$", done.stdout, re.MULTILINE)
    assert cited
    keys = told(home, "SELECT message_key FROM messages")
    assert set(cited) <= {row["message_key"] for row in keys}
    champions = told(home, "SELECT adapter_id FROM adapters WHERE status = 'champion'")
    assert [row["adapter_id"] for row in champions] == [row[-1] for row in rows if row[-2] == "promoted"][-1:]

    again = run(home, "ask", fact.question)
    assert again.returncode == 0
    assert fact.answer in " ".join(line.removeprefix("  > ") for line in again.stdout.splitlines())
