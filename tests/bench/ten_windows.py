"""Takes an archive of real mail through ten windows while a client asks the server all the time, and tells what happened:
``python -m tests.bench.ten_windows [--write docs/serving.md]``.

One window is trained at a learning rate far too high, and one promotion is taken back by command. Shown are commands and
what they say: ids, figures and counts, nothing of the mail.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from openai import OpenAI, OpenAIError

from pipeline.home import Home
from pipeline.times import utc_now
from tests.bench.corpora import archive
from tests.bench.transcript import asked, put_between_marks
from tests.conftest import data_folder
from tests.support.archives import mboxrd
from tests.support.daemons import daemon, make_home, rows, stop, until
from tests.support.maildirs import Maildir
from tests.support.program import ENVIRONMENT, run
from tests.support.servers import SECONDS, Running, server

ARCHIVE = "r-package-devel-2015-2026"
WINDOWS, FIRST, EACH = 10, 400, 150
BAD_WINDOW, BAD_RATE, TAKEN_BACK_AFTER = 4, "0.05", 7
PAUSE_SECONDS = 1.0
PATIENCE_SECONDS = 3_600.0
SETTINGS: dict[str, Any] = {
    "seed": 7,
    "auto_retrain": True,
    "split": {"train": 0.6, "val": 0.3, "test": 0.1},
    "window": {"bootstrap": FIRST, "count": EACH, "age": None},
    "chunk": {"max_tokens": 256},
    "model": {
        "context": 256,
        "builtin": {"base_tokens": 60_000, "width": 96, "layers": 2, "heads": 4, "vocabulary": 2_048},
    },
    "train": {"epochs": 1, "batch_tokens": 1_024, "threads": 1},
    "eval": {"max_chunks": 150, "retrieval_queries": 100, "max_replies": 3, "generate": 0},
}
"""Small windows of a small model, for minutes; more of the mail judges than by default. The gate has its own defaults."""
ANSWERS_BEFORE_A_RETURN = 15
QUESTIONS = ("How do I declare a dependency?", "What does the check complain about?", "Which version is needed?")
SHOWN = "~/ten"
VERDICTS = 'SELECT "at", adapter_id, event, actor FROM journal ORDER BY ordinal'


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the client: when it was sent (UTC), how long it took, who answered, or what went wrong."""

    at: datetime
    seconds: float
    model: str
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Reign:
    """Who was champion from ``at`` on, by the journal; ``event`` is why."""

    at: datetime
    adapter_id: str
    event: str


class Caller:
    """OpenAI's client, asking once a second: by turns whole, streamed, and from the mailbox with citations."""

    def __init__(self, running: Running) -> None:
        self._client = OpenAI(base_url=running.url, api_key=running.token, timeout=SECONDS, max_retries=0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, daemon=True)
        self.log: list[Asked] = []

    def start(self) -> None:
        """Begins to ask."""
        self._thread.start()

    def hear(self, model: str, count: int) -> None:
        """Waits until that many answers came from a model."""
        until(lambda: sum(asked.model == model for asked in self.log) >= count, PATIENCE_SECONDS)

    def stop(self) -> None:
        """Ends after the request at hand."""
        self._done.set()
        self._thread.join(SECONDS)

    def _ask_on(self) -> None:
        for number in itertools.count():
            if self._done.wait(PAUSE_SECONDS):
                return
            at, begun = utc_now(), time.monotonic()
            try:
                model, trouble = self._ask(number), ""
            except (OpenAIError, LookupError) as error:
                model, trouble = "", f"{type(error).__name__}: {error}"
            self.log.append(Asked(at, time.monotonic() - begun, model, trouble))

    def _ask(self, number: int) -> str:
        create = self._client.chat.completions.create
        messages: Any = [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}]
        if number % 3 == 0:
            return create(model="champion", messages=messages, max_tokens=16).model
        if number % 3 == 1:
            events = list(create(model="champion", messages=messages, max_tokens=16, stream=True))
            if events[-1].choices[0].finish_reason is None:
                raise LookupError("the stream broke off")
            (name,) = {event.model for event in events}
            return name
        answer = create(model="champion", messages=messages, max_tokens=16, extra_body={"retrieval": True, "citations": 2})
        return answer.model


