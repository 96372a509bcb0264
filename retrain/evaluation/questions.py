"""The replies of a run's sample put to its model, whoever it serves as at the moment: what each costs in nats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.domain import Split
from pipeline.home import Home, private_dir
from pipeline.runs.replyfiles import REPLIES, Given, ReplyLoss, read_reply_losses, write_reply_losses
from pipeline.runs.requests import RunRequest
from pipeline.runs.runfiles import Exclusions
from retrain.evaluation.asking import Asking, Trial, choose_replies, given_mails
from retrain.evaluation.losses import version_of
from retrain.evaluation.writing import WRITTEN, Written, read_written, write_replies, write_written
from retrain.models.model import load_tokenizer
from retrain.models.pen import Pen
from retrain.search.bm25 import Bm25Index
from retrain.search.gold import Mail
from retrain.search.retrieval import index_of, read_mails
from retrain.study import Study
from retrain.training.dialogues import Template

FORETOLD, WROTE = "replies", "written"
"""Folders of a run's replies as each checkpoint foretold and wrote them, which stay when its weights go."""

Read = tuple[str, str, str]
"""An adapter, its checkpoint, and the digest of what it read and foretold."""


@dataclass(frozen=True, slots=True)
class Questions:
    """The mail of a run in order of arrival, its index, and what is asked; ``too_long`` counts by split the replies that
    were passed over. ``known`` are losses, and ``written`` replies, that earlier runs left. ``most`` replies of a split are
    written."""

    mails: tuple[Mail, ...]
    index: Bm25Index
    put: tuple[Trial, ...]
    too_long: Mapping[Split, int]
    known: Mapping[Read, float]
    written: tuple[Written, ...]
    pen: Pen
    most: int

    def of(self, *splits: Split) -> list[Trial]:
        return [one for one in self.put if one.reply.split in splits]

    def to_write(self, split: Split) -> list[Trial]:
        """Those given what was retrieved, lowest hash first."""
        return [one for one in self.of(split) if one.given is Given.RETRIEVED][: self.most]


def open_questions(home: Home, study: Study, exclusions: Exclusions, base: Path) -> Questions:
    """Reads the mail of the run's shards, and asks about at most ``eval.max_replies`` replies of each split: those of the
    mailbox's owner, in the chat template, where the run learns replies."""
    request, settings = study.request, study.request.settings.eval
    mails = read_mails(home, request.shards, exclusions)
    index = index_of(mails)
    tokenizer = load_tokenizer(base)
    template = owner = None
    if request.settings.model.objective == "reply":
        template, owner = Template.of(tokenizer, builtin=request.base.kind == "builtin"), frozenset(request.owner)
    asking = Asking(tokenizer, study.context, settings.rag_tokens, settings.generate_tokens, template=template)
    put: list[Trial] = []
    too_long: dict[Split, int] = {}
    for split in (Split.VAL, Split.TEST):
        chosen = choose_replies(mails, split, settings.max_replies, asking.fits, owner)
        too_long[split] = chosen.too_long
        for reply, parent in chosen.replies:
            given = given_mails(reply, parent, mails, index, settings.rag_k)
            put += [asking.put(reply, what, some) for what, some in given.items()]
    return Questions(
        mails=tuple(mails),
        index=index,
        put=tuple(put),
        too_long=too_long,
        known=_known(home, request),
        written=tuple(one for run_id in _runs(request) for one in read_written(home.run(run_id) / WRITTEN)),
        pen=Pen(study.model, study.compute, study.pad, tokenizer, settings.generate_tokens),
        most=settings.generate,
    )


def ask(study: Study, questions: Questions, put: Sequence[Trial], adapter_id: str, checkpoint: str) -> list[ReplyLoss]:
    """Losses of ``put`` under the model as it stands, in their order; what is known is not computed again."""
    nats = {
        digest: nll for (name, step, digest), nll in questions.known.items() if (name, step) == (adapter_id, checkpoint)
    }
    lacking = {one.example.chunk_id: one for one in put if one.example.chunk_id not in nats}
    nats.update(study.nats([one.example for one in lacking.values()]))
    return [
        ReplyLoss(
            adapter_id=adapter_id,
            checkpoint=checkpoint,
            message_key=one.reply.key,
            thread_id=one.reply.thread_id,
            split=one.reply.split.value,
            given=one.given.value,
            mails=one.mails,
            read_sha256=one.example.chunk_id,
            nll=nats[one.example.chunk_id],
            n_tokens=one.example.n_labels,
            eval_version=study.version,
        )
        for one in put
    ]


def write(questions: Questions, adapter_id: str, checkpoint: str, *splits: Split) -> list[Written]:
    """Replies that the model writes as it stands; what is known is not written again."""
    put = [one for split in splits for one in questions.to_write(split)]
    return write_replies(questions.pen, put, adapter_id, checkpoint, questions.written)


def at_checkpoint(study: Study, questions: Questions, folder: Path, name: str) -> None:
    """Puts the val replies to a checkpoint of the run, as which the model stands, and keeps its answers, where they are
    missing."""
    own = study.request.adapter_id
    if not foretold_file(folder, name).is_file():
        write_reply_losses(foretold_file(folder, name), ask(study, questions, questions.of(Split.VAL), own, name))
    if not wrote_file(folder, name).is_file():
        write_written(wrote_file(folder, name), write(questions, own, name, Split.VAL))


def foretold_file(folder: Path, checkpoint: str) -> Path:
    """Where losses of a checkpoint's val replies lie in a run's folder."""
    return private_dir(folder / FORETOLD) / f"{checkpoint}.parquet"


def wrote_file(folder: Path, checkpoint: str) -> Path:
    """Where the val replies that a checkpoint wrote lie in a run's folder."""
    return private_dir(folder / WROTE) / f"{checkpoint}.parquet"


def _known(home: Home, request: RunRequest) -> dict[Read, float]:
    """What the runs of parent, champion and best measured, of this evaluation version."""
    return {
        (loss.adapter_id, loss.checkpoint, loss.read_sha256): loss.nll
        for run_id in _runs(request)
        for loss in read_reply_losses(home.run(run_id) / REPLIES)
        if loss.eval_version == version_of(request)
    }


def _runs(request: RunRequest) -> list[str]:
    """The runs whose adapters this one continues or challenges."""
    return list(dict.fromkeys(ref.run_id for ref in (request.parent, request.champion, request.best) if ref is not None))
