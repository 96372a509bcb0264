"""What happened, as a notice: ids, figures and counts from the store. Reasons that people typed and what programs said of a
failure stay here, as either may quote mail."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pipeline.config.settings import Settings
from pipeline.store import Store
from registry.gate import RuleOutcome, Verdict
from streams.notices.finding import Untold
from streams.notices.notice import Notice
from streams.notices.regressions import EARLIER, Figure, Name, Regression, regressions

BY_HAND = "by hand"
SAID = {"rolled_back": "is the champion again"}
"""How a kind is said where its name will not do."""


def notice_of(store: Store, settings: Settings, one: Untold) -> Notice | None:
    """The notice; None where it turns out that there is nothing to tell."""
    match one.kind:
        case "waiting":
            return _waiting(store, one)
        case "stuck":
            return _stuck(one)
        case "regressed":
            return _regressed(store, one)
        case _:
            return _decided(store, settings, one)


def trial(target: str, at: datetime) -> Notice:
    """What is sent to try a target."""
    return Notice(f"test/{target}/{at.isoformat()}", "test", "", at, f"test for {target}", ("It arrived.",))


def _decided(store: Store, settings: Settings, one: Untold) -> Notice:
    run = _run(store, one.subject)
    lines = []
    if run is not None:
        windows = ", ".join(map(str, run["windows"]))
        line = f"run {run['run_id']} on window{'s' if len(run['windows']) > 1 else ''} {windows}"
        if run["hours"] is not None:
            line += f": {run['steps']:,} steps, {run['tokens']:,} tokens, {run['hours']:.2f} h"
            line += f", {run['cost']:.2f} {settings.cost.currency}" if run["cost"] else ""
        lines.append(line)
    by_hand = _actor(store, one) != "gate"
    if by_hand:
        lines.append(BY_HAND)
    elif run is not None:
        lines += [_rule(rule) for rule in _rules(run["detail"])]
    if run is not None:
        lines.append(f"see: mailtide {'runs show' if one.kind == 'failed' else 'registry explain'} {run['run_id']}")
    said = SAID.get(one.kind, one.kind)
    return Notice(one.notice_id, one.kind, one.mailbox, one.at, f"{one.mailbox}: {one.subject} {said}", tuple(lines))


def _rule(rule: RuleOutcome) -> str:
    if rule.figure is None:
        return f"{rule.name}: {rule.ruling.value}"
    figure = f"{rule.figure:.4g}"
    if rule.low is not None and rule.high is not None:
        figure = f"{rule.figure:+.4f} ({rule.low:+.4f} to {rule.high:+.4f})"
    limit = "" if rule.threshold is None else f", limit {rule.threshold:g}"
    return f"{rule.name}: {figure}{limit}: {rule.ruling.value}"


def _waiting(store: Store, one: Untold) -> Notice | None:
    window = int(one.subject)
    asked = store.scalar(
        "SELECT coalesce(max(list_max(windows)), -1) FROM requests WHERE mailbox = ?",
        [one.mailbox],
    )
    if asked >= window:
        return None
    count, mails = store.query(
        "SELECT count(*), coalesce(sum(n_messages), 0) FROM closings WHERE mailbox = ? AND window_idx > ?",
        [one.mailbox, asked],
    )[0]
    title = f"{one.mailbox}: window {window} closed, {count:,} {'waits' if count == 1 else 'wait'} for training"
    lines = (f"{mails:,} mails", f"see: mailtide plan {one.mailbox}; do it: mailtide retrain {one.mailbox} --confirm")
    return Notice(one.notice_id, one.kind, one.mailbox, one.at, title, lines)


def _stuck(one: Untold) -> Notice:
    event, _, consumer = one.subject.rpartition("@")
    lines = (f"{consumer} could not handle {event}", "see: mailtide deadletters list")
    title = f"{one.mailbox}: {event.rpartition('/')[2]} is stuck"
    return Notice(one.notice_id, one.kind, one.mailbox, one.at, title, lines)


def _regressed(store: Store, one: Untold) -> Notice | None:
    own, earlier = measured(store, one.mailbox, one.subject)
    found = regressions(own, earlier)
    if not found:
        return None
    title = f"{one.mailbox}: {one.subject} is worse than the last {EARLIER} runs"
    lines = (*map(_worse, found), f"see: mailtide registry show {one.subject}")
    return Notice(one.notice_id, one.kind, one.mailbox, one.at, title, lines)


def _worse(one: Regression) -> str:
    figure = one.figure
    bounds = "" if figure.low is None or figure.high is None else f" ({figure.low:.4f} to {figure.high:.4f})"
    return f"{figure.metric} on {figure.split}: {figure.value:.4f}{bounds}; median {one.usual:.4f}, worst {one.worst:.4f}"


def measured(store: Store, mailbox: str, adapter_id: str) -> tuple[list[Figure], list[dict[Name, float]]]:
    """The figures of a run's adapter at its chosen checkpoint, and those of the runs decided before it, in order."""
    rows = store.query(
        """
        SELECT j.ordinal, j.adapter_id, m.metric, m.split, m.value, m.ci_low, m.ci_high
        FROM journal_rows j JOIN requests q ON q.adapter_id = j.adapter_id JOIN run_events e ON e.run_id = q.run_id
        JOIN metric_rows m ON m.run_id = q.run_id AND m.adapter_id = j.adapter_id
             AND m.checkpoint = e.detail->>'checkpoint' AND m.window_from IS NULL
        WHERE j.mailbox = ? AND j.event = 'evaluated'
              AND j.ordinal <= (SELECT max(ordinal) FROM journal_rows WHERE event = 'evaluated' AND adapter_id = ?)
        ORDER BY j.ordinal
        """,
        [mailbox, adapter_id],
    )
    runs: dict[str, list[Figure]] = {}
    for _, adapter, metric, split, value, low, high in rows:
        runs.setdefault(adapter, []).append(Figure(metric, split, value, low, high))
    own = runs.pop(adapter_id, [])
    return own, [{figure.name: figure.value for figure in figures} for figures in runs.values()]


def _run(store: Store, adapter_id: str) -> dict[str, Any] | None:
    """The run that made an adapter, with what it took where it finished; None for one that came from elsewhere."""
    rows = store.query(
        """
        SELECT q.run_id, q.windows, r.steps, r.tokens, epoch(r.finished_at - r.started_at) / 3600, r.cost,
               (SELECT max(e.detail) FROM run_events e WHERE e.run_id = q.run_id AND e.detail->>'verdict' IS NOT NULL)
        FROM requests q LEFT JOIN run_results r USING (run_id) WHERE q.adapter_id = ?
        """,
        [adapter_id],
    )
    names = ("run_id", "windows", "steps", "tokens", "hours", "cost", "detail")
    return dict(zip(names, rows[0], strict=True)) if rows else None


def _rules(detail: str | None) -> tuple[RuleOutcome, ...]:
    return Verdict.from_json(json.dumps(json.loads(detail)["verdict"])).rules if detail else ()


def _actor(store: Store, one: Untold) -> str:
    return str(store.scalar("SELECT actor FROM journal_rows WHERE ordinal = ?", [int(one.notice_id.rpartition("/")[2])]))
