"""Agreement with people and corrected rates, against textbook values, other libraries and simulation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from statsmodels.stats import proportion

from tests.safety import stand
from vlguard_jax import errors
from vlguard_jax.safety import calibration
from vlguard_jax.safety import statistics
from vlguard_jax.safety.judges import judge as judge_lib


@dataclasses.dataclass(frozen=True)
class Says:
    """A judge whose verdict is the answer's first word."""

    name: str = "says"
    version: str = "1"
    prompt_sha256: str = ""
    measures: str = "refusal"

    def judge(self, exchanges):
        return [judge_lib.Verdict(e.response.split()[0]) for e in exchanges]


def agreement() -> calibration.Agreement:
    pairs = [("refuse", "refuse")] * 8 + [("comply", "refuse")] * 2 + [("comply", "comply")] * 15
    pairs += [("refuse", "comply")] * 5 + [("refuse", "partial")] * 3 + [("comply", "partial")]
    pairs += [("invalid", "refuse"), ("invalid", "comply")]
    return calibration.agreement(Says(), pairs)


def test_agreement_counts_partial_refusals_apart_or_on_either_side() -> None:
    found = agreement()
    assert found.invalid == 2 and found.called == {"refuse": (10, 8), "comply": (20, 5), "partial": (4, 3)}
    assert found.confusion("apart") == calibration.Confusion(refusals=10, found=8, answers=20, alarms=5)
    assert found.confusion("refusal") == calibration.Confusion(refusals=14, found=11, answers=20, alarms=5)
    assert found.confusion("answer") == calibration.Confusion(refusals=10, found=8, answers=24, alarms=8)
    with pytest.raises(ValueError, match="is not one of"):
        found.confusion("both")


def test_sensitivity_specificity_and_balanced_error() -> None:
    found = agreement().confusion("apart")
    assert found.sensitivity and found.specificity
    assert (found.sensitivity.value, found.specificity.value) == (0.8, 0.75)
    assert found.balanced_error == pytest.approx(1 - (0.8 + 0.75) / 2)
    for share, count, n in ((found.sensitivity, 8, 10), (found.specificity, 15, 20)):
        assert (share.low, share.high) == pytest.approx(proportion.proportion_confint(count, n, method="wilson"))
    nothing = calibration.Confusion(refusals=0, found=0, answers=3, alarms=1)
    assert nothing.sensitivity is None and nothing.kappa is None and math.isnan(nothing.balanced_error)


def test_kappa_of_a_textbook() -> None:
    """20 and 15 of 50 agree: observed 0.7, by chance 0.5 (a common example of Cohen's kappa)."""
    found = calibration.Confusion(refusals=25, found=20, answers=25, alarms=10).kappa
    assert found and found.value == pytest.approx(0.4) and -1 <= found.low < 0.4 < found.high <= 1
    perfect = calibration.Confusion(refusals=5, found=5, answers=5, alarms=0).kappa
    least, _ = statistics.wilson(10, 10)
    assert perfect and perfect[:3] == pytest.approx((1.0, (least - 0.5) / 0.5, 1.0))
    opposite = calibration.Confusion(refusals=6, found=0, answers=8, alarms=8).kappa
    assert opposite and -1 <= opposite.low <= opposite.value < 0 and opposite.high <= 1
    for called in (0, 1):  # a judge that says the same of all
        assert calibration.Confusion(refusals=6, found=6 * called, answers=8, alarms=8 * called).kappa is None


def test_a_perfect_judge_corrects_nothing() -> None:
    """Of many labels, all right: the interval is Agresti and Coull's."""
    many = calibration.Confusion(refusals=10**9, found=10**9, answers=10**9, alarms=0)
    for called, n in ((0, 50), (7, 50), (442, 442), (130, 442)):
        found = calibration.refusals(called, n, many)
        low, high = proportion.proportion_confint(called, n, method="agresti_coull")
        assert found.value == pytest.approx(called / n)
        assert (found.low, found.high) == pytest.approx((max(0, low), min(1, high)), abs=1e-6)


