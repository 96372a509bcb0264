"""Written text against real text: the metrics are the field's, load without a network, and write nothing anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrain.evaluation.latency import quantile, slower
from retrain.evaluation.text_metrics import METRICS, Bleu, ExactMatch, PairMetric, RougeL, TokenF1, repetition
from retrain.offline import keep_offline

REAL = "Shall we sail at noon on Tuesday, weather permitting?"


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.title)
def test_the_same_text_is_one_and_another_is_nought(metric: type[PairMetric]) -> None:
    found = metric().compute(predictions=[REAL, "xyzzy", ""], references=[REAL, REAL, REAL])
    assert found["scores"][0] == pytest.approx(1.0)
    assert found["scores"][1:] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert found[metric.title] == pytest.approx(sum(found["scores"]) / 3)


def test_they_are_what_their_libraries_say() -> None:
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    said = "We shall sail on Tuesday at noon"
    plain = RougeScorer(["rougeL"]).score(REAL, said)["rougeL"].fmeasure
    assert RougeL().of(said, REAL) == pytest.approx(plain)
    assert Bleu().of(said, REAL) == pytest.approx(sacrebleu.sentence_bleu(said, [REAL]).score / 100)
    assert TokenF1().of("sail on tuesday", "Tuesday: sail!") == pytest.approx(2 * 2 / 5)
    assert ExactMatch().of("sail, on tuesday", "Sail on Tuesday.") == 1.0


def test_words_of_any_script_count() -> None:
    assert RougeL().of("яхта готова", "яхта не готова") == pytest.approx(0.8)
    assert TokenF1().of("船は港にある", "船は港にある") == 1.0


def test_texts_are_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_offline()
    for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "metrics"))
    monkeypatch.chdir(tmp_path)
    assert RougeL().compute(predictions=[REAL], references=[REAL])["rouge_l"] == 1.0
    assert list(tmp_path.rglob("*")) == []


def test_a_loop_repeats_itself_and_prose_does_not() -> None:
    assert repetition("the boat is red " * 8) == pytest.approx(1 - 4 / 30)
    assert repetition("The keel lies on the slip, and its bolts were changed last spring.") == 0.0
    assert repetition("one two") is None


def test_percentiles_have_bounds_where_the_sample_allows() -> None:
    median = quantile([float(i) for i in range(1, 102)], 0.5)
    assert median.value == 51.0 and median.low is not None and median.high is not None
    assert 38 <= median.low <= 43 and 59 <= median.high <= 64
    few = quantile([1.0, 2.0], 0.95)
    assert few.value == 2.0 and few.high is None
    assert slower([(1.0, 1.0)]) is None
    same = slower([(1.0 + i % 7, 1.0 + i % 7) for i in range(60)])
    assert same is not None and (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
