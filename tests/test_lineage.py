"""Lineage: every message that made an adapter, and every adapter that a message made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.domain import Split
from pipeline.errors import UsageError
from pipeline.store.rows import MailboxRow, MessageRow, TrainedRow
from registry.lineage import descendants, learners, lessons, lineage
from streams.cli.commands import cli
from tests.support.finished import Finished
from tests.support.lineage import MAILBOX
from tests.support.rows import any_row


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Finished]:
    made = Finished.at(tmp_path / "home")
    yield made
    made.store.close()


def message_of(runs: Finished, chunk_id: str) -> str:
    return runs.chunks[chunk_id].message_keys[-1]


def test_the_way_up_names_every_run_its_windows_and_its_shards(runs: Finished) -> None:
    asked = [runs.step()[0] for _ in range(3)]
    line = lineage(runs.store, asked[2].adapter_id)
    assert [step.adapter_id for step in line.steps] == [request.adapter_id for request in reversed(asked)]
    assert [step.windows for step in line.steps] == [(2,), (1,), (0,)]
    assert (line.windows, line.base_id, line.mailbox) == ((0, 1, 2), "base", MAILBOX)
    assert [step.shards[0].shard_sha256 for step in line.steps] == [
        request.sha256 for request in reversed(runs.lineage.shards)
    ]
    assert [step.parent_adapter for step in line.steps] == [asked[1].adapter_id, asked[0].adapter_id, None]
    assert [step.new_chunks for step in line.steps] == [12, 12, 12]
    assert line.steps[2].rehearsed_chunks == 0 < line.steps[1].rehearsed_chunks


def test_down_to_messages_only_train_mail_is_there_and_all_of_it(runs: Finished) -> None:
    runs.step()
    second, _, _ = runs.step()
    learned = lessons(runs.store, second.adapter_id)
    assert {lesson.message_key for lesson in learned} == {
        message_of(runs, chunk_id) for chunk_id, chunk in runs.chunks.items() if chunk.split is Split.TRAIN
    }
    own = [lesson for lesson in learned if lesson.adapter_id == second.adapter_id]
    assert learned[: len(own)] == own
    assert {lesson.role for lesson in own} == {"new", "rehearsal"}
    assert all(lesson.times > 0 and not lesson.as_context for lesson in learned)


def test_up_again_those_that_trained_on_it_and_those_that_continue_them(runs: Finished) -> None:
    asked = [runs.step()[0] for _ in range(3)]
    newest = learners(runs.store, MAILBOX, message_of(runs, "train2-0:w2:0"))
    assert [(learner.adapter_id, learner.itself) for learner in newest] == [(asked[2].adapter_id, True)]
    oldest = learners(runs.store, MAILBOX, message_of(runs, "train0-0:w0:0"))
    assert [learner.adapter_id for learner in oldest] == [request.adapter_id for request in asked]
    assert oldest[0].itself
    assert learners(runs.store, MAILBOX, message_of(runs, "val0-0:w0:0")) == []
    assert learners(runs.store, "other", message_of(runs, "train0-0:w0:0")) == []


def test_a_rejected_run_taught_its_own_adapter_and_no_later_one(runs: Finished) -> None:
    first = runs.step()[0]
    rejected, _, decision = runs.step(old=0.3)
    assert decision.status == "rejected"
    third = runs.step()[0]
    assert lineage(runs.store, third.adapter_id).steps[1].adapter_id == first.adapter_id
    assert third.new_windows == (1, 2)
    taught = learners(runs.store, MAILBOX, message_of(runs, "train1-0:w1:0"))
    assert [(learner.adapter_id, learner.itself) for learner in taught] == [
        (rejected.adapter_id, True),
        (third.adapter_id, True),
    ]
    assert descendants(runs.store, [first.adapter_id]) == {first.adapter_id, rejected.adapter_id, third.adapter_id}


def test_a_mail_that_was_only_context_still_taught_and_is_told_apart(runs: Finished) -> None:
    from dataclasses import replace

    from tests.support.finished import chunk_row

    first = runs.step()[0]
    second = runs.step()[0]
    earlier, later = runs.chunks["val0-0:w0:0"].message_keys[0], "<reply@example.org>"
    mixed = replace(
        runs.chunks["train1-0:w1:0"],
        chunk_id="mixed:w1:0",
        thread_id="mixed",
        message_keys=(earlier, later),
        n_context=1,
    )
    runs.store.append(
        [
            chunk_row(mixed),
            TrainedRow(first.run_id, first.adapter_id, MAILBOX, mixed.chunk_id, "new", 2),
        ]
    )
    read = learners(runs.store, MAILBOX, earlier)
    assert [(learner.adapter_id, learner.itself, learner.as_context) for learner in read] == [
        (first.adapter_id, True, True),
        (second.adapter_id, False, True),
    ]
    assert [learner.as_context for learner in learners(runs.store, MAILBOX, later)] == [False, False]


def test_an_unknown_adapter_is_refused_with_the_next_step(runs: Finished) -> None:
    with pytest.raises(UsageError, match="there is no adapter a0; see `mailtide registry list`"):
        lineage(runs.store, "a0")
    assert descendants(runs.store, ["a0"]) == {"a0"}


def test_the_command_goes_down_to_messages_and_from_a_message_up_again(runs: Finished) -> None:
    first, second = (runs.step()[0].adapter_id for _ in range(2))
    key = message_of(runs, "train0-0:w0:0")
    runs.store.append([any_row(MailboxRow, mailbox=MAILBOX), any_row(MessageRow, mailbox=MAILBOX, message_key=key)])
    runs.store.close()
    asked = ["--home", str(runs.home.root), "registry", "lineage"]

    def told(*options: str) -> str:
        return CliRunner().invoke(cli, [*asked, *options], standalone_mode=False, catch_exceptions=False).stdout

    down = json.loads(told("--messages", "--json"))
    assert [step["adapter_id"] for step in down["steps"]] == [second, first]
    assert (first, "new") in {(one["adapter_id"], one["role"]) for one in down["messages"] if one["message_key"] == key}
    assert key in told("--messages") and key not in told()
    assert [one["adapter_id"] for one in json.loads(told("--message", f"<{key}>", "--json"))] == [first, second]
    for wrong in (("--message", key, "--messages"), ("--message", "none@example.org"), ("a0",)):
        with pytest.raises(UsageError):
            told(*wrong)
