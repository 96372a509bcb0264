"""Regression benchmarks without a model: what is a task, what is a point, and what a difference rests on."""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.settings import GateSettings, Settings
from pipeline.errors import MailtideError, NothingToDo, RunError, UsageError
from pipeline.home import Home
from pipeline.runs.harms import Figure
from registry.objections import Says, objections
from retrain.benchmarks.items import ITEMS, Item, read_items, write_items
from retrain.benchmarks.points import by_task, loss, score
from retrain.benchmarks.tasks import FOLDER, known_tasks, read_tasks
from streams.benchmarking import what_to_ask
from streams.demo.facts import FACTS
from tests.conftest import REPOSITORY
from tests.support.finished import Finished
from tests.support.lineage import MAILBOX


def answers(model: str, right: Sequence[float], task: str = "sums", *, clusters: int | None = None) -> list[Item]:
    """A model's answers, 1 where it is right."""
    return [
        Item(model, "", task, "acc", "digest", "0.4", place, str(place % clusters if clusters else place), value, 1.0)
        for place, value in enumerate(right)
    ]


def texts(model: str, bits: Sequence[float], size: float = 100.0) -> list[Item]:
    return [
        Item(model, "", "text", "bits_per_byte", "digest", "0.4", place, str(place), value * size, size)
        for place, value in enumerate(bits)
    ]


def harm(lost: Any) -> Figure:
    return Figure("benchmarks", lost.points, lost.low, lost.high, lost.n)


def ruled(lost: Any) -> Says:
    return next(one.verdict for one in objections([harm(lost)], GateSettings()) if one.name == "benchmarks")


def test_a_point_is_a_question_in_a_hundred_and_a_hundredth_of_a_bit() -> None:
    fewer = loss(answers("new", [1] * 90 + [0] * 10), answers("old", [1] * 95 + [0] * 5), {})
    assert fewer is not None and fewer.points == pytest.approx(5.0)
    more = loss(texts("new", [1.02] * 30), texts("old", [1.0] * 30), {})
    assert more is not None and more.points == pytest.approx(2.0)
    assert more.tasks[0].ours == pytest.approx(1.02) and more.tasks[0].theirs == pytest.approx(1.0)


def test_the_mean_is_by_weight_and_its_interval_that_of_independent_tasks() -> None:
    source = random.Random(1)
    old = [source.gauss(1.0, 0.1) for _ in range(40)]
    ours = [*texts("new", [bits + source.gauss(0.03, 0.01) for bits in old]), *answers("new", [1] * 20)]
    theirs = [*texts("old", old), *answers("old", [1] * 20)]
    even = loss(ours, theirs, {})
    heavy = loss(ours, theirs, {"text": 3.0, "sums": 1.0})
    assert even is not None and heavy is not None
    text, sums = even.tasks
    assert even.points == pytest.approx((text.points + sums.points) / 2)
    assert heavy.points == pytest.approx(0.75 * text.points)
    assert even.low is not None and even.high is not None
    assert even.low < even.points < even.high
    assert even.high - even.low > (text.error + sums.error)  # both errors are in it
    assert even.n == 60


def test_two_models_that_answer_alike_are_not_thought_equal_for_certain() -> None:
    same = loss(answers("new", [1, 0] * 25), answers("old", [1, 0] * 25), {})
    assert same is not None and same.points == 0
    assert same.low is not None and same.low == pytest.approx(-(same.high or 0)) and same.low < -3
    assert ruled(same) is Says.PASSES


def test_only_items_that_both_answered_the_same_way_of_asking_count() -> None:
    ours, theirs = answers("new", [1] * 30), answers("old", [0] * 40)
    found = loss(ours, [replace(item, task_sha256="another") if item.item >= 25 else item for item in theirs], {})
    assert found is not None and found.n == 25
    assert loss(ours, [replace(item, harness="0.5") for item in theirs], {}) is None
    assert loss([], theirs, {}) is None


