"""The one training loop: ``transformers.Trainer`` over batches that are fixed beforehand.

The loss of an optimizer step is the sum of the nats of all tokens that count, divided by their number, however many
batches the step takes and however they are padded. A batch goes through the model in groups of like length: on a CPU
padding costs as much as text, so a group is small, and groups go side by side. A GPU takes a batch whole, unless that is
more than its memory holds. Several processes share out a batch's passes, as accelerate and DDP foresee: each exchanges its
gradients with the others once a step.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from pipeline.capacity.passes import CPU_PASS_TOKENS, Passes
from pipeline.errors import RunError
from pipeline.runs.runfiles import Loss, read_losses, write_losses
from retrain.evaluation.nll import token_nll
from retrain.models.adapters import save_adapter
from retrain.models.model import Compute
from retrain.processes.ranks import Ranks
from retrain.processes.sharding import Gathered, Shared, gathered, load_adapter, restore_optimizer
from retrain.processes.shares import shared_passes
from retrain.training import checkpoints
from retrain.training.batches import IDLE, Batch, Example, collate, groups_of_like_length
from retrain.training.clock import Clock, PassTimes
from retrain.training.early_stopping import Scored, best_step, mean_loss, should_stop
from retrain.training.lanes import IN_TURN, Lanes


@dataclass(frozen=True, slots=True)
class Recipe:
    """How weights move: peak learning rate, warm-up as a share of the steps, then a cosine to zero."""

    lr: float
    warmup: float
    weight_decay: float
    clip: float
    accumulation: int
    optimizer: str
    beta2: float
    seed: int


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step: ``loss`` in nats per token, ``tokens`` through the model so far, ``seconds`` since the start."""

    step: int
    steps: int
    epoch: int
    loss: float
    lr: float
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """When and where checkpoints are kept, how each is scored on val, and when training stops early.

    ``score`` gives the losses on val of the model as it stands, under a checkpoint's name. ``selecting`` are the chunks
    that may choose; None, and nothing stops early. The newest ``keep`` stay on the disk, fewer where they take more than
    ``most_bytes``.
    """

    folder: Path
    every: int
    keep: int
    base_id: str
    score: Callable[[str], list[Loss]]
    selecting: frozenset[str] | None
    patience: int
    min_delta: float
    most_bytes: int | None = None

    def history(self) -> list[Scored]:
        """The loss of every checkpoint so far on the chunks that may choose."""
        if self.selecting is None:
            return []
        scored = []
        for checkpoint in checkpoints.find(self.folder):
            loss = mean_loss(read_losses(checkpoint.folder / checkpoints.LOSSES), self.selecting)
            if loss is not None:
                scored.append(Scored(checkpoint.step, loss))
        return scored

    def stops(self) -> bool:
        return should_stop(self.history(), self.patience, self.min_delta)


OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"
"""In a checkpoint, by the names that transformers gives them."""

SUITING = Passes()
"""Passes of the size that suits the device."""


def optimizer_name(asked: str, compute: Compute) -> str:
    """What ``train.optimizer: auto`` means here."""
    if asked != "auto":
        return asked
    return "paged_adamw_8bit" if compute.on_gpu and not compute.sharded else "adamw_torch_fused"


