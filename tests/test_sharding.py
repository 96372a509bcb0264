"""What a process holds of a model that is shared out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from torch import distributed
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from pipeline.config.settings import TrainSettings
from retrain.models.base import learn_tokenizer, new_network
from retrain.models.model import Compute, fresh_adapter, load_base
from retrain.processes.ranks import Ranks
from retrain.processes.sharding import share_out
from tests.support.mailroom import TINY

PROCESSES = 4


@pytest.fixture
def others() -> Iterator[None]:
    """Three further processes that answer nothing: enough to part from them, and none has to be started."""
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=PROCESSES)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("quantize", [True, False])
def test_each_process_keeps_its_part_of_every_weight_and_nothing_behind_it(
    others: None, tmp_path: Path, quantize: bool
) -> None:
    """No part is a view of the whole, or the whole would stay in memory. Beside the parts stand the scales of NF4."""
    torch.manual_seed(1)
    new_network(TINY, learn_tokenizer(["a word or two"], TINY)).save_pretrained(str(tmp_path))
    compute = Compute(torch.device("cpu"), torch.float32, 1, Ranks(0, PROCESSES), sharded=True)
    train = TrainSettings(lora_r=4, lora_alpha=8)
    base = load_base(tmp_path, compute, quantize=quantize)
    model: Any = fresh_adapter(base, train, builtin=True, quantize=quantize, checkpointing=False, seed=1)
    whole = {name: value.nbytes for name, value in model.named_parameters()}
    matrices = [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]
    share_out(model, compute)
    for name, value in model.named_parameters():
        assert isinstance(value.data, DTensor), name
        held = value.to_local().untyped_storage().nbytes()
        rows = value.shape[0]
        assert held <= whole[name] * -(-rows // PROCESSES) / rows, name
    assert bool(matrices) is quantize
    assert all(matrix.quant_state is not None for matrix in matrices)
