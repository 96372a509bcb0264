"""Training on real mail against TRL's SFTTrainer: same model, examples, device and arithmetic, in turn."""

from __future__ import annotations

import importlib.util
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.settings import ModelSettings, TrainSettings
from tests.bench.corpora import archive
from tests.bench.rows import BenchRow
from tests.bench.training import real_chunks, scheduled

MAILS, PAIRS, TOKENS = 600, 5, 6_000
RATE = 2e-3
STEPS, ROWS, HELD_OUT = 6, 4, 20
NOISE = 0.02
"""Nats per token, of losses after training on the same batches in one order: bfloat16, padded otherwise."""

MISSING = "needs trl: install the extra `bench`, `uv pip install -c constraints.txt -e '.[bench]'`"


def has_trl() -> bool:
    return importlib.util.find_spec("trl") is not None


def bench_training_against_trl(data: Path, quick: bool = False) -> list[BenchRow]:
    """Predicted tokens per CPU-second, five pairs, one thread: the built-in model in NF4 with LoRA.

    Every arm has a model of its own that starts alike, and gets examples tokenised and labelled alike: those that the pair
    drew, batched by the schedule here and by SFTTrainer there.
    """
    if not has_trl():
        return [BenchRow("training against TRL", math.nan, "", "", None, None, "", None, MISSING)]
    from retrain.offline import keep_offline

    keep_offline()
    import torch

    from retrain.evaluation.nll import token_nll
    from retrain.models.base import learn_tokenizer, new_network
    from retrain.models.loaded import Loaded
    from retrain.models.model import choose_compute, fresh_adapter, load_base
    from retrain.training.batches import Batch, Source, batches_of, collate, encode
    from retrain.training.recipe import Recipe
    from retrain.training.trainer import Training, fit

    settings = ModelSettings()
    compute = choose_compute(settings, 1)
    chunks = real_chunks(archive(data, "linux-mips-1996-2001")[:MAILS])
    tokenizer = learn_tokenizer([chunk.text for chunk in chunks], settings.builtin)
    sources = [Source(chunk.chunk_id, chunk.text, chunk.new_from) for chunk in chunks]
    by_id = {e.chunk_id: e for e in encode(tokenizer, sources, settings.builtin.context) if e.n_labels > 0}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base = root / "base"
        torch.manual_seed(0)
        new_network(settings.builtin, tokenizer).save_pretrained(str(base))
        source = random.Random(0)
        recipe = Recipe(RATE, 0.1, 0.0, 1.0, 1, "adamw_torch_fused", 0.999, 1)

        def adapted() -> Any:
            model = load_base(base, compute, quantize=True)
            # All linear layers but the head, which SFTTrainer refuses an adapter on.
            return fresh_adapter(model, TrainSettings(), builtin=False, quantize=True, checkpointing=False, seed=0)

        def trained(model: Any, batches: Sequence[Batch]) -> None:
            fit(Training(Loaded(model, compute, 1), batches, recipe, root, lambda record: None))

        def ours(model: Any, drawn: set[str]) -> float:
            home = Path(tempfile.mkdtemp(dir=root))
            plan = scheduled([chunk for chunk in chunks if chunk.chunk_id in drawn], home)
            return _seconds(lambda: trained(model, batches_of(plan, by_id)))

        def theirs(model: Any, drawn: set[str], packing: bool) -> float:
            trainer = sft_trainer(model, tokenizer, [by_id[c] for c in sorted(drawn)], root / "trl", packing=packing)
            return _seconds(trainer.train)

        arms: dict[str, Callable[[Any, set[str]], float]] = {
            "ours": ours,
            "its defaults": lambda model, drawn: theirs(model, drawn, False),
            "its packing": lambda model, drawn: theirs(model, drawn, True),
        }
        models = {name: adapted() for name in arms}
        rates: dict[str, list[float]] = {name: [] for name in arms}
        pool = sorted(by_id)
        for _ in range(1 if quick else PAIRS):
            drawn = _drawn(pool, {c: by_id[c].n_labels for c in pool}, source)
            for name, train in arms.items():
                rates[name].append(sum(by_id[c].n_labels for c in drawn) / train(models[name], drawn))

        places = source.sample(pool, STEPS * ROWS + HELD_OUT)
        shown, held_out = ([by_id[c] for c in some] for some in (places[: STEPS * ROWS], places[STEPS * ROWS :]))
        both = [adapted(), adapted()]
        trained(both[0], [Batch(0, tuple(shown[i : i + ROWS])) for i in range(0, len(shown), ROWS)])
        sft_trainer(both[1], tokenizer, shown, root / "trl", rows=ROWS).train()

        def loss(model: Any) -> float:
            model.eval()
            with torch.inference_mode():
                nats = [float(token_nll(model, collate([e], 1), compute).sum()) for e in held_out]
            return sum(nats) / sum(e.n_labels for e in held_out)

        before, (own, other) = loss(adapted()), map(loss, both)
    return [
        _row(rates, "its defaults", 3.0, "batches of 8 padded to the longest, recomputation"),
        _row(rates, "its packing", 1.0, "bfd packing, 4 rows of 1,024 a step, no recomputation"),
        BenchRow(
            "loss after training on the same batches",
            own,
            "nats per token",
            "TRL's SFTTrainer",
            other,
            own / other,
            f"within {NOISE} nats",
            abs(own - other) <= NOISE,
            f"{STEPS} steps of {ROWS} chunks in one order, {HELD_OUT} other chunks measured; {before:.3f} before",
        ),
    ]


