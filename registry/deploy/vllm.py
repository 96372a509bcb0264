"""vLLM with dynamic LoRA as a deploy target (``--enable-lora``, ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True``).

Each adapter is loaded under a name of its own, ``mailtide-ADAPTER``, and never in place of another: vLLM keeps the prefix
cache of a name, which would mix two adapters. Which name serves a mailbox is in ``deployments/vllm/current/MAILBOX.json``,
for clients and for the proxy of ``mailtide serve`` to read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.errors import DeployError
from pipeline.events import AdapterPromoted
from pipeline.home import Home, write_atomic
from pipeline.strict import Strict
from registry.deploy.calling import Caller
from registry.deploy.completions import measure, smoke
from registry.deploy.contract import Speed
from registry.deploy.standing import folder


class Alias(Strict):
    """Who serves a mailbox on vLLM: ask ``url`` for ``model``."""

    url: str
    model: str
    adapter_id: str
    journal_ordinal: int


class Vllm:
    """``adapters`` is the home's folder of adapters as the server sees it."""

    name = "vllm"

    def __init__(
        self, home: Home, url: str, adapters: Path, caller: Caller, drain_seconds: float, mailbox: str | None = None
    ) -> None:
        self.mailbox = mailbox
        self.drain_seconds = drain_seconds
        self._home = home
        self._url = url
        self._adapters = adapters
        self._caller = caller

    def load(self, promotion: AdapterPromoted) -> None:
        name = model_name(promotion.adapter_id)
        if name not in self._models():
            path = str(self._adapters / promotion.adapter_id)
            self._caller.json("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})

    def check(self, promotion: AdapterPromoted) -> None:
        name = model_name(promotion.adapter_id)
        if name not in self._models():
            raise DeployError(f"vLLM says that it loaded {name}, and does not list it", hint="see the log of vLLM")
        smoke(self._caller, name)

    def flip(self, promotion: AdapterPromoted) -> None:
        alias = Alias(
            url=self._url,
            model=model_name(promotion.adapter_id),
            adapter_id=promotion.adapter_id,
            journal_ordinal=promotion.journal_ordinal,
        )
        write_atomic(alias_path(self._home, promotion.mailbox), alias.model_dump_json(indent=1).encode() + b"\n")

    def confirm(self, promotion: AdapterPromoted) -> None:
        alias = read_alias(self._home, promotion.mailbox)
        if alias is None or alias.adapter_id != promotion.adapter_id or alias.model not in self._models():
            raise DeployError(f"vLLM does not list {model_name(promotion.adapter_id)} any more", hint="see the log of vLLM")

    def unload(self, mailbox: str, adapter_id: str) -> None:
        name = model_name(adapter_id)
        if name in self._models():
            self._caller.json("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def withdraw(self, mailbox: str, adapter_id: str) -> None:
        alias = read_alias(self._home, mailbox)
        if alias is not None and alias.adapter_id == adapter_id:
            alias_path(self._home, mailbox).unlink(missing_ok=True)
        self.unload(mailbox, adapter_id)

    def speed(self, promotion: AdapterPromoted) -> Speed | None:
        return measure(self._caller, model_name(promotion.adapter_id))

    def _models(self) -> set[str]:
        told: Any = self._caller.json("GET", "/v1/models")
        listed = told.get("data") if isinstance(told, dict) else None
        if not isinstance(listed, list):
            raise DeployError(f"{self._url} does not list its models as vLLM does", hint="check deploy.vllm.url")
        return {str(model.get("id")) for model in listed if isinstance(model, dict)}


def model_name(adapter_id: str) -> str:
    """The name of an adapter on vLLM."""
    return f"mailtide-{adapter_id}"


def alias_path(home: Home, mailbox: str) -> Path:
    """The file that says who serves."""
    return folder(home, Vllm.name) / "current" / f"{mailbox}.json"


def read_alias(home: Home, mailbox: str) -> Alias | None:
    """Who serves a mailbox on vLLM; None where nothing was deployed there. Raises ``DeployError`` for a damaged file."""
    path = alias_path(home, mailbox)
    try:
        return Alias.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise DeployError(f"{path} cannot be read", hint="remove it, and deploy again") from error
