"""Has two adapters reply to held-out mails, for people to judge.

Each reads the mail that was answered, and who answered when; greedy, on the one base that is loaded. Only threads of val,
and of these only the half that chooses no checkpoint once val is large enough to be halved.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.chunking.chunks import MARK
from pipeline.domain import Split
from pipeline.errors import NothingToDo
from pipeline.home import Home
from pipeline.runs.replyfiles import Given
from pipeline.runs.spotsheet import Check, Line, Sheet, Side
from pipeline.sampling.halves import gating_threads
from retrain.offline import TIED, keep_offline

if TYPE_CHECKING:
    from retrain.evaluation.asking import Trial
    from retrain.search.gold import Mail

MOST_READ = 2_048
"""Tokens of the mail that is answered, at most; what exceeds that is cut at its end."""

Report = Callable[[int, int, str], None]


def make_sheet(home: Home, check: Check, known: Mapping[tuple[str, str], str], report: Report) -> Sheet:
    """The sheet; texts that are ``known`` (by side and digest of what was read) are not written again. ``report`` is told
    how many of how many replies are there. Raises ``NothingToDo`` where nothing can be asked about, ``RunError`` or
    ``ShardError`` where model or mail cannot be read."""
    keep_offline()
    warnings.filterwarnings("ignore", message=TIED)
    from transformers import AutoConfig

    from retrain.evaluation.asking import Asking
    from retrain.models.base import locate
    from retrain.models.model import context_of, load_tokenizer
    from retrain.search.gold import Asked, queries_of
    from retrain.search.retrieval import read_mails
    from retrain.training.dialogues import Template

    mails = {mail.key: mail for mail in read_mails(home, check.shards, check.exclusions)}
    judging = gating_threads((mail.thread_id for mail in mails.values() if mail.split is Split.VAL), check.min_threads)
    asked = queries_of(list(mails.values()), Split.VAL, asked=Asked.SUBJECT)
    asked = sorted(asked, key=lambda query: hashlib.sha256(f"spot:{check.seed}:{query.key}".encode()).digest())
    folder = locate(home, check.base, check.model)
    tokenizer = load_tokenizer(folder)
    context = context_of(AutoConfig.from_pretrained(str(folder), local_files_only=True), check.model)
    answers = check.model.objective == "reply"
    template = Template.of(tokenizer, builtin=check.base.kind == "builtin") if answers else None
    asking = Asking(tokenizer, context, MOST_READ, check.tokens, template=template)
    drawn: list[tuple[Mail, Trial]] = []
    for query in asked:
        reply = mails[query.key]
        if len(drawn) < check.n and (judging is None or reply.thread_id in judging) and asking.fits(reply):
            parent = mails[next(iter(query.grades))]
            drawn.append((parent, asking.put(reply, Given.PARENT, (parent,))))
    if not drawn:
        raise NothingToDo(
            f"no reply in a held-out thread of {check.mailbox} can be asked about",
            hint="import more mail and close a window: one thread in ten is held out for this (split.val)",
        )
    written = dict(known)
    _write_all(home, check, folder, tokenizer, [put for _, put in drawn], written, report)
    return Sheet(
        digest=check.digest,
        tokens=check.tokens,
        lines=tuple(
            Line(
                message_key=put.reply.key,
                thread_id=put.reply.thread_id,
                subject=put.reply.subject,
                asked_lead=_lead(parent),
                asked=parent.words.strip(),
                real_lead=_lead(put.reply),
                real=put.reply.words.strip(),
                read_sha256=put.example.chunk_id,
                written={side.name: written[side.name, put.example.chunk_id] for side in check.sides},
            )
            for parent, put in drawn
        ),
    )


def _write_all(
    home: Home,
    check: Check,
    folder: Path,
    tokenizer: Any,
    puts: Sequence[Trial],
    written: dict[tuple[str, str], str],
    report: Report,
) -> None:
    """Adds what is lacking to ``written``; the model is loaded only for that."""
    lacking = {side.name: [put for put in puts if (side.name, put.example.chunk_id) not in written] for side in check.sides}
    total, done = sum(map(len, lacking.values())), 0
    if not total:
        return
    from retrain.models.model import choose_compute, load_base
    from retrain.models.pen import AT_ONCE, Pen
    from retrain.study import padding

    report(done, total, "the base is loaded")
    compute = choose_compute(check.model, None)
    model = load_base(folder, compute, quantize=check.model.quantize)
    for side in check.sides:
        own = lacking[side.name]
        with _as(home, model, side) as serving:
            pen = Pen(serving, compute, padding(tokenizer), tokenizer, check.tokens)
            for place in range(0, len(own), AT_ONCE):
                some = own[place : place + AT_ONCE]
                texts = pen.texts([put.prompt for put in some])
                written |= {(side.name, put.example.chunk_id): text for put, text in zip(some, texts, strict=True)}
                done += len(some)
                report(done, total, f"by {side.name}")


@contextmanager
def _as(home: Home, model: Any, side: Side) -> Iterator[Any]:
    """The base as one side of it."""
    if side.adapter is None:
        yield model
        return
    from peft import PeftModel

    from retrain.evaluation.references import adapter_folder

    adapted = PeftModel.from_pretrained(model, str(adapter_folder(home, side.adapter)))
    try:
        yield adapted
    finally:
        adapted.unload()


def _lead(mail: Mail) -> str:
    """Author and date of a mail, as its chunk has them."""
    return mail.lead.removeprefix(MARK).strip()
