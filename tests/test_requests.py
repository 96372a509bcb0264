"""What a run is named by: a name that was ever given stays."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.settings import EvalSettings, ModelSettings, ReplaySettings, TrainSettings
from pipeline.runs.requests import LATER, BaseRef, RunRequest, RunSettings, ShardRef


def request(**train: Any) -> RunRequest:
    return RunRequest(
        mailbox="main",
        new_windows=(0,),
        old_windows=(),
        shards=(ShardRef(window_idx=0, path="shards/main/window=000000", sha256="ab" * 32),),
        base=BaseRef(kind="builtin", base_id="b0", path="bases/main/b0"),
        parent=None,
        champion=None,
        best=None,
        coverage_sha256="",
        exclusions_sha256="cd" * 32,
        settings=RunSettings(
            seed=7,
            rolling=1,
            min_threads=20,
            replay=ReplaySettings(strategy="stratified", ratio=0.25, max_share=0.2),
            model=ModelSettings(),
            train=TrainSettings(**train),
            eval=EvalSettings(),
        ),
    )


def test_a_request_keeps_its_id_from_version_to_version() -> None:
    """A new setting that changes a run's bytes belongs into ``pipeline.runs.requests.LATER``; a changed default changes
    ids."""
    assert request().run_id == "b703cdef6b2e"


@pytest.mark.parametrize("train", [{"pass_tokens": 1024}, {"lora": {"use_rslora": True}}, {"lr": 1e-3}])
def test_every_setting_that_changes_the_bytes_changes_the_id(train: dict[str, Any]) -> None:
    assert request(**train).run_id != request().run_id


def test_what_is_only_told_of_a_run_does_not_name_it() -> None:
    assert request(report_to=("tensorboard",)).run_id == request().run_id


def test_a_request_written_before_a_setting_existed_is_still_the_same() -> None:
    document = request().model_dump(mode="json")
    for group, name in LATER:
        del document["settings"][group][name]
    assert RunRequest.model_validate(document) == request()
    assert RunRequest.model_validate(document).run_id == request().run_id
