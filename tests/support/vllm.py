"""A small server with the part of vLLM's API that deployment uses, as vLLM documents it (LoRA Adapters, dynamically).

It serves no model: what it answers names the adapter asked for, so that a test sees who would have answered.

    GET  /v1/models                 {"object": "list", "data": [{"id", "object": "model", "parent"}, ...]}
    POST /v1/load_lora_adapter      {"lora_name", "lora_path"}: a line of text; 400 for a name it has, 404 for no path
    POST /v1/unload_lora_adapter    {"lora_name"}: a line of text; 404 for an unknown one
    POST /v1/completions            an unknown model is 404; "stream": true gives server-sent events

What it should do wrong is switched on by :class:`Faults`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BASE = "base"


@dataclass
class Faults:
    """Lies and refusals: ``forgets`` says that it loaded and lists nothing, ``mute`` answers with nothing, ``impostor``
    with the base under the base's name, ``refuses`` every load, ``keeps`` refuses to unload, ``drops`` forgets what it
    loaded once it has answered."""

    forgets: bool = False
    mute: bool = False
    impostor: bool = False
    refuses: bool = False
    keeps: bool = False
    drops: bool = False


@dataclass
class FakeVllm:
    """One running server. ``loaded`` maps names to paths; ``calls`` is every change asked of it, in order."""

    url: str
    loaded: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    key: str | None = None


@contextmanager
def fake_vllm(port: int = 0, key: str | None = None) -> Iterator[FakeVllm]:
    """Serves on loopback until the block ends."""
    state = FakeVllm("", key=key)

    class Handler(_Handler):
        vllm = state

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    vllm: FakeVllm

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        if self._allowed():
            names = [{"id": BASE, "object": "model", "parent": None}]
            names += [{"id": name, "object": "model", "parent": BASE} for name in self.vllm.loaded]
            self._json(200, {"object": "list", "data": names})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return
        handlers = {
            "/v1/load_lora_adapter": self._load,
            "/v1/unload_lora_adapter": self._unload,
            "/v1/completions": self._complete,
        }
        handlers[self.path](body)

    def _load(self, body: dict[str, str]) -> None:
        name, path = body["lora_name"], body["lora_path"]
        self.vllm.calls.append(("load", name))
        if self.vllm.faults.refuses or not (Path(path) / "adapter_model.safetensors").is_file():
            self._error(404, f"No adapter found for {path}", "NotFoundError")
        elif name in self.vllm.loaded:
            self._error(400, f"The lora adapter '{name}' has already been loaded.", "InvalidUserInput")
        else:
            if not self.vllm.faults.forgets:
                self.vllm.loaded[name] = path
            self._text(f"Success: LoRA adapter '{name}' added successfully.")

    def _unload(self, body: dict[str, str]) -> None:
        name = body["lora_name"]
        self.vllm.calls.append(("unload", name))
        if self.vllm.faults.keeps:
            self._error(500, "it is busy", "InternalServerError")
        elif name not in self.vllm.loaded:
            self._error(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        else:
            del self.vllm.loaded[name]
            self._text(f"Success: LoRA adapter '{name}' removed successfully.")

    def _complete(self, body: dict[str, Any]) -> None:
        name = body["model"]
        if name not in (BASE, *self.vllm.loaded):
            self._error(404, f"The model `{name}` does not exist.", "NotFoundError")
            return
        words = [] if self.vllm.faults.mute else [f" {name}"] * min(int(body["max_tokens"]), 8)
        if self.vllm.faults.drops:
            del self.vllm.loaded[name]
        shown = BASE if self.vllm.faults.impostor else name
        if body.get("stream"):
            events = [{"model": shown, "choices": [{"index": 0, "text": word}]} for word in words]
            data = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
            self._send(200, data.encode(), "text/event-stream")
            return
        usage = {"prompt_tokens": 5, "completion_tokens": len(words), "total_tokens": 5 + len(words)}
        choice = {"index": 0, "text": "".join(words), "finish_reason": "length"}
        self._json(200, {"object": "text_completion", "model": shown, "choices": [choice], "usage": usage})

    def _allowed(self) -> bool:
        if self.vllm.key is None or self.headers.get("Authorization") == f"Bearer {self.vllm.key}":
            return True
        self._json(401, {"error": "Unauthorized"})
        return False

    def _error(self, status: int, message: str, kind: str) -> None:
        self._json(status, {"object": "error", "message": message, "type": kind, "code": status})

    def _json(self, status: int, document: Any) -> None:
        self._send(status, json.dumps(document).encode(), "application/json")

    def _text(self, line: str) -> None:
        self._send(200, line.encode(), "text/plain; charset=utf-8")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with suppress(ConnectionError):  # a client that was killed
            self.wfile.write(data)
