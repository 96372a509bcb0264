"""Tables of the report, each from one part of the story."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from streams.report.drawing import bar, share
from streams.report.story import Heat, Rehearsed, Story

NAMES = {
    "nats_per_token": "loss, nats per token",
    "perplexity": "perplexity",
    "bits_per_byte": "bits per byte",
    "reply_loss": "reply, given nothing",
    "reply_loss_retrieved": "reply, given found mail",
    "reply_loss_random": "reply, given random mail",
    "reply_loss_parent": "reply, given the mail it answers",
    "rag_gain": "gain from found mail",
    "rag_gain_random": "gain from random mail",
    "rag_gain_parent": "gain from the mail it answers",
    "rag_gain_over_random": "found over random mail",
    "rag_accuracy": "ROUGE-L (accuracy)",
    "rag_bleu": "BLEU",
    "rag_exact": "exact match",
    "rag_f1": "words in common (F1)",
    "repetition": "repetition",
    "first_token_p50": "first token, median, s",
    "first_token_p95": "first token, 95th percentile, s",
    "answer_p50": "answer, median, s",
    "answer_p95": "answer, 95th percentile, s",
    "mrr": "MRR",
    "ndcg": "nDCG",
}
LOSS = ("nats_per_token", "bits_per_byte", "perplexity")
REPLIES = ("reply_loss", "reply_loss_retrieved", "reply_loss_random", "reply_loss_parent")
GAINS = ("rag_gain", "rag_gain_random", "rag_gain_parent", "rag_gain_over_random")
WRITTEN = ("rag_accuracy", "rag_bleu", "rag_f1", "rag_exact", "repetition")
TIMES = ("first_token_p50", "first_token_p95", "answer_p50", "answer_p95")
FULL = 0.5
"""Nats per token above a column's best at which a cell of the heat map is as dark as it gets."""

SEARCH = ("recall@1", "recall@5", "recall@10", "mrr", "ndcg@10")


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: frozenset[int] = frozenset(),
    wide: int | None = None,
) -> str:
    """Cells are HTML already; columns whose place is in ``numbers`` stand right, and the one at ``wide`` breaks lines."""

    def row(cells: Sequence[str], tag: str) -> str:
        marks = (
            ' class="n"' if place in numbers else ' class="wide"' if place == wide else "" for place in range(len(cells))
        )
        return "<tr>" + "".join(f"<{tag}{mark}>{cell}</{tag}>" for mark, cell in zip(marks, cells, strict=True)) + "</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f'<div class="scroll"><table><thead>{row(columns, "th")}</thead><tbody>{body}</tbody></table></div>'


def entries(story: Story) -> list[Mapping[str, Any]]:
    """The chosen checkpoint and what it is compared with, by split."""
    own = (story.request.adapter_id, story.result.checkpoint)
    return [
        entry
        for entry in story.results["checkpoints"]
        if (entry["adapter_id"], entry["checkpoint"]) == own or entry["adapter_id"] not in (own[0], "bm25")
    ]


def figures(story: Story, names: Sequence[str], title: str) -> str:
    """Figures by name, adapter and split with the bar of their interval; empty where none was measured."""
    rows: list[tuple[str, str, Mapping[str, Any]]] = []
    for wanted in names:
        for entry in searches(story) if names is SEARCH else entries(story):
            for metric in entry["metrics"]:
                if wanted in (metric["metric"], metric["metric"].partition("@")[0]) and "window_from" not in metric:
                    rows.append((metric["metric"], f"{adapter(story, entry['adapter_id'])}, {entry['split']}", metric))
    if not rows:
        return ""
    scales = {name: _scale([metric for other, _, metric in rows if other == name]) for name, _, _ in rows}
    if names in (GAINS, REPLIES, SEARCH):
        shared = _scale([metric for _, _, metric in rows])
        scales = dict.fromkeys(scales, shared)
    told, before = [], ""
    for name, who, metric in rows:
        told.append(
            (
                escape(called(name)) if name != before else "",
                escape(who),
                number(metric["value"]),
                bar(metric["value"], metric["ci_low"], metric["ci_high"], scales[name]),
                bounds(metric),
                f"{metric['n']:,}{'*' if metric['few'] else ''}",
            )
        )
        before = name
    return f"<h3>{escape(title)}</h3>" + table(("", "of", "value", "", "95 %", "n"), told, numbers=frozenset({2, 5}))


def searches(story: Story) -> list[Mapping[str, Any]]:
    return [entry for entry in story.results["checkpoints"] if entry["adapter_id"] == "bm25"]


