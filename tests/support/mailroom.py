"""A small mailbox of invented letters with real chunks, and runs on it that train a tiny model for real."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.chunking.chunks import build_chunks
from pipeline.chunking.ruler import load_ruler
from pipeline.config.settings import (
    BuiltinModel,
    ChunkSettings,
    EvalSettings,
    ModelSettings,
    ReplayCaps,
    ReplaySettings,
    TrainSettings,
)
from pipeline.domain import Chunk, Split, StoredMessage
from pipeline.home import Home, sha256_file, write_atomic
from pipeline.runs.plan import COVERAGE
from pipeline.runs.requests import AdapterRef, RunRequest, RunResult, RunSettings
from pipeline.runs.runfiles import Loss, read_losses, write_losses
from tests.support.lineage import MAILBOX, Lineage, sender_key

PEOPLE = ("Ann Archer", "Bob Barker", "Cem Celik", "Dora Dahl")
TOPICS = (
    ["boat", "sail", "harbour", "mast", "rope", "tide", "anchor", "keel", "deck", "storm"],
    ["oven", "flour", "bread", "yeast", "dough", "crust", "butter", "salt", "knead", "rye"],
    ["loom", "thread", "wool", "dye", "weave", "spindle", "cloth", "pattern", "fringe", "warp"],
)
TINY = BuiltinModel(vocabulary=512, width=64, layers=2, heads=2, context=256, base_tokens=12_000)


def tiny_settings(
    *,
    train: TrainSettings | None = None,
    model: ModelSettings | None = None,
    evaluate: EvalSettings | None = None,
    min_threads: int = 20,
) -> RunSettings:
    """One thread, so that a busy machine changes durations only."""
    return RunSettings(
        seed=7,
        rolling=1,
        min_threads=min_threads,
        replay=ReplaySettings(caps=ReplayCaps(short=50)),
        model=model or ModelSettings(builtin=TINY),
        train=train or TrainSettings(epochs=2, batch_tokens=512, checkpoint_every=4, lora_r=4, lora_alpha=8, threads=1),
        eval=evaluate or EvalSettings(max_replies=3, generate=1, generate_tokens=4),
    )


def letters(window: int, threads: int = 24, *, seed: int = 0, like: int | None = None) -> list[Chunk]:
    """The chunks of one window: threads of one to four letters, most of them train, on a topic that changes by window; as
    many, and as long, as those of the window ``like``."""
    source = random.Random(f"{seed}:{window if like is None else like}")
    return [chunk for place in range(threads) for chunk in _thread(window, place, source)]


def _thread(window: int, place: int, source: random.Random) -> Iterator[Chunk]:
    split = (Split.VAL, Split.TEST)[place % 8] if place % 8 < 2 else Split.TRAIN
    thread_id = f"t{window}-{place}"
    topic = TOPICS[window % len(TOPICS)]
    subject = " ".join(source.choices(topic, k=3))
    messages: list[StoredMessage] = []
    for number in range(source.randint(1, 4)):
        ordinal = window * 10_000 + place * 10 + number
        at = datetime(2024, 1, 1) + timedelta(days=7 * window, minutes=ordinal)
        person = source.choice(PEOPLE)
        words = subject if number else " ".join(source.choices(topic, k=8))
        own = "\n".join([words, *(" ".join(source.choices(topic, k=9)) + "." for _ in range(source.randint(1, 5)))])
        messages.append(
            StoredMessage(
                mailbox=MAILBOX,
                message_key=f"m{ordinal}@example.org",
                thread_id=thread_id,
                split=split,
                window_idx=window,
                arrival_ordinal=ordinal,
                received_at=at,
                date=at,
                sender_key=sender_key(person),
                sender_name=person,
                sender_address=f"{person.split()[0].lower()}@example.org",
                subject=subject,
                parent_key=messages[-1].message_key if messages else None,
                bulk=False,
                auto=False,
                text=own,
                own_text=own,
            )
        )
    yield from build_chunks([], messages, settings=ChunkSettings(), ruler=load_ruler("bytes"), mask=str)


class Mailroom:
    """Closes windows, asks for runs and takes their results, as the owner would."""

    def __init__(self, root: Path, settings: RunSettings | None = None) -> None:
        self.lineage = Lineage.at(root, settings or tiny_settings())
        self._known: list[Loss] = []

    @property
    def home(self) -> Home:
        return self.lineage.home

    def close(self, threads: int = 24) -> int:
        return self.lineage.close(letters(len(self.lineage.shards), threads))

    def ask(self) -> RunRequest:
        """The next run's request, and its folder as the owner leaves it."""
        request = self.lineage.request()
        folder = self.home.run(request.run_id)
        write_losses(folder / "known_losses.parquet", self._known)
        write_atomic(folder / "request.json", request.model_dump_json(indent=2).encode())
        return request

    def promote(self, request: RunRequest, result: RunResult) -> None:
        """Continues from the run: its adapter is champion, its losses are known."""
        folder = self.home.run(request.run_id)
        self._known += read_losses(folder / "losses.parquet")
        self.lineage.coverage_sha256 = sha256_file(folder / COVERAGE)
        self.lineage.trained = frozenset({*request.old_windows, *request.new_windows})
        self.lineage.parent = AdapterRef(
            adapter_id=result.adapter_id,
            run_id=request.run_id,
            path=f"adapters/{result.adapter_id}",
            sha256=result.adapter_sha256,
        )
