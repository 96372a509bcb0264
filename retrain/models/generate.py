"""Text from the base or an adapter: what ``ask`` answers with where no server runs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config.settings import ModelSettings
from pipeline.errors import RunError
from pipeline.home import Home
from pipeline.runs.requests import AdapterRef, BaseRef
from retrain.offline import TIED, keep_offline

Messages = Sequence[Mapping[str, str]]


class Writer:
    """A base with at most one adapter, loaded once for several questions. Raises ``RunError`` when it cannot be loaded."""

    def __init__(self, home: Home, base: BaseRef, adapter: AdapterRef | None, model: ModelSettings) -> None:
        keep_offline()
        warnings.filterwarnings("ignore", message=TIED)
        from peft import PeftModel

        from retrain.evaluation.references import adapter_folder
        from retrain.models.base import locate
        from retrain.models.fitness import require_made_for
        from retrain.models.model import choose_compute, context_of, load_base, load_tokenizer

        folder = locate(home, base, model)
        self._compute = choose_compute(model, None)
        self._tokenizer = load_tokenizer(folder)
        self._model: Any = load_base(folder, self._compute, quantize=model.quantize)
        self._context = context_of(self._model.config, model)
        if adapter is not None:
            made = adapter_folder(home, adapter)
            require_made_for(made, base)
            self._model = PeftModel.from_pretrained(self._model, str(made))
        self._model.eval()

    def answer_tokens(self, most: int) -> int:
        """How long an answer may be: ``most``, or a quarter of what the model reads."""
        return min(most, self._context // 4)

    def fits(self, prompt: str | Messages, max_new_tokens: int) -> bool:
        """Whether the model reads all of a prompt with an answer of this length."""
        return len(self._encode(prompt)) + max_new_tokens <= self._context

    def write(self, prompt: str | Messages, max_new_tokens: int) -> str:
        """Continues ``prompt``, or answers messages (``role``, ``content``) by the tokenizer's chat template, which a base
        without one reads as plain text. Greedy, so that the same question has the same answer. What does not fit the
        context is cut from the beginning. Raises ``RunError`` when no room is left for a question.
        """
        import torch

        ids = self._encode(prompt)
        room = self._context - max_new_tokens
        if room < 1 or not ids:
            raise RunError(
                f"{max_new_tokens} new tokens leave no room in a context of {self._context}",
                hint="ask for fewer tokens, with a prompt that is not empty",
            )
        given = torch.tensor([ids[-room:]], device=self._compute.device)
        with torch.inference_mode(), self._compute.precision():
            out = self._model.generate(
                input_ids=given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id or 0,
            )
        return str(self._tokenizer.decode(out[0, given.shape[1] :], skip_special_tokens=True))

    def _encode(self, prompt: str | Messages) -> list[int]:
        tokenizer = self._tokenizer
        if not isinstance(prompt, str) and tokenizer.chat_template:
            text = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])
        text = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
        start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        return [*start, *tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]]
