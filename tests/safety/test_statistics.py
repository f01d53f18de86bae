"""Intervals and tests against published values and brute force."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import multitest
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


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (3, 1), (2, 9), (40, 40), (700, 650)])
def test_sign_flips_of_one_question_a_picture_are_mcnemars_test(only_a, only_b):
    found = statistics.sign_flip_p([1] * only_a + [-1] * only_b + [0] * 7)
    expected = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert found == pytest.approx(expected)


def test_sign_flips_by_brute_force():
    differences = [3, -1, 2, 0, 2, -2, 1]
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=7)
    ]
    assert statistics.sign_flip_p(differences) == pytest.approx(np.mean([total >= 5 for total in sums]))
    assert statistics.sign_flip_p([5]) == 1.0  # one picture shows nothing, however many questions


@pytest.mark.parametrize("p", [[], [0.3], [0.01, 0.02, 0.5], [0.5, 0.01, 0.04, 0.03, 0.005], [0.2, 0.2, 0.9]])
def test_holm(p):
    expected = multitest.multipletests(p, method="holm")[1] if p else []
    assert statistics.holm(p) == pytest.approx(list(expected))
    assert statistics.holm([None, *p, None]) == [None, *statistics.holm(p), None]


def test_paired_difference():
    difference, low, high = statistics.paired_difference(10, 2, 100)
    assert difference == pytest.approx(0.08)
    p, q = 11 / 102, 3 / 102
    half = 1.959963984540054 * math.sqrt((p + q - (p - q) ** 2) / 102)
    assert (low, high) == pytest.approx((p - q - half, p - q + half))
    assert statistics.paired_difference(2, 10, 100) == pytest.approx((-0.08, -high, -low))
    assert statistics.paired_difference(0, 4, 4)[1] == -1.0


def arcsine_t(counts, n):
    """(low, middle, high) of Student's t interval of the seeds' rates on Anscombe's scale, by scipy's own."""
    scaled = [math.asin(math.sqrt((count + 3 / 8) / (n + 3 / 4))) for count in counts]
    low, high = stats.t.interval(0.95, len(counts) - 1, loc=np.mean(scaled), scale=stats.sem(scaled))
    return [math.sin(end) ** 2 for end in (low, np.mean(scaled), high)]


def test_over_seeds_with_items_of_their_own():
    mean, low, high = statistics.over_seeds([30, 50, 80], [100] * 3, same_items=False)
    assert mean == pytest.approx(160 / 300) and (low, high) == pytest.approx(tuple(arcsine_t([30, 50, 80], 100)[::2]))
    alike = statistics.over_seeds([50, 50, 50], [100] * 3, same_items=False)
    assert alike == pytest.approx((0.5, *proportion.proportion_confint(150, 300, method="wilson")))


def test_over_seeds_with_the_same_items_adds_both_parts():
    mean, low, high = statistics.over_seeds([30, 50, 80], [100] * 3, same_items=True)
    lower, middle, upper = arcsine_t([30, 50, 80], 100)
    items = proportion.proportion_confint(160 / 3, 100, method="wilson")
    assert mean - low == pytest.approx(math.hypot(middle - lower, mean - items[0]))
    assert high - mean == pytest.approx(math.hypot(upper - middle, items[1] - mean))
    alike = statistics.over_seeds([50] * 3, [100] * 3, same_items=True)
    assert alike == pytest.approx((0.5, *statistics.wilson(50, 100)))  # more seeds add no items


@pytest.mark.parametrize("same_items", [False, True])
@pytest.mark.parametrize("count", [0, 100])
def test_over_seeds_is_never_surer_than_the_items(count, same_items):
    mean, low, high = statistics.over_seeds([count] * 3, [100] * 3, same_items=same_items)
    items = 1 if same_items else 3
    assert (mean, low, high) == (count / 100, *statistics.wilson(items * count, items * 100)) and high - low > 0.01


@pytest.mark.parametrize("same_items", [False, True])
def test_over_seeds_stays_in_range_mirrors_and_leaves_one_seed_alone(same_items):
    mean, low, high = statistics.over_seeds([0, 10, 20], [20] * 3, same_items=same_items)
    assert (low, high) == (0.0, 1.0) and mean == 0.5
    found = statistics.over_seeds([3, 5, 9], [20] * 3, same_items=same_items)
    mean, low, high = statistics.over_seeds([17, 15, 11], [20] * 3, same_items=same_items)
    assert (1 - mean, 1 - high, 1 - low) == pytest.approx(found)
    assert statistics.over_seeds([7], [20], same_items=same_items) == pytest.approx((7 / 20, *statistics.wilson(7, 20)))
    narrower = statistics.over_seeds([3, 5, 9], [20] * 3, same_items=same_items, confidence=0.5)
    assert found[1] < narrower[1] < found[0] < narrower[2] < found[2]


@pytest.mark.parametrize(("counts", "sizes"), [([], []), ([1], [2, 3]), ([0], [0])])
def test_over_seeds_needs_items(counts, sizes):
    with pytest.raises(ValueError, match="every seed"):
        statistics.over_seeds(counts, sizes, same_items=False)


def test_a_question_a_picture_is_the_plain_interval():
    outcomes = [1] * 30 + [0] * 70
    assert statistics.clustered(outcomes, [1] * 100) == statistics.wilson(30, 100)
    gained, lost = [1] * 10 + [0] * 90, [0] * 98 + [1] * 2
    found = statistics.clustered_difference(gained, lost, [1] * 100)
    assert found == statistics.paired_difference(10, 2, 100)


def test_questions_with_one_answer_a_picture_count_as_pictures():
    """20 pictures, each asked 5 times with the same result: 100 questions are worth 20."""
    counts = [5] * 6 + [0] * 14
    assert statistics.clustered(counts, [5] * 20) == pytest.approx(statistics.wilson(6, 20))
    gained, lost = [5] * 6 + [0] * 14, [0] * 18 + [5] * 2
    found = statistics.clustered_difference(gained, lost, [5] * 20)
    assert found == pytest.approx(statistics.paired_difference(6, 2, 20))


def test_design_effect_is_the_variance_of_resampled_pictures():
    counts, sizes = np.array([3, 0, 1, 2, 0, 4, 1, 0, 2, 5] * 4), np.array([3, 2, 2, 4, 1, 4, 3, 2, 3, 5] * 4)
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(sizes), size=(20_000, len(sizes)))
    rates = counts[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    n, rate = sizes.sum(), counts.sum() / sizes.sum()
    found = statistics.design_effect(counts - rate * sizes, sizes, rate * (1 - rate))
    assert 1.2 < found == pytest.approx(rates.var() / (rate * (1 - rate) / n), rel=0.06)


@pytest.mark.parametrize(("counts", "sizes"), [([0] * 9, [4] * 9), ([4] * 9, [4] * 9), ([2], [4]), ([2] * 9, [4] * 9)])
def test_shared_pictures_never_make_an_interval_narrower(counts, sizes):
    """None, all, one picture, and pictures more alike than chance: never surer than so many independent questions."""
    low, high = statistics.clustered(counts, sizes)
    least, most = statistics.wilson(sum(counts), sum(sizes))
    assert low <= least and high >= most
    if sum(counts) in (0, sum(sizes)):
        assert (low, high) == pytest.approx(statistics.wilson(sum(counts) / 4, 9))
    nothing = [0] * len(sizes)
    difference, low, high = statistics.clustered_difference(nothing, nothing, sizes)
    _, least, most = statistics.paired_difference(0, 0, sum(sizes))
    assert difference == 0 and low <= least < 0 < most <= high