def test_items_of_one_cluster_are_one_piece_of_evidence() -> None:
    source = random.Random(2)
    theirs = [float(source.random() < 0.8) for _ in range(40)]
    pairs = theirs + theirs
    ours = [0.0 if place % 10 == 0 else value for place, value in enumerate(pairs)]
    apart = loss(answers("new", ours), answers("old", pairs), {})
    together = loss(answers("new", ours, clusters=40), answers("old", pairs, clusters=40), {})
    assert apart is not None and together is not None
    assert together.tasks[0].error > 1.2 * apart.tasks[0].error
    alone = loss(answers("new", [1, 0], clusters=1), answers("old", [1, 1], clusters=1), {})
    assert alone is not None and alone.low is None and ruled(alone) is Says.ABSENT


@pytest.mark.parametrize(
    ("worse", "says"), [(0.0, Says.PASSES), (0.009, Says.PASSES), (0.03, Says.OBJECTS)], ids=["equal", "less", "more"]
)
def test_the_gate_objects_to_what_is_shown_to_be_more_than_a_point(worse: float, says: Says) -> None:
    source = random.Random(3)
    old = [source.gauss(1.0, 0.2) for _ in range(40)]
    new = [bits + worse + source.gauss(0, 0.01) for bits in old]
    found = loss(texts("new", new), texts("old", old), {})
    assert found is not None and ruled(found) is says


def test_scores_stay_between_none_and_all() -> None:
    sure = score(answers("new", [1] * 30))
    assert sure is not None and sure.high == 1.0 and sure.low < 0.95
    read = score(texts("new", [1.0, 2.0, 3.0]))
    assert read is not None and read.value == pytest.approx(2.0)


def test_items_are_kept_as_they_were(tmp_path: Path) -> None:
    items = [*answers("new", [1, 0, 1]), *texts("new", [1.5])]
    write_items(tmp_path / ITEMS, items)
    assert read_items(tmp_path / ITEMS) == items
    assert list(by_task(items)) == ["sums", "text"]
    assert read_items(tmp_path / "none.parquet") == []
    (tmp_path / ITEMS).write_bytes(b"damaged")
    with pytest.raises(RunError, match="mailtide benchmark"):
        read_items(tmp_path / ITEMS)


def test_the_tasks_that_come_along_are_whole(tmp_path: Path) -> None:
    tasks = {task.name: task for task in read_tasks(known_tasks(), Home(tmp_path))}
    assert sorted(tasks) == ["arithmetic", "instructions", "mail_facts", "plain_text"]
    docs = {name: [json.loads(line) for line in task.docs] for name, task in tasks.items()}
    assert all(40 <= len(rows) <= 100 for rows in docs.values())
    for row in docs["arithmetic"]:
        question = row["question"].removesuffix(" =").replace("×", "*")
        if question[0].isdigit():
            first, sign, second = question.split()
            right = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[sign](int(first), int(second))
            assert row["choices"][row["answer"]] == str(right)
    for name in ("arithmetic", "mail_facts"):
        assert all(len(set(row["choices"])) == 4 for row in docs[name])
        places = [row["answer"] for row in docs[name]]
        assert max(places.count(place) for place in range(4)) <= len(places) / 4 + 1  # guessing one letter is chance
    asked = {row["prompt"]: row["choices"][row["answer"]] for row in docs["mail_facts"]}
    for fact in FACTS:
        assert asked[f"Question: {fact.question}\nAnswer:"] == fact.answer
        assert asked[fact.sentence.partition(fact.answer)[0].rstrip()] == fact.answer
    assert len({row["text"] for row in docs["plain_text"]}) == len(docs["plain_text"])


def test_they_are_in_the_wheel() -> None:
    packaged = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert "configs*" in packaged["packages"]["find"]["include"]
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    patterns = packaged["package-data"]["configs"]
    matched = {path for pattern in patterns for path in (REPOSITORY / "configs").glob(pattern)}
    assert files and set(files) <= matched


def task_in(folder: Path, **changes: Any) -> Path:
    """A task of one's own, as it should be but for ``changes``; None takes a key away."""
    folder.mkdir(exist_ok=True)
    (folder / "own.jsonl").write_text('{"question": "2 + 2 =", "choices": ["4", "5"], "answer": 0}\n')
    told = yaml.safe_load((FOLDER / "arithmetic.yaml").read_text(encoding="utf-8"))
    told |= {"task": "own", "dataset_kwargs": {"data_files": {"test": "own.jsonl"}}, **changes}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in told.items() if value is not None}))
    return path


