"""The only place with lm-evaluation-harness: tasks put to a model that is loaded already, as it stands."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.errors import RunError
from retrain.benchmarks.items import Item
from retrain.benchmarks.tasks import Task
from retrain.models.model import Compute
from retrain.training.exhaustion import free_memory, is_out_of_memory
from retrain.training.lost_device import is_device_lost

PACKAGE = "lm_eval"
MOST_AT_ONCE = 64
SEED = 0
"""Of the examples that a task with ``num_fewshot`` draws: the same for every model."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked: a model, with an adapter or bare as it stands, its own tokenizer, and how much fits. ``batch_tokens``
    are in the model at once at most."""

    adapter_id: str
    checkpoint: str
    model: Any
    tokenizer: Any
    compute: Compute
    context: int
    batch_tokens: int


class _Face:
    """A model as the harness may see it. Given the module itself it would tie the weights of its head anew, which does not
    survive an adapter on that head."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.device, self.config = model.device, model.config

    def __call__(self, ids: torch.Tensor) -> Any:
        return self._model(input_ids=ids)

    def generate(self, **options: Any) -> Any:
        return self._model.generate(**options)


def installed() -> bool:
    """Whether the extra `benchmarks` is here; nothing is imported to find out."""
    return importlib.util.find_spec(PACKAGE) is not None


def version() -> str:
    """That of the harness: another one may score the same answer otherwise."""
    return importlib.metadata.version(PACKAGE)


def put(task: Task, subject: Subject) -> list[Item]:
    """The score of every item of ``task``, in their order. The model's mode is restored.

    When memory runs out, half as many items are in the model at once. Raises ``RunError`` when the harness cannot carry
    the task out; a lost device is raised as it is.
    """
    at_once = _at_once(task, subject)
    while True:
        try:
            return _items(task, subject, _samples(task, subject, at_once))
        except Exception as error:
            if is_device_lost(error):
                raise
            if not is_out_of_memory(error) or at_once == 1:
                said = (str(error).strip().splitlines() or [type(error).__name__])[0]
                hint = f"check {task.path}" if not is_out_of_memory(error) else "shorten its items"
                raise RunError(f"benchmark task {task.name} failed ({said})", hint=hint) from error
        free_memory()
        at_once = max(1, at_once // 2)


def _at_once(task: Task, subject: Subject) -> int:
    """How many items of the longest's size fit, markup of their JSON included."""
    head = str(task.config.get("description") or "")
    longest = max(len(subject.tokenizer(head + doc)["input_ids"]) for doc in task.docs)
    return max(1, min(MOST_AT_ONCE, subject.batch_tokens // min(longest, subject.context)))


def _samples(task: Task, subject: Subject, at_once: int) -> list[dict[str, Any]]:
    """What the harness logs of each item. It copies a task's data; the copy is gone afterwards."""
    logging.getLogger(PACKAGE).setLevel(logging.ERROR)  # at every model it warns that this one is loaded already
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    class Loaded(HFLM):  # type: ignore[misc]
        """Draws no bars. Without an end token, as the built-in model has none, a text ends where another begins."""

        @property
        def eot_token_id(self) -> int:
            end = self.tokenizer.eos_token_id
            return int(self.prefix_token_id if end is None else end)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().generate_until(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None) -> Any:
            return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    compute = subject.compute
    with tempfile.TemporaryDirectory(prefix="mailtide-benchmark-") as copies, _evaluating(subject.model):
        kwargs = {**task.config["dataset_kwargs"], "cache_dir": copies}
        loaded = TaskManager(include_defaults=False).load([{**task.config, "dataset_kwargs": kwargs}])
        for one in loaded["tasks"].values():
            if one.get_config("num_fewshot") is None:
                one.set_config(key="num_fewshot", value=0)
            one.set_fewshot_seed(seed=SEED)
        model = Loaded(
            pretrained=_Face(subject.model),
            tokenizer=subject.tokenizer,
            batch_size=at_once,
            max_length=subject.context,
            mixed_precision_dtype=torch.bfloat16 if compute.dtype is torch.bfloat16 else None,
        )
        samples: list[dict[str, Any]] = evaluate(model, loaded, bootstrap_iters=0)["samples"][task.name]
        return samples


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _items(task: Task, subject: Subject, samples: Sequence[dict[str, Any]]) -> list[Item]:
    """Scores by the first filter, where a task has several; what is no number is a ``ValueError``."""
    first = samples[0]["filter"]
    amounts = _bits if task.metric == "bits_per_byte" else _share
    found = {}
    for sample in samples:
        if sample["filter"] == first:
            value, size = amounts(sample[task.metric])
            found[int(sample["doc_id"])] = Item(
                adapter_id=subject.adapter_id,
                checkpoint=subject.checkpoint,
                task=task.name,
                metric=task.metric,
                task_sha256=task.sha256,
                harness=version(),
                item=int(sample["doc_id"]),
                cluster=str(sample["doc"].get("cluster", sample["doc_id"])),
                value=value,
                size=size,
            )
    return [found[place] for place in sorted(found)]


def _share(told: Any) -> tuple[float, float]:
    return _finite(told), 1.0


def _bits(told: Any) -> tuple[float, float]:
    nats, size = told
    return -_finite(nats) / math.log(2), float(size)


def _finite(told: Any) -> float:
    value = float(told)
    if not math.isfinite(value):
        raise ValueError(f"a score of {value}")
    return value
