"""A base in memory with several adapters over it, one of them at work at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from peft import PeftConfig, PeftModel
from tokenizers import Tokenizer

from pipeline.config.settings import ModelSettings
from pipeline.errors import RunError, UsageError
from pipeline.home import Home
from pipeline.runs.requests import AdapterRef, BaseRef
from retrain.evaluation.references import adapter_folder
from retrain.models.adapters import CONFIG, WEIGHTS
from retrain.models.base import locate
from retrain.models.model import Compute, choose_compute, context_of, load_base, load_tokenizer
from retrain.serving.asked import PromptTooLong
from retrain.serving.unpacked import unpack

Messages = Sequence[Mapping[str, str]]


class ServedModel:
    """Everything here but ``encode``, ``room`` and ``checked`` is for one thread: the engine's."""

    def __init__(self, home: Home, base: BaseRef, settings: ModelSettings, compute: Compute) -> None:
        """Loads the base. Raises ``RunError`` when it is not there or is not what it was."""
        folder = locate(home, base, settings)
        self.base = base
        self.compute = compute
        self.tokenizer = load_tokenizer(folder)
        # Encoding sets options of its tokenizer, which must not be read from another thread meanwhile: one each.
        self.speller = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        self._encoding = threading.Lock()
        self._home = home
        self._network: Any = load_base(folder, compute, quantize=settings.quantize)
        unpack(self._network, compute)
        self.context = context_of(self._network.config, settings)
        self.ends = _ends(self._network, self.tokenizer)
        self._adapted: Any = None
        self._names: set[str] = set()
        self._at_work: str | None = None

    @property
    def padding(self) -> int:
        """The token that stands before shorter prompts; it is never looked at."""
        return int(self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0)

    @property
    def adapters(self) -> frozenset[str]:
        """What is loaded, by id."""
        return frozenset(self._names)

    def checked(self, ref: AdapterRef) -> Path:
        """The folder of an adapter, every byte of it read. Raises ``RunError`` when its files are not the recorded ones, or
        are of another base."""
        folder = adapter_folder(self._home, ref)
        self._require_fit(ref.adapter_id, folder)
        return folder

    def load(self, ref: AdapterRef) -> None:
        """Loads an adapter beside the others. Raises as ``checked`` and ``attach`` do."""
        self.attach(ref, self.checked(ref))

    def attach(self, ref: AdapterRef, folder: Path) -> None:
        """Loads an adapter from its checked folder. Raises ``RunError`` when its shapes are not the base's; then nothing of
        it is left."""
        if ref.adapter_id in self._names:
            return
        try:
            self._attach(ref.adapter_id, folder)
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            self._detach(ref.adapter_id)
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise RunError(
                f"adapter {ref.adapter_id} does not fit {self.base.base_id}: {said[-1].strip()}",
                hint="train it anew on this base, or return to another adapter",
            ) from error
        self._names.add(ref.adapter_id)

    def unload(self, adapter_id: str) -> None:
        """Gives an adapter's memory back; an unknown one is none."""
        if adapter_id in self._names:
            self._names.discard(adapter_id)
            self._detach(adapter_id)

    def use(self, adapter_id: str | None) -> Any:
        """The network with this adapter at work, or the bare base (None)."""
        if self._adapted is None:
            return self._network
        if adapter_id != self._at_work:
            if adapter_id is None:
                self._adapted.base_model.disable_adapter_layers()
            else:
                if self._at_work is None:
                    self._adapted.base_model.enable_adapter_layers()
                self._adapted.set_adapter(adapter_id, inference_mode=True)
            self._at_work = adapter_id
        return self._network  # PEFT has put its layers into it

    def encode(self, prompt: str | Messages) -> tuple[int, ...]:
        """The tokens of a prompt, or of a chat by the tokenizer's template; a base without one reads it as plain text.

        No text of a prompt or a message becomes a token of the model's own (the ends of roles and turns): a mail could
        otherwise end its quotation. Raises ``UsageError`` when the template refuses the chat.
        """
        with self._encoding:
            return self._encoded(prompt)

    def _encoded(self, prompt: str | Messages) -> tuple[int, ...]:
        tokenizer = self.tokenizer
        if isinstance(prompt, str) or not tokenizer.chat_template:
            text = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
            start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
            return (*start, *tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        messages = [{**message, "content": self._without_marks(message["content"])} for message in prompt]
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise UsageError(f"the model's chat template refuses these messages: {error}") from error
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    def room(self, prompt: Sequence[int], asked: int | None, default: int) -> int:
        """Tokens that an answer may have: those asked for, which must fit, else ``default`` as far as there is room.

        Raises ``PromptTooLong``, with the figures."""
        left = self.context - len(prompt)
        if left < 1 or (asked is not None and asked > left):
            raise PromptTooLong(len(prompt), asked or 1, self.context)
        return min(default, left) if asked is None else asked

    def _without_marks(self, text: str) -> str:
        for mark in self._marks:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return text

    @property
    def _marks(self) -> list[str]:
        """The texts that the tokenizer reads as tokens of their own, longest first."""
        marks = {str(token) for token in self.tokenizer.added_tokens_decoder.values() if len(str(token)) > 1}
        return sorted(marks, key=len, reverse=True)

    def _require_fit(self, adapter_id: str, folder: Path) -> None:
        """Raises ``RunError`` before anything is loaded of an adapter of another base, or without safetensors."""
        try:
            stands_on = json.loads((folder / CONFIG).read_bytes())["base_model_name_or_path"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{folder / CONFIG} cannot be read ({error})", hint="restore it from a backup") from error
        if stands_on != self.base.base_id:
            raise RunError(
                f"adapter {adapter_id} was trained on base {stands_on}, and {self.base.base_id} is served",
                hint="promote it, which has the server load its base, or name an adapter of this one",
            )
        if not (folder / WEIGHTS).is_file():
            raise RunError(f"{folder} holds no {WEIGHTS}", hint="only safetensors are loaded: export the adapter again")

    def _attach(self, adapter_id: str, folder: Path) -> None:
        if self._adapted is None:
            config = PeftConfig.from_pretrained(str(folder))
            config.inference_mode = True
            self._adapted = PeftModel(self._network, config, adapter_name=adapter_id, low_cpu_mem_usage=True)
            self._at_work = adapter_id
        result = self._adapted.load_adapter(
            str(folder), adapter_name=adapter_id, torch_device=str(self.compute.device), low_cpu_mem_usage=True
        )
        if result.missing_keys:
            raise ValueError(f"weights are missing ({result.missing_keys[0]})")
        self._adapted.eval()

    def _detach(self, adapter_id: str) -> None:
        if self._adapted is None or adapter_id not in self._adapted.peft_config:
            return
        self._adapted.base_model.disable_adapter_layers()
        self._adapted.delete_adapter(adapter_id)
        # Deleting may put another adapter to work: whatever is next is set anew.
        self._at_work = None


def _ends(network: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer, by the model's generation settings and its tokenizer."""
    named = getattr(network.generation_config, "eos_token_id", None)
    listed = named if isinstance(named, list) else [named]
    return frozenset(int(token) for token in (*listed, tokenizer.eos_token_id) if token is not None)


def serving_compute(settings: ModelSettings, device: str, threads: int | None) -> Compute:
    """Where the served model computes. Raises ``RunError`` when a GPU is asked for and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("serve.device is cuda, and this machine has no GPU that torch can use", hint="set it to auto or cpu")
    compute = choose_compute(settings, threads)
    if device != "cpu" or not compute.on_gpu:
        return compute
    dtype = torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32
    return replace(compute, device=torch.device("cpu"), dtype=dtype)
