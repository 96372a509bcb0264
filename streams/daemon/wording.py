"""The daemon's state in words."""

from __future__ import annotations

from collections.abc import Sequence

from streams.daemon.board import DaemonState
from streams.runs.telling import stage_line


def training_line(state: DaemonState) -> str:
    """One line on windows and training."""
    training = state.training
    if training.doing == "training":
        line = stage_line(training.stage, training.done, training.total, training.text, training.figures)
        doing = f"run {training.run_id}: {line}"
    else:
        doing = f"training {training.doing}{': ' if training.text else ''}{training.text}"
    return f"{_counted(state.closed, 'window')} closed, {_counted(state.runs, 'run')} decided; {doing}"


def embedding_line(state: DaemonState) -> str:
    """One line on the embedding of new mail; empty where there is nothing to say."""
    embedding = state.embedding
    if embedding.doing in ("off", "idle"):
        return ""
    if embedding.trouble:
        return f"New mail is not embedded: {embedding.trouble}"
    if not embedding.behind:
        return ""
    return f"Embedding new mail: {embedding.doing}, {_counted(embedding.behind, 'mail')} behind"


def closed_line(mailbox: str, windows: Sequence[int]) -> str:
    """What is said of windows that closed at once, which follow each other."""
    if len(windows) == 1:
        return f"window {windows[0]} of {mailbox} closed"
    return f"windows {windows[0]} to {windows[-1]} of {mailbox} closed"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
