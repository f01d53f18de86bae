"""Intervals and tests against published values and brute force."""

import itertools
import math

import numpy as np
import pytest
from statsmodels.stats import proportion

from vlguard_jax.safety import statistics


@pytest.mark.parametrize(("count", "n"), [(0, 442), (1, 442), (321, 442), (558, 558), (3, 4)])
def test_wilson(count, n):
    low, high = statistics.wilson(count, n)
    assert (low, high) == pytest.approx(proportion.proportion_confint(count, n, method="wilson"), abs=1e-12)
    assert 0 <= low <= count / n <= high <= 1


def test_two_sample_is_boschloo_by_its_definition():
    a, b, n = 7, 1, 8
    assert statistics.two_sample_p(a, n, b, n) == pytest.approx(_boschloo(a, b, n), rel=1e-3)
    assert statistics.two_sample_p(b, n, a, n) == pytest.approx(statistics.two_sample_p(a, n, b, n), rel=1e-9)
    assert statistics.two_sample_p(5, 9, 5, 9) > 0.9


def _boschloo(a: int, b: int, n: int) -> float:
    """Twice the supremum over the common rate of the probability of tables at least as extreme by one-sided Fisher."""

    def fisher(x: int, y: int) -> float:
        total = x + y
        return sum(math.comb(n, i) * math.comb(n, total - i) for i in range(x, min(n, total) + 1)) / math.comb(
            2 * n, total
        )

    extreme = [(x, y) for x, y in itertools.product(range(n + 1), repeat=2) if fisher(x, y) <= fisher(a, b) + 1e-12]
    rates = [i / 2000 for i in range(1, 2000)]
    return 2 * max(
        sum(math.comb(n, x) * math.comb(n, y) * p ** (x + y) * (1 - p) ** (2 * n - x - y) for x, y in extreme)
        for p in rates
    )


def test_mcnemar():
    assert statistics.mcnemar_p(0, 0) == 1.0
    assert statistics.mcnemar_p(5, 0) == pytest.approx(2 / 2**5)
    assert statistics.mcnemar_p(3, 1) == pytest.approx(2 * (4 + 1) / 2**4)


def test_paired_difference():
    difference, low, high = statistics.paired_difference(10, 2, 100)
    assert difference == pytest.approx(0.08)
    p, q = 11 / 102, 3 / 102
    half = 1.959963984540054 * math.sqrt((p + q - (p - q) ** 2) / 102)
    assert (low, high) == pytest.approx((p - q - half, p - q + half))
    assert statistics.paired_difference(2, 10, 100) == pytest.approx((-0.08, -high, -low))
    assert statistics.paired_difference(0, 4, 4)[1] == -1.0


def test_over_seeds_is_the_bootstrap_of_seeds_and_items():
    """Against resampling that draws every item by itself."""
    counts, sizes = [3, 12, 30], [40, 50, 60]
    items = [np.arange(n) < count for count, n in zip(counts, sizes, strict=True)]
    rng = np.random.default_rng(1)
    means = []
    for _ in range(4000):
        seeds = [items[i] for i in rng.integers(3, size=3)]
        means.append(np.mean([rng.choice(one, len(one)).mean() for one in seeds]))
    mean, low, high = statistics.over_seeds(counts, sizes)
    assert mean == pytest.approx((3 / 40 + 12 / 50 + 30 / 60) / 3)
    assert (low, high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.012)


def test_over_seeds_sees_both_levels():
    alike, apart = statistics.over_seeds([50, 50, 50], [100] * 3), statistics.over_seeds([10, 50, 90], [100] * 3)
    assert alike[0] == apart[0] == 0.5
    assert apart[2] - apart[1] > 2 * (alike[2] - alike[1])  # seeds that differ
    more = statistics.over_seeds([500, 500, 500], [1000] * 3)
    assert more[2] - more[1] < 0.5 * (alike[2] - alike[1])  # items
    narrower = statistics.over_seeds([10, 50, 90], [100] * 3, confidence=0.5)
    assert apart[1] < narrower[1] < 0.5 < narrower[2] < apart[2]


@pytest.mark.parametrize("count", [0, 100])
def test_over_seeds_is_never_surer_than_the_items(count):
    mean, low, high = statistics.over_seeds([count] * 3, [100] * 3)
    assert (mean, low, high) == (count / 100, *statistics.wilson(3 * count, 300)) and high - low > 0.01


def test_over_seeds_repeats_itself_and_mirrors():
    found = statistics.over_seeds([3, 5, 9], [20] * 3)
    assert found == statistics.over_seeds([3, 5, 9], [20] * 3) != statistics.over_seeds([3, 5, 9], [20] * 3, seed=1)
    mean, low, high = statistics.over_seeds([17, 15, 11], [20] * 3)
    assert (1 - mean, 1 - high, 1 - low) == pytest.approx(found, abs=0.02)


@pytest.mark.parametrize(("counts", "sizes"), [([], []), ([1], [2, 3]), ([0], [0])])
def test_over_seeds_needs_items(counts, sizes):
    with pytest.raises(ValueError, match="every seed"):
        statistics.over_seeds(counts, sizes)