def test_a_task_of_ones_own_is_named_by_its_file_or_folder(tmp_path: Path) -> None:
    home = Home(tmp_path)
    path = task_in(tmp_path / "mine", metadata={"weight": 2})
    by_file, by_folder = read_tasks(["mine/own.yaml"], home), read_tasks([str(tmp_path / "mine") + "/"], home)
    assert by_file == by_folder and by_file[0].weight == 2.0
    before = by_file[0].sha256
    (path.parent / "own.jsonl").write_text('{"question": "3 + 3 =", "choices": ["6", "5"], "answer": 0}\n')
    assert read_tasks(["mine/own.yaml"], home)[0].sha256 != before
    assert len(read_tasks(["arithmetic", "arithmetic", "mine/own.yaml"], home)) == 2


def break_data(path: Path) -> None:
    (path.parent / "own.jsonl").write_text('{"question": 1}\nno json\n')


@pytest.mark.parametrize(
    ("changes", "after", "says"),
    [
        ({"task": None}, None, "no name under `task`"),
        ({"include": "other.yaml"}, None, "`include` is not supported"),
        ({"dataset_path": "gsm8k"}, None, "`dataset_path` must be json"),
        ({"dataset_kwargs": None}, None, "must name a file for each split"),
        ({"test_split": "train"}, None, "`test_split` must be one"),
        ({"metric_list": [{"metric": "bleu"}]}, None, "must be one of acc.*, not bleu"),
        ({"metadata": {"weight": -1}}, None, "`metadata.weight` must be a number above 0"),
        ({}, lambda path: (path.parent / "own.jsonl").unlink(), "cannot be read"),
        ({}, lambda path: (path.parent / "own.jsonl").write_text("\n"), "is empty"),
        ({}, break_data, "line 2 of its data"),
        ({}, lambda path: path.write_text("task: [unclosed"), "is no benchmark task"),
        ({}, lambda path: path.write_text("doc_to_text: !function code.run\ntask: own\n"), "is no benchmark task"),
    ],
)
def test_what_is_no_task_is_said_in_one_line_with_an_example(
    tmp_path: Path, changes: dict[str, Any], after: Callable[[Path], object] | None, says: str
) -> None:
    path = task_in(tmp_path / "mine", **changes)
    if after is not None:
        after(path)
    with pytest.raises(UsageError, match=says) as caught:
        read_tasks([str(path)], Home(tmp_path))
    assert "\n" not in str(caught.value) and "arithmetic.yaml" in caught.value.hint


def test_names_that_nobody_has_are_answered_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no benchmark task 'algebra'") as caught:
        read_tasks(["algebra"], Home(tmp_path))
    assert "arithmetic, instructions, mail_facts, plain_text" in caught.value.hint
    with pytest.raises(UsageError, match="holds no benchmark task"):
        read_tasks(["nowhere/"], Home(tmp_path))
    task_in(tmp_path / "one")
    task_in(tmp_path / "two")
    with pytest.raises(UsageError, match="both called own"):
        read_tasks(["one/own.yaml", "two/own.yaml"], Home(tmp_path))


def test_by_hand_what_is_missing_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Finished.at(tmp_path / "home")
    with made.store as store:

        def asked(adapter: str | None = None, tasks: Sequence[str] = ()) -> object:
            return what_to_ask(store, made.home, Settings(), MAILBOX, adapter, None, tasks)

        with pytest.raises(NothingToDo, match="no model yet"):
            asked()
        with pytest.raises(UsageError, match="no benchmark task 'algebra'"):
            asked(tasks=["algebra"])
        made.close_window()
        with pytest.raises(MailtideError):
            asked(adapter="a0")
        monkeypatch.setattr("streams.benchmarking.installed", lambda: False)
        with pytest.raises(RunError, match="lm-eval") as caught:
            asked()
        assert "[benchmarks]" in caught.value.hint
