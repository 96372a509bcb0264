"""How a plan and a run are told to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pipeline.ranges import ranges
from streams.cli.output import per_cent, print_table, say

if TYPE_CHECKING:
    from pipeline.chunking.tier_limits import TierUse
    from pipeline.config.settings import Settings
    from pipeline.runs.plan import Plan
    from registry.spending import Spending
    from streams.runs.sessions import RunReport


def tell_plan(plan: Plan, settings: Settings, spent: Spending, waiting: int) -> None:
    """What would be trained, how much, how long, at what price, and what the gate would ask.

    ``waiting``: closed windows that the champion has not learned, those of the plan among them.
    """
    plural = "s" if len(plan.windows) > 1 else ""
    click.echo(f"Run {plan.run_id} of {plan.mailbox}: new window{plural} {ranges(plan.windows)}")
    if plan.failed:
        say(f"  On just this evidence {plan.failed}.")
    if plan.begins:
        say(f"  It begins a new lineage: {plan.begins}.")
    if len(plan.windows) == settings.replay.max_new_windows < waiting:
        later = waiting - len(plan.windows)
        click.echo(
            f"{later:,} more window{'s wait' if later > 1 else ' waits'} for later runs: "
            f"a run takes {settings.replay.max_new_windows} (replay.max_new_windows)."
        )
    print_table(
        ("", "chunks", "threads", "senders"),
        [
            ("new", plan.new.chunks, plan.new.threads, plan.new.senders),
            ("rehearsed", plan.rehearsal.chunks, plan.rehearsal.threads, plan.rehearsal.senders),
            ("could be rehearsed", plan.candidates.chunks, plan.candidates.threads, plan.candidates.senders),
        ],
    )
    tell_tiers(plan.tiers)
    if plan.owner:
        told = ", ".join(f"{address} ({count:,} mail{'' if count == 1 else 's'})" for address, count in plan.owner)
        say(f"Replies of {told}; a chunk without one is no example.")
    if plan.nothing:
        from streams.runs.planning import next_step

        say(f"Nothing to train on: {plan.nothing}; {next_step(plan)}.")
        return
    lengths = ", ".join(f"{count:,} {bucket.value}" for bucket, count in plan.buckets if count)
    epochs = "1 epoch" if plan.epochs == 1 else f"{plan.epochs} epochs"
    click.echo(f"{epochs} of {plan.tokens_per_epoch[0]:,} tokens by the ruler, in chunks: {lengths}; {plan.steps:,} steps.")
    click.echo(f"Rehearsal is {per_cent(plan.rehearsal_share)} of the tokens.")
    if plan.seconds is None:
        click.echo("Time: not known before the first run of this mailbox on its base.")
    else:
        cost = f", {plan.cost:.2f} {plan.currency}" if settings.cost.per_hour else ""
        click.echo(f"Time: about {duration(plan.seconds)}{cost}, at the rate of the last run.")
    if settings.cost.per_hour:
        click.echo(f"Cost: {spent_line(spent)}.")
        if spent.cap is not None and spent.cost + (plan.cost or 0.0) > spent.cap:
            click.echo("  This run would be more than that: mailtide retrain refuses it until cost.cap is raised.")
    tell_room(plan)
    if plan.too_long:
        say(f"Context: {plan.too_long}.")
    if plan.unchosen:
        say(f"Checkpoints: {plan.unchosen}.")
    for why in plan.refused:
        click.echo(f"  mailtide retrain refuses this run: {why}.")
    gate = settings.gate
    say(
        f"Gate: better on new mail, at most {gate.max_loss:g} nats per token worse on old (upper bound), "
        f"{gate.max_drift:g} against the best ever; at least {gate.min_new_threads} new val threads."
    )


def tell_tiers(tiers: Sequence[TierUse]) -> None:
    """What a run takes of each quality tier, and what it leaves out, where the settings limit any."""
    if tiers:
        print_table(
            ("tier", "new", "tokens", "left out", "its tokens", "in earlier windows", "could be rehearsed"),
            [
                (
                    one.tier,
                    one.new,
                    one.new_tokens,
                    one.left_out,
                    one.left_out_tokens,
                    one.earlier,
                    one.rehearsable,
                )
                for one in tiers
            ],
            title="by quality tier, under replay.tier_caps and replay.tier_weights",
        )


def spent_line(spent: Spending) -> str:
    """What was spent in 30 days, of what may be."""
    cap = "" if spent.cap is None else f", of {spent.cap:.2f} allowed"
    runs = f"{spent.runs:,} run{'' if spent.runs == 1 else 's'}"
    return f"{spent.cost:.2f} {spent.currency} in the last 30 days ({runs}, {spent.hours:.1f} h){cap}"


def tell_room(plan: Plan) -> None:
    """What the run takes of the device's memory, and what to set where that is too much."""
    room = plan.room
    if room is None:
        click.echo("Memory: not known, as the base is not on this disk or of a kind that can be estimated.")
        return
    parts = room.parts
    held = {
        "the program itself": parts.reserve,
        "weights": parts.weights,
        "adapter and optimizer": parts.adapter + parts.gradients + parts.optimizer,
        "activations": parts.activations,
        "logits": parts.logits,
        "measuring": parts.evaluation,
    }
    if parts.elsewhere:
        held["of the weights with other processes while training"] = parts.elsewhere
    told = ", ".join(f"{name} {gib(size)}" for name, size in held.items() if gib(size) != "0.0")
    click.echo(f"Memory: about {gib(room.needed)} of {gib(room.memory)} GiB of {room.device} ({told}).")
    change = ", ".join(room.changes)
    if room.fit.value == "fits in smaller passes":
        click.echo(f"  Too much at once: with {change} about {gib(room.then or 0)} GiB, and the same steps.")
    elif room.fit.value == "cannot fit":
        cure = f"set {change}, about {gib(room.then or 0)} GiB" if change else "it takes a smaller model.base"
        click.echo(f"  The longest chunk alone is too much: {cure}. Until then mailtide retrain refuses.")


