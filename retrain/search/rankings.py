"""How good rankings are: recall, reciprocal rank and nDCG, by ir-measures (over pytrec_eval, which is NIST's trec_eval).

The figures are functions of ranks alone. trec_eval sorts a run anew, by score as a 32-bit float and then by name, so a
score here falls by one from rank to rank: what is measured is the order that a search gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import MailtideError
from pipeline.installing import install_hint
from pipeline.intervals import Interval, proportion_interval, ratio_interval
from retrain.search.gold import PARENT, Query

DEPTH = 10
RECALL_AT = (1, 5, 10)
MRR, NDCG = "mrr", "ndcg@10"
FIGURES = (*(f"recall@{k}" for k in RECALL_AT), MRR, NDCG)
"""Names of the figures, in the order in which they are told."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """Figures of one search engine on a set of queries: ``outcomes`` by figure, one value per query, in their order.

    ``recall@k`` is the share of what is relevant (grade ``relevant`` or more) among the first k, ``mrr`` one over the rank
    of the first such, 0 beyond 10, and ``ndcg@10`` uses all grades, each as its own gain.
    """

    clusters: tuple[str, ...]
    outcomes: Mapping[str, tuple[float, ...]]

    @property
    def queries(self) -> int:
        return len(self.clusters)

    def interval(self, figure: str) -> Interval | None:
        """The mean of a figure with its 95 % bounds, clustered by thread; None where there was no query."""
        values = self.outcomes[figure]
        if figure.startswith("recall") and set(values) <= {0.0, 1.0}:
            return proportion_interval([value == 1.0 for value in values], self.clusters)
        return ratio_interval(values, [1.0] * len(values), self.clusters)

    def difference(self, other: Ranked, figure: str) -> Interval | None:
        """Mean of this less the other on the same queries, paired, with 95 % bounds clustered by thread."""
        if self.clusters != other.clusters:
            raise ValueError("rankings of different queries cannot be paired")
        pairs = zip(self.outcomes[figure], other.outcomes[figure], strict=True)
        return ratio_interval([one - two for one, two in pairs], [1.0] * self.queries, self.clusters)


def judge(queries: Sequence[Query], found: Sequence[Sequence[str]], *, relevant: int = PARENT) -> Ranked:
    """Figures of ``found``: per query the documents of a search, best first, each at most once."""
    try:
        import ir_measures
        from ir_measures import RR, R, nDCG
    except ImportError as error:
        raise MailtideError(
            "retrieval is measured by ir-measures, which is not installed", hint=install_hint("train")
        ) from error
    measures = {
        **{R(rel=relevant) @ k: f"recall@{k}" for k in RECALL_AT},
        RR(rel=relevant) @ DEPTH: MRR,
        nDCG @ DEPTH: NDCG,
    }
    names = [str(place) for place in range(len(queries))]
    outcomes = {figure: [0.0] * len(queries) for figure in FIGURES}
    if queries:
        qrels = {name: dict(query.grades) for name, query in zip(names, queries, strict=True)}
        run = {name: scores(ranking) for name, ranking in zip(names, found, strict=True)}
        for value in ir_measures.iter_calc(list(measures), qrels, run):
            outcomes[measures[value.measure]][int(value.query_id)] = float(value.value)
    return Ranked(
        clusters=tuple(query.cluster for query in queries),
        outcomes={figure: tuple(values) for figure, values in outcomes.items()},
    )


def scores(ranking: Sequence[str]) -> dict[str, float]:
    """A ranking as scores that fall from rank to rank, so that every tool that sorts by score keeps the order."""
    return {key: float(len(ranking) - place) for place, key in enumerate(ranking)}
