"""Does retrieved mail help the model? Figures from the losses of real replies. Pure: losses in, figures out.

Each comparison is paired: the same reply under the same weights, given one thing and another. ``rag_gain`` is the loss
without mail less the loss with retrieved mail, in nats per token, so above 0 retrieved mail helps. A gain over random mail
says that it helps for what it says, not for being mail; the gain from the mail that was answered is about what a perfect
search could bring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.intervals import Interval, ratio_interval
from pipeline.runs.replyfiles import Given, ReplyLoss

LOSSES = {
    "reply_loss": Given.NOTHING,
    "reply_loss_retrieved": Given.RETRIEVED,
    "reply_loss_random": Given.RANDOM,
    "reply_loss_parent": Given.PARENT,
}
"""Nats per token of the replies, by what is given."""

GAINS = {
    "rag_gain": (Given.NOTHING, Given.RETRIEVED),
    "rag_gain_random": (Given.NOTHING, Given.RANDOM),
    "rag_gain_parent": (Given.NOTHING, Given.PARENT),
    "rag_gain_over_random": (Given.RANDOM, Given.RETRIEVED),
}
"""How much lower the loss is given the second than given the first."""

FIGURES = (*LOSSES, *GAINS)


def reply_figures(losses: Sequence[ReplyLoss]) -> Mapping[str, Interval]:
    """Figures of one model's replies of one split, with 95 % bounds by thread; those that nothing is known of are left
    out."""
    given = by_given(losses)
    found = {name: _mean(list(given[what].values())) for name, what in LOSSES.items()}
    found |= {name: difference(given[after], given[before]) for name, (before, after) in GAINS.items()}
    return {name: interval for name, interval in found.items() if interval is not None}


def by_given(losses: Sequence[ReplyLoss]) -> Mapping[Given, Mapping[str, ReplyLoss]]:
    """Losses by what was given and by reply."""
    found: dict[Given, dict[str, ReplyLoss]] = {what: {} for what in Given}
    for loss in losses:
        found[Given(loss.given)][loss.message_key] = loss
    return found


def difference(first: Mapping[str, ReplyLoss], second: Mapping[str, ReplyLoss]) -> Interval | None:
    """Nats per token of ``second`` less ``first`` on the replies that both hold, paired, clustered by thread."""
    pairs = [(first[key], second[key]) for key in first if key in second and first[key].n_tokens == second[key].n_tokens]
    return ratio_interval(
        [two.nll - one.nll for one, two in pairs],
        [float(one.n_tokens) for one, _ in pairs],
        [one.thread_id for one, _ in pairs],
    )


def _mean(losses: Sequence[ReplyLoss]) -> Interval | None:
    return ratio_interval(
        [loss.nll for loss in losses], [float(loss.n_tokens) for loss in losses], [loss.thread_id for loss in losses]
    )
