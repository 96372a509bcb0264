"""The attention kernels that a run asks for: exact alike, and refused where they cannot run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from pipeline.config.settings import ModelSettings, Settings
from pipeline.errors import RunError
from retrain.evaluation.nll import token_nll
from retrain.models.attention import kernels
from retrain.models.base import learn_tokenizer, new_network
from retrain.models.model import choose_compute, load_base
from retrain.training.batches import Example, collate
from streams.runs.planning import require_attention
from tests.support.mailroom import TINY

COMPUTE = choose_compute(ModelSettings(dtype="float32"), 1)


def test_plain_and_fused_kernels_agree_on_a_padded_pass(tmp_path: Path) -> None:
    torch.manual_seed(1)
    new_network(TINY, learn_tokenizer(["a word or two"], TINY)).save_pretrained(str(tmp_path))
    source = random.Random(3)
    rows = [Example(str(n), tuple(source.randrange(2, 250) for _ in range(n)), 1, 0) for n in (60, 41, 7)]
    found = {}
    for asked in ("auto", "sdpa", "eager"):
        model = load_base(tmp_path, COMPUTE, quantize=False, attention=kernels(asked, COMPUTE))
        found[asked] = token_nll(model, collate(rows, 1), COMPUTE).detach()
        assert model.config._attn_implementation == ("eager" if asked == "eager" else "sdpa")
    assert torch.equal(found["auto"], found["sdpa"])
    torch.testing.assert_close(found["eager"], found["sdpa"], rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_flash_attention_is_refused_without_a_gpu() -> None:
    with pytest.raises(RunError, match="needs a GPU"):
        kernels("flash_attention_2", COMPUTE)
    asked = Settings(model=ModelSettings(attention="flash_attention_2"))
    with pytest.raises(RunError, match="a GPU and the package flash-attn for it is not here"):
        require_attention(asked)
    require_attention(Settings())