def fit(
    model: Any,
    batches: Sequence[Batch],
    recipe: Recipe,
    *,
    compute: Compute,
    pad: int,
    folder: Path,
    on_step: Callable[[StepRecord], None],
    checkpointing: Checkpointing | None = None,
    passes: Passes = SUITING,
    trackers: Sequence[TrainerCallback] = (),
    clock: Clock | None = None,
) -> None:
    """Trains ``model`` in place on ``batches``, in their order, going on from the newest whole checkpoint if there is one.

    ``passes`` bound what is in the model at once; ``trackers`` hear the loss of each step and checkpoint; ``clock`` adds up
    where the time went. Raises ``RunError`` naming the chunks of the batch when a loss is not a number.
    """
    steps = math.ceil(len(batches) / recipe.accumulation)
    resume = None
    if checkpointing is not None:
        resume = newest(checkpointing.folder, compute.ranks)
        if resume is not None and (resume.step >= steps or compute.ranks.agreed(checkpointing.stops)):
            return
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        gradient_accumulation_steps=recipe.accumulation,
        learning_rate=recipe.lr,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(recipe.warmup * steps)) if recipe.warmup else 0,
        weight_decay=recipe.weight_decay,
        adam_beta2=recipe.beta2,
        max_grad_norm=recipe.clip,
        optim=recipe.optimizer,
        seed=recipe.seed,
        use_cpu=not compute.on_gpu,
        save_strategy="no" if checkpointing is None else "steps",
        save_steps=500 if checkpointing is None else checkpointing.every,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
    )
    with compute.lanes(compute.threads) as side_by_side:
        trainer = ScheduleTrainer(
            model,
            arguments,
            batches,
            compute=compute,
            side_by_side=side_by_side,
            pad=pad,
            on_step=on_step,
            checkpointing=checkpointing,
            passes=passes,
            trackers=trackers,
            clock=clock or Clock(on_gpu=compute.on_gpu),
        )
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume.folder))


