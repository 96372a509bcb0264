"""A verdict explained: its own figures, what they could have shown, what is lacking, and whether the files still say so."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.config.settings import GateSettings
from pipeline.errors import RunError, UsageError
from pipeline.intervals import t_quantile
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import Loss, read_losses, write_losses
from pipeline.store.rows import LossRow, MailboxRow
from registry.byhand import promote, rollback
from registry.changes import Changed
from registry.decide import fail_run
from registry.decided import decided, request_of
from registry.explain import Explanation, explain
from streams.cli.commands import cli
from tests.support.finished import Finished
from tests.support.lineage import MAILBOX

WIDTH = 120
"""Columns within which a table must stay."""


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Finished]:
    made = Finished.at(tmp_path / "home")
    yield made
    made.store.close()


def explained(runs: Finished, asked: RunRequest, settings: GateSettings | None = None) -> Explanation:
    found = decided(runs.store, runs.home, request_of(runs.store, asked.adapter_id))
    return explain(runs.store, runs.home, found, settings or GateSettings())


def command(runs: Finished, *arguments: str) -> Result:
    """A registry command on the home, once the store is free for it."""
    runs.store.append([MailboxRow(MAILBOX, "arrival", runs.now)])
    runs.store.close()
    return CliRunner().invoke(cli, ["--home", str(runs.home.root), "registry", *arguments], catch_exceptions=False)


def test_a_promotion_is_told_with_the_verdicts_own_figures(runs: Finished) -> None:
    first, _, _ = runs.step(new=-0.3)
    second, _, decision = runs.step(new=-0.2, old=-0.01)
    told = explained(runs, second)
    assert decision.verdict is not None
    assert tuple(one.rule for one in told.rules) == decision.verdict.rules
    assert (told.status, told.reference, told.new_windows, told.old_windows) == ("promoted", first.adapter_id, (1,), (0,))
    assert (told.policy, told.policy_kept, told.missing) == (runs.settings.gate, True, "")
    assert (told.differences, told.needs, told.by_hand) == ((), (), ())
    by_name = {one.rule.name: one for one in told.rules}
    old, new = by_name["old"], by_name["new"]
    assert old.rule.high is not None and old.margin_left == pytest.approx(0.03 - old.rule.high)
    assert new.rule.figure is not None and new.rule.high is not None and new.power is not None and new.power.df is not None
    nearer = t_quantile(0.7, new.power.df) / t_quantile(0.95, new.power.df)
    assert new.margin_left == pytest.approx(-new.rule.figure - nearer * (new.rule.high - new.rule.figure))
    assert by_name["new_threads"].margin_left == 8 - 5
    assert by_name["champion"].power is None
    assert new.power is not None and new.power.chance_if_equal is None
    assert new.power.smallest_seen == pytest.approx(decision.verdict.detectable)
    assert old.power is not None and old.power.chance_if_equal is not None and old.power.effective_threads is not None
    assert 0.9 < old.power.chance_if_equal < 1 and 5 < old.power.effective_threads <= 8


def test_a_setting_that_was_changed_and_a_person_who_left_it_are_told(runs: Finished) -> None:
    first, _, _ = runs.step()
    train = runs.lineage.settings.train.model_copy(update={"lr": 0.05})
    runs.lineage.settings = runs.lineage.settings.model_copy(update={"train": train})
    second, _, _ = runs.step(new=-0.2)
    assert explained(runs, second).changed == (Changed("train.lr", 0.002, 0.05),)
    assert explained(runs, first).changed == ()
    rollback(runs.store, runs.home, MAILBOX, first.adapter_id, "answers got worse", "ann", runs.now)
    assert explained(runs, first).left == ()
    done = command(runs, "explain", second.adapter_id)
    assert f"Made with train.lr 0.05, where the run of {first.adapter_id} had 0.002." in done.stdout
    assert f"then {first.adapter_id} was returned to by ann: answers got worse" in done.stdout
    shown = CliRunner().invoke(cli, ["--home", str(runs.home.root), "registry", "show", second.adapter_id]).stdout
    assert f": {first.adapter_id} returned to by ann: answers got worse" in shown
    at = CliRunner().invoke(cli, ["--home", str(runs.home.root), "registry", "at", "2030-01-01"]).stdout
    assert f"{first.adapter_id}, from " in at and "(returned to by ann: answers got worse) on, UTC" in at


def test_a_run_is_found_by_its_own_id_too(runs: Finished) -> None:
    asked, _, _ = runs.step()
    assert request_of(runs.store, asked.run_id) == request_of(runs.store, asked.adapter_id) == asked
    with pytest.raises(UsageError, match="there is no adapter or run nobody"):
        request_of(runs.store, "nobody")


def test_an_abstention_says_how_many_threads_are_lacking(runs: Finished) -> None:
    runs.step()
    asked, _, decision = runs.step(new=-0.2, old=0.025)
    assert decision.status == "abstained"
    (need,) = explained(runs, asked).needs
    assert (need.rule, need.measured, need.stored) == ("old", 8, 8)
    assert need.if_mean_holds is not None and need.for_four_in_five is not None
    assert 8 < need.if_mean_holds < need.for_four_in_five
    assert f"about {need.if_mean_holds} threads in all would pass if the mean holds" in need.sentence
    assert "8 were measured" in need.sentence


def test_too_few_new_threads_are_counted_in_mails_where_it_is_known(runs: Finished) -> None:
    runs.close_window(val=3)
    asked = runs.request()
    assert runs.decide(asked, runs.finish(asked, new=-0.2)).status == "abstained"
    told = explained(runs, asked)
    (need,) = told.needs
    assert (need.rule, need.measured, need.if_mean_holds) == ("new_threads", 3, 5)
    assert need.sentence.startswith("2 more threads in windows that the champion has not learned")
    threads = next(one for one in told.rules if one.rule.name == "new_threads")
    assert threads.margin_left == -2


def test_not_better_in_the_mean_waits_for_a_mean_below_zero(runs: Finished) -> None:
    asked, _, decision = runs.step(new=0.001)
    assert decision.status == "abstained"
    (need,) = explained(runs, asked).needs
    assert need.rule == "new"
    assert "show that it is worse" in need.sentence and "passes only with a mean below 0" in need.sentence


def test_a_failed_run_has_nothing_measured(runs: Finished) -> None:
    runs.close_window()
    asked = runs.request()
    with pytest.raises(RunError, match="has no verdict yet"):
        explained(runs, asked)
    fail_run(runs.store, asked, "the disk was full", runs.now, "gate")
    told = explained(runs, asked)
    assert (told.status, told.reasons, told.rules, told.needs) == ("failed", ("the disk was full",), (), ())
    assert told.missing == "the run failed, so nothing was measured to the end"


@pytest.mark.parametrize("lost", ["losses.parquet", "result.json", "exclusions.parquet"])
def test_where_evidence_is_gone_the_verdict_is_told_alone(runs: Finished, lost: str) -> None:
    asked, _, decision = runs.step()
    (runs.home.run(asked.run_id) / lost).unlink()
    told = explained(runs, asked)
    assert lost in told.missing
    assert decision.verdict is not None
    assert tuple(one.rule for one in told.rules) == decision.verdict.rules
    assert all(one.power is None for one in told.rules)
    assert told.differences == ()


def test_losses_that_were_changed_since_are_named_by_their_rule(runs: Finished) -> None:
    runs.step()
    asked, _, _ = runs.step()
    path = runs.home.run(asked.run_id) / "losses.parquet"
    (old_window,) = asked.old_windows

    def worse(loss: Loss) -> Loss:
        forgets = loss.adapter_id == asked.adapter_id and f":w{old_window}:" in loss.chunk_id
        return replace(loss, nll=loss.nll * 1.5) if forgets else loss

    write_losses(path, [worse(loss) for loss in read_losses(path)])
    assert explained(runs, asked).differences == ("old",)
    assert runs.store.fetch(LossRow, "adapter_id = ?", [asked.adapter_id])


def test_a_verdict_that_kept_no_policy_is_told_under_that_of_the_settings(runs: Finished) -> None:
    asked, _, _ = runs.step()
    found = decided(runs.store, runs.home, asked)
    assert found.verdict is not None and found.verdict.policy == runs.settings.gate
    lenient = GateSettings(confidence=0.8)
    former = replace(found, verdict=replace(found.verdict, policy=None))
    told = explain(runs.store, runs.home, former, lenient)
    assert (told.policy, told.policy_kept, told.differences) == (lenient, False, ())


def test_what_people_decided_is_told_beside_the_verdict(runs: Finished) -> None:
    first, _, _ = runs.step()
    second, _, _ = runs.step(old=0.2)
    promote(runs.store, runs.home, MAILBOX, second.adapter_id, "I read its answers", "ann", runs.now)
    rollback(runs.store, runs.home, MAILBOX, first.adapter_id, "they got worse", "ben", runs.now)
    told = explained(runs, second)
    assert told.status == "rejected"
    assert [(row.event, row.actor, row.reason) for row in told.by_hand] == [("promoted", "ann", "I read its answers")]
    assert [(row.event, row.actor) for row in explained(runs, first).by_hand] == [("rolled_back", "ben")]
    assert told.differences == ()


def test_the_command_tells_all_of_it_and_its_table_fits(runs: Finished) -> None:
    runs.step()
    asked, _, _ = runs.step(new=-0.2, old=0.025)
    done = command(runs, "explain", asked.adapter_id)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"ABSTAINED {asked.adapter_id}, run {asked.run_id} of main, ")
    assert "new: window 1; learned by the champion before: window 0." in done.stdout
    assert "Policy: max_loss 0.03, max_drift 0.06" in done.stdout
    assert "What it still needs (val threads that may judge):\n  old: about " in done.stdout
    assert done.stdout.endswith("Asked again on the stored evidence, the gate rules the same.\n")
    lines = done.stdout.splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith(" rule"))
    table = lines[head : head + 6]
    assert [line.split()[0] for line in table[2:]] == ["champion", "new_threads", "new", "old"]
    assert max(len(line.rstrip()) for line in table) <= WIDTH


def test_the_json_has_every_rule_and_is_finite(runs: Finished) -> None:
    asked, _, _ = runs.step()
    done = command(runs, "explain", asked.run_id, "--json")
    document = json.loads(done.stdout, parse_constant=pytest.fail)
    assert (document["adapter_id"], document["status"]) == (asked.adapter_id, "promoted")
    assert document["policy"]["confidence"] == 0.95
    names = [one["rule"]["name"] for one in document["rules"] if one["rule"]["ruling"] != "absent"]
    assert names == ["champion", "new_threads", "new"]
    assert math.isfinite(document["rules"][2]["power"]["smallest_seen"])


def test_an_unknown_adapter_is_a_mistake_in_use(runs: Finished) -> None:
    with pytest.raises(UsageError, match="there is no adapter or run nobody"):
        command(runs, "explain", "nobody")