def test_rogan_and_gladen_by_hand() -> None:
    """Half of the refusals are found and nothing else is: 40 found of 100 are 80."""
    half = calibration.Confusion(refusals=1000, found=500, answers=1000, alarms=0)
    found = calibration.refusals(40, 100, half)
    assert found.value == pytest.approx(0.8) and found.low < 0.8 < found.high and not found.beyond
    both = calibration.Confusion(refusals=100, found=90, answers=100, alarms=20)
    assert calibration.refusals(41, 100, both).value == pytest.approx((0.41 - 0.2) / 0.7)
    assert calibration.refusals(10, 100, both) == pytest.approx((0.0, 0.0, calibration.refusals(10, 100, both).high, 1))


def test_fewer_labels_make_a_wider_interval() -> None:
    def width(scale: int) -> float:
        found = calibration.refusals(60, 200, calibration.Confusion(10 * scale, 9 * scale, 10 * scale, scale))
        return found.high - found.low

    assert width(2) > width(10) > width(100) > width(10**6) > 0


@pytest.mark.parametrize(
    ("confusion", "message"),
    [
        (calibration.Confusion(10, 5, 10, 5), "say nothing about these labels"),
        (calibration.Confusion(10, 2, 10, 9), "say nothing about these labels"),
        (calibration.Confusion(0, 0, 10, 1), "labelled no refusal"),
        (calibration.Confusion(10, 9, 0, 0), "labelled no answer"),
    ],
)
def test_labels_that_cannot_correct(confusion: calibration.Confusion, message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        calibration.refusals(5, 10, confusion)


@pytest.mark.parametrize(
    ("n", "se", "labels_r", "sp", "labels_a"), [(200, 0.84, 49, 0.98, 374), (442, 0.96, 294, 0.9, 101)]
)
def test_the_interval_covers_the_true_rate(n: int, se: float, labels_r: int, sp: float, labels_a: int) -> None:
    """Averaged over rates of .02 to .98, both samples drawn anew: 93 to 97 %."""
    rng, draws = np.random.default_rng(0), 60
    covered = []
    for rate in np.linspace(0.02, 0.98, 25):
        called = rng.binomial(n, rate * se + (1 - rate) * (1 - sp), draws)
        found, passed = rng.binomial(labels_r, se, draws), rng.binomial(labels_a, sp, draws)
        for i in range(draws):
            confusion = calibration.Confusion(labels_r, int(found[i]), labels_a, int(labels_a - passed[i]))
            estimate = calibration.refusals(int(called[i]), n, confusion)
            covered.append(estimate.low <= rate <= estimate.high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_rows_of_both_metrics_are_corrected_alike() -> None:
    """People count 1 - ASR refusals; answers without a verdict are left out."""
    judge = calibration.Confusion(refusals=100, found=90, answers=100, alarms=20)
    low, high = proportion.proportion_confint(60, 110, method="wilson")
    asr = stand.row(metric="asr", n=110, count=60, n_invalid=10, rate=60 / 110, ci_low=low, ci_high=high)
    found = calibration.corrected(asr, judge)
    refused = calibration.refusals(50, 100, judge)
    assert found[:3] == pytest.approx((1 - refused.value, 1 - refused.high, 1 - refused.low))
    assert refused.value == pytest.approx((0.5 - 0.2) / 0.7)
    rate = stand.row(metric="refusal_rate", n=110, count=50, n_invalid=10, rate=50 / 110, ci_low=0.4, ci_high=0.6)
    assert calibration.corrected(rate, judge) == refused
    with pytest.raises(ValueError, match="accuracy of"):
        calibration.corrected(stand.row(metric="accuracy"), judge)


def test_shared_pictures_count_as_fewer_answers() -> None:
    """200 answers about 50 pictures, all four of a picture alike, are 50."""
    counts = np.asarray([4] * 20 + [0] * 30)
    low, high = statistics.clustered(counts, np.full(50, 4))
    row = stand.row(
        metric="refusal_rate", n=200, count=80, rate=0.4, ci_low=low, ci_high=high, ci_method=statistics.INTERVALS[1]
    )
    assert calibration.effective(row) == pytest.approx(50, rel=0.05)
    alone = dataclasses.replace(row, ci_method=statistics.INTERVALS[0])
    assert calibration.effective(alone) == 200
    judge = calibration.Confusion(refusals=100, found=90, answers=100, alarms=20)
    shared, independent = calibration.corrected(row, judge), calibration.corrected(alone, judge)
    assert shared.value == pytest.approx(independent.value)
    assert shared.high - shared.low > 1.5 * (independent.high - independent.low)
