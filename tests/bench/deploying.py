"""What a promotion withstands: kills before every effect of it and of its deployment, and one changed byte anywhere."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.chunking.shards import TEXT
from pipeline.home import Home
from registry.receipt import FILES, RECEIPT
from registry.verify import Recorded, recorded, verify
from tests.bench.rows import BenchRow
from tests.support.deploy_kills import kill_everywhere
from tests.support.finished import Finished, flip_a_byte
from tests.support.vllm import fake_vllm

KILLS, QUICK_KILLS = 200, 20


def bench_deploy_kills(*, quick: bool = False) -> list[BenchRow]:
    """Each kill is before another effect (a file's name, a link, a transaction, a request); the next life is killed as
    well, the one after must end where an undisturbed one does. What does not hold raises."""
    wanted = QUICK_KILLS if quick else KILLS
    killed = effects = 0
    with tempfile.TemporaryDirectory() as name:
        for seed in range(wanted):
            if killed >= wanted:
                break
            with fake_vllm() as vllm:
                more, effects = kill_everywhere(Path(name) / str(seed), vllm, wanted, seed)
            killed += more
            shutil.rmtree(Path(name) / str(seed))
    note = f"kill -9 before each of {effects} effects, link and vLLM (its API served by a stand-in) as targets"
    return [
        BenchRow("kills in promotion and deployment survived", killed, "kills", "", None, None, str(wanted), True, note),
    ]


def bench_tampering(*, quick: bool = False) -> list[BenchRow]:
    """One byte in the middle of every file that a receipt speaks of, the receipt and the key, in turn."""
    with tempfile.TemporaryDirectory() as name:
        runs = Finished.at(Path(name) / "home")
        runs.step()
        asked, _, _ = runs.step()
        kept = recorded(runs.store, asked.run_id)
        runs.store.close()
        clean = verify(runs.home, asked.run_id, kept)
        assert clean == [], clean
        every = list(artefacts(runs.home, asked.run_id, [shard.path for shard in asked.shards]))
        named = sum(culprit_named(runs.home, asked.run_id, kept, path) for path in every[:: 3 if quick else 1])
        total = len(every[:: 3 if quick else 1])
    note = "one byte in the middle of every artefact in turn; found and named by `registry verify`"
    return [
        BenchRow(
            "changed bytes found", named, "files", "files changed", total, named / total, "all found", named == total, note
        )
    ]


def artefacts(home: Home, run_id: str, shards: list[str]) -> Iterator[Path]:
    """Every file that the receipt of a run answers for."""
    run = home.run(run_id)
    yield from (run / name for name in (*FILES, RECEIPT))
    yield from sorted(path for path in home.adapter(f"a{run_id}").rglob("*") if path.is_file())
    yield from sorted(path for path in (home.root / "bases").rglob("*") if path.is_file())
    for shard in shards:
        yield from sorted((home.root / shard).glob("*.parquet"))


def culprit_named(home: Home, run_id: str, kept: Recorded, path: Path) -> bool:
    """Whether verify names the file once one byte of it is another; it is put back afterwards."""
    before = path.read_bytes()
    flip_a_byte(path)
    found = verify(home, run_id, kept)
    path.write_bytes(before)
    # Of texts the chunk is named, in its window's shard.
    named = path.parent.name if path.name == TEXT else str(path)
    return any(named in problem for problem in found)
