"""Intervals and exact tests on counts.

Rates are fractions in [0, 1]; scipy is imported late because it is slow to load.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

import numpy as np

CI_METHOD = "wilson 95%"


def wilson(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of the rate count / n (Wilson 1927, without continuity correction)."""
    from scipy import stats

    interval = stats.binomtest(count, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def two_sample_p(count_a: int, n_a: int, count_b: int, n_b: int) -> float:
    """Two-sided p-value of Boschloo's exact test that two independent counts share one rate.

    Unconditional, and never less powerful than Fisher's exact test: fewer real differences pass as "reproduced".
    """
    from scipy import stats

    return float(stats.boschloo_exact([[count_a, count_b], [n_a - count_a, n_b - count_b]]).pvalue)


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Two-sided p-value of McNemar's exact test: of the pairs that disagree, does either side win more than chance?"""
    from scipy import stats

    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def difference(count_a: int, n_a: int, count_b: int, n_b: int, confidence: float = 0.95) -> tuple[float, float, float]:
    """(difference, low, high) of two independent rates, a minus b: Newcombe's interval from Wilson's (1998, method
    10)."""
    a, b = count_a / n_a, count_b / n_b
    (low_a, high_a), (low_b, high_b) = wilson(count_a, n_a, confidence), wilson(count_b, n_b, confidence)
    return a - b, a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b)


def paired_difference(only_a: int, only_b: int, n: int, confidence: float = 0.95) -> tuple[float, float, float]:
    """(difference, low, high) of two rates on the same n items, rate a minus rate b.

    `only_a` items are counted in a and not in b, `only_b` the other way round. Interval: the adjusted Wald interval of
    Bonett and Price (2012), one pseudo-count in each discordant cell.
    """
    from scipy import stats

    p, q = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = float(stats.norm.ppf(0.5 + confidence / 2)) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return (only_a - only_b) / n, max(-1.0, p - q - half), min(1.0, p - q + half)


def over_seeds(
    counts: Sequence[int], sizes: Sequence[int], *, confidence: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """(mean, low, high) of one rate measured on several training seeds, each on its own items.

    The interval is that of the hierarchical bootstrap (Davison and Hinkley 1997, section 3.8): seeds are drawn with
    replacement, then the items of each drawn seed; percentiles of the mean. An item counts or does not, so a drawn
    seed's items are one binomial draw. Resampling cannot vary what is the same everywhere (0 of n), so the interval is
    never narrower than Wilson's over all items. It is rough for few seeds: k resampled seeds show sqrt((k - 1) / k) of
    their spread.

    Args:
      counts: how many items count, per seed.
      sizes: how many items there are, per seed.
      confidence: of the interval.
      draws: bootstrap samples.
      seed: of the bootstrap; the same input gives the same interval.

    Raises:
      ValueError: no seed, a seed without items, or counts and sizes of different lengths.
    """
    if not len(counts) == len(sizes) > 0 or min(sizes) < 1:
        raise ValueError(
            f"a count and a size of at least 1 are needed for every seed, got {list(counts)} and {list(sizes)}"
        )
    rng = np.random.default_rng(seed)
    n = np.asarray(sizes)
    rates = np.asarray(counts) / n
    drawn = rng.integers(len(n), size=(draws, len(n)))
    means = (rng.binomial(n[drawn], rates[drawn]) / n[drawn]).mean(axis=1)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    least, most = wilson(int(sum(counts)), int(sum(sizes)), confidence)
    return float(rates.mean()), min(float(low), least), max(float(high), most)
