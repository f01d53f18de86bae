"""Intervals and exact tests on counts.

Rates are fractions in [0, 1]; scipy is imported late because it is slow to load.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

import numpy as np

# How intervals and tests are called in result files: of independent questions, and where some share a picture.
INTERVALS = ("wilson 95%", "wilson 95%, design effect of shared pictures")
SCORE_INTERVALS = tuple(f"{name}, variance of the scores" for name in INTERVALS)
DIFFERENCES = ("bonett-price 95%", "bonett-price 95%, design effect of shared pictures")
Numbers = Sequence[int] | np.ndarray
TESTS = ("McNemar, exact", "sign flips by picture, exact")
SCORE_TESTS = ("sign flips by answer, exact", TESTS[1])


def wilson(count: int | float, n: int | float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of the rate count / n (Wilson 1927, without continuity correction).

    Both may be effective numbers, which need not be whole (scipy's interval takes whole ones only).
    """
    z, rate = _quantile(confidence), count / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return (max(0.0, middle - half) if count > 0 else 0.0), (min(1.0, middle + half) if count < n else 1.0)


def _quantile(confidence: float) -> float:
    """The normal quantile of a two-sided interval."""
    from scipy import special

    return float(special.ndtri(0.5 + confidence / 2))


def two_sample_p(count_a: int, n_a: int, count_b: int, n_b: int) -> float:
    """Two-sided p-value of Boschloo's exact test that two independent counts share one rate.

    Unconditional, and never less powerful than Fisher's exact test: fewer real differences pass as "reproduced".
    """
    from scipy import stats

    return float(stats.boschloo_exact([[count_a, count_b], [n_a - count_a, n_b - count_b]]).pvalue)


