"""Many callers at once, and what a process holds meanwhile."""

from __future__ import annotations

import asyncio
import json
import resource
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPARE_FILES = 256


def request(path: str, token: str, body: Any = None) -> bytes:
    """The bytes of one request, the last on its connection."""
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content


def ask_at_once(port: int, requests: Sequence[bytes]) -> Counter[int]:
    """Opens a connection for each request, sends none before all are open, and reads every answer to its end: how often
    which status came, 0 for a connection that broke off before it had one."""
    _allow_files(len(requests))
    return asyncio.run(_ask_at_once(port, requests))


async def _ask_at_once(port: int, requests: Sequence[bytes]) -> Counter[int]:
    lines = [await asyncio.open_connection("127.0.0.1", port) for _ in requests]

    async def ask(line: tuple[asyncio.StreamReader, asyncio.StreamWriter], asked: bytes) -> int:
        reader, writer = line
        try:
            writer.write(asked)
            answer = await reader.read(-1)
        except OSError:
            return 0
        finally:
            writer.close()
        return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0

    return Counter(await asyncio.gather(*map(ask, lines, requests)))


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + SPARE_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + SPARE_FILES, hard), hard))


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds: open files (connections among them), threads, bytes in memory, and the most since the last
    ``forget_peak``."""

    files: int
    threads: int
    memory: int
    peak: int


def held_by(pid: int) -> Held:
    """As the kernel tells it."""
    folder = Path(f"/proc/{pid}")
    told = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    kib = {name: int(told[name].split()[0]) for name in ("VmRSS", "VmHWM")}
    files = len(list((folder / "fd").iterdir()))
    return Held(files, int(told["Threads"]), kib["VmRSS"] * 1024, kib["VmHWM"] * 1024)


def forget_peak(pid: int) -> None:
    """Lets the most memory be counted anew from here."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
