"""Written text against real text, as ``evaluate`` metrics that load without a network.

``evaluate.load`` fetches a script from the Hub; these are classes, and a call is ``RougeL().compute(predictions=...,
references=...)``, which gives the mean under the metric's name and one value a pair under ``scores``, all between 0 and 1.
What is compared stays in memory: by itself ``evaluate`` would write both texts to a cache in the person's home.

Words are those of the search (:func:`retrain.search.bm25.words`), case-folded and of any script; ROUGE's own tokenizer
keeps ASCII alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import evaluate

from retrain.search.bm25 import words


class PairMetric(evaluate.Metric, ABC):  # type: ignore[misc]
    """A figure of one prediction and one reference; the metric is its mean."""

    title: ClassVar[str]
    about: ClassVar[str]
    source: ClassVar[str]

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _build_data_dir(self) -> str:
        """Nowhere: nothing is written, and the folder need not be one that can be written to."""
        return ""

    @abstractmethod
    def of(self, prediction: str, reference: str) -> float:
        """Between 0 (nothing alike) and 1."""

    def _info(self) -> Any:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.about,
            citation=self.source,
            inputs_description="predictions and references: texts, one for one",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
        scores = [self.of(one, other) for one, other in zip(predictions, references, strict=True)]
        return {self.title: sum(scores) / len(scores), "scores": scores}


class RougeL(PairMetric):
    """F1 of the longest common subsequence of words."""

    title = "rouge_l"
    about = "F1 of the longest common subsequence of words"
    source = "Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries"

    def of(self, prediction: str, reference: str) -> float:
        from rouge_score.rouge_scorer import RougeScorer

        return float(RougeScorer(["rougeL"], tokenizer=_Words()).score(reference, prediction)["rougeL"].fmeasure)


class Bleu(PairMetric):
    """BLEU of a sentence, smoothed, by sacrebleu, as a share of one."""

    title = "bleu"
    about = "sentence BLEU with exponential smoothing and effective order"
    source = "Post 2018, A Call for Clarity in Reporting BLEU Scores (sacrebleu)"

    def of(self, prediction: str, reference: str) -> float:
        from sacrebleu.metrics.bleu import BLEU

        return float(BLEU(effective_order=True).sentence_score(prediction, [reference]).score) / 100


class ExactMatch(PairMetric):
    """1 where both say the same words in the same order."""

    title = "exact"
    about = "1 where both say the same words in the same order, punctuation and case apart"
    source = "Rajpurkar et al. 2016, SQuAD"

    def of(self, prediction: str, reference: str) -> float:
        return float(words(prediction) == words(reference))


class TokenF1(PairMetric):
    """F1 of the words as bags."""

    title = "f1"
    about = "F1 of the words as bags"
    source = "Rajpurkar et al. 2016, SQuAD"

    def of(self, prediction: str, reference: str) -> float:
        ours, theirs = Counter(words(prediction)), Counter(words(reference))
        common = (ours & theirs).total()
        return 2 * common / (ours.total() + theirs.total()) if common else float(ours == theirs)


METRICS: tuple[type[PairMetric], ...] = (RougeL, Bleu, ExactMatch, TokenF1)


def repetition(text: str, n: int = 3) -> float | None:
    """The share of runs of ``n`` words that stood in the text before: 0 in fluent prose, near 1 in a loop, whatever it
    says. None for a text too short to repeat itself (Welleck et al. 2019 count it so)."""
    said = words(text)
    runs = [tuple(said[place : place + n]) for place in range(len(said) - n + 1)]
    return 1 - len(set(runs)) / len(runs) if len(runs) > 1 else None


class _Words:
    """The search's words, in the form that rouge_score asks for."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)
