"""A notice as the standard input of a program."""

from __future__ import annotations

from pipeline.config.notice_settings import CommandTarget
from pipeline.errors import NoticeError
from streams.notices.notice import Notice
from streams.programs import run_program


def call(settings: CommandTarget, notice: Notice) -> str:
    """Raises ``NoticeError`` unless the program ends with exit code 0 within the time-out.

    It gets the notice as one JSON object, and its id as ``MAILTIDE_NOTICE_ID``. What it prints is thrown away, and of its
    arguments none is named in an error: they may be private.
    """
    run_program(
        settings.command,
        "notices",
        NoticeError,
        seconds=settings.timeout,
        by_hand="try it: `mailtide notify test`",
        given=notice.to_json(),
        environment={"MAILTIDE_NOTICE_ID": notice.id},
    )
    return ""
