"""Benchmarks asked for by a person: adapters as they were kept, on one base that is loaded for all of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from pipeline.config.settings import ModelSettings
from pipeline.home import Home
from pipeline.runs.requests import AdapterRef, BaseRef
from retrain.benchmarks.items import Item
from retrain.benchmarks.tasks import Task
from retrain.offline import TIED, keep_offline


def measure(
    home: Home,
    base: BaseRef,
    adapters: Sequence[AdapterRef | None],
    model: ModelSettings,
    tasks: Sequence[Task],
    batch_tokens: int,
    on_task: Callable[[str, str], None],
) -> list[list[Item]]:
    """The items of each of ``adapters``, None being the bare base; ``on_task`` hears the task and the adapter before each.

    Raises ``RunError`` when base or adapter cannot be loaded, and when a task cannot be carried out.
    """
    keep_offline()
    warnings.filterwarnings("ignore", message=TIED)
    from peft import PeftModel

    from retrain.benchmarks.harness import Subject, put
    from retrain.evaluation.references import adapter_folder
    from retrain.models.base import locate
    from retrain.models.fitness import require_made_for
    from retrain.models.model import choose_compute, context_of, load_base, load_tokenizer

    folder = locate(home, base, model)
    compute = choose_compute(model, None)
    network = load_base(folder, compute, quantize=model.quantize)
    context = context_of(network.config, model)
    folders = {ref.adapter_id: adapter_folder(home, ref) for ref in adapters if ref is not None}
    for path in folders.values():
        require_made_for(path, base)
    adapted = None
    for name, path in folders.items():
        if adapted is None:
            adapted = PeftModel.from_pretrained(network, str(path), adapter_name=name)
        else:
            adapted.load_adapter(str(path), adapter_name=name)
    found = []
    for ref in adapters:
        called = ref.adapter_id if ref is not None else f"base:{base.base_id}"
        if ref is not None and adapted is not None:
            adapted.set_adapter(ref.adapter_id)
        bare = adapted.disable_adapter() if ref is None and adapted is not None else nullcontext()
        items = []
        with bare:
            for task in tasks:
                on_task(task.name, called)
                tokenizer = load_tokenizer(folder)  # the harness changes its padding
                served = network if adapted is None else adapted
                items += put(task, Subject(called, "", served, tokenizer, compute, context, batch_tokens))
        found.append(items)
    return found