def gib(size: int) -> str:
    return f"{size / (1 << 30):.1f}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


RUN_COLUMNS = (
    "windows",
    "mails",
    "new",
    "rehearsed",
    "new before",
    "new after",
    "old before",
    "old after",
    "verdict",
    "adapter",
)


def run_table(reports: Sequence[RunReport]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Columns and rows of a table of runs; losses are nats per token on val."""
    return RUN_COLUMNS, [
        (
            ranges(report.windows),
            report.mails,
            report.new_chunks,
            report.rehearsal_chunks,
            report.new_before,
            report.new_after,
            report.old_before,
            report.old_after,
            report.outcome,
            report.adapter_id,
        )
        for report in reports
    ]


def tell_run(report: RunReport, currency: str, *, full: bool = False) -> None:
    """One paragraph about a run: what it trained on, what that did to the losses, and the verdict."""
    plural = "s" if len(report.windows) > 1 else ""
    line = f"Window{plural} {ranges(report.windows)}: {report.mails:,} mails"
    if report.seconds:  # a run that failed left no figures
        line += f", {report.new_chunks:,} new train chunks, {report.rehearsal_chunks:,} rehearsed"
        line += f"; {report.steps:,} steps in {duration(report.seconds)}"
        line += f", {report.cost:.2f} {currency}" if report.cost else ""
    click.echo(line)
    if report.new_before is not None and report.new_after is not None:
        line = f"  loss on new {report.new_before:.3f} -> {report.new_after:.3f}"
        if report.old_before is not None and report.old_after is not None:
            line += f", on old {report.old_before:.3f} -> {report.old_after:.3f}"
        click.echo(f"{line} nats per token (val)")
    if report.failed_before:
        click.echo(f"  tried again: run {report.failed_before} failed on just this evidence")
    left_out = sum(one.left_out for one in report.tiers)
    if left_out:
        tokens = sum(one.left_out_tokens for one in report.tiers)
        click.echo(f"  left out by replay.tier_caps and tier_weights: {left_out:,} new chunks of {tokens:,} tokens")
    first, *further = report.reasons or ("no reason was recorded",)
    say(f"  {report.outcome.upper()} {report.adapter_id}: {first}")
    for reason in further:
        say(f"    {reason}", hang=" " * 6)
    if full and report.seconds:
        for sentence in report.course:
            say(f"  training: {sentence}", hang=" " * 4)
        tell_tiers(report.tiers)
        print_table(
            ("rule", "figure", "low", "high", "threshold", "chunks", "threads", "ruling"),
            [
                (
                    rule.name,
                    int(rule.figure) if rule.name == "new_threads" and rule.figure is not None else rule.figure,
                    rule.low,
                    rule.high,
                    None if rule.threshold is None else f"{rule.threshold:g}",
                    rule.n_chunks or None,
                    rule.n_threads or None,
                    rule.ruling.value,
                )
                for rule in report.rules
                if rule.ruling.value != "absent"
            ],
        )
        took = ", ".join(f"{name} {value:.1f} s" for name, value in report.seconds_by_step.items())
        say(f"It took: {took}")
        if report.training_seconds:
            parts = ", ".join(f"{name} {value:.1f} s" for name, value in report.training_seconds.items())
            say(f"Of train: {parts}")
