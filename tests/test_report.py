"""A run's report: whole, private, of one file, and no more of a mail than is left of it."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.config.settings import RetrySettings
from pipeline.errors import RunError, UsageError
from pipeline.home import write_atomic
from pipeline.runs.attempts import Attempts, write_attempts
from pipeline.runs.replyfiles import REPLIES, Given, ReplyLoss, write_reply_losses
from registry.gate import Ruling
from streams.report.page import page
from streams.report.story import Example, Mail, gather_story
from streams.report.writing import REPORT, try_to_write_report, write_report
from tests.support.finished import SELECTED, Finished

AT = datetime(2026, 3, 1, 12)


class Outline(HTMLParser):
    """What a page loads or runs, its headings, and that every element is closed."""

    VOID = frozenset({"meta", "line", "circle", "polyline", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.reaches: list[str] = []
        self.headings = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "object", "embed"}:
            self.reaches.append(tag)
        self.reaches += [name for name, _ in attrs if name in {"src", "href", "srcset"} or name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"h1", "h2", "h3"}:
            self.headings += f"{data.strip()}\n"


def outline(text: str) -> Outline:
    parser = Outline()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture
def runs(tmp_path: Path) -> Finished:
    runs = Finished.at(tmp_path)
    for _ in range(2):
        runs.step()
    return runs


def newest(runs: Finished) -> str:
    assert runs.lineage.parent is not None
    return runs.lineage.parent.run_id


def test_a_report_is_one_private_file_that_reaches_for_nothing(runs: Finished) -> None:
    path = write_report(runs.store, runs.home, newest(runs))
    assert path == runs.home.run(newest(runs)) / REPORT
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = outline(path.read_text())
    assert found.reaches == []
    assert "://" not in path.read_text()
    for heading in ("Verdict", "Loss while training", "Forgetting", "Where the time went", "The mail of its windows"):
        assert heading in found.headings
    assert "Examples" not in found.headings, "there is nothing to quote"


def test_the_heat_map_is_of_the_lineage_on_what_the_run_was_measured_on(runs: Finished) -> None:
    story = gather_story(runs.store, runs.home, newest(runs))
    assert story.heat is not None
    first, second = runs.skill[story.heat.adapters[-2]], runs.skill[story.heat.adapters[-1]]
    assert story.heat.adapters[-1] == story.request.adapter_id and len(story.heat.adapters) == 3
    assert story.heat.windows == (0, 1)
    for place in (0, 1):
        ours, theirs = story.heat.cells[-1][place], story.heat.cells[-2][place]
        assert ours is not None and theirs is not None
        assert ours - theirs == pytest.approx(second.get(place, 5.0) - first.get(place, 5.0), abs=0.05)


def test_rules_that_were_not_asked_stand_apart_from_the_verdict(runs: Finished) -> None:
    story = gather_story(runs.store, runs.home, newest(runs))
    assert story.decision is not None and story.decision.verdict is not None
    shown, closed = page(story).split("<h2>Loss while training</h2>")[0].split(" not asked</summary>")
    for rule in story.decision.verdict.rules:
        assert (f"<code>{rule.name}</code>" in closed) == (rule.ruling is Ruling.ABSENT)
        assert (f"<code>{rule.name}</code>" in shown) == (rule.ruling is not Ruling.ABSENT)


def test_text_of_mail_is_quoted_and_never_obeyed(runs: Finished) -> None:
    evil = Mail("<b>Eve</b>", AT, "<script>alert(1)</script>", "</blockquote><img src=x onerror=alert(1)> & so on")
    example = Example(evil, (evil,), "<svg onload=alert(1)>", {what.value: 3.0 for what in Given})
    story = replace(gather_story(runs.store, runs.home, newest(runs)), examples={"best": (example,)})
    text = page(story)
    assert outline(text).reaches == []
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "&amp; so on" in text


def test_what_was_erased_is_quoted_no_more(runs: Finished) -> None:
    run = newest(runs)
    adapter = f"a{run}"
    losses = [
        ReplyLoss(adapter, SELECTED, "gone@mail.example", "t", "val", what.value, (), f"d{what}", 30.0, 10, 2)
        for what in Given
    ]
    write_reply_losses(runs.home.run(run) / REPLIES, losses)
    assert gather_story(runs.store, runs.home, run).examples == {}
    assert "gone@mail.example" not in write_report(runs.store, runs.home, run).read_text()


def test_a_report_that_cannot_be_drawn_undoes_no_verdict(runs: Finished, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UsageError, match="no adapter or run nothing"):
        write_report(runs.store, runs.home, "nothing")
    write_atomic(runs.home.run(newest(runs)) / "metrics.jsonl", b"{broken")
    with pytest.raises(RunError, match="left nothing to report"):
        write_report(runs.store, runs.home, newest(runs))
    try_to_write_report(runs.store, runs.home, newest(runs))
    assert f"mailtide report {newest(runs)}" in caplog.text


def test_selection_and_summary_are_shown_where_a_run_wrote_them(runs: Finished) -> None:
    path = runs.home.run(newest(runs)) / "eval_results.json"
    results = json.loads(path.read_text())
    told = {"value": 12.5, "n": 40, "ci_low": 11.0, "ci_high": 14.0, "few": False}
    row = {"checkpoint": SELECTED, "parts": {"ppl": 12.5}, "rescaled": {"ppl": 1.0}, "score": 1.0, "front": True}
    results |= {
        "k": 3,
        "summary": [
            {"role": "run", "chosen": True, "val_perplexity": {**told, "few": True}},
            {"role": "base", "chosen": False, "val_perplexity": {**told, "value": 1234.5}},
            {"role": "champion", "chosen": False, "val_perplexity": {**told, "value": 13.75}},
        ],
        "selection": {
            "rule": "weighted",
            "weights": {"ppl": 1.0},
            "thresholds": [],
            "rows": [{**row, "broken": ["ppl<=10"], "kept": True, "chosen": True}],
            "chosen": SELECTED,
            "reason": "weighted: the highest score",
        },
    }
    path.write_text(json.dumps(results))
    text = write_report(runs.store, runs.home, newest(runs)).read_text()
    assert "12.5" in text and "ppl&lt;=10" in text and "Weighted: the highest score." in text
    assert "Attempt 1" not in text
    retry = RetrySettings(attempts=1)
    write_attempts(path.parent, Attempts(before=5.0).after(10, 4.995, 1e-3, retry).after(10, 4.9, 5e-4, retry))
    text = write_report(runs.store, runs.home, newest(runs)).read_text()
    assert "Attempt 1, learning rate 0.001: loss 5.000 -&gt; 4.995 at step 10." in text
    assert "Attempt 2, learning rate 0.0005: loss 5.000 -&gt; 4.900 at step 10, kept." in text
    assert "champion 13.8<br>bare base 1,234.5<br>few threads, n = 40" in text, "whom it replaces comes first"
