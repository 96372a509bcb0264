"""A run in memory: its model, its batches and the held-out chunks that it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.chunking.archive import training_set
from pipeline.domain import Split
from pipeline.errors import RunError
from pipeline.home import Home
from pipeline.runs.plan import Prepared
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import Exclusions, Loss
from pipeline.sampling.halves import selecting_threads
from retrain.evaluation.heldout import HeldOut, frozen_sample, held_out_chunks, val_threads
from retrain.evaluation.losses import losses_of, nats_of, version_of
from retrain.evaluation.references import Reference, adapter_folder
from retrain.models.attention import kernels
from retrain.models.fitness import require_adapter, require_causal, require_recorded_base, require_vocabulary, vocabulary_of
from retrain.models.liger import fuse, require_liger
from retrain.models.loaded import Loaded
from retrain.models.model import Compute, context_of, continued_adapter, fresh_adapter, load_base, load_tokenizer
from retrain.processes.sharding import put_weights, share_out
from retrain.progress import Observer, Progress
from retrain.training.batches import Batch, Example, batches_of
from retrain.training.clock import Clock
from retrain.training.examples import Reader

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True)
class Study:
    """Everything a run computes with. ``examples`` are the held-out chunks of ``sample`` as the model sees them, in the
    sample's order; ``selecting`` are the val chunks that may choose a checkpoint, None when none may; ``vocabulary`` is a
    digest of the model's tokens; ``clock`` knows where the time of training went."""

    request: RunRequest
    compute: Compute
    model: Any
    pad: int
    context: int
    batches: Sequence[Batch]
    sample: Mapping[str, HeldOut]
    examples: Sequence[Example]
    selecting: frozenset[str] | None
    vocabulary: str
    clock: Clock

    @property
    def loaded(self) -> Loaded:
        return Loaded(self.model, self.compute, self.pad)

    @property
    def version(self) -> int:
        """The evaluation version of the losses that are measured here."""
        return version_of(self.request)

    def of_split(self, split: Split) -> list[Example]:
        return [example for example in self.examples if self.sample[example.chunk_id].split is split]

    @contextmanager
    def serving(self, reference: Reference) -> Iterator[None]:
        """The model as ``reference``, on the one base that is loaded."""
        model = self.model
        if reference.folder is None:
            with model.disable_adapter():
                yield
            return
        before = model.active_adapter
        model.load_adapter(str(reference.folder), adapter_name="measured")
        model.set_adapter("measured")
        try:
            yield
        finally:
            model.set_adapter(before)
            model.delete_adapter("measured")

    def nats(self, examples: Sequence[Example], on_chunk: Callable[[int], None] = lambda done: None) -> dict[str, float]:
        """Of the model as it stands (:func:`retrain.evaluation.losses.nats_of`)."""
        return nats_of(self.loaded, examples, self.request.settings.eval.batch_tokens, on_chunk)

    def score(
        self, examples: Sequence[Example], adapter_id: str, checkpoint: str, progress: Observer | None = None
    ) -> list[Loss]:
        """Losses of the model as it stands on chunks of the sample, under the names given."""
        run_id, total = self.request.run_id, len(examples)

        def report(done: int) -> None:
            if progress is not None and (done % 20 == 0 or done == total):
                progress(Progress(run_id, "evaluate", done, total, f"{adapter_id} {checkpoint}".rstrip()))

        splits = {chunk_id: chunk.split.value for chunk_id, chunk in self.sample.items()}
        return losses_of(self.nats(examples, report), examples, splits, adapter_id, checkpoint, self.version)


def open_study(
    home: Home, request: RunRequest, prepared: Prepared, exclusions: Exclusions, base: Path, compute: Compute
) -> Study:
    """Loads the base and the adapter to train (the parent's, or a fresh one), and tokenises what the run needs."""
    settings = request.settings
    tokenizer = load_tokenizer(base)
    require_vocabulary(home, request, tokenizer)
    require_recorded_base(home, request, base)
    attention = kernels(settings.model.attention, compute)
    liger = settings.model.kernels == "liger"
    if liger:
        require_liger(compute)
    network = load_base(base, compute, quantize=settings.model.quantize, attention=attention, spread=settings.train.shard)
    if liger:
        fuse(network)
    external = request.base.kind == "external"
    if external and not compute.sharded:
        require_causal(network, compute)
    context = context_of(network.config, settings.model)
    every = held_out_chunks(home, request, exclusions)
    sample = frozen_sample(every, request.new_windows, settings.eval.max_chunks)
    reader = Reader(home, request, tokenizer, context)
    by_id = reader.examples([chunk.chunk_id for chunk in sample])
    threads = selecting_threads(val_threads(every), settings.min_threads)
    selecting = None
    if threads is not None:
        selecting = frozenset(chunk.chunk_id for chunk in sample if chunk.split is Split.VAL and chunk.thread_id in threads)
    model = _to_train(home, request, network, compute)
    if compute.sharded:
        share_out(model, compute)
        if external:
            require_causal(model.eval(), compute)
    return Study(
        request=request,
        compute=compute,
        model=model,
        pad=padding(tokenizer),
        context=context,
        batches=_batches(prepared, reader),
        sample={chunk.chunk_id: chunk for chunk in sample},
        examples=[by_id[chunk.chunk_id] for chunk in sample],
        selecting=selecting,
        vocabulary=vocabulary_of(tokenizer),
        clock=Clock(on_gpu=compute.on_gpu),
    )


def restore(model: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Puts back what :func:`retrain.processes.sharding.trained_weights` gave."""
    put_weights(model, state)
    for value in model.parameters():
        value.grad = None


def _to_train(home: Home, request: RunRequest, network: Any, compute: Compute) -> Any:
    settings = request.settings
    checkpointing = settings.train.gradient_checkpointing
    checkpointing = compute.on_gpu if checkpointing is None else checkpointing
    quantize = settings.model.quantize
    if request.parent is not None:
        folder = adapter_folder(home, request.parent)
        model = continued_adapter(network, folder, settings.train, quantize=quantize, checkpointing=checkpointing)
        require_adapter(model, folder, request)
        return model
    builtin = request.base.kind == "builtin"
    return fresh_adapter(
        network, settings.train, builtin=builtin, quantize=quantize, checkpointing=checkpointing, seed=seed_of(request)
    )


def _batches(prepared: Prepared, reader: Reader) -> list[Batch]:
    archive = training_set(reader.home, reader.request.run_id)
    examples = reader.examples(set(prepared.schedule.table["chunk_id"].to_pylist()), archive)
    batches = batches_of(((batch.epoch, batch.chunk_ids) for batch in prepared.schedule.batches()), examples)
    if not any(batch.n_labels for batch in batches):
        raise RunError("the chunks to train on hold no text that could be predicted", hint="wait for the next window")
    return batches


def padding(tokenizer: Any) -> int:
    """Any token will do: padding is never predicted, and never looked at."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id):
        if token is not None:
            return int(token)
    return 0


def seed_of(request: RunRequest) -> int:
    """Another for each run, and the same whenever the run is repeated."""
    return int(request.run_id[:8], 16)