def sft_trainer(
    model: Any, tokenizer: Any, examples: Sequence[Any], folder: Path, *, packing: bool = False, rows: int | None = None
) -> Any:
    """SFTTrainer over ``examples`` as they are, one epoch, in the arithmetic of the model's own training here.

    With its defaults; with its packing and as many tokens a step as the schedule puts into one; or with batches of ``rows``
    in the order given and without recomputation.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    table = Dataset.from_list(
        [{"input_ids": list(e.ids), "labels": [-100] * e.label_from + list(e.ids[e.label_from :])} for e in examples]
    )
    changed: dict[str, Any] = {}
    if packing or rows:
        batch = rows or 4
        changed = {"packing": packing, "per_device_train_batch_size": batch, "gradient_checkpointing": False}
    if rows:
        changed["train_sampling_strategy"] = "sequential"
    config = SFTConfig(
        output_dir=str(folder),
        num_train_epochs=1,
        learning_rate=RATE,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        eos_token=tokenizer.bos_token,
        **changed,
    )
    return SFTTrainer(model=model, args=config, train_dataset=table, processing_class=tokenizer)


def _drawn(pool: Sequence[str], labels: dict[str, int], source: random.Random) -> set[str]:
    """Chunks drawn at random until they predict enough tokens."""
    chosen: set[str] = set()
    for chunk_id in source.sample(pool, len(pool)):
        if sum(labels[c] for c in chosen) >= TOKENS:
            break
        chosen.add(chunk_id)
    return chosen


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _row(rates: dict[str, list[float]], rival: str, goal: float, how: str) -> BenchRow:
    ratios = [own / other for own, other in zip(rates["ours"], rates[rival], strict=True)]
    ratio = statistics.median(ratios)
    return BenchRow(
        f"training on mail against TRL with {rival}",
        statistics.median(rates["ours"]),
        "predicted tokens per CPU-second",
        f"TRL's SFTTrainer, {how}",
        statistics.median(rates[rival]),
        ratio,
        f"at least {goal:g} times it",
        ratio >= goal,
        f"built-in model, NF4 and LoRA, one thread, {len(ratios)} pairs in turn ({', '.join(f'{r:.2f}' for r in ratios)}); "
        "on a CPU, none on a GPU",
    )