class TenWindows:
    """The mailbox, its home, and how far it is."""

    def __init__(self, folder: Path, mails: Sequence[bytes]) -> None:
        self.folder = folder
        self._left = iter(mails)
        self._maildir = Maildir(folder / "mail")
        self._delivered = 0
        feed = {"kind": "maildir", "path": str(self._maildir.path), "poll": 1.0}
        self.home: Home = make_home(folder / "home", {**SETTINGS, "mailboxes": {"main": {"feeds": [feed]}}})

    def import_first(self) -> None:
        """What is there already, as an mbox: window 0."""
        past = self.folder / "past.mbox"
        past.write_bytes(mboxrd(list(itertools.islice(self._left, FIRST))))
        done = run(self.home.root, "import", str(past), "--mailbox", "main", timeout=SECONDS)
        assert done.returncode == 0, done.stderr

    def deliver(self, window: int) -> None:
        """New mail, until the window is full: repeats in the archive count for nothing."""
        while len(self._closed()) <= window:
            before = self._stored()
            for raw in itertools.islice(self._left, max(1, EACH - before)):
                self._maildir.deliver(self._delivered, raw)
                self._delivered += 1
            until(lambda: self._seen() >= FIRST + self._delivered, PATIENCE_SECONDS)

    def decided(self, window: int) -> None:
        """Waits for the verdict on a run that took this window."""
        until(lambda: any(window in run["windows"] and _final(run) for run in self.runs()), PATIENCE_SECONDS)

    def runs(self) -> list[dict[str, Any]]:
        """All runs, the oldest first."""
        return rows(self.home, "SELECT * FROM runs ORDER BY finished_at NULLS LAST")

    def reigns(self) -> list[Reign]:
        """The champions, one after the other."""
        found = rows(
            self.home,
            """SELECT "at", adapter_id, event FROM journal WHERE event IN ('promoted', 'rolled_back') ORDER BY ordinal""",
        )
        return [
            Reign(datetime.fromisoformat(row["at"]).replace(tzinfo=None), row["adapter_id"], row["event"]) for row in found
        ]

    def _closed(self) -> list[dict[str, Any]]:
        return rows(self.home, "SELECT window_idx FROM windows WHERE closed_at IS NOT NULL")

    def _stored(self) -> int:
        (row,) = rows(
            self.home, "SELECT coalesce(sum(n_messages), 0) AS n FROM windows WHERE closed_at IS NULL AND mailbox = 'main'"
        )
        return int(row["n"])

    def _seen(self) -> int:
        (row,) = rows(self.home, "SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM duplicates) AS n")
        return int(row["n"])


def _final(run: dict[str, Any]) -> bool:
    return run["status"] in ("promoted", "rejected", "abstained", "failed")


@contextmanager
def set_for_the_daemon(name: str, value: str) -> Iterator[None]:
    """A setting from the environment, for processes started within."""
    key = "MAILTIDE_" + name.replace(".", "__").upper()
    ENVIRONMENT[key] = value
    try:
        yield
    finally:
        del ENVIRONMENT[key]


def happen(ten: TenWindows) -> list[Asked]:
    """All of it; returns what the client noted."""
    ten.import_first()
    with daemon(ten.home) as first:
        ten.decided(0)
        with server(ten.home) as running:
            caller = Caller(running)
            caller.start()
            for window in range(1, BAD_WINDOW):
                one_window(ten, window)
            stop(first)
            with set_for_the_daemon("train.lr", BAD_RATE), daemon(ten.home) as wrong:
                one_window(ten, BAD_WINDOW)
                stop(wrong)
            with daemon(ten.home) as again:
                for window in range(BAD_WINDOW + 1, WINDOWS):
                    one_window(ten, window)
                    if window == TAKEN_BACK_AFTER:
                        caller.hear(ten.reigns()[-1].adapter_id, ANSWERS_BEFORE_A_RETURN)
                        done = run(ten.home.root, "registry", "rollback", "--reason", "answers got worse", timeout=SECONDS)
                        assert done.returncode == 0, done.stderr
                caller.stop()
                stop(again)
            assert running.stop() == 0
    return caller.log


