"""A notice, and how it is handed to a target of any kind."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from pipeline.config.notice_settings import CommandTarget, MailTarget, TargetSettings, WebhookTarget


@dataclass(frozen=True, slots=True)
class Notice:
    """Ids, figures and counts, and never a word of anybody's mail: it leaves this machine. ``id`` is the same whenever the
    same thing is told, so that a target can know a repeat; ``at`` is when it happened."""

    id: str
    kind: str
    mailbox: str
    at: datetime
    title: str
    lines: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of it, a line each."""
        return "\n".join((f"mailtide {self.title}", *self.lines))

    @property
    def token(self) -> str:
        """The id for those that take only letters and digits, different in every home."""
        return hashlib.sha256(f"{self.id} {self.at.isoformat()} {self.title}".encode()).hexdigest()[:32]

    def to_json(self) -> bytes:
        """One object: id, kind, mailbox, at (ISO 8601, UTC), title and lines."""
        told = {
            "id": self.id,
            "kind": self.kind,
            "mailbox": self.mailbox,
            "at": self.at.isoformat(timespec="seconds") + "Z",
            "title": self.title,
            "lines": list(self.lines),
        }
        return json.dumps(told, ensure_ascii=False).encode() + b"\n"


def hand_over(settings: TargetSettings, notice: Notice) -> str:
    """Brings a notice to a target; returns what is to be said of it all the same, mostly nothing.

    Raises ``NoticeError`` when the target did not take it, ``SecretError`` when a password cannot be had.
    """
    match settings:
        case WebhookTarget():
            from streams.notices.webhook import post

            return post(settings, notice)
        case MailTarget():
            from streams.notices.mail import send

            return send(settings, notice)
        case CommandTarget():
            from streams.notices.command import call

            return call(settings, notice)
