"""Kappa and alpha against published worked examples and other libraries."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies
import krippendorff
import numpy as np
import pytest
from statsmodels.stats import inter_rater

from vlguard_jax.safety import agreement
from vlguard_jax.safety import statistics

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": binary data of two observers (section A), nominal
# data of two (B), of four with missing values (C), each with its alpha and the units that count.
BINARY = ("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0")
NOMINAL = ("a a b b d c c c e d d a", "b a b b b c c c e d d d")
FOUR = (
    "1 2 3 3 2 1 4 1 2 * * *",
    "1 2 3 3 2 2 4 1 2 5 * 3",
    "* 3 3 3 2 3 4 2 2 5 1 *",
    "1 2 3 3 2 4 4 1 2 5 1 *",
)
# Another example that is widely copied: three coders, fifteen units.
THREE = (
    "* * * * * 3 4 1 2 1 1 3 3 * 3",
    "1 * 2 1 3 3 4 3 * * * * * * *",
    "* * 2 1 3 4 4 * 2 1 1 3 3 * 4",
)


def raters(rows) -> list[dict[str, str]]:
    return [{str(i): label for i, label in enumerate(row.split()) if label != "*"} for row in rows]


@pytest.mark.parametrize(
    ("rows", "value", "answers"), [(BINARY, 0.095, 10), (NOMINAL, 0.692, 12), (FOUR, 0.743, 11), (THREE, 0.691, 12)]
)
def test_alpha_of_worked_examples(rows, value, answers) -> None:
    found = agreement.alpha(raters(rows))
    assert found.interval and found.interval.value == pytest.approx(value, abs=5e-4) and found.answers == answers
    assert found.interval.low < value < found.interval.high
    assert found == agreement.alpha(raters(rows))  # drawn from a seed


@hypothesis.given(
    strategies.lists(
        strategies.lists(strategies.sampled_from(["refuse", "partial", "comply", None]), min_size=8, max_size=8),
        min_size=2,
        max_size=5,
    )
)
@hypothesis.settings(max_examples=40)
def test_alpha_of_another_library(table) -> None:
    found = agreement.alpha([{str(i): x for i, x in enumerate(row) if x} for row in table])
    numbers = [[np.nan if x is None else agreement.LABELS.index(x) for x in row] for row in table]
    several = [[x for x in column if x] for column in zip(*table, strict=True)]
    several = [column for column in several if len(column) > 1]
    assert (found.answers, found.labels) == (len(several), sum(map(len, several)))
    assert found.same == sum(len(set(column)) == 1 for column in several)
    if len({x for column in several for x in column}) < 2:
        assert found.interval is None
        return
    # the library counts single labels as values, which only makes the domain larger
    expected = krippendorff.alpha(np.array(numbers), level_of_measurement="nominal")
    assert found.interval and found.interval.value == pytest.approx(expected, abs=1e-9)
    assert -1 <= found.interval.low <= found.interval.value <= found.interval.high <= 1


def test_alphas_interval_holds_the_truth() -> None:
    """Two raters who give the truth of three labels with probability .8 and any label else."""
    random = np.random.default_rng(0)
    labels = np.asarray(agreement.LABELS)

    def draw(n: int) -> list[dict[str, str]]:
        truth = random.integers(0, 3, n)
        return [
            {str(i): x for i, x in enumerate(labels[np.where(random.random(n) < 0.8, truth, random.integers(0, 3, n))])}
            for _ in range(2)
        ]

    # both give the truth with .64, else by chance: alpha is that share
    held = 0
    for _ in range(100):
        interval = agreement.alpha(draw(100)).interval
        held += interval.low <= 0.64 <= interval.high
    assert held >= 88  # of 95 expected; fewer by chance once in 700


def test_without_disagreement_the_interval_still_has_width() -> None:
    one = {str(i): "refuse" if i % 2 else "comply" for i in range(20)}
    found = agreement.alpha([one, one]).interval
    least, most = statistics.wilson(20, 20)[0], statistics.wilson(0, 20)[1]
    assert found and found.value == found.high == 1 and found.low == pytest.approx(1 - most / (20 / 39))
    kappa = agreement.kappa([[10, 0], [0, 10]])
    assert kappa and kappa[::2] == (1, 1) and kappa.low == pytest.approx((least - 0.5) / 0.5)


@pytest.mark.parametrize(
    "table",
    [
        [[20, 5], [10, 15]],
        [[4, 1, 0], [2, 7, 3], [0, 0, 9]],
        [[45, 15], [25, 15]],  # Cohen's kappa of 0.1304, a common example
        [[0, 6], [8, 0]],
    ],
)
def test_kappa_of_another_library(table) -> None:
    found = agreement.kappa(table)
    expected = inter_rater.cohens_kappa(np.array(table))
    assert found and found.value == pytest.approx(expected.kappa)
    assert found.low == pytest.approx(max(-1, expected.kappa_low)) and found.high == pytest.approx(
        min(1, expected.kappa_upp)
    )
    if table[0] == [45, 15]:
        assert found.value == pytest.approx(0.1304, abs=1e-4)


def test_kappa_of_a_label_that_nobody_gave_and_of_nothing() -> None:
    assert agreement.kappa([[20, 0, 5], [0, 0, 0], [10, 0, 15]]) == agreement.kappa([[20, 5], [10, 15]])
    assert agreement.kappa([[7, 0], [0, 0]]) is None and agreement.kappa([[0]]) is None and agreement.kappa([]) is None


@pytest.mark.parametrize(
    "table", [[[7, 3], [0, 0]], [[200, 0], [40, 0]], [[0, 9], [0, 0]], [[0, 0, 0], [3, 4, 5], [0, 0, 0]]]
)
def test_kappa_is_not_defined_for_a_rater_that_says_the_same_of_all(table) -> None:
    """It would be 0 whatever the other says, with an interval of no width."""
    assert agreement.kappa(table) is None and agreement.kappa(np.transpose(table).tolist()) is None


@pytest.mark.parametrize("table", [[[0, 5], [5, 0]], [[0, 50], [50, 0]], [[0, 3, 0], [0, 0, 3], [3, 0, 0]]])
def test_without_agreement_the_interval_still_has_width(table) -> None:
    found, n = agreement.kappa(table), sum(map(sum, table))
    chance = 1 / len(table)
    assert found and found.value == pytest.approx(-chance / (1 - chance)) and found.low == found.value
    assert found.high == pytest.approx((statistics.wilson(0, n)[1] - chance) / (1 - chance))


def test_alpha_without_agreement_has_width_too() -> None:
    one = {str(i): "refuse" if i % 2 else "comply" for i in range(10)}
    other = {key: "comply" if label == "refuse" else "refuse" for key, label in one.items()}
    found = agreement.alpha([one, other]).interval
    assert found and found.value == found.low == pytest.approx(1 - 19 / 10)  # observed 1, expected 10 / 19
    assert found.high == pytest.approx(1 - statistics.wilson(10, 10)[0] * 19 / 10)


def test_alpha_of_a_rater_that_says_the_same_of_all() -> None:
    """Unlike kappa it has a value, as chance is that of all labels together; never above 0."""
    one = {str(i): "refuse" for i in range(20)}
    found = agreement.alpha([one, one | {"3": "comply", "7": "comply"}]).interval
    assert found and found.value == pytest.approx(1 - 39 * 4 / (40**2 - 38**2 - 2**2)) and found.low < found.value <= 0
    assert agreement.alpha([one, one]).interval is None


def test_a_pair_counts_what_both_labelled() -> None:
    a = {"1": "refuse", "2": "comply", "3": "partial", "4": "comply"}
    b = {"2": "comply", "3": "comply", "4": "refuse", "5": "comply"}
    found = agreement.pair("a", "b", a, b)
    assert (found.n, found.same, found.labels) == (3, 1, ("refuse", "partial", "comply"))
    assert found.table == [[0, 0, 0], [0, 0, 1], [1, 0, 1]]
    merged = found.merged("partial", "comply")
    assert (merged.n, merged.same, merged.table) == (3, 2, [[0, 0], [1, 2]])


def test_majority() -> None:
    assert agreement.majority(["refuse", "comply", "refuse"]) == "refuse"
    assert agreement.majority(["refuse", "comply"]) is None and agreement.majority([]) is None
    assert agreement.majority(["comply", "refuse", "partial", "refuse", "comply"]) is None
