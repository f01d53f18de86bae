"""Means of scores: n, interval, categories and paired difference against scipy, statsmodels and hand-made numbers."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import proportion

from vlguard_jax import errors
from vlguard_jax.safety import asr
from vlguard_jax.safety import statistics
from vlguard_jax.safety import summary
from vlguard_jax.safety.benchmarks import benchmark
from vlguard_jax.safety.judges import judge

WINS = {"safe_safes": "win_rate"}


def items(pictures: str, category: str | None = None) -> list[benchmark.Item]:
    """One per letter, which names its picture."""
    return [
        benchmark.Item(str(i), "safe_safes", "q", (benchmark.Picture(p, pathlib.Path(p)),), category)
        for i, p in enumerate(pictures)
    ]


def verdicts(scores: list[float | None]) -> list[judge.Verdict]:
    return [judge.Verdict("invalid") if s is None else judge.Verdict("comply", s) for s in scores]


def measure(scores: list[float | None], pictures: str, baseline: list[float | None] | None = None) -> summary.Measure:
    theirs = None if baseline is None else verdicts(baseline)
    (row,) = asr.summarise(items(pictures, "c"), verdicts(scores), WINS, theirs)
    return row


def test_the_mean_is_of_answers_with_a_score() -> None:
    scores = [1.0, 0.5, None, 0.0, 0.5, None, 0.25]
    row = measure(scores, "abcdefg")
    known = np.array([s for s in scores if s is not None])
    assert (row.n, row.n_invalid, row.count, row.rate) == (5, 2, 2.25, 0.45)
    effective = 5 * 0.45 * 0.55 / known.var(ddof=1)
    expected = proportion.proportion_confint(0.45 * effective, effective, method="wilson")
    assert (row.ci_low, row.ci_high) == pytest.approx(expected)
    assert row.ci_method == "wilson 95%, variance of the scores"
    (part,) = row.by_category
    assert (part.n, part.count, part.ci_low) == (5, 2.25, row.ci_low)
    summary.check_rate(row, "row", "")


def test_scores_of_0_and_1_have_nearly_the_interval_of_a_rate() -> None:
    """The variance of a sample is that of its values times n / (n - 1), which Wilson's interval does not count."""
    row = measure([1.0] * 30 + [0.0] * 70, "".join(chr(200 + i) for i in range(100)))
    assert (row.ci_low, row.ci_high) == statistics.wilson(30, 100)
    for extreme in (0.0, 1.0):
        row = measure([extreme] * 20, "abcdefghijklmnopqrst")
        assert (row.ci_low, row.ci_high) == statistics.wilson(20 * extreme, 20)


def test_scores_about_one_picture_are_not_independent() -> None:
    """Ten pictures, twice each with the same score: as wide as ten of them, up to the sample's variance."""
    scores: list[float | None] = [0.0, 0.5, 1.0, 0.5, 0.25, 0.75, 0.0, 1.0, 0.5, 0.5]
    twice, once = measure(scores * 2, "abcdefghij" * 2), measure(scores, "abcdefghij")
    assert twice.ci_high - twice.ci_low == pytest.approx(once.ci_high - once.ci_low, rel=0.03)
    assert twice.ci_method == "wilson 95%, design effect of shared pictures, variance of the scores"


def test_the_difference_is_of_pairs_with_two_scores() -> None:
    ours: list[float | None] = [1.0, 0.5, None, 0.25, 1.0, 0.0, 0.75, 0.5]
    theirs: list[float | None] = [0.0, 0.5, 1.0, None, 0.25, 0.5, 0.5, 0.0]
    versus = measure(ours, "abcdefgh", theirs).vs_baseline
    assert versus is not None and versus.test == "sign flips by answer, exact"
    changes = np.array([1.0, 0.0, 0.75, -0.5, 0.25, 0.5])
    assert versus.diff == pytest.approx(changes.mean())
    # Bonett and Price: one pair more that gains all, and one that loses all
    padded = np.array([*changes, 1.0, -1.0])
    half = stats.norm.ppf(0.975) * padded.std() / np.sqrt(len(padded))
    assert versus.ci == pytest.approx((padded.mean() - half, padded.mean() + half))
    flipped = stats.permutation_test((changes,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert versus.p == pytest.approx(flipped.pvalue)


def test_flips_are_by_picture() -> None:
    versus = measure([1.0, 0.5, 1.0, 0.75], "aabc", [0.0, 0.0, 0.5, 1.0]).vs_baseline
    assert versus is not None and versus.test == "sign flips by picture, exact"
    flipped = stats.permutation_test((np.array([1.5, 0.5, -0.25]),), np.sum, permutation_type="samples")
    assert versus.p == pytest.approx(flipped.pvalue)


def test_nothing_is_made_of_nothing() -> None:
    with pytest.raises(errors.UserError, match="safe_safes: none of 2 answers has a win rate, the judge's replies"):
        measure([None, None], "ab")
    assert measure([1.0, None], "ab", [None, 1.0]).vs_baseline is None
    mixed = [*items("a", "seen"), *items("b", "never")]
    (row,) = asr.summarise(mixed, verdicts([0.5, None]), WINS)
    assert [part.category for part in row.by_category] == ["seen"]
    with pytest.raises(ValueError, match=r"0\.3 is no score of win_rate"):
        measure([0.3], "a")


class Prefers:
    """Stands for a judge of pairs."""

    name, version, prompt_sha256 = "prefers", "1", ""

    def __init__(self, measures: str):
        self.measures = measures

    def judge(self, exchanges: object) -> list[judge.Verdict]:
        return []


def test_what_judges_of_scores_read() -> None:
    kinds = {"unsafes": "asr", "safe_safes": "refusal_rate", "choice": "accuracy"}
    bench = benchmark.Benchmark("b", "B", kinds, {}, lambda settings, subset: [], answerable=("safe_safes", "choice"))
    asked = [benchmark.Item("0", subset, "q", reference="r") for subset in kinds]
    assert asr.metrics(Prefers("win_rate"), bench, asked) == {"safe_safes": "win_rate"}
    assert asr.metrics(Prefers("harm_score"), bench, asked) == {"unsafes": "harm_score"}
    assert asr.metrics(Prefers("win_rate"), bench, asked[:1]) == {}
    assert "compares with reference answers, but no subset of harmless questions asked of b has them" in asr.why_none(
        Prefers("win_rate"), bench
    )
    assert "no subset asked of b has unsafe requests" in asr.why_none(Prefers("harm_score"), bench)
