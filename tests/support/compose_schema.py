"""The JSON schema of the Compose specification, from the module of its Go library (Apache-2.0), through Go's own client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support.services import require

MODULE = "github.com/compose-spec/compose-go/v2@v2.6.0"


def compose_schema() -> dict[str, Any]:
    """Fetched once into a cache folder (``MAILTIDE_TEST_CACHE``, else ``~/.cache/mailtide-tests``)."""
    require("go", shutil.which("go") is not None, "install Go 1.21 or later: apt-get install golang-go")
    cache = Path(os.environ.get("MAILTIDE_TEST_CACHE") or Path.home() / ".cache" / "mailtide-tests")
    modules = cache / "go-modules"
    modules.mkdir(parents=True, exist_ok=True)
    fetched = subprocess.run(
        ["go", "mod", "download", "-json", MODULE],
        cwd=modules,
        env={**os.environ, "GOMODCACHE": str(modules), "GOFLAGS": "-modcacherw"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    require("the Compose schema", fetched.returncode == 0, f"let `go mod download {MODULE}` reach a Go module proxy")
    folder = Path(json.loads(fetched.stdout)["Dir"])
    schema: dict[str, Any] = json.loads((folder / "schema" / "compose-spec.json").read_bytes())
    return schema