def sign_flip_p(differences: Numbers) -> float:
    """Two-sided p-value of the exact test that two models' answers to the questions about one picture could be swapped.

    A picture's difference is the number of its questions that count for one model alone minus those that count for the
    other alone; under the hypothesis every sign is a coin's. With one question a picture this is McNemar's exact test.
    """
    sizes = [abs(d) for d in differences if d]
    probabilities = np.ones(1)  # of the sums from -total to total
    for size in sizes:
        flip = np.zeros(2 * size + 1)
        flip[[0, -1]] = 0.5
        probabilities = np.convolve(probabilities, flip)
    total = sum(sizes)
    return min(1.0, float(probabilities[np.abs(np.arange(-total, total + 1)) >= abs(sum(differences))].sum()))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """The p-values of one table adjusted for their number (Holm 1979), in their order; None is no test and stays None.

    A test whose adjusted p is below .05 is one of those that can be rejected together with at most 5 % probability of
    rejecting any true hypothesis, whatever the dependence between the tests.
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, i) in enumerate(tested):
        adjusted[i] = least = max(least, min(1.0, (len(tested) - rank) * p))
    return adjusted


def difference(
    count_a: int | float, n_a: int, count_b: int | float, n_b: int, confidence: float = 0.95
) -> tuple[float, float, float]:
    """(difference, low, high) of two independent rates, a minus b: Newcombe's interval from Wilson's (1998, method
    10)."""
    a, b = count_a / n_a, count_b / n_b
    return difference_of((a, *wilson(count_a, n_a, confidence)), (b, *wilson(count_b, n_b, confidence)))


def difference_of(a: tuple[float, float, float], b: tuple[float, float, float]) -> tuple[float, float, float]:
    """(difference, low, high) of two independent rates with their intervals, (rate, low, high) each, a minus b: the
    distances to the ends in squares (Zou and Donner 2008), which of Wilson's intervals is Newcombe's."""
    (x, low_x, high_x), (y, low_y, high_y) = a, b
    return x - y, x - y - math.hypot(x - low_x, high_y - y), x - y + math.hypot(high_x - x, y - low_y)


def paired_difference(
    only_a: int | float, only_b: int | float, n: int | float, confidence: float = 0.95
) -> tuple[float, float, float]:
    """(difference, low, high) of two rates on the same n items, rate a minus rate b.

    `only_a` items are counted in a and not in b, `only_b` the other way round; all three may be effective numbers.
    Interval: the adjusted Wald interval of Bonett and Price (2012), one pseudo-count in each discordant cell.
    """
    p, q = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = _quantile(confidence) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return (only_a - only_b) / n, max(-1.0, p - q - half), min(1.0, p - q + half)


def clustered(
    counts: Numbers, sizes: Numbers, confidence: float = 0.95, *, squares: Numbers | None = None
) -> tuple[float, float]:
    """Wilson's interval of a rate where questions share pictures: `counts` of `sizes` questions, per picture.

    The number of questions is divided by `design_effect` (Saha, Miller and Wang 2016 compare this with others). With
    one question a picture it is Wilson's. Measured (benchmarks/coverage.py) with up to five questions a picture: 93.9
    to 96.1 % hold the rate on average, 90.5 % at the worst one; percentiles of resampled pictures 88.5 to 94.0 and
    72 %.

    With `squares`, a question has a score from 0 to 1: `counts` are the sums of a picture's scores, `squares` those of
    the scores' squares. Scores vary less than answers that count or do not (Bhatia and Davis 2000), so the number of
    questions is multiplied by the ratio of the variances. Measured there with steps of a half and of an eighth:
    93.9 to 94.9 % hold the mean on average, 92.4 % at the worst one.
    """
    m, sums = np.asarray(sizes), np.asarray(counts)
    count, n = float(sums.sum()), float(m.sum())
    rate = count / n
    variance = binomial = rate * (1 - rate)
    if squares is not None and n > 1:
        variance = max(0.0, (float(np.sum(squares)) / n - rate**2) * n / (n - 1))
    effect = design_effect(sums - rate * m, m, variance)
    if 0 < variance < binomial:
        effect *= variance / binomial
    return wilson(count / effect, n / effect, confidence)


def clustered_difference(
    only_a: Numbers, only_b: Numbers, sizes: Numbers, confidence: float = 0.95
) -> tuple[float, float, float]:
    """As `paired_difference`, where questions share pictures: numbers of questions per picture, divided by
    `design_effect`."""
    m, a, b = np.asarray(sizes), float(np.sum(only_a)), float(np.sum(only_b))
    n = float(m.sum())
    difference = (a - b) / n
    residuals = np.asarray(only_a) - np.asarray(only_b) - difference * m
    effect = design_effect(residuals, m, (a + b) / n - difference**2)
    return paired_difference(a / effect, b / effect, n / effect, confidence)


def design_effect(residuals: np.ndarray, sizes: np.ndarray, variance: float) -> float:
    """How many times larger the variance of a mean over questions is for their sharing pictures.

    The variance that resampling pictures has, in closed form (ratio of sums, linearised; Cochran 1977, section 9A),
    over that of as many independent questions. It lies between 1 and its value for questions about one picture that
    all have the same answer; it is taken to be that largest one where nothing varies (0 of n, n of n, no difference)
    or only one picture is left, so no interval is ever narrower than for independent questions.

    Args:
      residuals: f64[pictures], sum over a picture's questions of value minus mean.
      sizes: i64[pictures], how many questions share the picture.
      variance: of the value of one question.
    """
    pictures, n = len(sizes), float(sizes.sum())
    largest = float((sizes**2).sum()) / n
    if pictures == 1 or variance <= 0:
        return largest
    resampled = pictures / (pictures - 1) * float((residuals**2).sum()) / n**2
    return min(max(resampled / (variance / n), 1.0), largest)


def over_seeds(
    counts: Sequence[int | float], sizes: Sequence[int | float], *, same_items: bool, confidence: float = 0.95
) -> tuple[float, float, float]:
    """(mean, low, high) of one rate measured on several training seeds: what the recipe gives on average over seeds.

    A seed is whatever is drawn anew from run to run; counts and sizes may be effective numbers.

    The spread between seeds enters by Student's t interval of the seeds' rates, with one degree of freedom less than
    seeds, on the scale on which binomial rates all have the same variance (Anscombe 1948). Items of their own are part
    of that spread; the interval is never narrower than Wilson's over all items. Items that all seeds answer move all
    rates alike, which their spread cannot show: Wilson's interval of one seed is added, distances to the mean in
    squares (Zou and Donner 2008). This counts twice what only one seed answers, so it is too wide rather than too
    narrow. One seed tells nothing about others: the interval is Wilson's.

    Measured (benchmarks/coverage.py): with three seeds whose true rates have a standard deviation of 0 to 10 points,
    94.8 % of the intervals or more hold the mean, averaged over its values from .02 to .98; 93.1 % at the worst one.
    Percentiles of resampled seeds and items hold it in 75 to 98 %.

    Args:
      counts: how many items count, per seed.
      sizes: how many items there are, per seed.
      same_items: whether all seeds answer the same items.
      confidence: of the interval.

    Raises:
      ValueError: no seed, a seed without items, or counts and sizes of different lengths.
    """
    from scipy import special

    if not len(counts) == len(sizes) > 0 or min(sizes) < 1:
        raise ValueError(
            f"a count and a size of at least 1 are needed for every seed, got {list(counts)} and {list(sizes)}"
        )
    n, k = np.asarray(sizes), len(sizes)
    mean = float(np.mean(counts / n))
    items = min(sizes) if same_items else sum(sizes)
    least, most = wilson(mean * items, items, confidence)
    if k == 1:
        return mean, least, most
    scaled = np.arcsin(np.sqrt((np.asarray(counts) + 3 / 8) / (n + 3 / 4)))
    half = special.stdtrit(k - 1, 0.5 + confidence / 2) * scaled.std(ddof=1) / math.sqrt(k)
    low, middle, high = np.sin(np.clip(scaled.mean() + half * np.arange(-1, 2), 0, math.pi / 2)) ** 2
    if same_items:
        low = mean - math.hypot(middle - low, mean - least)
        high = mean + math.hypot(high - middle, most - mean)
    return mean, max(min(float(low), least), 0.0), min(max(float(high), most), 1.0)
