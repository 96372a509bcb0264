"""One small tree of errors. Foreign errors are mapped to these at the edge where they arise.

Every error says what is wrong and, in ``hint``, the next step; ``exit_code`` is what the command line returns.
"""

from __future__ import annotations

from collections.abc import Sequence


class MailtideError(Exception):
    """Something failed; ``str()`` is one sentence for a person, with the next step where there is one."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(MailtideError):
    """A command was called in a way that cannot work."""

    exit_code = 2


class ConfigError(UsageError):
    """Every problem of a configuration at once, found before any effect."""

    def __init__(self, problems: Sequence[str], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the configuration: "
        super().__init__(head + "; ".join(self.problems), hint=hint)


class NothingToDo(MailtideError):
    """There was nothing to do, or a decision was abstained from."""

    exit_code = 3


class FeedError(MailtideError):
    """A source of mail cannot be read on, or is not what it was."""


class NotMail(FeedError):
    """What was named is there, but is no mbox and no Maildir, as a folder or a single letter is not."""

    exit_code = UsageError.exit_code


class SourceAway(FeedError):
    """A source of mail does not answer just now (a connection dropped, a server stopped); trying again later may help."""


class StoreError(MailtideError):
    """The store refused, or is not usable by this version."""


class StoreHeldError(StoreError):
    """Another process owns the store; ``pid`` is the process, where known."""

    def __init__(self, message: str, *, pid: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.pid = pid


class BusError(MailtideError):
    """The broker cannot be reached, refused, or is not set up as it must be."""


class SecretError(MailtideError):
    """A password or token cannot be had from where the settings say it is."""


class NoticeError(MailtideError):
    """A target did not take a notice."""


class ShardError(MailtideError):
    """A shard is missing or its bytes are not those recorded."""


class RunError(MailtideError):
    """A retraining run cannot start or go on."""


class RegistryError(MailtideError):
    """An adapter is unknown, or cannot take the state asked for."""


class DeployError(MailtideError):
    """A deploy target is away, refuses, or does not serve what it was given."""
