"""Short answers asked of a server with OpenAI's API: whether a model answers at all, and how fast.

The prompt holds no mail. It is the same every time, so that figures of one server can be compared.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from pipeline.errors import DeployError
from registry.deploy.calling import Caller
from registry.deploy.contract import Speed

PROMPT = "Thank you for your message. I have read it and"
SMOKE_TOKENS, SPEED_TOKENS = 4, 32


def smoke(caller: Caller, model: str) -> None:
    """Raises ``DeployError`` unless the model writes at least one token under its own name."""
    told = caller.json("POST", "/v1/completions", _asked(model, SMOKE_TOKENS))
    problem = "an answer of another shape"
    if isinstance(told, dict) and isinstance(told.get("choices"), list) and told["choices"]:
        usage = told.get("usage") or {}
        choice = told["choices"][0]
        written = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if told.get("model") != model:
            problem = f"an answer of {told.get('model')!r}"
        elif isinstance(choice, dict) and isinstance(choice.get("text"), str) and (choice["text"] or written):
            return
        else:
            problem = "an empty answer"
    raise DeployError(f"{model} was asked for {SMOKE_TOKENS} tokens and gave {problem}", hint="see the log of that server")


def measure(caller: Caller, model: str) -> Speed:
    """Times one streamed answer; raises ``DeployError`` when it holds no token."""
    began = time.monotonic()
    moments = [time.monotonic() - began for _ in _pieces(caller, model)]
    if not moments:
        raise DeployError(f"{model} streamed an empty answer", hint="see the log of that server")
    writing = moments[-1] - moments[0]
    rate = (len(moments) - 1) / writing if writing > 0 else len(moments) / max(moments[-1], 1e-9)
    return Speed(moments[0], rate, len(moments))


def _pieces(caller: Caller, model: str) -> Iterator[str]:
    """The texts of a streamed answer; servers send one for each token, or for the few that end on a character."""
    for line in caller.lines("/v1/completions", {**_asked(model, SPEED_TOKENS), "stream": True}):
        data = line.removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or data == b"[DONE]":
            continue
        try:
            told = json.loads(data)
            text = told["choices"][0].get("text")
        except (ValueError, LookupError, AttributeError, TypeError):
            continue
        if text:
            yield str(text)


def _asked(model: str, tokens: int) -> dict[str, object]:
    return {"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0}
