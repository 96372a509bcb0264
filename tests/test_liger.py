"""Liger's kernels: what they compute is what the model's own do, and they are refused where they cannot run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from pipeline.config.settings import ModelSettings, Settings
from pipeline.errors import RunError
from retrain.models.liger import require_liger
from retrain.models.model import choose_compute
from streams.planning import require_kernels


def require_package() -> None:
    if find_spec("liger_kernel") is None or find_spec("triton") is None:
        if os.environ.get("CI") and sys.platform == "linux":
            pytest.fail("the extra liger is not installed")
        pytest.skip("needs the extra liger: pip install 'mailtide[liger]'")


def test_fused_kernels_give_the_losses_and_gradients_of_the_models_own() -> None:
    """By Triton's interpreter, without a GPU: in float32 the order of sums is all that differs, a few units of 6e-8 in each
    of some ten operations. That anything differs says that the second model, of the same kind, kept its own.
    """
    require_package()
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.interpreted_liger"],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0 < found["gradient"] < 1e-5 and found["loss"] < 1e-6


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_they_are_refused_without_a_gpu() -> None:
    with pytest.raises(RunError, match="need a GPU"):
        require_liger(choose_compute(ModelSettings(dtype="float32"), 1))
    with pytest.raises(RunError, match="a GPU"):
        require_kernels(Settings(model=ModelSettings(kernels="liger")))
    require_kernels(Settings())
