"""transformers' own ``generate``, one prompt at a time: what the server's rate is held against."""

from __future__ import annotations

import time
from typing import Any

import torch
from peft import PeftModel

from retrain.models.model import load_base
from retrain.serving.model import ServedModel, serving_compute
from tests.support.served import Served


class Generating:
    """Two models over the same base, in this process: one as the server holds it in memory (``rate``), and one as anybody
    loads base and adapter (``rate_as_loaded``), whose weights stay packed in NF4."""

    def __init__(self, served: Served, adapter: str, prompt: str) -> None:
        compute = serving_compute(served.settings.model, "cpu", 1)
        self._model = ServedModel(served.home, served.base, served.settings.model, compute)
        ref = served.adapters[adapter]
        self._model.load(ref)
        folder = served.home.root / served.base.path
        packed = load_base(folder, compute, quantize=served.settings.model.quantize)
        self._packed = PeftModel.from_pretrained(packed, str(served.home.root / ref.path)).eval()
        self._own = self._model.use(ref.adapter_id)
        self._given = torch.tensor([self._model.encode(prompt)])
        self.cpu_seconds = 0.0
        """What all ``rate`` have computed so far."""

    def rate(self, tokens: int) -> float:
        """Tokens a second."""
        begun = time.process_time()
        found = self._rate(self._own, tokens)
        self.cpu_seconds += time.process_time() - begun
        return found

    def rate_as_loaded(self, tokens: int) -> float:
        """The same with packed weights."""
        return self._rate(self._packed, tokens)

    def _rate(self, network: Any, tokens: int) -> float:
        begun = time.perf_counter()
        with torch.inference_mode(), self._model.compute.precision():
            written = network.generate(
                input_ids=self._given,
                attention_mask=torch.ones_like(self._given),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=self._model.padding,
            )
        assert written.shape[1] == self._given.shape[1] + tokens
        return tokens / (time.perf_counter() - begun)
