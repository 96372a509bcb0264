"""Peak memory of training on a CPU: what a plan foretells against what a process takes, and that against TRL's."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.capacity.footprint import Device, Load, Training, footprint
from pipeline.capacity.shapes import builtin_shape
from pipeline.config.settings import BuiltinModel
from tests.bench.rivals import MISSING, has_trl
from tests.bench.rows import BenchRow
from tests.conftest import REPOSITORY

SHAPE = BuiltinModel(vocabulary=16_384, width=768, layers=8, heads=12, context=2048)
"""Large enough that weights, activations and logits each outweigh the libraries."""
ROWS, LENGTH, RANK, STEPS = 4, 512, 64, 2
FACTOR = 1.3
LONGEST, BATCHES, BATCH_TOKENS = 1023, 4, 4096
"""Of examples whose lengths differ as those of mail do."""


def bench_memory(quick: bool = False) -> list[BenchRow]:
    """The kernel's high-water mark of real processes: foretold, with and without recomputation; and beside SFTTrainer."""
    cases = [(True, False, "bfloat16"), (True, True, "bfloat16"), (False, False, "float32")]
    with tempfile.TemporaryDirectory() as folder:
        _peak(folder, "base")
        rows = [_foretold(folder, *case) for case in (cases[:1] if quick else cases)]
        return [*rows, _of_mail(folder), _against_trl(folder)]


def _foretold(folder: str, quantize: bool, checkpointing: bool, dtype: str) -> BenchRow:
    measured = _peak(folder, "pass", quantize=quantize, checkpointing=checkpointing, dtype=dtype)
    training = Training(quantize, dtype == "bfloat16", checkpointing, RANK, True, "adamw_torch_fused")
    name = f"{'NF4' if quantize else 'unquantised'}, {dtype}{', recomputed' if checkpointing else ''}"
    return _beside(name, training, Load(ROWS * LENGTH, LENGTH), measured, f"a pass of {ROWS * LENGTH:,} tokens")


def _of_mail(folder: str) -> BenchRow:
    training = Training(True, True, False, RANK, True, "adamw_torch_fused")
    note = f"{BATCHES} batches of {BATCH_TOKENS:,} tokens, rows of 20 to {LONGEST:,}, in passes of 512 or of one row"
    name = "NF4, bfloat16, lengths of mail"
    return _beside(name, training, Load(LONGEST, LONGEST), _peak(folder, "lengths"), note)


def _beside(name: str, training: Training, load: Load, measured: float, note: str) -> BenchRow:
    device = Device("this machine", False, 0, True, 1)
    told = footprint(builtin_shape(SHAPE), training, load, device).total / (1 << 20)
    ratio = told / measured
    return BenchRow(
        f"memory foretold for training: {name}",
        told,
        "MiB",
        "the process's high-water mark",
        measured,
        ratio,
        f"between 1/{FACTOR} and {FACTOR} times",
        1 / FACTOR <= ratio <= FACTOR,
        f"built-in shape, {SHAPE.width} wide, {SHAPE.layers} layers, vocabulary {SHAPE.vocabulary:,}; {note}, rank {RANK}, "
        "on a CPU; no GPU was measured",
    )


def _against_trl(folder: str) -> BenchRow:
    name, unit = "peak memory of training against TRL", "MiB"
    if not has_trl():
        return BenchRow(name, math.nan, "", "", None, None, "", None, MISSING)
    ours, theirs = _peak(folder, "fit"), _peak(folder, "trl")
    note = (
        f"the same shape in NF4, rank {RANK} without the head, steps of {ROWS} rows of {LENGTH} tokens, bfloat16, no "
        "recomputation on either side; a step goes through the model in passes of 512 tokens here, whole there; on a CPU"
    )
    return BenchRow(
        name, ours, unit, "TRL's SFTTrainer", theirs, ours / theirs, "at most 1.0 times it", ours <= theirs, note
    )


def _peak(folder: str, what: str, **asked: object) -> float:
    """MiB of a process that does ``what`` (see :func:`main`)."""
    given = json.dumps({"folder": folder, "what": what, **asked})
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.memory", given],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return float(done.stdout.strip().splitlines()[-1])


def main(asked: dict[str, object]) -> None:
    """Makes the base (``base``), or trains on it: one pass a step (``pass``), passes as a CPU has them (``fit``), those of
    rows that differ (``lengths``), or by SFTTrainer (``trl``). Prints this process's high-water mark."""
    from retrain.offline import keep_offline

    keep_offline()
    import torch

    from pipeline.capacity.passes import Passes
    from pipeline.config.settings import ModelSettings, TrainSettings
    from retrain.models.base import learn_tokenizer, new_network
    from retrain.models.loaded import Loaded
    from retrain.models.model import choose_compute, fresh_adapter, load_base, load_tokenizer
    from retrain.training.batches import Batch, Example
    from retrain.training.recipe import Recipe
    from retrain.training.trainer import Training, fit
    from tests.bench.rivals import sft_trainer

    folder, what = Path(str(asked["folder"])), asked["what"]
    compute = choose_compute(ModelSettings(dtype=str(asked.get("dtype", "bfloat16"))), 1)
    if what == "base":
        tokenizer = learn_tokenizer(["a mail"], SHAPE)
        tokenizer.save_pretrained(str(folder))
        torch.manual_seed(0)
        new_network(SHAPE, tokenizer).save_pretrained(str(folder))
    else:
        quantize, checkpointing = bool(asked.get("quantize", True)), bool(asked.get("checkpointing", False))
        model = fresh_adapter(
            load_base(folder, compute, quantize=quantize),
            TrainSettings(lora_r=RANK),
            builtin=what in ("pass", "lengths"),
            quantize=quantize,
            checkpointing=checkpointing,
            seed=0,
        )
        examples = tuple(Example(f"row {n}", tuple(range(LENGTH)), 1, 0) for n in range(ROWS))
        if what == "trl":
            sft_trainer(model, load_tokenizer(folder), examples * STEPS, folder / "trl", rows=ROWS).train()
        else:
            recipe = Recipe(1e-4, 0.0, 0.0, 1.0, 1, "adamw_torch_fused", 0.999, 1)
            batches = [Batch(0, examples)] * STEPS
            if what == "lengths":
                batches = [
                    Batch(0, tuple(Example(f"row {n}", tuple(range(length)), 1, 0) for n, length in enumerate(rows)))
                    for rows in _lengths()
                ]
            passes = Passes(ROWS * LENGTH if what == "pass" else None)
            fit(Training(Loaded(model, compute, 1), batches, recipe, folder, lambda record: None, passes=passes))
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    print(int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) / 1024)


def _lengths() -> list[list[int]]:
    """Of the rows of each batch."""
    source = random.Random(1)
    batches = []
    for place in range(BATCHES):
        rows = [20 if place else LONGEST]
        while sum(rows) < BATCH_TOKENS:
            rows.append(source.randint(20, LONGEST))
        batches.append(rows)
    return batches


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
