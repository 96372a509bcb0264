"""Commands that say why: a verdict explained rule by rule, and the history under another policy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json, print_table, say
from streams.documents import plain

if TYPE_CHECKING:
    from pipeline.home import Home
    from registry.explain import Explained, Explanation
    from registry.hindsight import Entry, Hindsight


@click.command("explain", short_help="Say why an adapter was promoted, rejected or abstained on.")
@click.argument("adapter_or_run", metavar="ADAPTER_ID")
@json_option
@click.pass_obj
def explain_command(home: Home, adapter_or_run: str, as_json: bool) -> None:
    """Say why ADAPTER_ID (or a run's id) was promoted, rejected or abstained on: every rule with its figure, bounds,
    threshold and the margin left; what the evidence could have shown; and what an abstention still needs. From what is
    stored: nothing is trained or measured again.
    """
    from registry.chosen import selection_of
    from registry.decided import decided, request_of
    from registry.explain import explain
    from streams.cli.choices import tell_choice
    from streams.cli.opening import opened, settings_of

    settings = settings_of(home)
    with opened(home) as store:
        told = explain(store, home, decided(store, home, request_of(store, adapter_or_run)), settings.gate)
    selection = selection_of(home, told.run_id)
    if as_json:
        document = plain(told)
        document["policy"] = told.policy.model_dump()
        document["selection"] = selection
        print_json(document)
    else:
        _tell(told)
        if selection is not None:
            click.echo()
            tell_choice(selection)


@click.command("what-if", short_help="Replay another policy over the decisions so far.")
@click.argument("policy", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--mailbox", help="Whose history.  [default: the only one]")
@json_option
@click.pass_obj
def what_if_command(home: Home, policy: Path, mailbox: str | None, as_json: bool) -> None:
    """Replay POLICY (a YAML file, such as those in configs/policies/) over every decision so far: the verdict then and
    under it, and which adapter would have served. Nothing is changed.
    """
    from registry.hindsight import hindsight, tally
    from registry.named import the_mailbox
    from registry.policies import read_policy
    from streams.cli.opening import opened

    read = read_policy(policy)
    with opened(home) as store:
        found = hindsight(store, home, the_mailbox(store, mailbox), read.name, read.gate)
    if as_json:
        document = plain(found)
        document |= {"gate": read.gate.model_dump(), "tally": tally(found.verdicts)}
        print_json(document)
    else:
        _tell_history(found)


def _tell(told: Explanation) -> None:
    from registry.objections import ASKS
    from registry.reigns import how

    say(f"{told.status.upper()} {told.adapter_id}, run {told.run_id} of {told.mailbox}, {told.at:%Y-%m-%d %H:%M} UTC")
    say(
        f"Challenged {told.reference}; new: {_windows(told.new_windows)}; "
        f"learned by the champion before: {_windows(told.old_windows)}."
    )
    say(f"Trained on base {told.base_id}{'' if told.base == 'builtin' else f' ({told.base})'}.")
    policy = ", ".join(f"{name} {value:g}" for name, value in told.policy if isinstance(value, int | float))
    kept = "" if told.policy_kept else " (that of the settings now: the verdict did not keep its own)"
    say(f"Policy: {policy}{kept}.")
    for changed in told.changed:
        was, now = json.dumps(changed.before), json.dumps(changed.now)
        say(f"Made with {changed.name} {now}, where the run of {told.reference} had {was}.")
    for reason in told.reasons:
        say(f"- {reason}")
    for row in told.by_hand:
        say(f"By hand: {row.event.replace('_', ' ')} on {row.at:%Y-%m-%d %H:%M} by {row.actor}: {row.reason}")
    for served in told.left:
        if served.ended_by is not None:
            say(
                f"Left by hand: served until {served.until:%Y-%m-%d %H:%M:%S}; then {served.ended_by.adapter_id} was "
                f"{how(served.ended_by)}"
            )
    for judged in told.since:
        say(f"Since then: {judged.reason}")
    losses = [one for one in told.rules if one.rule.name not in ASKS]
    others = [one for one in told.rules if one.rule.name in ASKS]
    if losses:
        columns = ("rule", "figure", "lower", "upper", "threshold", "margin left", "chunks", "threads", "ruling")
        print_table(columns, [_rule(one) for one in losses])
        for one in losses:
            say(f"  {one.rule.name}: {one.asks}")
        sure, better = (f"{100 * share:g} %" for share in (told.policy.confidence, told.policy.confidence_better))
        say(f"Figures: challenger less reference, nats per token on val; below 0 is better. Bounds: {sure} each.")
        say(f"Margin left: from the threshold to the upper bound, which of new is taken at {better}; below 0 is missing.")
    _tell_objections(others)
    _tell_power(told)
    if told.needs:
        click.echo()
        say("What it still needs (val threads that may judge):")
        for need in told.needs:
            say(f"  {need.rule}: {need.sentence}")
    if told.missing:
        click.echo()
        say(f"Only the verdict is left to tell of: {told.missing}.")
    elif told.differences:
        click.echo()
        say(
            f"Asked again on the stored evidence, the gate rules otherwise on {', '.join(told.differences)}: "
            f"see `mailtide registry verify {told.run_id}`."
        )
    elif told.rules and told.policy_kept:
        click.echo()
        say("Asked again on the stored evidence, the gate rules the same.")


def _rule(one: Explained) -> tuple[str, ...]:
    rule = one.rule
    count = rule.name == "new_threads"
    signs = {"champion": "", "new_threads": ">= ", "new": "< ", "old": "<= ", "drift": "<= "}
    threshold = "" if rule.threshold is None else f"{signs.get(rule.name, '')}{rule.threshold:g}"
    return (
        rule.name,
        _signed(rule.figure, count),
        _signed(rule.low, count),
        _signed(rule.high, count),
        threshold,
        _signed(one.margin_left, count),
        f"{rule.n_chunks}" if rule.n_chunks else "",
        f"{rule.n_threads}" if rule.n_threads else "",
        rule.ruling.value,
    )


def _tell_objections(others: Sequence[Explained]) -> None:
    """Rules beside the losses: those that were asked, and why the rest were not."""
    asked = [one for one in others if one.rule.ruling.value in ("pass", "fail")]
    if asked:
        click.echo()
        say("What else was measured. Each figure is harm, and objects when its lower bound is above its limit:")
        columns = ("rule", "figure", "lower", "upper", "limit", "margin left", "n", "ruling")
        print_table(columns, [_limited(one) for one in asked])
        for one in asked:
            say(f"  {one.rule.name}: {one.asks}")
    by_reason: dict[str, list[str]] = {}
    for one in others:
        if one not in asked:
            by_reason.setdefault(one.rule.sentence.removeprefix(f"{one.rule.name}: "), []).append(one.rule.name)
    if by_reason and not asked:
        click.echo()
    for reason, names in by_reason.items():
        say(f"{', '.join(names)}: {reason}.")


def _limited(one: Explained) -> tuple[str, ...]:
    rule = one.rule
    numbers = (rule.figure, rule.low, rule.high, rule.threshold, one.margin_left)
    return (
        rule.name,
        *("" if value is None else f"{value:.4g}" for value in numbers),
        str(rule.n_chunks),
        rule.ruling.value,
    )


def _tell_power(told: Explanation) -> None:
    seen = [one for one in told.rules if one.power is not None]
    if not seen:
        return
    click.echo()
    say("What this evidence could have shown:")
    for one in seen:
        power = one.power
        assert power is not None
        if power.error is None or power.effective_threads is None:
            say(f"  {one.rule.name}: nothing, as there is no second thread to tell an error from")
            continue
        line = (
            f"  {one.rule.name}: standard error {power.error:.4f}, as from {power.effective_threads:.1f} threads of one "
            f"length; smallest true difference seen in four of five repetitions {power.smallest_seen:.4f}"
        )
        if power.chance_if_equal is not None:
            line += f"; a challenger no better and no worse passes in {_share(power.chance_if_equal)} of repetitions"
        say(line)
    say("  Smallest difference = (t(confidence) + t(0.8)) x standard error, jackknife over threads (Miller 2411.00640).")


def _tell_history(found: Hindsight) -> None:
    from registry.hindsight import tally

    columns = ("decided", "adapter", "then", f"under {found.policy}", "differs in", "served then", "would have served")
    print_table(columns, [_entry(entry) for entry in found.entries], title=f"{found.mailbox}: policy {found.policy}")
    counts = tally(found.verdicts)
    say(
        f"{counts['verdicts']} verdict{'' if counts['verdicts'] == 1 else 's'}: "
        f"{counts['same']} the same, {counts['changed']} changed, {counts['unreadable']} whose evidence cannot be read, "
        f"{counts['diverged']} of runs that would not have been as they were."
    )
    for entry in found.entries:
        if entry.under not in (entry.then, None) and not entry.diverged:
            say(f"{entry.adapter_id}, {entry.then} then, {entry.under} under {found.policy}:")
            for reason in entry.reasons:
                say(f"- {reason}")
    apart = found.diverges_at
    if apart is not None:
        say(
            f"From run {apart.run_id} on (marked ?) history would have been another: {apart.note}. Such a run is judged on "
            "what it left, but the policy would have had another adapter to continue and to challenge, and so another run. "
            "What would have served is the last that is certain."
        )
    for entry in found.entries:
        if entry.note and (entry.run_id is None or not entry.diverged):
            say(f"{entry.adapter_id}, {entry.then}: {entry.note}")


def _entry(entry: Entry) -> tuple[str, ...]:
    mark = " ?" if entry.diverged else ""
    return (
        f"{entry.at:%Y-%m-%d %H:%M}",
        entry.adapter_id,
        entry.then,
        (entry.under or "cannot be told") + mark,
        " ".join(entry.changed_by),
        entry.served_then or "bare base",
        (entry.served or "bare base") + mark,
    )


def _signed(value: float | None, count: bool) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if count else f"{value:+.4f}"


def _share(chance: float) -> str:
    """Rounded, but never to all or nothing: there is always a chance."""
    if chance > 0.99:
        return "over 99 %"
    return "under 1 %" if chance < 0.01 else f"{100 * chance:.0f} %"


def _windows(windows: tuple[int, ...]) -> str:
    if not windows:
        return "no window"
    runs: list[list[int]] = []
    for window in sorted(windows):
        if runs and window == runs[-1][1] + 1:
            runs[-1][1] = window
        else:
            runs.append([window, window])
    named = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"window{'s' if len(windows) > 1 else ''} {named}"
