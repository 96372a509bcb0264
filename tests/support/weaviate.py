"""A real Weaviate server for tests: one node on loopback, without Docker. It needs go on the path.

It is built once from the source that Go's module proxy has (minutes, and some GB of Go's caches), and kept in a folder
(``MAILTIDE_TEST_CACHE``, else ``~/.cache/mailtide-tests``).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_ports
from tests.support.server_process import ServerProcess
from tests.support.services import require

VERSION = "1.35.2"
MODULE = "github.com/weaviate/weaviate"
LISTENERS = ("grpc/server.go", "rest/clusterapi/serve.go", "rest/clusterapi/grpc/server.go")
"""Where the server listens on all interfaces whatever it is told; built here, it listens on loopback."""
EVERYWHERE, LOOPBACK = 'fmt.Sprintf(":%d"', 'fmt.Sprintf("127.0.0.1:%d"'
START_SECONDS = 120.0
BUILD_SECONDS = 1_800


@dataclass
class Weaviate:
    """One server; ``start``, ``stop`` and ``kill`` keep its data and its ports. With ``key``, only who names it gets in."""

    folder: Path
    key: str = ""

    def __post_init__(self) -> None:
        self.program = server()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._server = ServerProcess(self.folder / "server.log")
        self.port, self.grpc_port, self._gossip, self._data, self._raft, self._rpc = free_ports(6)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Weaviate:
        """Returns once the server is ready; raises ``RuntimeError`` with its last words when it does not come up."""
        self._server.start(
            [str(self.program), "--scheme", "http", "--host", "127.0.0.1", "--port", str(self.port)],
            self._ready,
            START_SECONDS,
            folder=self.folder,
            environment=self._environment(),
        )
        return self

    def stop(self) -> None:
        self._server.end(signal.SIGTERM)

    def kill(self) -> None:
        self._server.end(signal.SIGKILL)

    def _ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/v1/.well-known/ready", timeout=5).close()
        except OSError:
            return False
        return True

    def _environment(self) -> dict[str, str]:
        settings: dict[str, object] = {
            "PATH": os.environ["PATH"],
            "HOME": self.folder,
            "PERSISTENCE_DATA_PATH": self.folder / "data",
            "PERSISTENCE_MEMTABLES_FLUSH_DIRTY_AFTER_SECONDS": 2,
            "GRPC_PORT": self.grpc_port,
            "CLUSTER_HOSTNAME": "one",
            "CLUSTER_BIND_ADDR": "127.0.0.1",
            "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
            "CLUSTER_GOSSIP_BIND_PORT": self._gossip,
            "CLUSTER_DATA_BIND_PORT": self._data,
            "RAFT_PORT": self._raft,
            "RAFT_INTERNAL_RPC_PORT": self._rpc,
            "RAFT_BOOTSTRAP_EXPECT": 1,
            "RAFT_TIMEOUTS_MULTIPLIER": 1,
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false" if self.key else "true",
            "AUTOSCHEMA_ENABLED": "false",
            "DEFAULT_VECTORIZER_MODULE": "none",
            "DISABLE_TELEMETRY": "true",
            "ENABLE_MODULES": "",
            "GO_PROFILING_DISABLE": "true",
            "LOG_LEVEL": "warning",
        }
        if self.key:
            settings |= {
                "AUTHENTICATION_APIKEY_ENABLED": "true",
                "AUTHENTICATION_APIKEY_ALLOWED_KEYS": self.key,
                "AUTHENTICATION_APIKEY_USERS": "tests",
                "AUTHORIZATION_ADMINLIST_ENABLED": "true",
                "AUTHORIZATION_ADMINLIST_USERS": "tests",
            }
        return {name: str(value) for name, value in settings.items()}


@contextlib.contextmanager
def running(folder: Path, key: str = "") -> Iterator[Weaviate]:
    """A server for the length of a ``with``. Skips the test where Go is missing."""
    require("go", shutil.which("go") is not None, "install Go 1.24 or later")
    found = Weaviate(folder, key)
    try:
        yield found.start()
    finally:
        found.stop()


def server() -> Path:
    """The server's program, built when it is not there yet."""
    cache = Path(os.environ.get("MAILTIDE_TEST_CACHE", "~/.cache/mailtide-tests")).expanduser()
    program = cache / f"weaviate-{VERSION}"
    if not program.exists():
        work = cache / f".weaviate-{uuid.uuid4().hex}"
        work.mkdir(parents=True)
        try:
            _build(work).replace(program)
        except (OSError, subprocess.SubprocessError) as error:
            require(f"Weaviate {VERSION}", False, f"run the test where Go can fetch modules; it keeps them ({error})")
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return program


def _build(work: Path) -> Path:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    told = subprocess.run(
        ["go", "mod", "download", "-json", f"{MODULE}@v{VERSION}"],
        cwd=work,
        env=environment,
        check=True,
        capture_output=True,
        timeout=BUILD_SECONDS,
    )
    source = work / "source"
    # Without the module cache's modes, which allow no writing.
    shutil.copytree(json.loads(told.stdout)["Dir"], source, copy_function=shutil.copyfile)
    for folder in (source, *(path for path in source.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    for name in LISTENERS:
        file = source / "adapters" / "handlers" / name
        text = file.read_text(encoding="utf-8")
        if text.count(EVERYWHERE) < 1:
            raise OSError(f"{name} does not listen where it was expected to")
        file.write_text(text.replace(EVERYWHERE, LOOPBACK), encoding="utf-8")
    built = work / "server"
    subprocess.run(
        ["go", "build", "-p", "2", "-mod=readonly", "-ldflags", "-s -w", "-o", str(built), "./cmd/weaviate-server"],
        cwd=source,
        env=environment,
        check=True,
        timeout=BUILD_SECONDS,
    )
    return built
