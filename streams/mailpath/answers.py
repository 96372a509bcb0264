"""What a parser makes of a record: the record that answers it. Pure but for files of large mails and for parsing itself."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from pipeline.domain import Arrival, DeadLetter, Parsed
from pipeline.times import utc_now
from streams.bus.envelope import Record
from streams.mailpath.claim_checks import ClaimChecks, ClaimMissing
from streams.mailpath.messages import HANDED, answer_record, handed_of, unreadable
from streams.mailpath.notices import announcement_of, announcement_record
from streams.mailpath.records import Kind, kind_of

Submit = Callable[[Arrival], Future[Parsed | DeadLetter]]
ACCEPTED = HANDED | {Kind.ANNOUNCED}
STAGE = "claim check"


class Answering:
    """``submit`` is a parser pool's."""

    def __init__(self, submit: Submit, claims: ClaimChecks) -> None:
        self._submit = submit
        self._claims = claims

    def answer(self, record: Record) -> Future[Record]:
        """The answer, once there is one. Its exception is ``RecordRefused`` for what is not ours, and else a
        ``MailtideError`` that a person must mend; never anything about a mail itself."""
        answer: Future[Record] = Future()
        try:
            if kind_of(record, ACCEPTED) is Kind.ANNOUNCED:
                answer.set_result(announcement_record(announcement_of(record), utc_now()))
                return answer
            try:
                item = handed_of(self._claims.redeemed(record))
            except ClaimMissing as error:
                item = unreadable(record, STAGE, error.message)
            if isinstance(item, Arrival):
                self._submit(item).add_done_callback(lambda parsed: self._finish(parsed, answer))
            else:
                answer.set_result(self._claims.checked_in(answer_record(item)))
        except Exception as error:
            answer.set_exception(error)
        return answer

    def _finish(self, parsed: Future[Parsed | DeadLetter], answer: Future[Record]) -> None:
        try:
            answer.set_result(self._claims.checked_in(answer_record(parsed.result())))
        except Exception as error:
            answer.set_exception(error)
