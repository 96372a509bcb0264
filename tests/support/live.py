"""The whole of it as it is meant to run: a mail server, a broker, and each role of the daemon in a process of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.home import Home
from streams.demo.mailbox import DemoMailbox, write_mailbox
from tests.support.daemons import PATIENCE_SECONDS, make_home, rows, until
from tests.support.dovecot import Dovecot, dovecot
from tests.support.kafka import Broker
from tests.support.postoffice import PostOffice, postoffice
from tests.support.program import ENVIRONMENT, mailtide, run

USER = "ada"
MAILBOX = "main"
ROLES = ("feed", "parse", "parse", "assign", "train", "deploy")
FINAL = frozenset({"promoted", "rejected", "abstained"})
MAILS = 300
SMALL: dict[str, Any] = {
    "seed": 7,
    "split": {"train": 0.6, "val": 0.3, "test": 0.1},
    "window": {"bootstrap": 180, "count": 60, "age": None},
    "chunk": {"max_tokens": 256},
    "model": {
        "context": 256,
        "builtin": {"base_tokens": 30_000, "width": 64, "layers": 2, "heads": 2, "vocabulary": 1024},
    },
    "train": {"epochs": 1, "batch_tokens": 1024},
    "gate": {"max_loss": 0.1, "max_drift": 0.15},
}
"""As the demo's, with a model and windows that are much smaller: the gate may promote, reject or abstain."""
SEPARATOR = re.compile(rb"^From [^\n]*\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Said:
    """A line of a process's log: when, who (a role, numbered where there are several), and what."""

    at: str
    who: str
    message: str


@dataclass(frozen=True, slots=True)
class Live:
    """Everything, running. ``processes`` are by name, ``feed``, ``parse-1``, ``parse-2`` and so on."""

    home: Home
    server: Dovecot
    office: PostOffice
    processes: Mapping[str, subprocess.Popen[bytes]]

    def send(self, mails: Sequence[bytes]) -> int:
        """Sends mails to the mailbox's owner by SMTP; they are in the mail server's folder on return."""
        return self.office.send(mails, sender="post@tidewater.example", to=f"{USER}@localhost")

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What the owner answers to a query meanwhile."""
        return rows(self.home, sql)

    def stored(self) -> int:
        """Mails that are durable, as messages or as repeats of one."""
        (row,) = self.rows("SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM duplicates) AS n")
        return int(row["n"])

    def deployed(self) -> str | None:
        """The adapter that ``champions/`` points at."""
        link = self.home.champion_link(MAILBOX)
        return link.resolve().name if link.is_symlink() else None

    def settled(self) -> bool:
        """Whether windows have closed and a verdict is about each of them; fails when a run has failed."""
        closed = self.rows("SELECT window_idx AS w FROM windows WHERE closed_at IS NOT NULL")
        runs = self.rows("SELECT status, windows FROM runs")
        assert not any(row["status"] == "failed" for row in runs), self.log
        judged = {window for row in runs if row["status"] in FINAL for window in row["windows"]}
        return bool(closed) and judged >= {row["w"] for row in closed}

    def until(self, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
        """As ``until``; fails at once, with what was said, when a process has ended."""

        def so() -> bool:
            ended = {name: code for name, process in self.processes.items() if (code := process.poll()) is not None}
            assert not ended, f"{ended}\n{self.log}"
            return bool(condition())

        until(so, seconds)

    def stop(self) -> dict[str, int]:
        """Asks every process to stop; their exit codes."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        return {name: process.wait(60) for name, process in self.processes.items()}

    @property
    def said(self) -> list[Said]:
        """What all processes have said, in order of time."""
        lines = [
            Said(line["at"], name, line["message"])
            for name in self.processes
            for line in map(json.loads, log_file(self.home, name).read_text(encoding="utf-8").splitlines())
        ]
        return sorted(lines, key=lambda line: line.at)

    @property
    def log(self) -> str:
        """All of it as it stands in the files, for a test that fails."""
        return "".join(f"{name}:\n{log_file(self.home, name).read_text(errors='replace')}" for name in self.processes)


def live_settings(server: Dovecot, mailbox: DemoMailbox | None = None, **others: Any) -> dict[str, Any]:
    """A daemon that follows the mail server and says what it does as JSON; ``mailbox`` says whose mail it is."""
    feed = server.settings(USER).model_dump(mode="json", exclude_defaults=True)
    people = {"owner": list(mailbox.owner), "lists": list(mailbox.lists)} if mailbox is not None else {}
    return {
        "mailboxes": {MAILBOX: {"feeds": [{**feed, "kind": "imap"}], **people}},
        "daemon": {"log": "json"},
        **others,
    }


def invented_mail(folder: Path, messages: int, seed: int = 7) -> tuple[DemoMailbox, list[bytes]]:
    """A generated mailbox, and its mails in order of arrival."""
    mailbox = write_mailbox(folder / "invented.mbox", seed=seed, messages=messages)
    content = mailbox.path.read_bytes()
    starts = list(SEPARATOR.finditer(content))
    ends = [following.start() for following in starts[1:]] + [len(content)]
    bodies = [content[start.end() : end - 1] for start, end in zip(starts, ends, strict=True)]
    return mailbox, [re.sub(rb"^>(>*From )", rb"\1", body, flags=re.MULTILINE) for body in bodies]


@contextmanager
def live(
    folder: Path, broker: Broker, mailbox: DemoMailbox, *, roles: Sequence[str] = ROLES, **others: Any
) -> Iterator[Live]:
    """A mail server, and a home whose roles run, with ``others`` as further settings. What is left at the end is killed."""
    with ExitStack() as stack:
        server = stack.enter_context(dovecot({USER: "secret"}))
        server.maildir(USER)
        office = stack.enter_context(postoffice(server))
        bus = {"kind": "kafka", "brokers": broker.address, "prefix": "live.", "partitions": 2}
        home = make_home(folder / "home", live_settings(server, mailbox, bus=bus, auto_retrain=True, **others))
        made = run(home.root, "topics", "create")
        assert made.returncode == 0, made.stderr
        processes: dict[str, subprocess.Popen[bytes]] = {}
        for name, role in zip(_names(roles), roles, strict=True):
            processes[name] = process = start(home, role, log_file(home, name))
            stack.callback(_end, process)
        room = Live(home, server, office, processes)
        room.until(home.owner_socket.exists)
        yield room


def start(home: Home, role: str, log: Path) -> subprocess.Popen[bytes]:
    """`mailtide run --role ROLE`, which dies with this process; what it says is added to ``log``."""
    with log.open("ab") as out:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *mailtide(home.root, "run", "--role", role)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=ENVIRONMENT,
            start_new_session=True,
        )


def log_file(home: Home, name: str) -> Path:
    """Where a process's lines go: beside the home."""
    return home.root.with_name(f"{name}.log")


def _names(roles: Sequence[str]) -> list[str]:
    """A number behind the roles of which there are several."""
    return [
        f"{role}-{roles[: place + 1].count(role)}" if roles.count(role) > 1 else role for place, role in enumerate(roles)
    ]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