class ScheduleTrainer(Trainer):  # type: ignore[misc]
    """Takes batches as they come, one epoch in all; epochs are the schedule's affair."""

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        batches: Sequence[Batch],
        *,
        compute: Compute,
        side_by_side: Lanes,
        pad: int,
        on_step: Callable[[StepRecord], None],
        checkpointing: Checkpointing | None,
        passes: Passes,
        trackers: Sequence[TrainerCallback],
        clock: Clock,
    ) -> None:
        def heard(record: StepRecord) -> None:
            on_step(record)
            self._track({"loss": record.loss, "learning_rate": record.lr, "tokens": record.tokens, "epoch": record.epoch})

        self._passes = passes
        self._side_by_side = side_by_side
        self._one_after_another = True
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._batches = batches
        self._compute = compute
        self._pad = pad
        self._checkpointing = checkpointing
        self._clock = clock
        self._meter = StepMeter(batches, arguments, heard, clock)
        super().__init__(model=model, args=arguments, train_dataset=batches, callbacks=[self._meter, *trackers])
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> Any:
        order: Any = InOrder(len(self._batches), self._compute.ranks.count)
        batches: Any = self._batches
        return self.accelerator.prepare(DataLoader(batches, batch_sampler=order, collate_fn=_only))

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Batch]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Batch]], int]:
        """The batches of one optimizer step and the number of tokens that count in them."""
        samples = list(islice(epoch_iterator, num_batches))
        if self._compute.ranks.count > 1:
            # Chance (dropout) follows from the step, so that a resumed run needs no state of other processes.
            torch.manual_seed(_chance(self.args.seed, self.state.global_step, self._compute.ranks.rank))
        return samples, max(1, sum(sample["batch"].n_labels for sample in samples))

    def training_step(self, model: Any, inputs: dict[str, Batch], num_items_in_batch: int | None = None) -> torch.Tensor:
        """Adds a batch's gradients; returns its share of the optimizer step's loss."""
        if num_items_in_batch is None:
            raise ValueError("the number of tokens in the optimizer step is needed")
        started = time.perf_counter()
        batch = inputs["batch"]
        model.train()
        most = self._passes.at(self.state.global_step + 1) or (batch.padded if self._compute.on_gpu else CPU_PASS_TOKENS)
        several = self._compute.ranks.count > 1
        total, times = (self._share if several else self._whole)(model, batch, most, num_items_in_batch)
        value = float(total)
        self._clock.passes(times, time.perf_counter() - started)
        if not math.isfinite(value):
            names = ", ".join(example.chunk_id for example in batch.examples)
            raise RunError(
                f"the loss is {value} at step {self.state.global_step + 1}, on chunks {names}",
                hint="lower train.lr, or exclude the chunk that causes it",
            )
        self._meter.add(batch, value, self.optimizer.param_groups[0]["lr"])
        return total

    def _whole(self, model: Any, batch: Batch, most: int, counted: int) -> tuple[torch.Tensor, list[PassTimes]]:
        """All passes of a batch, side by side where that changes nothing: their loss over ``counted`` tokens, and when each
        did what."""
        now = self._clock.now

        def gradients(examples: Sequence[Example]) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...], PassTimes]:
            begins = now()
            group = collate(examples, self._pad, self._compute.device)
            forward = now()
            loss = token_nll(model, group, self._compute).sum() / counted
            backward = now()
            found = torch.autograd.grad(loss, self._trained, allow_unused=True)
            return loss.detach(), found, (begins, forward, backward, now())

        chance = torch.get_rng_state()
        groups = groups_of_like_length(batch.examples, most)
        total = torch.zeros((), device=self.args.device)
        times = []
        for loss, found, taken in (IN_TURN if self._one_after_another else self._side_by_side)(gradients, groups):
            total += loss
            times.append(taken)
            for parameter, gradient in zip(self._trained, found, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        # What draws chance (dropout) must draw it in one order: the first batch shows whether the model does.
        self._one_after_another = self._one_after_another and (not groups or not torch.equal(chance, torch.get_rng_state()))
        return total, times

    def _share(self, model: Any, batch: Batch, most: int, counted: int) -> tuple[torch.Tensor, list[PassTimes]]:
        """This process's passes of a batch, and when each did what; the loss of all of them over ``counted`` tokens."""
        ranks, now = self._compute.ranks, self._clock.now
        times: list[PassTimes] = []
        passes = shared_passes(batch.examples, ranks.count, most)[ranks.rank]
        total = torch.zeros((), device=self.args.device)
        for place, examples in enumerate(passes):
            begins = now()
            group = collate(examples or IDLE, self._pad, self._compute.device)
            alone = self.accelerator.no_sync(model) if place < len(passes) - 1 else contextlib.nullcontext()
            with alone:
                forward = now()
                nats = token_nll(model, group, self._compute).sum() * (1 if examples else 0)
                backward = now()
                # DDP takes the mean over processes; theirs are shares of one sum.
                torch.autograd.backward(nats * (ranks.count / counted))
            times.append((begins, forward, backward, now()))
            total += nats.detach() / counted
        whole: torch.Tensor = self.accelerator.reduce(total, "sum")
        return whole, times

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: tokens and seconds are."""
        return 0

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        return Shared(model) if self._compute.sharded else super()._wrap_model(model, training, dataloader)

    def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
        if self._compute.sharded:
            load_adapter(self.model, Path(checkpoint))
        else:
            super()._load_from_checkpoint(checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self._compute.ranks.count == 1:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        if self._compute.sharded:
            restore_optimizer(self.optimizer.optimizer, Path(checkpoint) / OPTIMIZER)
            self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER, weights_only=True))
            return
        # Several processes on a CPU have the device "cpu:0", where torch.load puts nothing.
        for name, state in ((OPTIMIZER, self.optimizer), (SCHEDULER, self.lr_scheduler)):
            state.load_state_dict(torch.load(Path(checkpoint) / name, map_location="cpu", weights_only=True))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        plan = self._checkpointing
        if plan is None:
            return
        step = self.state.global_step
        losses = self._clock.timed("measuring", lambda: plan.score(checkpoints.name_of(step)))
        started = time.perf_counter()
        if losses:
            self._track({"eval_loss": sum(loss.nll for loss in losses) / sum(loss.n_tokens for loss in losses)})
        whole = gathered(self.model, self.optimizer.optimizer) if self._compute.sharded else None
        if self._compute.ranks.agreed(lambda: self._keep(plan, step, losses, whole)):
            self.control.should_training_stop = True
        self._clock.until_now("checkpoints", started)

    def _keep(self, plan: Checkpointing, step: int, losses: list[Loss], whole: Gathered | None) -> bool:
        """Writes the checkpoint of ``step``; whether training should stop there. Raises ``RunError`` instead when a
        gradient has ruined the weights: the checkpoint before stays the last one. ``whole`` is given where this process
        holds but a part of what is written."""
        self._require_finite(step, self._trained if whole is None else list(whole.weights.values()))
        written = checkpoints.partial(plan.folder)
        save_adapter(self.model, written, base_id=plan.base_id, weights=None if whole is None else whole.weights)
        if whole is None:
            self._save_optimizer_and_scheduler(str(written))
        else:
            torch.save(whole.optimizer, written / OPTIMIZER)
            torch.save(self.lr_scheduler.state_dict(), written / SCHEDULER)
        if self._compute.ranks.count == 1:
            self._save_rng_state(str(written))
        write_losses(written / checkpoints.LOSSES, losses)
        self.state.save_to_json(str(written / checkpoints.STATE))
        checkpoints.complete(written, plan.folder, step)
        history = plan.history()
        checkpoints.thin(checkpoints.find(plan.folder), plan.keep, best_step(history), plan.most_bytes)
        return should_stop(history, plan.patience, plan.min_delta)

    def _track(self, figures: dict[str, float]) -> None:
        """Past ``Trainer.log``, which would keep them all in the state of each checkpoint."""
        self.callback_handler.on_log(self.args, self.state, self.control, figures)

    def _require_finite(self, step: int, weights: Sequence[torch.Tensor]) -> None:
        if all(bool(torch.isfinite(weight).all()) for weight in weights):
            return
        each = self.args.gradient_accumulation_steps
        made = self._batches[(step - 1) * each : step * each]
        names = ", ".join(example.chunk_id for batch in made for example in batch.examples)
        raise RunError(
            f"the weights are not finite after step {step}, on chunks {names}",
            hint="lower train.lr or train.clip, or exclude the chunk that causes it",
        )


class StepMeter(TrainerCallback):  # type: ignore[misc]
    """Adds up what the batches of an optimizer step report, and passes it on when the step is made."""

    def __init__(
        self,
        batches: Sequence[Batch],
        arguments: TrainingArguments,
        on_step: Callable[[StepRecord], None],
        clock: Clock,
    ) -> None:
        self._tokens = list(accumulate(sum(len(example.ids) for example in batch.examples) for batch in batches))
        self._accumulation = int(arguments.gradient_accumulation_steps)
        self._on_step = on_step
        self._clock = clock
        self._started = time.monotonic()
        self._gradients_at = time.perf_counter()
        self._loss = 0.0
        self._lr = 0.0
        self._epoch = 0

    def add(self, batch: Batch, loss: float, lr: float) -> None:
        self._loss += loss
        self._lr, self._epoch = lr, batch.epoch
        self._gradients_at = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clock.until_now("optimizer", self._gradients_at)
        tokens = self._tokens[min(state.global_step * self._accumulation, len(self._tokens)) - 1]
        seconds = time.monotonic() - self._started
        self._on_step(StepRecord(state.global_step, state.max_steps, self._epoch, self._loss, self._lr, tokens, seconds))
        self._loss = 0.0


class InOrder:
    """A batch sampler that names one batch at a time, in order, each as often as there are processes: accelerate deals them
    out in turn, so that each process sees every batch."""

    batch_size = 1
    drop_last = False

    def __init__(self, count: int, processes: int = 1) -> None:
        self._count = count
        self._processes = processes

    def __iter__(self) -> Iterator[list[int]]:
        return iter([place] for place in range(self._count) for _ in range(self._processes))

    def __len__(self) -> int:
        return self._count * self._processes


def newest(folder: Path, ranks: Ranks) -> checkpoints.Checkpoint | None:
    """The checkpoint from which training goes on, as the first process finds it."""

    def find() -> int | None:
        found = checkpoints.newest_whole(folder)
        return None if found is None else found.step

    step = ranks.agreed(find)
    return None if step is None else checkpoints.Checkpoint(step, folder / checkpoints.name_of(step))


def _chance(seed: int, step: int, rank: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{step}:{rank}".encode()).digest()[:8], "big")


def _only(batches: Sequence[Batch]) -> dict[str, Batch]:
    (batch,) = batches
    return {"batch": batch}