def one_window(ten: TenWindows, window: int) -> None:
    """Mail comes until the window closes, and its run gets a verdict."""
    ten.deliver(window)
    ten.decided(window)


def told(ten: TenWindows, log: Sequence[Asked]) -> str:
    """What happened, as a page shows it."""
    reigns, runs = ten.reigns(), ten.runs()
    rejected = next(run for run in runs if run["status"] == "rejected")
    returned = next(reign for reign in reigns if reign.event == "rolled_back")
    abstained = next((run for run in runs if run["status"] == "abstained"), None)
    commands = [
        ("windows",),
        ("runs",),
        ("sql", VERDICTS),
        ("registry", "explain", rejected["adapter_id"]),
        *([("registry", "explain", abstained["adapter_id"])] if abstained else []),
        ("registry", "lineage"),
        ("registry", "at", rejected["finished_at"][:19]),
        ("registry", "at", (returned.at - timedelta(seconds=1)).isoformat(timespec="seconds")),
        ("registry", "at", (returned.at + timedelta(seconds=1)).isoformat(timespec="seconds")),
        ("registry", "what-if", "configs/policies/strict.yaml"),
        ("registry", "verify"),
    ]
    answers = "\n".join(asked(ten.home, SHOWN, command) for command in commands)
    return f"{counted(log, reigns)}\n```console\n{answers}```\n"


def counted(log: Sequence[Asked], reigns: Sequence[Reign]) -> str:
    """The client's answers by champion, and how they fit the journal."""
    good = [asked for asked in log if not asked.trouble]
    lines = ["| champion from | adapter | answers by it | first one after |", "|---|---|---|---|"]
    ends = [reign.at for reign in reigns[1:]] + [datetime.max]
    late = wrong = 0
    for reign, end in zip(reigns, ends, strict=True):
        within = [asked for asked in good if reign.at <= asked.at < end]
        own = [asked for asked in within if asked.model == reign.adapter_id]
        first = (own[0].at - reign.at).total_seconds() if own and reign is not reigns[0] else None
        before = [asked for asked in within if not own or asked.at < own[0].at]
        late += len(before)
        wrong += len(within) - len(own) - len(before)
        shown = "" if first is None else f"{first:.1f} s"
        lines.append(f"| {reign.at:%H:%M:%S} | `{reign.adapter_id}` | {len(own)} | {shown} |")
    slowest = max(asked.seconds for asked in good)
    failed = [asked for asked in log if asked.trouble]
    return (
        f"{len(log):,} requests, {len(failed)} failed, the slowest took {slowest:.1f} s. Asked before the server had\n"
        f"followed a change: {late}. Answered by another adapter than the champion otherwise: {wrong}.\n\n"
        + "\n".join(lines)
        + "\n"
        + "".join(f"\nFailed at {asked.at:%H:%M:%S}: {asked.trouble}\n" for asked in failed)
    )


def main(arguments: list[str]) -> int:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ten_windows", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="put it between the marks of this page")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="an empty folder that the home is left in, to look at")
    options = parser.parse_args(arguments)
    data = data_folder()
    if data is None:
        parser.error("needs the folder of real mail: set MAILTIDE_DATA to one")
    with tempfile.TemporaryDirectory() as name:
        ten = TenWindows(options.keep or Path(name), archive(data, ARCHIVE))
        text = told(ten, happen(ten))
    if options.write is None:
        print(text)
    else:
        put_between_marks(options.write, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