def adapter(story: Story, adapter_id: str) -> str:
    """An adapter's part in the run, with its id."""
    request = story.request
    if adapter_id == request.adapter_id:
        return "this run"
    if adapter_id.startswith("base:"):
        return "bare base"
    if adapter_id == "bm25":
        return "BM25"
    for role in ("champion", "parent", "best"):
        ref = getattr(request, role)
        if ref is not None and ref.adapter_id == adapter_id:
            return f"{role} {adapter_id[:7]}"
    return adapter_id[:7]


def called(metric: str) -> str:
    name, at, k = metric.partition("@")
    return f"{NAMES.get(name, name)}{f' @ {k}' if at else ''}"


def bounds(metric: Mapping[str, Any]) -> str:
    low, high = metric["ci_low"], metric["ci_high"]
    return "unknown" if low is None or high is None else f"{number(low)} to {number(high)}"


def number(value: float) -> str:
    """With about as many digits as its interval can bear: perplexities go into thousands, gains below a hundredth."""
    return f"{value:,.{3 if abs(value) < 10 else 2 if abs(value) < 100 else 1}f}"


def heat_map(heat: Heat, story: Story) -> str:
    """A cell's colour says by how much it is above the best of its column, as windows differ in how hard they are."""
    rows = []
    learned = set(story.request.new_windows)
    for name, cells in zip(heat.adapters, heat.cells, strict=True):
        told = []
        for place, cell in enumerate(cells):
            column = [row[place] for row in heat.cells if row[place] is not None]
            told.append(_cell(cell, [value for value in column if value is not None]))
        rows.append(f'<tr><th class="row">{escape(adapter(story, name))}</th>{"".join(told)}</tr>')
    head = "".join(f"<th>{window}{'†' if window in learned else ''}</th>" for window in heat.windows)
    return f'<div class="scroll"><table class="heat"><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'


def senders(rehearsed: Sequence[Rehearsed]) -> str:
    rows = [
        (
            escape(one.sender),
            f"{one.learned:,}",
            f"{one.this_run:,}",
            share(one.this_run, one.learned),
            f"{one.ever:,}",
            share(one.ever, one.learned),
        )
        for one in rehearsed
    ]
    columns = ("sender", "chunks learned before", "rehearsed in this run", "", "by any run", "")
    return table(columns, rows, numbers=frozenset({1, 2, 4}))


def selection(choice: Mapping[str, Any]) -> str:
    """Every checkpoint by what may choose, with the winner marked."""
    parts = list(dict.fromkeys(part for row in choice["rows"] for part in row["parts"]))
    rows = []
    for row in choice["rows"]:
        cells = []
        for part in parts:
            value, scaled = row["parts"].get(part), row["rescaled"].get(part)
            told = "-" if value is None else f"{value:.4g}"
            cells.append(told if scaled is None or value is None else f"{told} <span class='soft'>({scaled:.2f})</span>")
        score = "-" if row["score"] is None or choice["rule"] == "val_loss" else f"{row['score']:.3f}"
        notes = [*row["broken"], *(() if row["kept"] else ("weights gone",)), *(("on the front",) if row["front"] else ())]
        name = f"<b>{escape(row['checkpoint'])} ✓</b>" if row["chosen"] else escape(row["checkpoint"])
        rows.append((name, *cells, score, escape(", ".join(notes))))
    columns = ("checkpoint", *map(escape, parts), "score", "")
    return table(columns, rows, numbers=frozenset(range(1, len(parts) + 2)))


def benchmarks(told: Mapping[str, Any]) -> str:
    """Scores of both models on the same items, and what was lost; empty where nothing was measured."""
    if "points_lost" not in told:
        return ""
    rows = [
        (
            f"{escape(one['task'])} <span class='soft'>{escape(one['metric'])}</span>",
            f"{one['score']:.3f}",
            f"{one['score_against']:.3f}",
            f"{one['points_lost']:+.2f}",
            _points(one),
            f"{one['n']:,}",
        )
        for one in told["tasks"]
    ]
    rows.append(("<b>mean by weight</b>", "", "", f"<b>{told['points_lost']:+.2f}</b>", _points(told), f"{told['n']:,}"))
    columns = ("task", "this run", "against", "points lost", "95 %", "items")
    return table(columns, rows, numbers=frozenset({1, 2, 3, 5}))


def _points(told: Mapping[str, Any]) -> str:
    low, high = told["ci_low"], told["ci_high"]
    return "unknown" if low is None or high is None else f"{low:+.2f} to {high:+.2f}"


def _scale(metrics: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    ends = [end for metric in metrics for end in (metric["value"], metric["ci_low"], metric["ci_high"]) if end is not None]
    return min(ends), max(ends)


def _cell(value: float | None, column: Sequence[float]) -> str:
    if value is None:
        return "<td>·</td>"
    depth = min(1.0, (value - min(column)) / FULL)
    return f'<td style="background: rgba(var(--heat), {0.04 + 0.6 * depth:.2f})">{value:.2f}</td>'
