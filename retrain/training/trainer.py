"""The one training loop: ``transformers.Trainer`` over batches that are fixed beforehand.

The loss of an optimizer step is the sum of the nats of all tokens that count, divided by their number, however many
batches the step takes and however they are padded. A batch goes through the model in groups of like length: on a CPU
padding costs as much as text, so a group is small, and groups go side by side. A GPU takes a batch whole, unless that is
more than its memory holds. Several processes share out a batch's passes, as accelerate and DDP foresee: each exchanges its
gradients with the others once a step.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from pipeline.capacity.passes import CPU_PASS_TOKENS, Passes
from pipeline.errors import RunError
from pipeline.runs.runfiles import Loss, write_losses
from retrain.models.adapters import save_adapter
from retrain.models.loaded import Loaded
from retrain.processes.ranks import Ranks
from retrain.processes.sharding import Gathered, Shared, gathered, load_adapter, restore_optimizer
from retrain.training import checkpoints
from retrain.training.ahead import made_ahead
from retrain.training.batches import Batch, Group
from retrain.training.checkpointing import Checkpointing
from retrain.training.clock import Clock
from retrain.training.early_stopping import best_step, should_stop
from retrain.training.gradients import Gradients, SharedGradients, passes_of
from retrain.training.lanes import Lanes
from retrain.training.metrics import StepRecord
from retrain.training.recipe import Recipe

OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"
"""In a checkpoint, by the names that transformers gives them."""

SUITING = Passes()
"""Passes of the size that suits the device."""


class Placed(TypedDict):
    """A batch and its place among all of a training, counted from 0."""

    place: int
    batch: Batch


@dataclass(frozen=True, slots=True)
class Training:
    """What is trained on what, and how: the weights of ``loaded`` move in place on ``batches``, in their order.

    ``on_step`` hears of each optimizer step; ``passes`` bound what is in the model at once; ``trackers`` hear the loss of
    each step and checkpoint; ``clock`` adds up where the time went. ``folder`` is for what the trainer writes beside
    checkpoints.
    """

    loaded: Loaded
    batches: Sequence[Batch]
    recipe: Recipe
    folder: Path
    on_step: Callable[[StepRecord], None]
    checkpointing: Checkpointing | None = None
    passes: Passes = SUITING
    trackers: Sequence[TrainerCallback] = ()
    clock: Clock = field(default_factory=Clock)

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return math.ceil(len(self.batches) / self.recipe.accumulation)


def fit(training: Training) -> None:
    """Trains, going on from the newest whole checkpoint if there is one.

    Raises ``RunError`` naming the chunks of the batch when a loss is not a number.
    """
    compute, checkpointing = training.loaded.compute, training.checkpointing
    resume = None
    if checkpointing is not None:
        resume = newest(checkpointing.folder, compute.ranks)
        if resume is not None and (resume.step >= training.steps or compute.ranks.agreed(checkpointing.stops)):
            return
    with (
        compute.lanes(compute.threads) as lanes,
        made_ahead(lambda place: passes_at(training, place), len(training.batches), compute.take) as ready,
    ):
        trainer = ScheduleTrainer(training, lanes, ready)
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume.folder))


def passes_at(training: Training, place: int) -> list[Group | None]:
    """The passes of the batch at ``place``, counted from 0, of the size that is due at its step."""
    batch, compute = training.batches[place], training.loaded.compute
    suiting = batch.padded if compute.on_gpu else CPU_PASS_TOKENS
    most = training.passes.at(place // training.recipe.accumulation + 1) or suiting
    return passes_of(batch, most, training.loaded)


def arguments_of(training: Training) -> TrainingArguments:
    """What transformers is told; what would write, log or draw at random is turned off, as it is done here."""
    recipe, checkpointing, steps = training.recipe, training.checkpointing, training.steps
    return TrainingArguments(
        output_dir=str(training.folder),
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
        use_cpu=not training.loaded.compute.on_gpu,
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


class ScheduleTrainer(Trainer):  # type: ignore[misc]
    """Takes batches as they come, one epoch in all; epochs are the schedule's affair."""

    def __init__(self, training: Training, lanes: Lanes, ready: Callable[[int], list[Group | None]]) -> None:
        def heard(record: StepRecord) -> None:
            training.on_step(record)
            figures = {"loss": record.loss, "learning_rate": record.lr, "tokens": record.tokens, "epoch": record.epoch}
            self._track({**figures, "grad_norm": record.grad_norm or 0.0})

        loaded, clock = training.loaded, training.clock
        self._training = training
        self._compute = loaded.compute
        self._ready = ready
        self._meter = StepMeter(training.batches, training.recipe.accumulation, heard, clock)
        super().__init__(
            model=loaded.model,
            args=arguments_of(training),
            train_dataset=list(enumerate(training.batches)),
            callbacks=[self._meter, *training.trackers],
        )
        self.remove_callback(PrinterCallback)
        several = loaded.compute.ranks.count > 1
        self._gradients = SharedGradients(loaded, clock, self.accelerator) if several else Gradients(loaded, clock, lanes)

    def get_train_dataloader(self) -> Any:
        order: Any = InOrder(len(self._training.batches), self._compute.ranks.count)
        return self.accelerator.prepare(DataLoader(self.train_dataset, batch_sampler=order, collate_fn=_only))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Placed], num_batches: int, device: torch.device
    ) -> tuple[list[Placed], int]:
        """The batches of one optimizer step and the number of tokens that count in them."""
        samples = list(islice(epoch_iterator, num_batches))
        if self._compute.ranks.count > 1:
            # Chance (dropout) follows from the step, so that a resumed run needs no state of other processes.
            torch.manual_seed(_chance(self.args.seed, self.state.global_step, self._compute.ranks.rank))
        return samples, max(1, sum(sample["batch"].n_labels for sample in samples))

    def training_step(self, model: Any, inputs: Placed, num_items_in_batch: int | None = None) -> torch.Tensor:
        """Adds a batch's gradients; returns its share of the optimizer step's loss."""
        if num_items_in_batch is None:
            raise ValueError("the number of tokens in the optimizer step is needed")
        batch, clock = inputs["batch"], self._training.clock
        passes = clock.timed("data", lambda: self._ready(inputs["place"]))
        started = time.perf_counter()
        model.train()
        total, times = self._gradients.add(model, passes, num_items_in_batch)
        value = float(total)
        clock.passes(times, time.perf_counter() - started)
        if not math.isfinite(value):
            names = ", ".join(example.chunk_id for example in batch.examples)
            raise RunError(
                f"the loss is {value} at step {self.state.global_step + 1}, on chunks {names}",
                hint="lower train.lr",
            )
        self._meter.add(batch, value, self.optimizer.param_groups[0]["lr"])
        return total

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> float:
        """The gradient's norm before it was clipped. Raises ``RunError`` when it is no number, while the weights still
        are."""
        norm = float(super()._get_grad_norm(model, grad_norm=grad_norm))
        if not math.isfinite(norm):
            step = self.state.global_step + 1
            raise RunError(
                f"the gradient is {norm} at step {step}, on chunks {self._chunks_of(step)}", hint="lower train.lr"
            )
        self._meter.grad_norm = norm
        return norm

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
        plan, clock = self._training.checkpointing, self._training.clock
        if plan is None:
            return
        step = self.state.global_step
        losses = clock.timed("measuring", lambda: plan.score(checkpoints.name_of(step)))
        started = time.perf_counter()
        if losses:
            self._track({"eval_loss": sum(loss.nll for loss in losses) / sum(loss.n_tokens for loss in losses)})
        whole = gathered(self.model, self.optimizer.optimizer) if self._compute.sharded else None
        if self._compute.ranks.agreed(lambda: self._keep(plan, step, losses, whole)):
            self.control.should_training_stop = True
        clock.until_now("checkpoints", started)

    def _keep(self, plan: Checkpointing, step: int, losses: list[Loss], whole: Gathered | None) -> bool:
        """Writes the checkpoint of ``step``; whether training should stop there. Raises ``RunError`` instead when a
        gradient has ruined the weights: the checkpoint before stays the last one. ``whole`` is given where this process
        holds but a part of what is written."""
        trained = (parameter for parameter in self.model.parameters() if parameter.requires_grad)
        self._require_finite(step, trained if whole is None else whole.weights.values())
        written = checkpoints.partial(plan.folder)
        with checkpoints.telling_of_a_full_disk(plan.folder):
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

    def _require_finite(self, step: int, weights: Iterable[torch.Tensor]) -> None:
        if all(bool(torch.isfinite(weight).all()) for weight in weights):
            return
        raise RunError(
            f"the weights are not finite after step {step}, on chunks {self._chunks_of(step)}",
            hint="lower train.lr or train.clip",
        )

    def _chunks_of(self, step: int) -> str:
        """The ids of all chunks of an optimizer step."""
        each = self.args.gradient_accumulation_steps
        made = self._training.batches[(step - 1) * each : step * each]
        return ", ".join(example.chunk_id for batch in made for example in batch.examples)


class StepMeter(TrainerCallback):  # type: ignore[misc]
    """Adds up what the batches of an optimizer step report, and passes it on when the step is made; ``grad_norm`` is its
    gradient's."""

    def __init__(
        self, batches: Sequence[Batch], accumulation: int, on_step: Callable[[StepRecord], None], clock: Clock
    ) -> None:
        self._tokens = list(accumulate(sum(len(example.ids) for example in batch.examples) for batch in batches))
        self._accumulation = accumulation
        self._on_step = on_step
        self._clock = clock
        self._started = time.monotonic()
        self._gradients_at = time.perf_counter()
        self.grad_norm: float | None = None
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
        made = (state.global_step, state.max_steps, self._epoch, self._loss, self._lr, tokens, seconds, self.grad_norm)
        self._on_step(StepRecord(*made))
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


def _only(batches: Sequence[tuple[int, Batch]]) -> Placed:
    ((place, batch),) = batches
    return {"place": place, "batch": batch}
