"""A mail server that answers as it is told: for what no real server does when asked to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

HOST = "127.0.0.1"
CAPABILITY = "IMAP4rev1 IDLE AUTH=PLAIN"

Answers = Callable[[str], list[str] | None]
"""From a command, without its tag, to the lines of the answer: ``TAG`` stands for the tag; None ends the connection."""


class ScriptedImap:
    """Greets, asks ``answers`` about every line, and where that has none (an empty list) does what a folder with one mail
    needs. ``heard`` are the commands of all connections, without what logs in."""

    def __init__(self, answers: Answers, greeting: str = "* OK ready") -> None:
        self._answers = answers
        self._greeting = greeting
        self._listener = socket.create_server((HOST, 0))
        self._open: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self.heard: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in [self._listener, *self._open]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, client.makefile("rb") as lines:
            client.sendall(f"{self._greeting}\r\n".encode())
            tag = ""
            for line in lines:
                text = line.decode().rstrip("\r\n")
                if text == "DONE":
                    command = text
                else:
                    tag, _, command = text.partition(" ")
                    self.heard.append(command)
                told = self._answers(command)
                if told is None:
                    return
                client.sendall("".join(f"{each}\r\n" for each in told or usual(command)).replace("TAG", tag).encode())
                if command.startswith("AUTHENTICATE") and (told or usual(command))[-1] == "+ ":
                    lines.readline()
                    client.sendall(f"{tag} OK in\r\n".encode())


def usual(command: str) -> list[str]:
    """What a server with one mail, UID 1, says."""
    raw = "Subject: one\r\n\r\nText.\r\n"
    match command.split():
        case ["CAPABILITY"]:
            return [f"* CAPABILITY {CAPABILITY}", "TAG OK done"]
        case ["AUTHENTICATE", *_]:
            return ["+ "]
        case ["EXAMINE", *_]:
            return ["* 1 EXISTS", "* OK [UIDVALIDITY 7] kept", "* OK [UIDNEXT 2] next", "TAG OK [READ-ONLY] open"]
        case ["UID", "SEARCH", *_]:
            return ["* SEARCH 1", "TAG OK done"]
        case ["UID", "FETCH", _, *what] if "RFC822.SIZE" in what[0]:
            return [f'* 1 FETCH (UID 1 RFC822.SIZE {len(raw)} INTERNALDATE "01-May-2024 12:00:00 +0200")', "TAG OK done"]
        case ["UID", "FETCH", *_]:
            return [f"* 1 FETCH (UID 1 BODY[] {{{len(raw)}}}\r\n{raw})", "TAG OK done"]
        case ["IDLE"]:
            return ["+ idling"]
        case _:
            return ["TAG OK done"]


@contextmanager
def scripted_imap(answers: Answers, greeting: str = "* OK ready") -> Iterator[ScriptedImap]:
    """A running one, gone at the end."""
    server = ScriptedImap(answers, greeting)
    try:
        yield server
    finally:
        server.close()
