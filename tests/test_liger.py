"""Liger's kernels are refused where they cannot run; ``tests.support.interpreted_liger`` compares what they compute."""

from __future__ import annotations

import pytest
import torch

from pipeline.config.settings import ModelSettings, Settings
from pipeline.errors import RunError
from retrain.models.liger import require_liger
from retrain.models.model import choose_compute
from streams.runs.planning import require_kernels


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_they_are_refused_without_a_gpu() -> None:
    with pytest.raises(RunError, match="need a GPU"):
        require_liger(choose_compute(ModelSettings(dtype="float32"), 1))
    with pytest.raises(RunError, match="a GPU"):
        require_kernels(Settings(model=ModelSettings(kernels="liger")))
    require_kernels(Settings())
