"""One chaos run from beginning to end: sources, the installation, its ordeal, and the comparison with peace."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

from pipeline.home import Home
from pipeline.store import Store
from tests.chaos.ordeal import Mails, Ordeal, Say, Stuck, ended_unasked
from tests.chaos.parts import ends_of_logs
from tests.chaos.post import PASSWORD, USER, GrowingFile, Inbox, Source, generated
from tests.chaos.repeating import faults_of_training
from tests.chaos.report import Outcome
from tests.chaos.systems import System, embedded, over_kafka, settings, stop
from tests.chaos.verdict import differences, faults_of_mail, faults_of_runs
from tests.support import kafka
from tests.support.daemons import make_home
from tests.support.dovecot import Dovecot, dovecot
from tests.support.program import run

PEACE_SECONDS = 1800.0


def trial(root: Path, *, bus: str, seed: int, kills: int, mails: int, window: int, say: Say) -> Outcome:
    """Puts an installation in ``root`` through ``kills`` kills. ``window`` mails close a window.

    Whatever is not as it should be is in the outcome's ``faults``; nothing is left running.
    """
    began = time.monotonic()
    root.mkdir(parents=True, exist_ok=True)
    faults: list[str] = []
    with dovecot({USER: PASSWORD}) as server:
        post = (
            Mails(Inbox(server), generated(2 * seed, mails // 2)),
            Mails(GrowingFile(root / "growing.mbox"), generated(2 * seed + 1, mails // 2)),
        )
        sources = [each.source for each in post]
        with _system(root / bus, bus, sources, window, server) as system:
            ordeal = Ordeal(system, post, Random(seed), say)
            try:
                ordeal.suffer(kills)
                say(f"{len(ordeal.kills)} kills; waiting for the rest")
                ordeal.finish()
                faults += stop(system)
            except Stuck as stuck:
                faults.append(f"{stuck}\n{ends_of_logs(list(system.roles))}")
            ended = ended_unasked(system.roles)
        say("reading the same mail undisturbed")
        (root / "peace").mkdir()
        peaceful = make_home(root / "peace" / "home", settings(sources, window))
        done = run(peaceful.root, "run", "--until-idle", timeout=PEACE_SECONDS)
        if done.returncode != 0:
            faults.append(f"the undisturbed run ended with {done.returncode}: {done.stderr}")
    faults += faults_of_mail(system.home, post)
    faults += faults_of_runs(system.home)
    faults += differences(system.home, peaceful)
    say("repeating its runs undisturbed")
    faults += faults_of_training(system.home, root / "repeated", say)
    counts = _counts(system.home)
    return Outcome(
        bus=bus,
        seed=seed,
        mails=sum(len(each.mails) for each in post),
        messages=counts[0],
        windows=counts[1],
        runs=counts[2],
        kills=tuple(ordeal.kills),
        ended=ended,
        faults=tuple(faults),
        seconds=time.monotonic() - began,
    )


@contextmanager
def _system(root: Path, bus: str, sources: Sequence[Source], window: int, server: Dovecot) -> Iterator[System]:
    root.mkdir()
    with ExitStack() as stack:
        if bus == "embedded":
            yield stack.enter_context(embedded(root, sources, window, server))
        else:
            broker = stack.enter_context(kafka.running(root / "broker"))
            yield stack.enter_context(over_kafka(root, sources, window, server, broker))


def _counts(home: Home) -> tuple[int, int, int]:
    """Messages, closed windows, runs."""
    with Store.open(home, None, None) as store:
        tables = ("message_rows", "closings", "requests")
        messages, windows, runs = (int(store.scalar(f"SELECT count(*) FROM {table}")) for table in tables)
    return messages, windows, runs
